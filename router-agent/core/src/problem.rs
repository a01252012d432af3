//! Something wrong with a named object. A Problem is state, not a log line: it is raised once and cleared once,
//! however often the thing that is wrong is looked at.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::model::Key;

/// What a Problem is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Service(Key),
    EndpointSlice(Key),
    Node(String),
    Pod(Key),
    /// A device of this host, by its name.
    Link(String),
    /// Following one kind of object at the API server, by the resource's name.
    Watch(&'static str),
    /// A file, by its path.
    File(String),
    /// A kernel table, by what it is.
    Table(String),
    /// A BGP neighbour, by its address.
    Peer(IpAddr),
    /// The BGP speaker as a whole.
    Speaker,
    /// The admin API on one address.
    AdminApi(SocketAddr),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(key) => write!(f, "service {key}"),
            Self::EndpointSlice(key) => write!(f, "endpointslice {key}"),
            Self::Node(name) => write!(f, "node {name}"),
            Self::Pod(key) => write!(f, "pod {key}"),
            Self::Link(name) => write!(f, "link {name}"),
            Self::Watch(resource) => write!(f, "watch of {resource}"),
            Self::File(path) => write!(f, "file {path}"),
            Self::Table(name) => write!(f, "table {name}"),
            Self::Peer(address) => write!(f, "BGP peer {address}"),
            Self::Speaker => f.write_str("BGP speaker"),
            Self::AdminApi(address) => write!(f, "BGP admin API on {address}"),
        }
    }
}

/// One thing that is wrong, and what makes it right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub subject: Subject,
    /// A word in camel case, stable, as in an event's `reason`.
    pub reason: &'static str,
    /// What is wrong, with the value that is.
    pub text: String,
    /// What a person can do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}; {}", self.subject, self.reason, self.text, self.remedy)
    }
}

/// Who found a Problem. Each finder replaces only what it found itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finder {
    /// Reading the object.
    Translate,
    /// Weighing it against others.
    Cluster,
    /// Programming it.
    Apply,
    /// Routing to it, or by it.
    Routing,
}

/// A Problem came, or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Raised(Problem),
    Cleared(Problem),
}

/// All that is wrong now, and what changed since the changes were last taken.
#[derive(Debug, Default)]
pub struct Problems {
    now: BTreeMap<(Finder, Subject), Vec<Problem>>,
    changes: Vec<Change>,
}

impl Problems {
    /// `finder` has looked at `subject`: this is all that it finds wrong.
    pub fn set(&mut self, finder: Finder, subject: &Subject, mut found: Vec<Problem>) {
        found.sort();
        found.dedup();
        let place = (finder, subject.clone());
        let before = self.now.remove(&place).unwrap_or_default();
        let cleared = before.iter().filter(|problem| !found.contains(problem)).cloned().map(Change::Cleared);
        self.changes.extend(cleared);
        let raised = found.iter().filter(|problem| !before.contains(problem)).cloned().map(Change::Raised);
        self.changes.extend(raised);
        if !found.is_empty() {
            self.now.insert(place, found);
        }
    }

    /// Everything that is wrong now, by subject within finder.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.now.values().flatten()
    }

    /// What changed since the last call, in order.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> Problem {
        let subject = Subject::Watch("services");
        Problem { subject, reason: "Forbidden", text: text.into(), remedy: "grant it".into() }
    }

    #[test]
    fn a_problem_found_twice_is_raised_once_and_cleared_once() {
        let mut problems = Problems::default();
        let subject = Subject::Watch("services");
        problems.set(Finder::Translate, &subject, vec![problem("a")]);
        problems.set(Finder::Translate, &subject, vec![problem("a"), problem("a")]);
        assert_eq!(problems.take_changes(), [Change::Raised(problem("a"))]);
        assert_eq!(problems.iter().count(), 1);
        problems.set(Finder::Translate, &subject, vec![]);
        problems.set(Finder::Translate, &subject, vec![]);
        assert_eq!(problems.take_changes(), [Change::Cleared(problem("a"))]);
        assert_eq!(problems.iter().count(), 0);
    }

    #[test]
    fn a_finder_clears_only_what_it_found() {
        let mut problems = Problems::default();
        let subject = Subject::Watch("services");
        problems.set(Finder::Translate, &subject, vec![problem("a")]);
        problems.set(Finder::Apply, &subject, vec![problem("b")]);
        problems.set(Finder::Apply, &subject, vec![]);
        assert_eq!(problems.iter().collect::<Vec<_>>(), [&problem("a")]);
    }
}
