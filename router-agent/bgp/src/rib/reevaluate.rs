//! Policies change, and peers change groups: only what may come out differently is looked at again.

use std::collections::BTreeMap;

use super::export::GroupKey;
use super::{Affected, Direction, Policies, Prefix, PrefixRange, Rib, Source};
use super::{Family, Group, PeerId};

impl Rib {
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Replaces all policies at once.
    pub fn set_policies(&mut self, new: Policies) {
        let old = std::mem::replace(&mut self.policies, new);
        // First the groups: nothing may be exported while they hold classes of the old policies.
        self.regroup(&old);
        let (mut known, mut imports) = (BTreeMap::new(), Vec::new());
        for id in self.peers.ids().collect::<Vec<_>>() {
            let Some(peer) = self.peers.get_mut(id) else { continue };
            let class = self.policies.class(Direction::Import, peer.facts.address);
            // Peers of one class, and thus mostly all, share the answer.
            let classes = (std::mem::replace(&mut peer.import, class.clone()), class);
            let affected = known.entry(classes).or_insert_with_key(|(before, after)| {
                old.difference(before, &self.policies, after, Direction::Import)
            });
            imports.push((id, affected.clone()));
        }
        for (id, affected) in imports {
            self.import_again(id, &affected);
        }
    }

    /// Adds to and removes from one prefix set, for what is too large or changes too often to be replaced whole.
    pub fn change_prefix_set(&mut self, name: &str, add: &[PrefixRange], remove: &[PrefixRange]) {
        let changed = self.policies.change_prefix_set(name, add, remove);
        if changed.is_empty() {
            return;
        }
        let affected_by = |direction, class| self.policies.affected_by_set(direction, class, name, &changed);
        let peers = self.peers.ids().filter_map(|id| Some((id, &self.peers.get(id)?.import)));
        let imports: Vec<_> = peers.map(|(id, class)| (id, affected_by(Direction::Import, class))).collect();
        let groups = self.groups.iter().map(|group| &group.key.class);
        let exports: Vec<_> = groups.map(|class| affected_by(Direction::Export, class)).collect();
        for (id, affected) in imports {
            self.import_again(id, &affected);
        }
        for (index, affected) in exports.iter().enumerate() {
            self.export_again(index, affected);
        }
    }

    /// Everything that the peer sent passes the import policy again (soft reset, inbound). As a change of policy does that
    /// by itself, it changes nothing.
    pub fn soft_reset_in(&mut self, id: PeerId) {
        self.import_again(id, &Affected::All);
    }

    fn import_again(&mut self, id: PeerId, affected: &Affected) {
        let Some(routes) = self.adj_in.get(&Source::Peer(id)) else { return };
        let mut prefixes: Vec<Prefix> = match affected {
            Affected::All => routes.iter().map(|(prefix, _)| prefix).collect(),
            Affected::Within(ranges) => ranges
                .iter()
                .flat_map(|range| routes.within(&range.prefix).map(move |(prefix, _)| (range, prefix)))
                .filter(|(range, prefix)| range.contains(prefix))
                .map(|(_, prefix)| prefix)
                .collect(),
        };
        prefixes.sort_unstable();
        prefixes.dedup();
        for prefix in prefixes {
            let Self { adj_in, peers, policies, interner, .. } = self;
            let Some(routes) = adj_in.get_mut(&Source::Peer(id)) else { return };
            let (Some(route), Some(peer)) = (routes.get(&prefix), peers.get(id)) else { continue };
            let mut route = route.clone();
            let accepted = peer.import(policies, interner, &prefix, &mut route);
            routes.insert(prefix, route);
            self.choose(prefix, Source::Peer(id), accepted);
        }
    }

    fn export_again(&mut self, index: usize, affected: &Affected) {
        let Some(group) = self.groups.get_mut(index) else { return };
        let family = group.key.family;
        match affected {
            Affected::All => {
                let all = self.loc.iter().map(|(prefix, _)| prefix);
                all.filter(|prefix| Family::of(prefix) == family).for_each(|prefix| group.note(prefix));
            }
            Affected::Within(ranges) => {
                for range in ranges.iter().filter(|range| Family::of(&range.prefix) == family) {
                    let inside = self.loc.within(range.prefix).map(|(prefix, _)| prefix);
                    inside.filter(|prefix| range.contains(prefix)).for_each(|prefix| group.note(prefix));
                }
            }
        }
        if group.is_full() {
            self.flush(index);
        }
    }

    pub(super) fn join_groups(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get(id) else { return };
        let address = peer.facts.address;
        let class = self.policies.class(Direction::Export, address);
        let keys: Vec<_> =
            peer.facts.families.iter().map(|family| peer.group_key(family, class.clone())).collect();
        for key in keys {
            let index = self.group_for(key);
            if let Some(group) = self.groups.get_mut(index) {
                group.join(id, address);
            }
        }
    }

    pub(super) fn leave_groups(&mut self, id: PeerId) {
        self.groups.iter_mut().for_each(|group| group.leave(id));
        self.groups.retain(|group| !group.is_empty());
    }

    /// The group with this key, up to date; a new one has exported the whole table.
    fn group_for(&mut self, key: GroupKey) -> usize {
        let index = self.groups.iter().position(|group| group.key == key).unwrap_or_else(|| {
            self.groups.push(Group::new(key, self.config.limits));
            let index = self.groups.len() - 1;
            self.export_again(index, &Affected::All);
            index
        });
        self.flush(index);
        index
    }

    /// Brings groups and peers together again after the export policies changed. As a rule the same peers stay together:
    /// then the group stays, and looks again at what may have changed for it.
    fn regroup(&mut self, old: &Policies) {
        let mut taken: Vec<GroupKey> = Vec::new();
        let mut moves = Vec::new();
        let mut exports: BTreeMap<usize, Affected> = BTreeMap::new();
        for (index, group) in self.groups.iter_mut().enumerate() {
            let family = group.key.family;
            let wanted = |id: PeerId| {
                let peer = self.peers.get(id)?;
                let class = self.policies.class(Direction::Export, peer.facts.address);
                Some(peer.group_key(family, class))
            };
            let members: Vec<_> = group.members().filter_map(|(id, _)| Some((id, wanted(id)?))).collect();
            let Some((_, key)) = members.iter().find(|(_, key)| !taken.contains(key)) else {
                moves.extend(members);
                continue;
            };
            let affected = old.difference(&group.key.class, &self.policies, &key.class, Direction::Export);
            exports.insert(index, affected);
            group.key = key.clone();
            taken.push(key.clone());
            moves.extend(members.iter().filter(|(_, wanted)| wanted != key).cloned());
        }
        for (index, affected) in &exports {
            self.export_again(*index, affected);
        }
        let parted: Vec<_> = moves
            .into_iter()
            .filter_map(|(id, key)| Some((id, self.group_of(id, key.family)?.part(id)?, key)))
            .collect();
        // Those that nobody stays in have classes of the old policies, which mean nothing any more.
        self.groups.retain(|group| !group.is_empty());
        for (id, parting, key) in parted {
            let index = self.group_for(key);
            if let Some(group) = self.groups.get_mut(index) {
                group.join_from(id, parting);
            }
        }
    }
}
