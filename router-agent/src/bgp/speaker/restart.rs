//! How the speaker begins, and how it ends (RFC 4724 §4.1): what is told to whom when, after a start that may be a restart.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use router_bgp::restart::{Milestone, Progress, Restart};
use router_bgp::session::Input;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{info, warn};

use super::Speaker;
use crate::bgp::session::Neighbour;
use crate::bgp::sockets::Arrival;
use crate::log::GOBGP;

/// For how long the last words may take.
pub(crate) const LAST_WORDS: Duration = Duration::from_millis(500);

impl Speaker {
    /// At the first neighbours. Another identity later on is no restart: all that is in the kernel is of this life.
    pub(super) fn start_restart(&mut self) {
        let now = self.now();
        let hold_time = Duration::from_secs(self.settings.hold_time.into());
        let restart = || match self.settings.graceful_restart {
            Some(terms) => {
                let kept = Duration::from_secs(terms.restart_time.into());
                Restart::graceful(now, kept.min(terms.deferral_time))
            }
            None => Restart::plain(now, 2 * hold_time),
        };
        self.restart.get_or_insert_with(restart);
    }

    pub(in crate::bgp) fn is_deferring(&self) -> bool {
        self.restart.as_ref().is_some_and(Restart::is_deferring)
    }

    /// Whether a milestone of our restart is reached, and what follows from it.
    pub(super) fn go_on_restarting(&mut self) {
        let now = self.now();
        let awaited = self.find_awaited();
        let before = std::mem::replace(&mut self.awaited, awaited);
        if self.is_deferring() && self.awaited.difference(&before).next().is_some() {
            info!("graceful restart: nothing is announced before End-of-RIB from {}", listed(&self.awaited));
        }
        let (Some(running), Some(restart)) = (self.running.as_mut(), self.restart.as_mut()) else { return };
        while let Some(milestone) =
            restart.next(self.settled, running.neighbours.values().map(Neighbour::progress), now)
        {
            match milestone {
                Milestone::Announce => {
                    for neighbour in running.neighbours.values_mut() {
                        neighbour.handle(Input::Restarted, now);
                    }
                    say_it_is_over(&before, &self.awaited);
                }
                // All that was chosen has been pushed.
                Milestone::Sweep => self.fib.sweep(),
            }
        }
    }

    /// Whose tables our restart waits for.
    fn find_awaited(&self) -> BTreeSet<IpAddr> {
        let neighbours = self.running.iter().flat_map(|running| running.neighbours.values());
        let awaited = neighbours.filter(|it| it.progress() == Progress::Telling { awaited: true });
        awaited.map(|neighbour| neighbour.address).collect()
    }

    /// The agent ends. With graceful restart the peers are to see no more than a lost connection.
    pub(super) async fn leave(mut self, mut inbox: mpsc::Receiver<Arrival>) {
        if self.settings.graceful_restart.is_some() {
            return;
        }
        let now = self.now();
        let running = self.running.iter_mut();
        for neighbour in running.flat_map(|running| running.neighbours.values_mut()) {
            neighbour.handle(Input::Stop { communication: "" }, now);
        }
        drop(self);
        // Writers are the last to have the other end, and go when all is written.
        let _ = timeout(LAST_WORDS, async { while inbox.recv().await.is_some() {} }).await;
    }
}

/// In GoBGP's words, with whose table it was that ended the wait.
fn say_it_is_over(before: &BTreeSet<IpAddr>, awaited: &BTreeSet<IpAddr>) {
    if !awaited.is_empty() {
        warn!("graceful restart: no End-of-RIB in time from {}; all are announced to", listed(awaited));
    }
    let last = before.first().filter(|_| before.len() == 1 && awaited.is_empty());
    let Some(last) = last else { return info!(target: GOBGP, Topic = "Server", "sync finished") };
    info!(target: GOBGP, Key = %last, Topic = "Server", "sync finished");
}

fn listed(addresses: &BTreeSet<IpAddr>) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
