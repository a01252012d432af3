//! What parts of the agent have in common: how they run, how they tell others, and how they
//! fail again and again.

use std::future::Future;

use anyhow::Result;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info};

/// Runs a part; if it fails, says so once and ends it, and with it the agent.
pub(crate) fn spawn(
    parts: &mut JoinSet<()>,
    doing: &'static str,
    part: impl Future<Output = Result<()>> + Send + 'static,
) {
    parts.spawn(async move {
        if let Err(failure) = part.await {
            error!("{doing}: {failure:#}");
        }
    });
}

/// Tells the latest state, if it is another than before.
pub(crate) fn publish<T: PartialEq>(to: &watch::Sender<T>, now: T) {
    to.send_if_modified(|before| {
        let changed = *before != now;
        *before = now;
        changed
    });
}

/// Something that is done again and again: a failure is said when it is another than the last.
pub(crate) struct Care {
    cannot: &'static str,
    failure: Option<String>,
}

impl Care {
    pub(crate) const fn of(cannot: &'static str) -> Self {
        Self { cannot, failure: None }
    }

    pub(crate) fn took(&mut self, outcome: Result<()>) {
        let Self { cannot, failure } = self;
        let found = outcome.err().map(|failure| format!("{failure:#}"));
        if *failure == found {
            return;
        }
        if let Some(found) = &found {
            error!("{cannot}: {found}");
        } else {
            info!("{cannot}: no longer");
        }
        *failure = found;
    }
}
