//! Adj-RIB-In (RFC 4271 §3.2): what one peer sent, before policy, so that a change of policy needs nothing from the peer.
//! A route that may not be used stays here too, with the reason: the peer did send it, and it has replaced what the peer
//! sent before.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use prefix_trie::joint::JointPrefixMap;

use super::PerFamily;
use crate::asn::Asn;
use crate::family::{Family, Prefix};
use crate::message::attribute::Attributes;

/// A route as it was received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Received {
    pub attributes: Arc<Attributes>,
    /// Since the agent's start. An announcement that repeats what is known leaves it.
    pub learned_at: Duration,
    pub standing: Standing,
    /// Of an earlier session, and not repeated since.
    pub stale: bool,
}

/// Whether a received route takes part in the selection, or why not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Standing {
    Accepted,
    RejectedByPolicy,
    /// Our AS is in the path (RFC 4271 §9.1.2).
    AsLoop,
    /// We, or our cluster, reflected it before (RFC 4456 §8).
    ReflectionLoop,
    /// The next hop is ourselves (RFC 4271 §6.3).
    OwnNextHop,
}

impl Standing {
    pub fn is_accepted(self) -> bool {
        self == Self::Accepted
    }
}

/// Who we are, as far as it makes a route unusable.
pub(super) struct Ourselves<'a> {
    pub(super) asn: Asn,
    pub(super) router_id: Ipv4Addr,
    pub(super) addresses: &'a [IpAddr],
}

impl Ourselves<'_> {
    /// What the attributes alone forbid.
    pub(super) fn check(&self, attributes: &Attributes) -> Standing {
        if attributes.as_path.contains(self.asn) {
            Standing::AsLoop
        } else if attributes.originator_id == Some(self.router_id)
            || attributes.cluster_list.contains(&self.router_id)
        {
            Standing::ReflectionLoop
        } else if self.addresses.contains(&attributes.next_hop) {
            Standing::OwnNextHop
        } else {
            Standing::Accepted
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Held {
    pub(super) received: usize,
    pub(super) accepted: usize,
}

#[derive(Default)]
pub(super) struct AdjRibIn {
    routes: JointPrefixMap<Prefix, Received>,
    held: PerFamily<Held>,
}

impl AdjRibIn {
    /// Takes the place of what the prefix had before.
    pub(super) fn insert(&mut self, prefix: Prefix, route: Received) {
        let accepted = usize::from(route.standing.is_accepted());
        let old = self.routes.insert(prefix, route);
        let held = self.held.get_mut(Family::of(&prefix));
        held.accepted += accepted;
        match old {
            None => held.received += 1,
            Some(old) => held.accepted -= usize::from(old.standing.is_accepted()),
        }
    }

    pub(super) fn remove(&mut self, prefix: &Prefix) -> Option<Received> {
        let old = self.routes.remove(prefix)?;
        let held = self.held.get_mut(Family::of(prefix));
        held.received -= 1;
        held.accepted -= usize::from(old.standing.is_accepted());
        Some(old)
    }

    /// All of it.
    pub(super) fn make_stale(&mut self) {
        self.routes.iter_mut().for_each(|(_, route)| route.stale = true);
    }

    pub(super) fn get(&self, prefix: &Prefix) -> Option<&Received> {
        self.routes.get(prefix)
    }

    pub(super) fn held(&self, family: Family) -> Held {
        *self.held.get(family)
    }

    /// In the order of the prefixes.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Prefix, &Received)> {
        self.routes.iter()
    }

    pub(super) fn within(&self, prefix: &Prefix) -> impl Iterator<Item = (Prefix, &Received)> {
        self.routes.children(prefix)
    }
}
