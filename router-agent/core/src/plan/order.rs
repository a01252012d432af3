//! In which order groups are applied, and who waits for whom.

use std::collections::{BTreeMap, BTreeSet};

use super::{Group, Owner};

/// Sorts groups into waves: a group stands in a later wave than every group that it needs. Groups that need each
/// other in a circle share the last wave.
pub fn waves<Op>(groups: Vec<Group<Op>>) -> Vec<Vec<Group<Op>>> {
    let mut waves = Vec::new();
    let mut rest = groups;
    while !rest.is_empty() {
        let pending: BTreeSet<Owner> = rest.iter().map(|group| group.owner.clone()).collect();
        let (later, wave): (Vec<_>, Vec<_>) = rest
            .into_iter()
            .partition(|group| group.needs.iter().any(|need| *need != group.owner && pending.contains(need)));
        if wave.is_empty() {
            waves.push(later);
            break;
        }
        waves.push(wave);
        rest = later;
    }
    waves
}

/// Whether `group` needs one of `failed`.
pub fn held_back<Op, T>(group: &Group<Op>, failed: &BTreeMap<Owner, T>) -> bool {
    group.needs.iter().any(|need| failed.contains_key(need))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(owner: u32, needs: &[u32]) -> Group<()> {
        let needs = needs.iter().copied().map(Owner::Device).collect();
        Group { owner: Owner::Device(owner), needs, puts: vec![()], dels: vec![] }
    }

    fn owners(waves: &[Vec<Group<()>>]) -> Vec<Vec<Owner>> {
        waves.iter().map(|wave| wave.iter().map(|group| group.owner.clone()).collect()).collect()
    }

    #[test]
    fn a_group_stands_after_all_it_needs() {
        let sorted = waves(vec![group(3, &[2, 1]), group(2, &[1]), group(1, &[9])]);
        assert_eq!(owners(&sorted), [[Owner::Device(1)], [Owner::Device(2)], [Owner::Device(3)]]);
    }

    #[test]
    fn a_circle_ends() {
        let sorted = waves(vec![group(1, &[2]), group(2, &[1]), group(3, &[])]);
        assert_eq!(owners(&sorted), [vec![Owner::Device(3)], vec![Owner::Device(1), Owner::Device(2)]]);
    }
}
