//! Which prefixes a change of policy may treat differently, so that only those are looked at again.

use std::collections::BTreeSet;

use super::{Class, Direction, Policies, PrefixRange, PrefixSet, Step};

/// The prefixes that two versions of a policy may rule differently on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Affected {
    All,
    /// Those that one of these contains; sorted, each once.
    Within(Vec<PrefixRange>),
}

impl Affected {
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Within(ranges) if ranges.is_empty())
    }
}

impl Policies {
    /// What may differ for a peer that was in `class` and is in `new_class` of the `new` policies.
    ///
    /// Statements that stand in both versions, at the beginning or the end, matter only as far as their sets changed.
    /// A prefix that no statement between them matches, in neither version, falls through to the same end.
    pub fn difference(&self, class: &Class, new: &Self, new_class: &Class, direction: Direction) -> Affected {
        if self.assignment(direction).default != new.assignment(direction).default {
            return Affected::All;
        }
        let old_steps = self.steps_of(direction, class);
        let new_steps = new.steps_of(direction, new_class);
        let same = |(a, b): &(&&Step, &&Step)| self.same_statement(a, new, b);
        let front = old_steps.iter().zip(&new_steps).take_while(same).count();
        let shorter = old_steps.len().min(new_steps.len()) - front;
        let back = old_steps.iter().rev().zip(new_steps.iter().rev()).take(shorter).take_while(same).count();

        let mut ranges = BTreeSet::new();
        let kept_front = old_steps.iter().zip(&new_steps).take(front);
        let kept_back = old_steps.iter().rev().zip(new_steps.iter().rev()).take(back);
        for (before, after) in kept_front.chain(kept_back) {
            if let (Some(before), Some(after)) = (self.prefixes_of(before), new.prefixes_of(after)) {
                ranges.extend(symmetric_difference(before, after));
            }
        }
        let middle = |steps: &[&Step], policies: &Self, ranges: &mut BTreeSet<PrefixRange>| {
            let changed = steps.iter().take(steps.len() - back).skip(front);
            for step in changed {
                match policies.prefixes_of(step) {
                    Some(set) => ranges.extend(set.iter()),
                    None => return false,
                }
            }
            true
        };
        if middle(&old_steps, self, &mut ranges) && middle(&new_steps, new, &mut ranges) {
            Affected::Within(ranges.into_iter().collect())
        } else {
            Affected::All
        }
    }

    /// What may differ for a peer of this class after `change_prefix_set` has changed these ranges of the set.
    pub fn affected_by_set(
        &self,
        direction: Direction,
        class: &Class,
        name: &str,
        changed: &[PrefixRange],
    ) -> Affected {
        let at = self.prefix_sets.get(name).copied();
        let uses =
            self.steps_of(direction, class).iter().any(|step| step.prefixes.is_some() && step.prefixes == at);
        Affected::Within(if uses { changed.to_vec() } else { Vec::new() })
    }

    fn steps_of(&self, direction: Direction, class: &Class) -> Vec<&Step> {
        let steps = self.steps(direction);
        class.0.iter().filter_map(|place| steps.get(*place)).collect()
    }

    /// The same statement, apart from what its prefix set holds. Its neighbour condition holds in both, or it would not
    /// be in the class.
    fn same_statement(&self, step: &Step, new: &Self, other: &Step) -> bool {
        step.actions == other.actions && self.set_name(step) == new.set_name(other)
    }

    fn set_name(&self, step: &Step) -> Option<&str> {
        let at = step.prefixes?;
        self.prefix_sets.iter().find(|(_, index)| **index == at).map(|(name, _)| name.as_str())
    }
}

fn symmetric_difference(before: &PrefixSet, after: &PrefixSet) -> Vec<PrefixRange> {
    let before: BTreeSet<_> = before.iter().collect();
    let after: BTreeSet<_> = after.iter().collect();
    before.symmetric_difference(&after).copied().collect()
}
