//! Problems, as log lines: one when raised, one when cleared.

use router_core::problem::Change;
use tracing::{info, warn};

/// Logs each change.
pub(crate) fn log(changes: &[Change]) {
    for change in changes {
        match change {
            Change::Raised(problem) => warn!("{problem}"),
            Change::Cleared(problem) if goes_on(change, changes) => {
                tracing::debug!("{}: {}: in other words now", problem.subject, problem.reason);
            }
            Change::Cleared(problem) => info!("{}: {}: no longer", problem.subject, problem.reason),
        }
    }
}

/// Whether what was cleared was raised at once with another text: it is not over.
fn goes_on(cleared: &Change, changes: &[Change]) -> bool {
    let Change::Cleared(was) = cleared else { return false };
    changes.iter().any(
        |change| matches!(change, Change::Raised(is) if is.subject == was.subject && is.reason == was.reason),
    )
}

#[cfg(test)]
mod tests {
    use router_core::problem::{Problem, Subject};

    use super::*;

    fn problem(resource: &'static str, reason: &'static str, text: &str) -> Problem {
        Problem { subject: Subject::Watch(resource), reason, text: text.into(), remedy: "see to it".into() }
    }

    #[test]
    fn only_what_is_over_is_said_to_be() {
        let cleared = Change::Cleared(problem("pods", "Unauthorized", "starting to watch"));
        for (raised, expected) in [
            (problem("pods", "Unauthorized", "listing"), true),
            (problem("pods", "Forbidden", "listing"), false),
            (problem("nodes", "Unauthorized", "listing"), false),
        ] {
            let changes = [cleared.clone(), Change::Raised(raised)];
            assert_eq!(goes_on(&cleared, &changes), expected, "{changes:?}");
        }
        assert!(!goes_on(&cleared, std::slice::from_ref(&cleared)));
    }
}
