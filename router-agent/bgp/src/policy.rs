//! Import and export policies: which routes pass between us and a peer, and how they change on the way.
//!
//! Shape and names are those that `gobgp policy` lists, since people look there. An empty set matches nothing: upstream
//! learned what happens otherwise. A policy splits in two: the neighbour conditions are settled once for a peer (its
//! `Class`), and only what is left is asked for each prefix. So peers of one class share an Adj-RIB-Out, and two
//! versions of a policy can be compared by what they say to one class.

use std::collections::BTreeMap;
use std::net::IpAddr;

use prefix_trie::joint::JointPrefixMap;

use crate::asn::Asn;
use crate::family::Prefix;

mod change;
pub use change::Affected;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Verdict {
    Accept,
    Reject,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Direction {
    Import,
    Export,
}

/// Prefixes inside `prefix` with a length from `min` to `max`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PrefixRange {
    pub prefix: Prefix,
    pub min: u8,
    pub max: u8,
}

impl PrefixRange {
    pub fn exact(prefix: Prefix) -> Self {
        Self { prefix, min: prefix.prefix_len(), max: prefix.prefix_len() }
    }

    pub fn or_longer(prefix: Prefix) -> Self {
        Self { prefix, min: prefix.prefix_len(), max: prefix.max_prefix_len() }
    }

    pub fn contains(&self, prefix: &Prefix) -> bool {
        (self.min..=self.max).contains(&prefix.prefix_len()) && self.prefix.contains(prefix)
    }
}

/// A prefix matches if any of the ranges contains it.
#[derive(Clone, Default, Debug)]
pub struct PrefixSet {
    ranges: JointPrefixMap<Prefix, Vec<(u8, u8)>>,
}

impl PrefixSet {
    /// Whether the range was new.
    pub fn insert(&mut self, range: PrefixRange) -> bool {
        let lengths = self.ranges.entry(range.prefix).or_default();
        match lengths.binary_search(&(range.min, range.max)) {
            Ok(_) => false,
            Err(place) => {
                lengths.insert(place, (range.min, range.max));
                true
            }
        }
    }

    /// Whether the range was there.
    pub fn remove(&mut self, range: &PrefixRange) -> bool {
        let Some(lengths) = self.ranges.get_mut(&range.prefix) else { return false };
        let Ok(place) = lengths.binary_search(&(range.min, range.max)) else { return false };
        lengths.remove(place);
        if lengths.is_empty() {
            self.ranges.remove(&range.prefix);
        }
        true
    }

    pub fn matches(&self, prefix: &Prefix) -> bool {
        let length = prefix.prefix_len();
        self.ranges
            .cover_values(prefix)
            .any(|lengths| lengths.iter().any(|(min, max)| (*min..=*max).contains(&length)))
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Ascending, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = PrefixRange> {
        self.ranges.iter().flat_map(|(prefix, lengths)| {
            lengths.iter().map(move |&(min, max)| PrefixRange { prefix, min, max })
        })
    }
}

impl FromIterator<PrefixRange> for PrefixSet {
    fn from_iter<I: IntoIterator<Item = PrefixRange>>(ranges: I) -> Self {
        let mut set = Self::default();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

/// A condition that is absent holds; all that are there must hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statement {
    pub name: String,
    /// The name of a prefix set.
    pub prefixes: Option<String>,
    /// The name of a neighbour set: who sends, in an import policy; who would receive, in an export policy.
    pub neighbors: Option<String>,
    pub actions: Actions,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Actions {
    pub verdict: Verdict,
    pub next_hop_self: bool,
    /// Which AS to put in front of the path, and how many times.
    pub prepend: Option<(Asn, u8)>,
    pub add_communities: Vec<u32>,
}

impl Actions {
    pub const fn only(verdict: Verdict) -> Self {
        Self { verdict, next_hop_self: false, prepend: None, add_communities: Vec::new() }
    }

    /// Whether a route that passes leaves as it came.
    pub fn is_plain(&self) -> bool {
        !self.next_hop_self && self.prepend.is_none() && self.add_communities.is_empty()
    }
}

/// The first statement that matches decides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    pub name: String,
    pub statements: Vec<Statement>,
}

/// The policies of one direction, in order, and what befalls a route that none of their statements matches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assignment {
    pub policies: Vec<Policy>,
    pub default: Verdict,
}

/// All policies in force, valid as a whole: every set that a statement names is there.
#[derive(Clone, Debug)]
pub struct Policies {
    prefix_sets: BTreeMap<String, usize>,
    /// By the index that `prefix_sets` gives, so that a match per prefix compares no names.
    ranges: Vec<PrefixSet>,
    neighbor_sets: BTreeMap<String, Vec<Prefix>>,
    import: Assignment,
    export: Assignment,
    import_steps: Vec<Step>,
    export_steps: Vec<Step>,
}

/// One statement, ready to be asked.
#[derive(Clone, Debug)]
struct Step {
    /// Index into `Policies::ranges`.
    prefixes: Option<usize>,
    neighbors: Option<String>,
    actions: Actions,
}

/// The statements of one direction whose neighbour condition holds for a peer, in order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Class(Vec<usize>);

/// What a policy says to one prefix.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ruling {
    pub verdict: Verdict,
    /// The deciding statement, by its place in the direction; `None` for the default.
    statement: Option<usize>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("statement {statement:?} names the prefix set {set:?}, which is not there")]
    NoPrefixSet { statement: String, set: String },
    #[error("statement {statement:?} names the neighbor set {set:?}, which is not there")]
    NoNeighborSet { statement: String, set: String },
}

impl Default for Policies {
    /// What holds before anyone has said anything: take all, give nothing.
    fn default() -> Self {
        let all = |default| Assignment { policies: Vec::new(), default };
        Self {
            prefix_sets: BTreeMap::new(),
            ranges: Vec::new(),
            neighbor_sets: BTreeMap::new(),
            import: all(Verdict::Accept),
            export: all(Verdict::Reject),
            import_steps: Vec::new(),
            export_steps: Vec::new(),
        }
    }
}

impl Policies {
    pub fn new(
        prefix_sets: BTreeMap<String, PrefixSet>,
        neighbor_sets: BTreeMap<String, Vec<Prefix>>,
        import: Assignment,
        export: Assignment,
    ) -> Result<Self, PolicyError> {
        let (names, ranges): (Vec<_>, Vec<_>) = prefix_sets.into_iter().unzip();
        let prefix_sets = names.into_iter().zip(0..).collect();
        let import_steps = steps(&prefix_sets, &neighbor_sets, &import)?;
        let export_steps = steps(&prefix_sets, &neighbor_sets, &export)?;
        Ok(Self { prefix_sets, ranges, neighbor_sets, import, export, import_steps, export_steps })
    }

    pub fn prefix_sets(&self) -> impl Iterator<Item = (&str, &PrefixSet)> {
        self.prefix_sets.iter().filter_map(|(name, at)| Some((name.as_str(), self.ranges.get(*at)?)))
    }

    pub fn neighbor_sets(&self) -> impl Iterator<Item = (&str, &[Prefix])> {
        self.neighbor_sets.iter().map(|(name, neighbors)| (name.as_str(), neighbors.as_slice()))
    }

    pub fn assignment(&self, direction: Direction) -> &Assignment {
        match direction {
            Direction::Import => &self.import,
            Direction::Export => &self.export,
        }
    }

    /// The part of the policies that concerns the peer with this address.
    pub fn class(&self, direction: Direction, peer: IpAddr) -> Class {
        let holds = |step: &Step| match &step.neighbors {
            None => true,
            Some(set) => self
                .neighbor_sets
                .get(set)
                .is_some_and(|neighbors| neighbors.iter().any(|neighbor| neighbor.contains(&peer))),
        };
        let steps = self.steps(direction).iter().enumerate();
        Class(steps.filter(|(_, step)| holds(step)).map(|(place, _)| place).collect())
    }

    pub fn evaluate(&self, direction: Direction, class: &Class, prefix: &Prefix) -> Ruling {
        let steps = self.steps(direction);
        class
            .0
            .iter()
            .filter_map(|place| Some((*place, steps.get(*place)?)))
            .find(|(_, step)| self.prefixes_of(step).is_none_or(|set| set.matches(prefix)))
            .map_or(
                Ruling { verdict: self.assignment(direction).default, statement: None },
                |(place, step)| Ruling { verdict: step.actions.verdict, statement: Some(place) },
            )
    }

    /// What the ruling's statement does to a route, if anything.
    pub fn changes(&self, direction: Direction, ruling: Ruling) -> Option<&Actions> {
        let step = self.steps(direction).get(ruling.statement?)?;
        Some(&step.actions).filter(|actions| !actions.is_plain())
    }

    /// Adds to and removes from one prefix set; returns what really changed, empty if there is no such set.
    pub fn change_prefix_set(
        &mut self,
        name: &str,
        add: &[PrefixRange],
        remove: &[PrefixRange],
    ) -> Vec<PrefixRange> {
        let Some(set) = self.prefix_sets.get(name).and_then(|at| self.ranges.get_mut(*at)) else {
            return Vec::new();
        };
        let mut changed = Vec::new();
        changed.extend(remove.iter().filter(|range| set.remove(range)));
        changed.extend(add.iter().filter(|range| set.insert(**range)));
        changed
    }

    fn steps(&self, direction: Direction) -> &[Step] {
        match direction {
            Direction::Import => &self.import_steps,
            Direction::Export => &self.export_steps,
        }
    }

    fn prefixes_of(&self, step: &Step) -> Option<&PrefixSet> {
        self.ranges.get(step.prefixes?)
    }
}

fn steps(
    prefix_sets: &BTreeMap<String, usize>,
    neighbor_sets: &BTreeMap<String, Vec<Prefix>>,
    assignment: &Assignment,
) -> Result<Vec<Step>, PolicyError> {
    let statements = assignment.policies.iter().flat_map(|policy| &policy.statements);
    let resolve = |statement: &Statement| {
        let prefixes = match &statement.prefixes {
            None => None,
            Some(set) => Some(*prefix_sets.get(set).ok_or_else(|| PolicyError::NoPrefixSet {
                statement: statement.name.clone(),
                set: set.clone(),
            })?),
        };
        if let Some(set) = statement.neighbors.as_ref().filter(|set| !neighbor_sets.contains_key(*set)) {
            let statement = statement.name.clone();
            return Err(PolicyError::NoNeighborSet { statement, set: set.clone() });
        }
        Ok(Step { prefixes, neighbors: statement.neighbors.clone(), actions: statement.actions.clone() })
    };
    statements.map(resolve).collect()
}

#[cfg(test)]
mod tests;
