//! The routing tables (RFC 4271 §3.2, §9): routes of peers and our own come in, the best of each prefix is chosen, and
//! goes to the kernel and to the other peers.
//!
//! Everything happens in the call that causes it, except export: that is done when messages are asked for. Counts are
//! kept, never walked for. Absent: route reflection, add-path, aggregation, damping.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::asn::Asn;
use crate::bestpath::Rule;
use crate::family::{Families, Family, Prefix};
use crate::message::attribute::Attributes;
use crate::message::update::Update;
use crate::policy::{Affected, Direction, Policies, PrefixRange};

mod adj_in;
mod adj_out;
mod attributes;
mod export;
mod group;
mod loc;
mod log;
mod member;
mod pack;
mod peers;
mod presence;
mod reevaluate;
mod view;
mod wire;

pub use adj_in::{Received, Standing};
pub use presence::Retention;
pub use view::{Counts, Lookup, PathView, ReceivedView};
pub use wire::{attribute_bytes, nlri_bytes};

use adj_in::{AdjRibIn, Ourselves};
use attributes::Interner;
use export::Context;
use group::Group;
use loc::{LocRib, Path};
use peers::Peers;

/// The speaker's name for a configured neighbour; never given to another one while the RIB lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerId(pub u32);

/// Where a path came from. Local sorts first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Source {
    Local,
    Peer(PeerId),
}

/// Who we are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RibConfig {
    pub asn: Asn,
    pub router_id: Ipv4Addr,
    pub limits: Limits,
}

/// What bounds memory where peers do not keep up, and work done in one go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Encoded messages that an update group keeps for peers that are slow to read. Whoever needs more is served from the
    /// tables.
    pub log_bytes: usize,
    /// Withdrawn prefixes that a group remembers for slow peers, if it is more than it has live ones. A peer that makes us
    /// remember more is cut off.
    pub graves: usize,
    /// Changes that a group only notes, until they are exported although no peer asked for messages.
    pub noted: usize,
    /// Entries of a table that are looked at in one go for a peer that is served from there.
    pub walked: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // Enough for any burst that peers on a working network read at their leisure, and little beside the tables.
        // A message has room for about 1000 prefixes, which are better not torn apart.
        Self { log_bytes: 1 << 20, graves: 1 << 17, noted: 1 << 13, walked: 1 << 11 }
    }
}

/// An established session, as far as routes depend on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerFacts {
    pub address: IpAddr,
    /// What the OPEN said. Ours makes it an internal peer.
    pub asn: Asn,
    pub router_id: Ipv4Addr,
    /// As negotiated.
    pub families: Families,
    pub four_octet: bool,
    /// Messages may be longer than 4096 octets (RFC 8654).
    pub extended_messages: bool,
    /// Our end of the connection.
    pub local_address: IpAddr,
    /// Our address in the family that is not the connection's, for its next hops; without one those routes are withheld
    /// where we would have to be the next hop.
    pub other_address: Option<IpAddr>,
    /// The peer takes IPv4 prefixes with an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
    /// The subnet of a link that we share with an external peer: next hops in it stay as they are (RFC 4271 §5.1.3). With
    /// `None` we are the next hop of all that we pass on to it.
    pub shared_subnet: Option<IpNet>,
    /// Prefixes taken per family.
    pub prefix_limit: Option<usize>,
}

/// The peer sent more than it may: its session is to end with Cease, Maximum Number of Prefixes Reached (RFC 4486 §4).
/// The prefixes up to the limit were taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("more than {limit} prefixes of {family}")]
pub struct PrefixLimitExceeded {
    pub family: Family,
    pub limit: usize,
}

/// A prefix has another best path now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BestChange {
    pub prefix: Prefix,
    /// `None`: there is none any more.
    pub best: Option<(Source, Arc<Attributes>)>,
}

/// The cost of reaching a next hop; `None` if it cannot be reached.
pub type NextHopMetric = Box<dyn Fn(IpAddr) -> Option<u32> + Send + Sync>;

pub struct Rib {
    config: RibConfig,
    policies: Policies,
    interner: Interner,
    peers: Peers,
    adj_in: BTreeMap<Source, AdjRibIn>,
    loc: LocRib,
    groups: Vec<Group>,
    /// Whose best path changed since it was last asked for.
    changed: BTreeSet<Prefix>,
    cut_off: Vec<PeerId>,
}

impl Rib {
    /// With the default policies: all is taken, nothing is given.
    pub fn new(config: RibConfig) -> Self {
        Self {
            config,
            policies: Policies::default(),
            interner: Interner::default(),
            peers: Peers::default(),
            adj_in: BTreeMap::new(),
            loc: LocRib::default(),
            groups: Vec::new(),
            changed: BTreeSet::new(),
            cut_off: Vec::new(),
        }
    }

    /// What an established peer sent. Families that were not negotiated are passed over.
    pub fn update(&mut self, id: PeerId, update: Update, now: Duration) -> Result<(), PrefixLimitExceeded> {
        let Update { announced, withdrawn, end_of_rib: _, faults: _ } = update;
        if !self.peers.get(id).is_some_and(|peer| peer.up) {
            return Ok(());
        }
        for prefix in withdrawn {
            self.forget(prefix.trunc(), Source::Peer(id));
        }
        for announcement in announced {
            let Some(peer) = self.peers.get(id) else { return Ok(()) };
            if !peer.facts.families.contains(announcement.family) {
                continue;
            }
            let (own_addresses, limit) = (Arc::clone(&peer.own_addresses), peer.facts.prefix_limit);
            let ourselves = Ourselves {
                asn: self.config.asn,
                router_id: self.config.router_id,
                addresses: &own_addresses,
            };
            let standing = ourselves.check(&announcement.attributes);
            let attributes = self.interner.intern(announcement.attributes);
            for prefix in announcement.prefixes {
                let prefix = prefix.trunc();
                let attributes = Arc::clone(&attributes);
                let route = Received { attributes, learned_at: now, standing, stale: false };
                let full = limit.filter(|limit| {
                    let routes = self.adj_in.get(&Source::Peer(id));
                    routes.is_some_and(|it| {
                        it.held(announcement.family).received >= *limit && it.get(&prefix).is_none()
                    })
                });
                if let Some(limit) = full {
                    return Err(PrefixLimitExceeded { family: announcement.family, limit });
                }
                self.learn(prefix, id, route);
            }
        }
        Ok(())
    }

    /// The peer asked for everything again (RFC 2918).
    pub fn refresh(&mut self, id: PeerId, family: Family) {
        if let Some(group) = self.group_of(id, family) {
            group.refresh(id);
        }
    }

    /// A route of our own, in place of one that the prefix may have had. A next hop that is unspecified becomes our
    /// address of each session.
    pub fn originate(&mut self, prefix: Prefix, attributes: Attributes, now: Duration) {
        let prefix = prefix.trunc();
        let attributes = self.interner.intern(attributes);
        let routes = self.adj_in.entry(Source::Local).or_default();
        if routes.get(&prefix).is_some_and(|known| Arc::ptr_eq(&known.attributes, &attributes)) {
            return;
        }
        let path = Path { attributes: Arc::clone(&attributes), source: Source::Local };
        let standing = Standing::Accepted;
        routes.insert(prefix, Received { attributes, learned_at: now, standing, stale: false });
        if self.loc.insert(prefix, path, &self.peers) {
            self.best_changed(prefix);
        }
    }

    pub fn withdraw(&mut self, prefix: Prefix) {
        self.forget(prefix.trunc(), Source::Local);
    }

    /// How far next hops are. Everything is chosen anew.
    pub fn set_next_hop_metric(&mut self, metric: NextHopMetric) {
        self.peers.metric = metric;
        for prefix in self.loc.select_all(&self.peers) {
            self.best_changed(prefix);
        }
    }

    /// The next change for the kernel's routes, in the order of the prefixes. Changes that came to the same prefix since
    /// the last call are one.
    pub fn poll_best(&mut self) -> Option<BestChange> {
        let prefix = self.changed.pop_first()?;
        let best = self.loc.get(&prefix).and_then(|destination| destination.best());
        let best = best.map(|path| (path.source, Arc::clone(&path.attributes)));
        Some(BestChange { prefix, best })
    }

    /// A peer that is too far behind to be kept up to date within the limits: its session is to end, with Cease, Out of
    /// Resources (RFC 4486 §4).
    pub fn poll_cut_off(&mut self) -> Option<PeerId> {
        self.cut_off.pop()
    }

    /// Whether `next_messages` may have something for the peer.
    pub fn has_messages(&self, id: PeerId) -> bool {
        self.groups.iter().any(|group| group.has_messages(id))
    }

    /// UPDATE messages for the peer, whole and in order, until they are `budget` bytes or there are no more. Call it again
    /// when the socket takes more.
    pub fn next_messages(&mut self, id: PeerId, budget: usize) -> Vec<Arc<[u8]>> {
        let mut messages = Vec::new();
        let mut taken = 0;
        for index in 0..self.groups.len() {
            if taken < budget && self.groups.get(index).is_some_and(|group| group.has_messages(id)) {
                self.flush(index);
                if let Some(group) = self.groups.get_mut(index) {
                    taken += group.messages(id, budget - taken, &mut messages);
                }
            }
        }
        messages
    }

    fn learn(&mut self, prefix: Prefix, id: PeerId, mut route: Received) {
        let source = Source::Peer(id);
        let Some(routes) = self.adj_in.get_mut(&source) else { return };
        if let Some(known) = routes.get(&prefix)
            && Arc::ptr_eq(&known.attributes, &route.attributes)
        {
            if !known.stale {
                return;
            }
            route.learned_at = known.learned_at;
        }
        let Some(peer) = self.peers.get(id) else { return };
        let accepted = peer.import(&self.policies, &mut self.interner, &prefix, &mut route);
        routes.insert(prefix, route);
        self.choose(prefix, source, accepted);
    }

    fn forget(&mut self, prefix: Prefix, source: Source) {
        let route = self.adj_in.get_mut(&source).and_then(|routes| routes.remove(&prefix));
        if route.is_some_and(|route| route.standing.is_accepted()) {
            self.choose(prefix, source, None);
        }
    }

    /// The source's path to the prefix is this one now. A path that may not be used still ends the one before it.
    fn choose(&mut self, prefix: Prefix, source: Source, attributes: Option<Arc<Attributes>>) {
        let changed = match attributes {
            Some(attributes) => self.loc.insert(prefix, Path { attributes, source }, &self.peers),
            None => self.loc.remove(&prefix, source, &self.peers),
        };
        if changed {
            self.best_changed(prefix);
        }
    }

    fn best_changed(&mut self, prefix: Prefix) {
        self.changed.insert(prefix);
        self.note(prefix);
    }

    /// The groups have to look at the prefix again.
    fn note(&mut self, prefix: Prefix) {
        let family = Family::of(&prefix);
        for index in 0..self.groups.len() {
            if let Some(group) = self.groups.get_mut(index).filter(|group| group.key.family == family) {
                group.note(prefix);
                if group.is_full() {
                    self.flush(index);
                }
            }
        }
    }

    fn flush(&mut self, index: usize) {
        let Self { config, policies, interner, peers, loc, groups, cut_off, .. } = self;
        let is_external = |peer| peers.is_external(peer);
        let mut context = Context { asn: config.asn, policies, interner, is_external: &is_external };
        if let Some(group) = groups.get_mut(index) {
            cut_off.extend(group.flush(loc, &mut context));
        }
    }

    fn group_of(&mut self, id: PeerId, family: Family) -> Option<&mut Group> {
        self.groups.iter_mut().find(|group| group.key.family == family && group.has(id))
    }
}

/// One value for each family.
#[derive(Default)]
struct PerFamily<T>([T; 2]);

impl<T> PerFamily<T> {
    fn get(&self, family: Family) -> &T {
        let [ipv4, ipv6] = &self.0;
        match family {
            Family::Ipv4Unicast => ipv4,
            Family::Ipv6Unicast => ipv6,
        }
    }

    fn get_mut(&mut self, family: Family) -> &mut T {
        let [ipv4, ipv6] = &mut self.0;
        match family {
            Family::Ipv4Unicast => ipv4,
            Family::Ipv6Unicast => ipv6,
        }
    }
}

#[cfg(test)]
mod tests;
