//! What parts of the agent have in common: how they run, and how they tell others.

use std::future::Future;

use anyhow::Result;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::error;

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
