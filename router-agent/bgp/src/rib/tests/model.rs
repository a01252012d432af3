//! What the tables have to be, said as plainly as it can be.

use super::*;
use crate::bestpath::Provenance;

/// What came in since it counted.
#[derive(Default)]
pub(super) struct Model {
    /// Up, or away with stale routes.
    pub(super) known: BTreeMap<PeerId, PeerFacts>,
    pub(super) away: BTreeSet<PeerId>,
    pub(super) stale: BTreeSet<(PeerId, Prefix)>,
    pub(super) sent: BTreeMap<PeerId, BTreeMap<Prefix, Attributes>>,
    pub(super) own: BTreeMap<Prefix, Attributes>,
    pub(super) policies: Policies,
    pub(super) unreachable: Option<IpAddr>,
}

/// A path after import.
pub(super) type Imported = (Source, Attributes);

impl Model {
    pub(super) fn up(&mut self, id: PeerId, facts: PeerFacts) {
        if !self.away.remove(&id) {
            self.drop(id);
        }
        self.known.insert(id, facts);
    }

    /// Without the session, and without a route.
    pub(super) fn drop(&mut self, id: PeerId) {
        self.known.remove(&id);
        self.sent.remove(&id);
        self.away.remove(&id);
        self.stale.retain(|(of, _)| *of != id);
    }

    pub(super) fn lose(&mut self, id: PeerId, kept: Families) {
        if self.known.contains_key(&id) {
            self.stale.retain(|(of, prefix)| *of != id || kept.contains(Family::of(prefix)));
            self.away.insert(id);
            let sent = self.sent.entry(id).or_default();
            sent.retain(|prefix, _| kept.contains(Family::of(prefix)));
            self.stale.extend(sent.keys().map(|prefix| (id, *prefix)));
        }
    }

    pub(super) fn sweep(&mut self, id: PeerId, families: Families) {
        let goes = |(of, prefix): &(PeerId, Prefix)| *of == id && families.contains(Family::of(prefix));
        for (_, prefix) in self.stale.extract_if(.., goes) {
            self.sent.entry(id).or_default().remove(&prefix);
        }
    }

    pub(super) fn update(&mut self, id: PeerId, update: Update) {
        if self.away.contains(&id) {
            return;
        }
        let Some(facts) = self.known.get(&id) else { return };
        let sent = self.sent.entry(id).or_default();
        for prefix in update.withdrawn {
            sent.remove(&prefix);
            self.stale.remove(&(id, prefix));
        }
        for Announcement { family, attributes, prefixes } in update.announced {
            if facts.families.contains(family) {
                self.stale.retain(|(of, prefix)| *of != id || !prefixes.contains(prefix));
                sent.extend(prefixes.into_iter().map(|prefix| (prefix, attributes.clone())));
            }
        }
    }

    pub(super) fn accepted(&self, id: PeerId, prefix: &Prefix, route: &Attributes) -> Option<Attributes> {
        let facts = self.known.get(&id)?;
        let class = self.policies.class(Direction::Import, facts.address);
        let ruling = self.policies.evaluate(Direction::Import, &class, prefix);
        let looped = route.as_path.contains(OWN)
            || route.originator_id == Some(ROUTER_ID)
            || route.cluster_list.contains(&ROUTER_ID)
            || route.next_hop == facts.local_address
            || Some(route.next_hop) == facts.other_address;
        if looped || ruling.verdict == Verdict::Reject {
            return None;
        }
        let mut route = route.clone();
        if let Some(actions) = self.policies.changes(Direction::Import, ruling) {
            act(actions, &mut route, facts.local_address);
        }
        Some(route)
    }

    /// For each prefix the paths, and which of them is the best.
    pub(super) fn loc_rib(&self) -> BTreeMap<Prefix, (Vec<Imported>, Option<Imported>)> {
        let mut all: BTreeMap<Prefix, Vec<Imported>> = BTreeMap::new();
        for (prefix, route) in &self.own {
            all.entry(*prefix).or_default().push((Source::Local, route.clone()));
        }
        for (id, sent) in &self.sent {
            for (prefix, route) in sent {
                if let Some(route) = self.accepted(*id, prefix, route) {
                    all.entry(*prefix).or_default().push((Source::Peer(*id), route));
                }
            }
        }
        all.into_iter().map(|(prefix, paths)| (prefix, (paths.clone(), self.best(&paths)))).collect()
    }

    fn best(&self, paths: &[Imported]) -> Option<Imported> {
        let candidates: Vec<_> = paths
            .iter()
            .map(|(source, attributes)| {
                let origin = match source {
                    Source::Local => Provenance::Local,
                    Source::Peer(id) => {
                        let PeerFacts { asn, router_id, address, .. } = self.known[id];
                        Provenance::Peer { external: asn != OWN, router_id, address }
                    }
                };
                Candidate { attributes, origin }
            })
            .collect();
        let metric = |next_hop| if Some(next_hop) == self.unreachable { None } else { Some(0) };
        bestpath::best(&candidates, metric).map(|(index, _)| paths[index].clone())
    }

    /// What the peer has to have been told.
    pub(super) fn told(&self, to: PeerId) -> BTreeMap<Prefix, Attributes> {
        let best = self.loc_rib().into_iter().filter_map(|(prefix, (_, best))| Some((prefix, best?)));
        best.filter_map(|(prefix, best)| Some((prefix, self.exported(to, &prefix, &best)?))).collect()
    }

    fn exported(&self, to: PeerId, prefix: &Prefix, (source, route): &Imported) -> Option<Attributes> {
        let facts = &self.known[&to];
        let external = facts.asn != OWN;
        let family = Family::of(prefix);
        let from_internal = matches!(source, Source::Peer(id) if self.known[id].asn == OWN);
        if !facts.families.contains(family) || *source == Source::Peer(to) || (from_internal && !external) {
            return None;
        }
        let has = |community: u32| route.communities.contains(&community);
        if has(0xffff_ff02) || (external && (has(0xffff_ff01) || has(0xffff_ff03))) {
            return None;
        }
        let class = self.policies.class(Direction::Export, facts.address);
        let ruling = self.policies.evaluate(Direction::Export, &class, prefix);
        if ruling.verdict == Verdict::Reject {
            return None;
        }
        let own = [Some(facts.local_address), facts.other_address];
        let own = own.into_iter().flatten().find(|own| Family::of_address(own) == family);
        let mut out = route.clone();
        let shared = facts.shared_subnet.is_some_and(|it| it.contains(&route.next_hop));
        let keeps = match source {
            Source::Local => !route.next_hop.is_unspecified(),
            Source::Peer(_) => !external || (shared && route.next_hop != facts.address),
        };
        if !keeps {
            out.next_hop = own?;
        }
        if external {
            out.as_path = route.as_path.prepended(OWN, 1);
            out.local_pref = None;
            out.med = route.med.filter(|_| *source == Source::Local);
            out.originator_id = None;
            out.cluster_list = Box::default();
        } else {
            out.local_pref = out.local_pref.or(Some(100));
        }
        if let Some(actions) = self.policies.changes(Direction::Export, ruling) {
            let own = own.unwrap_or(out.next_hop);
            act(actions, &mut out, own);
        }
        (out.next_hop != facts.address).then_some(out)
    }
}

fn act(actions: &Actions, route: &mut Attributes, own: IpAddr) {
    if actions.next_hop_self {
        route.next_hop = own;
    }
    if let Some((asn, times)) = actions.prepend {
        route.as_path = route.as_path.prepended(asn, usize::from(times));
    }
    let new: Vec<_> =
        actions.add_communities.iter().filter(|it| !route.communities.contains(it)).copied().collect();
    route.communities = [route.communities.to_vec(), new].concat().into();
}
