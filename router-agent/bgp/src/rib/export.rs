//! What a best path looks like on its way to the peers of one group, or that it does not go there (RFC 4271 §5.1, §9.1.3,
//! §9.2; RFC 1997).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::attributes::Interner;
use super::loc::Path;
use super::wire::{self, Encoding};
use super::{PeerId, Source};
use crate::asn::Asn;
use crate::bestpath::DEFAULT_LOCAL_PREF;
use crate::family::{Family, Prefix};
use crate::message::attribute::{Attributes, RawAttribute, flag, kind};
use crate::policy::{Actions, Class, Direction, Policies, Ruling, Verdict};

/// Well-known communities (RFC 1997). We are in no confederation, so the last two bound the same.
const NO_EXPORT: u32 = 0xffff_ff01;
const NO_ADVERTISE: u32 = 0xffff_ff02;
const NO_EXPORT_SUBCONFED: u32 = 0xffff_ff03;

/// What peers have in common that are sent the same bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct GroupKey {
    pub(super) family: Family,
    pub(super) external: bool,
    pub(super) encoding: Encoding,
    /// Our address as the next hop, if we have one that these peers understand for this family.
    pub(super) own_next_hop: Option<IpAddr>,
    pub(super) third_party: Option<ThirdParty>,
    pub(super) class: Class,
}

/// An external peer on a link that we share: a next hop there that is neither of us may stay (RFC 4271 §5.1.3). As "not
/// the peer itself" differs from peer to peer, each such peer is a group of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct ThirdParty {
    pub(super) subnet: IpNet,
    pub(super) peer: IpAddr,
}

/// What exporting needs beside the group.
pub(super) struct Context<'a> {
    pub(super) asn: Asn,
    pub(super) policies: &'a Policies,
    pub(super) interner: &'a mut Interner,
    pub(super) is_external: &'a dyn Fn(PeerId) -> bool,
}

/// Export for one group, while nothing else changes; remembers what it did to a set of attributes.
pub(super) struct Exporter<'a, 'b> {
    key: &'a GroupKey,
    context: &'a mut Context<'b>,
    done: HashMap<Remembered, Option<Arc<Attributes>>>,
    last: Option<(Remembered, Option<Arc<Attributes>>)>,
}

/// The address of interned attributes (alive, as they stand in Loc-RIB), where they came from, and the ruling.
type Remembered = (usize, From, Ruling);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum From {
    Us,
    Internal,
    External,
}

impl<'a, 'b> Exporter<'a, 'b> {
    pub(super) fn new(key: &'a GroupKey, context: &'a mut Context<'b>) -> Self {
        Self { key, context, done: HashMap::new(), last: None }
    }

    /// The path's attributes as the group sees them; `None` if it does not.
    pub(super) fn export(&mut self, prefix: &Prefix, path: &Path) -> Option<Arc<Attributes>> {
        let from = match path.source {
            Source::Local => From::Us,
            Source::Peer(peer) if (self.context.is_external)(peer) => From::External,
            Source::Peer(_) => From::Internal,
        };
        // Internal peers have it from where we have it (RFC 4271 §9.2).
        if from == From::Internal && !self.key.external {
            return None;
        }
        let ruling = self.context.policies.evaluate(Direction::Export, &self.key.class, prefix);
        if ruling.verdict == Verdict::Reject {
            return None;
        }
        let remembered = (Arc::as_ptr(&path.attributes).addr(), from, ruling);
        if let Some((last, attributes)) = &self.last
            && *last == remembered
        {
            return attributes.clone();
        }
        let known = self.done.get(&remembered).cloned();
        let attributes = known.unwrap_or_else(|| {
            let actions = self.context.policies.changes(Direction::Export, ruling);
            let exported = self.transform(&path.attributes, from, actions);
            let exported = exported.map(|attributes| self.context.interner.intern(attributes));
            self.done.insert(remembered, exported.clone());
            exported
        });
        self.last = Some((remembered, attributes.clone()));
        attributes
    }

    fn transform(
        &self,
        attributes: &Attributes,
        from: From,
        actions: Option<&Actions>,
    ) -> Option<Attributes> {
        if self.is_kept_back(attributes) {
            return None;
        }
        let mut out = attributes.clone();
        if from != From::Us {
            out.others = forwarded(&attributes.others, self.key.external);
        }
        if self.key.external {
            out.as_path = attributes.as_path.prepended(self.context.asn, 1);
            out.local_pref = None;
            out.originator_id = None;
            out.cluster_list = Box::default();
            // A MED is for the AS next door (RFC 4271 §5.1.4).
            if from != From::Us {
                out.med = None;
            }
        } else {
            out.local_pref = Some(attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF));
        }
        out.next_hop = self.next_hop(attributes.next_hop, from)?;
        if let Some(actions) = actions {
            apply(actions, &mut out, self.key.own_next_hop);
        }
        wire::can_announce(self.key, &out).then_some(out)
    }

    fn is_kept_back(&self, attributes: &Attributes) -> bool {
        attributes.communities.iter().any(|community| match *community {
            NO_ADVERTISE => true,
            NO_EXPORT | NO_EXPORT_SUBCONFED => self.key.external,
            _ => false,
        })
    }

    /// RFC 4271 §5.1.3. An own route keeps the address it was given, as it is one of ours, and gets the session's if it
    /// was given none.
    fn next_hop(&self, next_hop: IpAddr, from: From) -> Option<IpAddr> {
        let keeps = match (from, self.key.external) {
            (From::Us, _) => !next_hop.is_unspecified(),
            (_, false) => true,
            (_, true) => self
                .key
                .third_party
                .is_some_and(|there| there.subnet.contains(&next_hop) && there.peer != next_hop),
        };
        if keeps { Some(next_hop) } else { self.key.own_next_hop }
    }
}

/// What the statement that let a route pass does to it, in either direction.
pub(super) fn apply(actions: &Actions, attributes: &mut Attributes, own_next_hop: Option<IpAddr>) {
    let Actions { verdict: _, next_hop_self, prepend, add_communities } = actions;
    if *next_hop_self && let Some(own) = own_next_hop {
        attributes.next_hop = own;
    }
    if let Some((asn, times)) = *prepend {
        attributes.as_path = attributes.as_path.prepended(asn, usize::from(times));
    }
    if !add_communities.is_empty() {
        let mut communities = attributes.communities.to_vec();
        communities.extend(add_communities.iter().filter(|it| !attributes.communities.contains(it)));
        attributes.communities = communities.into();
    }
}

/// What of a peer's further attributes goes on to others: what is transitive, and marked partial if we do not know it
/// (RFC 4271 §9); of the extended communities those that may leave the AS (RFC 4360 §6).
fn forwarded(others: &[RawAttribute], external: bool) -> Box<[RawAttribute]> {
    let forward = |attribute: &RawAttribute| {
        let mut attribute = attribute.clone();
        if !attribute.is_recognized() {
            attribute.flags |= flag::PARTIAL;
        } else if external && attribute.kind == kind::EXTENDED_COMMUNITIES {
            const NON_TRANSITIVE: u8 = 0x40;
            let leaves = |community: &&[u8]| community.first().is_some_and(|kind| kind & NON_TRANSITIVE == 0);
            attribute.value = attribute.value.chunks_exact(8).filter(leaves).flatten().copied().collect();
            if attribute.value.is_empty() {
                return None;
            }
        }
        Some(attribute)
    };
    others.iter().filter(|attribute| attribute.is_transitive()).filter_map(forward).collect()
}
