//! What is wrong with learned routes, said once each: of many that fail only the first few by name.

use std::collections::BTreeMap;

use anyhow::Error;
use ipnet::IpNet;
use router_core::cluster::Event;
use router_core::plan::Owner;
use router_core::problem::{Problem, Subject};

/// Routes that are named; a peer may send a hundred thousand that cannot be written.
const NAMED: usize = 16;

/// Who has been told what.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    named: BTreeMap<IpNet, String>,
    more: bool,
    unreadable: Option<String>,
    changes: Vec<Event>,
}

impl Reporter {
    /// These cannot be written, and all others can. Who is named already stays so.
    pub(super) fn failing<'a>(&mut self, all: impl Iterator<Item = (IpNet, &'a Error)>) {
        let mut failing: BTreeMap<IpNet, &Error> = all.collect();
        let gone: Vec<IpNet> =
            self.named.keys().filter(|prefix| !failing.contains_key(prefix)).copied().collect();
        for prefix in gone {
            self.named.remove(&prefix);
            self.changes.push(Event::Problems(subject(prefix), Vec::new()));
        }
        let named: Vec<IpNet> = self.named.keys().copied().collect();
        for prefix in named {
            failing.remove(&prefix).into_iter().for_each(|error| self.name(prefix, error));
        }
        while self.named.len() < NAMED
            && let Some((prefix, error)) = failing.pop_first()
        {
            self.name(prefix, error);
        }
        let more = !failing.is_empty();
        if more != std::mem::replace(&mut self.more, more) {
            let text = format!("more than {NAMED} cannot be written");
            self.tell(subject_of("learned routes"), more.then_some(("NotProgrammed", text)));
        }
    }

    /// The table was read, or could not be.
    pub(super) fn unreadable(&mut self, error: Option<&Error>) {
        let text = error.map(|error| format!("{error:#}"));
        if text != self.unreadable {
            self.unreadable.clone_from(&text);
            self.tell(subject_of("main"), text.map(|text| ("NotReadable", text)));
        }
    }

    /// What changed since the last call.
    pub(super) fn changes(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.changes)
    }

    fn name(&mut self, prefix: IpNet, error: &Error) {
        let text = format!("{error:#}");
        if self.named.get(&prefix) != Some(&text) {
            self.named.insert(prefix, text.clone());
            self.tell(subject(prefix), Some(("NotProgrammed", text)));
        }
    }

    fn tell(&mut self, subject: Subject, wrong: Option<(&'static str, String)>) {
        let problem = |(reason, text)| Problem {
            subject: subject.clone(),
            reason,
            text,
            remedy: "it is tried again; everything else goes on".to_owned(),
        };
        let found = wrong.map(problem).into_iter().collect();
        self.changes.push(Event::Problems(subject, found));
    }
}

fn subject(prefix: IpNet) -> Subject {
    Subject::Table(Owner::Route(prefix).to_string())
}

fn subject_of(table: &str) -> Subject {
    Subject::Table(table.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(reporter: &mut Reporter, range: std::ops::Range<u8>) -> Vec<(String, usize)> {
        let error = anyhow::anyhow!("network is unreachable");
        let prefix = |number: u8| format!("10.{number}.0.0/16").parse().expect("a prefix");
        reporter.failing(range.map(|number| (prefix(number), &error)));
        let told = reporter.changes().into_iter().map(|event| match event {
            Event::Problems(subject, found) => (subject.to_string(), found.len()),
            other => panic!("{other:?}"),
        });
        told.collect()
    }

    #[test]
    fn a_route_that_fails_again_is_named_once_and_cleared_once() {
        let mut reporter = Reporter::default();
        assert_eq!(failing(&mut reporter, 1..2), [("table route 10.1.0.0/16".to_owned(), 1)]);
        assert_eq!(failing(&mut reporter, 1..2), []);
        assert_eq!(failing(&mut reporter, 0..0), [("table route 10.1.0.0/16".to_owned(), 0)]);
    }

    #[test]
    fn of_many_that_fail_sixteen_are_named_and_the_rest_counted_as_one() {
        let mut reporter = Reporter::default();
        let told = failing(&mut reporter, 0..200);
        assert_eq!(told.len(), 17);
        assert_eq!(told.last(), Some(&("table learned routes".to_owned(), 1)));
        assert_eq!(failing(&mut reporter, 0..201), []);
        assert_eq!(failing(&mut reporter, 0..16), [("table learned routes".to_owned(), 0)]);
    }
}
