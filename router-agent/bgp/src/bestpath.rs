//! Which of several paths to one prefix is used (RFC 4271 §9.1.2, RFC 4456 §9).
//!
//! The rules eliminate, each among those that the ones before it left: `MED` compares only within one neighbouring AS,
//! so "better than" is no order and sorting by it would make the outcome depend on who came first. Absent: what an
//! operator would tune (always-compare-med, missing-as-worst), and age as a tie-break, which would make two speakers
//! with the same paths disagree.

use std::net::{IpAddr, Ipv4Addr};

use crate::message::attribute::Attributes;

/// What `LOCAL_PREF` is where nobody set it.
pub const DEFAULT_LOCAL_PREF: u32 = 100;

/// One path to the prefix in question.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub attributes: &'a Attributes,
    pub origin: Provenance,
}

/// Where a path came from, as far as it decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Provenance {
    Local,
    Peer { external: bool, router_id: Ipv4Addr, address: IpAddr },
}

/// The rule that left one path standing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Rule {
    /// No other path was eligible.
    Only,
    Local,
    LocalPref,
    AsPathLength,
    Origin,
    Med,
    External,
    NextHopMetric,
    RouterId,
    ClusterListLength,
    PeerAddress,
}

/// The index of the best candidate, and why it is that. `metric` is the interior cost of a next hop, `None` where it
/// cannot be reached: that path takes no part (RFC 4271 §9.1.2.1).
pub fn best(candidates: &[Candidate<'_>], metric: impl Fn(IpAddr) -> Option<u32>) -> Option<(usize, Rule)> {
    let mut left: Vec<Contender<'_>> = candidates
        .iter()
        .enumerate()
        .filter_map(|(index, candidate)| Contender::new(index, candidate, &metric))
        .collect();
    let mut rule = Rule::Only;
    for (next, keep) in RULES {
        if left.len() < 2 {
            break;
        }
        keep(&mut left);
        rule = *next;
    }
    left.first().map(|contender| (contender.index, rule))
}

struct Contender<'a> {
    index: usize,
    attributes: &'a Attributes,
    origin: Provenance,
    metric: u32,
}

impl<'a> Contender<'a> {
    fn new(index: usize, candidate: &Candidate<'a>, metric: impl Fn(IpAddr) -> Option<u32>) -> Option<Self> {
        let Candidate { attributes, origin } = *candidate;
        let metric = match origin {
            Provenance::Local => 0,
            Provenance::Peer { .. } => metric(attributes.next_hop)?,
        };
        Some(Self { index, attributes, origin, metric })
    }
}

fn router_id(contender: &Contender<'_>) -> Ipv4Addr {
    match (contender.attributes.originator_id, contender.origin) {
        (Some(originator), _) => originator,
        (None, Provenance::Peer { router_id, .. }) => router_id,
        (None, Provenance::Local) => Ipv4Addr::UNSPECIFIED,
    }
}

fn address(contender: &Contender<'_>) -> Option<IpAddr> {
    match contender.origin {
        Provenance::Local => None,
        Provenance::Peer { address, .. } => Some(address),
    }
}

type Keep = fn(&mut Vec<Contender<'_>>);

/// In the order of RFC 4271 §9.1.2.2, what comes before it (ours, then `LOCAL_PREF`), and RFC 4456's addition.
const RULES: &[(Rule, Keep)] = &[
    (Rule::Local, |left| keep_lowest(left, |it| it.origin != Provenance::Local)),
    (Rule::LocalPref, |left| {
        keep_lowest(left, |it| !it.attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF));
    }),
    (Rule::AsPathLength, |left| keep_lowest(left, |it| it.attributes.as_path.hops())),
    (Rule::Origin, |left| keep_lowest(left, |it| it.attributes.origin)),
    (Rule::Med, keep_lowest_med_of_each_neighbor),
    (Rule::External, |left| {
        keep_lowest(left, |it| !matches!(it.origin, Provenance::Peer { external: true, .. }));
    }),
    (Rule::NextHopMetric, |left| keep_lowest(left, |it| it.metric)),
    (Rule::RouterId, |left| keep_lowest(left, router_id)),
    (Rule::ClusterListLength, |left| keep_lowest(left, |it| it.attributes.cluster_list.len())),
    (Rule::PeerAddress, |left| keep_lowest(left, address)),
];

fn keep_lowest<K: Ord>(left: &mut Vec<Contender<'_>>, key: impl Fn(&Contender<'_>) -> K) {
    if let Some(lowest) = left.iter().map(&key).min() {
        left.retain(|contender| key(contender) == lowest);
    }
}

/// A missing `MED` is zero (RFC 4271 §9.1.2.2 c). Paths without a neighbouring AS, as those that begin inside our own
/// have, compare with each other.
fn keep_lowest_med_of_each_neighbor(left: &mut Vec<Contender<'_>>) {
    let med_of = |it: &Contender<'_>| it.attributes.med.unwrap_or(0);
    let mut lowest = std::collections::BTreeMap::new();
    for contender in left.iter() {
        let med = med_of(contender);
        lowest
            .entry(contender.attributes.as_path.first())
            .and_modify(|least: &mut u32| *least = med.min(*least))
            .or_insert(med);
    }
    left.retain(|it| lowest.get(&it.attributes.as_path.first()) == Some(&med_of(it)));
}

#[cfg(test)]
mod tests;
