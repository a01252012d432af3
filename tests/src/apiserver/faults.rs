//! Wrong answers on demand.
//!
//! A rule matches requests by verb, kind and who asks, and is used up after a number of hits. The first rule
//! that matches decides.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::kinds::Kind;
use super::rbac::Identity;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The answer is a `Status` with this HTTP code.
    Code(u16),
    /// A watch is answered with 200 and one ERROR event that carries this code (410: too old); any other request
    /// as with `Code`.
    ErrorEvent(u16),
    /// A watch is answered with half a line, any other request with half a body; both end without an error.
    HalfLine,
    /// The connection is closed without an answer.
    Close,
    /// The answer is right and comes late.
    Delay(Duration),
}

/// A fault and the requests it meets.
#[derive(Clone, Debug)]
pub struct Rule {
    fault: Fault,
    verb: Option<String>,
    kind: Option<Kind>,
    identity: Option<Identity>,
    left: Option<usize>,
}

impl Rule {
    /// Meets every request, for ever, until narrowed.
    pub fn new(fault: Fault) -> Self {
        Self { fault, verb: None, kind: None, identity: None, left: None }
    }

    /// Only requests with this verb, in RBAC's words: get, list, watch, create, update, patch, delete,
    /// deletecollection.
    #[must_use]
    pub fn verb(mut self, verb: &str) -> Self {
        self.verb = Some(verb.into());
        self
    }

    #[must_use]
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = Some(kind);
        self
    }

    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Only the first `count` requests that match.
    #[must_use]
    pub fn times(mut self, count: usize) -> Self {
        self.left = Some(count);
        self
    }
}

/// The handle through which a test breaks the server.
#[derive(Debug)]
pub struct Faults {
    rules: Mutex<Vec<Rule>>,
    hits: watch::Sender<usize>,
    hangups: watch::Sender<u64>,
}

impl Default for Faults {
    fn default() -> Self {
        Self { rules: Mutex::default(), hits: watch::channel(0).0, hangups: watch::channel(0).0 }
    }
}

impl Faults {
    pub fn inject(&self, rule: Rule) {
        self.rules().push(rule);
    }

    /// Ends all faults.
    pub fn clear(&self) {
        self.rules().clear();
    }

    /// How many requests were met by a fault so far.
    pub fn hits(&self) -> usize {
        *self.hits.borrow()
    }

    /// Breaks off every open watch, as a restart of the server would.
    pub fn hang_up_watches(&self) {
        self.hangups.send_modify(|count| *count += 1);
    }

    pub(super) fn hangups(&self) -> watch::Receiver<u64> {
        self.hangups.subscribe()
    }

    pub(super) fn meet(&self, verb: &str, kind: Option<Kind>, identity: Identity) -> Option<Fault> {
        let mut rules = self.rules();
        let rule = rules.iter_mut().find(|rule| {
            rule.left != Some(0)
                && rule.verb.as_ref().is_none_or(|wanted| wanted == verb)
                && (rule.kind.is_none() || rule.kind == kind)
                && rule.identity.is_none_or(|wanted| wanted == identity)
        })?;
        rule.left = rule.left.map(|left| left - 1);
        self.hits.send_modify(|count| *count += 1);
        Some(rule.fault)
    }

    fn rules(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_meets_only_what_it_names_and_is_used_up() {
        let faults = Faults::default();
        let rule = Rule::new(Fault::Code(403)).verb("watch").kind(Kind::Service).identity(Identity::Agent);
        faults.inject(rule.times(1));
        let meet = |verb, kind, identity| faults.meet(verb, Some(kind), identity);
        assert_eq!(meet("list", Kind::Service, Identity::Agent), None);
        assert_eq!(meet("watch", Kind::Pod, Identity::Agent), None);
        assert_eq!(meet("watch", Kind::Service, Identity::Admin), None);
        assert_eq!(meet("watch", Kind::Service, Identity::Agent), Some(Fault::Code(403)));
        assert_eq!(meet("watch", Kind::Service, Identity::Agent), None);
        assert_eq!(faults.hits(), 1);
    }
}
