//! The tables as the admin API and `status` show them.

use std::sync::Arc;
use std::time::Duration;

use super::adj_in::AdjRibIn;
use super::loc::Destination;
use super::{Family, PeerFacts, PeerId, Prefix, Received, Rib, Rule, Source, Standing};
use crate::message::attribute::Attributes;

/// Prefixes of one peer and family.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    pub received: usize,
    pub accepted: usize,
    pub advertised: usize,
}

/// A path to a prefix in Loc-RIB.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathView {
    pub source: Source,
    /// After import policy.
    pub attributes: Arc<Attributes>,
    pub learned_at: Duration,
    /// Why it is the best path, if it is.
    pub best: Option<Rule>,
    pub stale: bool,
}

/// A route in an Adj-RIB-In.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReceivedView {
    pub prefix: Prefix,
    pub attributes: Arc<Attributes>,
    pub learned_at: Duration,
    pub standing: Standing,
    pub stale: bool,
}

impl ReceivedView {
    /// Whether it takes no part in the selection.
    pub fn is_filtered(&self) -> bool {
        !self.standing.is_accepted()
    }
}

/// Which prefixes of a table are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lookup {
    All(Family),
    Exact(Prefix),
    /// The longest prefix that contains this one.
    LongestMatch(Prefix),
    /// Itself and what it contains.
    Longer(Prefix),
    /// Itself and what contains it.
    Shorter(Prefix),
}

impl Rib {
    pub fn counts(&self, id: PeerId, family: Family) -> Counts {
        let held = self.adj_in.get(&Source::Peer(id)).map(|routes| routes.held(family)).unwrap_or_default();
        let group = self.groups.iter().find(|group| group.key.family == family && group.has(id));
        Counts {
            received: held.received,
            accepted: held.accepted,
            advertised: group.map_or(0, |group| group.advertised(id)),
        }
    }

    /// Of a peer that is up, or has stale routes.
    pub fn facts(&self, id: PeerId) -> Option<&PeerFacts> {
        self.peers.get(id).map(|peer| &peer.facts)
    }

    /// Whether the peer has been handed all of the family that there was when its session came up, End-of-RIB included.
    pub fn has_told_all(&self, id: PeerId, family: Family) -> bool {
        let group = self.groups.iter().find(|group| group.key.family == family && group.has(id));
        group.is_some_and(|group| !group.owes_end_of_rib(id))
    }

    /// Destinations of Loc-RIB, and their paths. Walked for: only people ask.
    pub fn size(&self, family: Family) -> (usize, usize) {
        let of_family = self.loc.iter().filter(|(prefix, _)| Family::of(prefix) == family);
        of_family.fold((0, 0), |(destinations, paths), (_, it)| (destinations + 1, paths + it.paths().len()))
    }

    /// What the peer sent, before policy, in the order of the prefixes.
    pub fn adj_in(&self, id: PeerId, family: Family) -> impl Iterator<Item = ReceivedView> {
        let routes = self.adj_in.get(&Source::Peer(id)).into_iter().flat_map(AdjRibIn::iter);
        routes.filter(move |(prefix, _)| Family::of(prefix) == family).map(|(prefix, route)| {
            let Received { attributes, learned_at, standing, stale } = route.clone();
            ReceivedView { prefix, attributes, learned_at, standing, stale }
        })
    }

    /// What the peer is sent, after policy, in the order of the prefixes. What changed since a peer of its group last asked
    /// for messages is not in it yet.
    pub fn adj_out(&self, id: PeerId, family: Family) -> impl Iterator<Item = (Prefix, &Arc<Attributes>)> {
        let groups = self.groups.iter().filter(move |group| group.key.family == family);
        groups.flat_map(move |group| group.adj_out(id))
    }

    /// Prefixes with all their paths, the best one first, in the order of the prefixes.
    pub fn loc_rib(&self, lookup: Lookup) -> Box<dyn Iterator<Item = (Prefix, Vec<PathView>)> + '_> {
        let view = |(prefix, destination): (Prefix, _)| (prefix, self.paths(&prefix, destination));
        match lookup {
            Lookup::All(family) => {
                Box::new(self.loc.iter().filter(move |(prefix, _)| Family::of(prefix) == family).map(view))
            }
            Lookup::Exact(prefix) => {
                let prefix = prefix.trunc();
                Box::new(self.loc.get(&prefix).map(|it| (prefix, it)).map(view).into_iter())
            }
            Lookup::LongestMatch(prefix) => {
                Box::new(self.loc.longest_match(&prefix.trunc()).map(view).into_iter())
            }
            Lookup::Longer(prefix) => Box::new(self.loc.within(prefix.trunc()).map(view)),
            Lookup::Shorter(prefix) => Box::new(self.loc.covering(prefix.trunc()).map(view)),
        }
    }

    fn paths(&self, prefix: &Prefix, destination: &Destination) -> Vec<PathView> {
        let mut best = destination.rule();
        let paths = destination.paths().iter().map(|path| {
            let received = self.adj_in.get(&path.source).and_then(|routes| routes.get(prefix));
            PathView {
                source: path.source,
                attributes: Arc::clone(&path.attributes),
                learned_at: received.map_or(Duration::ZERO, |route| route.learned_at),
                best: best.take(),
                stale: received.is_some_and(|route| route.stale),
            }
        });
        paths.collect()
    }
}
