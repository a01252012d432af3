//! Problems, as log lines: one when raised, one when cleared.

use router_core::problem::Change;
use tracing::{info, warn};

/// Logs each change.
pub(crate) fn log(changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Raised(problem) => warn!("{problem}"),
            Change::Cleared(problem) => info!("{}: {}: no longer", problem.subject, problem.reason),
        }
    }
}
