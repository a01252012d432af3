//! What BGP has chosen and nobody has planned yet: of each prefix only the latest, so it never holds more than there
//! are prefixes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use tokio::sync::Notify;

/// From the speaker to the loop. It may have several senders, and has one receiver.
#[derive(Debug, Default)]
pub(crate) struct FibQueue {
    pending: Mutex<Pending>,
    notify: Notify,
}

/// What has come since it was last taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) changes: BTreeMap<IpNet, Option<IpAddr>>,
    pub(super) swept: bool,
}

impl FibQueue {
    /// BGP has chosen this next hop for `prefix`; `None`: it has none any more.
    pub(crate) fn push(&self, prefix: IpNet, next_hop: Option<IpAddr>) {
        self.lock().changes.insert(prefix.trunc(), next_hop);
        self.notify.notify_one();
    }

    /// BGP has converged for the first time, and all that it chose has been pushed: what else stands is to go.
    pub(crate) fn sweep(&self) {
        self.lock().swept = true;
        self.notify.notify_one();
    }

    /// Waits until something has come, and takes it. Can be dropped while it waits and loses nothing.
    pub(super) async fn changes(&self) -> Pending {
        loop {
            let pending = std::mem::take(&mut *self.lock());
            if pending != Pending::default() {
                return pending;
            }
            self.notify.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
