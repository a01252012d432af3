//! Loc-RIB (RFC 4271 §3.2): for each prefix every path that passed import, the chosen one first.

use std::net::IpAddr;
use std::sync::Arc;

use prefix_trie::joint::JointPrefixMap;

use super::{PeerId, Source};
use crate::bestpath::{self, Candidate, Provenance, Rule};
use crate::family::Prefix;
use crate::message::attribute::Attributes;

/// A path after import policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Path {
    pub(super) attributes: Arc<Attributes>,
    pub(super) source: Source,
}

/// Never without a path.
#[derive(Default)]
pub(super) struct Destination {
    /// The chosen one first, the others by source.
    paths: Vec<Path>,
    /// None is chosen while no next hop can be reached.
    chosen: Option<Rule>,
}

impl Destination {
    pub(super) fn best(&self) -> Option<&Path> {
        self.chosen.and_then(|_| self.paths.first())
    }

    pub(super) fn rule(&self) -> Option<Rule> {
        self.chosen
    }

    pub(super) fn paths(&self) -> &[Path] {
        &self.paths
    }

    /// Whether the best path is another one now.
    fn select(&mut self, before: Option<&Path>, judge: &impl Judge) -> bool {
        self.paths.sort_unstable_by_key(|path| path.source);
        let candidates: Vec<_> = self.paths.iter().map(|path| judge.candidate(path)).collect();
        let best = bestpath::best(&candidates, |next_hop| judge.metric(next_hop));
        self.chosen = best.map(|(_, rule)| rule);
        if let Some(front) = best.and_then(|(index, _)| self.paths.get_mut(..=index)) {
            front.rotate_right(1);
        }
        before != self.best()
    }
}

/// What is known about peers and next hops.
pub(super) trait Judge {
    fn provenance(&self, peer: PeerId) -> Provenance;
    fn metric(&self, next_hop: IpAddr) -> Option<u32>;

    fn candidate<'a>(&self, path: &'a Path) -> Candidate<'a> {
        let origin = match path.source {
            Source::Local => Provenance::Local,
            Source::Peer(peer) => self.provenance(peer),
        };
        Candidate { attributes: &path.attributes, origin }
    }
}

#[derive(Default)]
pub(super) struct LocRib {
    destinations: JointPrefixMap<Prefix, Destination>,
}

impl LocRib {
    /// Puts the source's path to the prefix in place of the one it had. Whether the best path changed.
    pub(super) fn insert(&mut self, prefix: Prefix, path: Path, judge: &impl Judge) -> bool {
        let destination = self.destinations.entry(prefix).or_default();
        let before = destination.best().cloned();
        match destination.paths.iter_mut().find(|other| other.source == path.source) {
            Some(other) if other.attributes == path.attributes => return false,
            Some(other) => *other = path,
            None => {
                // Nearly every prefix has one path, and room for four would be most of the table.
                destination.paths.reserve_exact(1);
                destination.paths.push(path);
            }
        }
        destination.select(before.as_ref(), judge)
    }

    /// Takes away the source's path to the prefix. Whether the best path changed.
    pub(super) fn remove(&mut self, prefix: &Prefix, source: Source, judge: &impl Judge) -> bool {
        let Some(destination) = self.destinations.get_mut(prefix) else { return false };
        let before = destination.best().cloned();
        destination.paths.retain(|path| path.source != source);
        if destination.paths.is_empty() {
            self.destinations.remove(prefix);
            return before.is_some();
        }
        destination.select(before.as_ref(), judge)
    }

    /// Chooses anew everywhere; returns the prefixes whose best path changed.
    pub(super) fn select_all(&mut self, judge: &impl Judge) -> Vec<Prefix> {
        let mut changed = Vec::new();
        for (prefix, destination) in self.destinations.iter_mut() {
            let before = destination.best().cloned();
            if destination.select(before.as_ref(), judge) {
                changed.push(prefix);
            }
        }
        changed
    }

    pub(super) fn get(&self, prefix: &Prefix) -> Option<&Destination> {
        self.destinations.get(prefix)
    }

    pub(super) fn longest_match(&self, prefix: &Prefix) -> Option<(Prefix, &Destination)> {
        self.destinations.get_lpm(prefix)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Prefix, &Destination)> {
        self.destinations.iter()
    }

    /// The prefix itself and what lies inside it.
    pub(super) fn within(&self, prefix: Prefix) -> impl Iterator<Item = (Prefix, &Destination)> {
        self.destinations.children(&prefix)
    }

    /// The prefix itself and what it lies inside of, shortest first.
    pub(super) fn covering(&self, prefix: Prefix) -> impl Iterator<Item = (Prefix, &Destination)> {
        self.destinations.cover(&prefix)
    }
}
