//! What the RIB knows about the peers that are up or have stale routes, and about next hops: what best path asks for.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::adj_in::{Received, Standing};
use super::attributes::Interner;
use super::export::{GroupKey, ThirdParty, apply};
use super::loc::Judge;
use super::wire::Encoding;
use super::{NextHopMetric, PeerFacts, PeerId};
use crate::bestpath::Provenance;
use crate::family::{Family, Prefix};
use crate::message::attribute::Attributes;
use crate::policy::{Class, Direction, Policies, Verdict};

pub(super) struct Peer {
    /// Otherwise only its stale routes are here.
    pub(super) up: bool,
    pub(super) external: bool,
    pub(super) import: Class,
    pub(super) own_addresses: Arc<[IpAddr]>,
    pub(super) facts: PeerFacts,
}

impl Peer {
    /// Whether the session is away, and a new one with these facts would not change what its routes are worth.
    pub(super) fn may_be_back_as(&self, facts: &PeerFacts) -> bool {
        let worth = |of: &PeerFacts| (of.address, of.asn, of.router_id, of.local_address, of.other_address);
        !self.up && worth(&self.facts) == worth(facts)
    }

    /// Which group the peer belongs to for a family.
    pub(super) fn group_key(&self, family: Family, class: Class) -> GroupKey {
        let PeerFacts { address, four_octet, extended_messages, extended_next_hop, shared_subnet, .. } =
            self.facts;
        let fits = |own: &&IpAddr| {
            Family::of_address(own) == family || (family == Family::Ipv4Unicast && extended_next_hop)
        };
        let of_family = self.own_addresses.iter().find(|own| Family::of_address(own) == family);
        let third_party = shared_subnet.filter(|_| self.external);
        GroupKey {
            family,
            external: self.external,
            encoding: Encoding { four_octet, extended_messages, extended_next_hop },
            own_next_hop: of_family.or_else(|| self.own_addresses.iter().find(fits)).copied(),
            third_party: third_party.map(|subnet| ThirdParty { subnet, peer: address }),
            class,
        }
    }

    /// The route after import policy, if it passes. Its standing becomes what the policy makes of it.
    pub(super) fn import(
        &self,
        policies: &Policies,
        interner: &mut Interner,
        prefix: &Prefix,
        route: &mut Received,
    ) -> Option<Arc<Attributes>> {
        if !matches!(route.standing, Standing::Accepted | Standing::RejectedByPolicy) {
            return None;
        }
        let ruling = policies.evaluate(Direction::Import, &self.import, prefix);
        if ruling.verdict == Verdict::Reject {
            route.standing = Standing::RejectedByPolicy;
            return None;
        }
        route.standing = Standing::Accepted;
        Some(match policies.changes(Direction::Import, ruling) {
            None => Arc::clone(&route.attributes),
            Some(actions) => {
                let mut changed = Attributes::clone(&route.attributes);
                apply(actions, &mut changed, Some(self.facts.local_address));
                interner.intern(changed)
            }
        })
    }
}

pub(super) struct Peers {
    known: BTreeMap<PeerId, Peer>,
    pub(super) metric: NextHopMetric,
}

impl Default for Peers {
    fn default() -> Self {
        Self { known: BTreeMap::new(), metric: Box::new(|_| Some(0)) }
    }
}

impl Peers {
    pub(super) fn insert(&mut self, id: PeerId, peer: Peer) {
        self.known.insert(id, peer);
    }

    pub(super) fn remove(&mut self, id: PeerId) {
        self.known.remove(&id);
    }

    pub(super) fn get(&self, id: PeerId) -> Option<&Peer> {
        self.known.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.known.get_mut(&id)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = PeerId> {
        self.known.keys().copied()
    }

    pub(super) fn is_external(&self, id: PeerId) -> bool {
        self.get(id).is_some_and(|peer| peer.external)
    }
}

impl Judge for Peers {
    fn provenance(&self, id: PeerId) -> Provenance {
        let peer = self.get(id).expect("the paths of a peer go before the peer does");
        let PeerFacts { address, router_id, .. } = peer.facts;
        Provenance::Peer { external: peer.external, router_id, address }
    }

    fn metric(&self, next_hop: IpAddr) -> Option<u32> {
        (self.metric)(next_hop)
    }
}
