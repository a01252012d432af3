//! The peer restarts (RFC 4724 §4.2): its routes are kept when the session is lost without a word, and go when the peer
//! has told its table again, says that it no longer forwards, or takes too long.
//!
//! A NOTIFICATION ends the peer's routes too, also ours when its hold time is over: what RFC 8538 adds is absent. Not so the
//! one by which, when two dial each other again, one of two connections goes.

use std::time::Duration;

use super::connection::{Connection, ConnectionId, Phase};
use super::negotiate::Session;
use super::report::{DownReason, Output};
use super::{COLLIDES_WITHIN, Peer};
use crate::family::{Families, Family};

/// The longest wait between two dials while the peer's routes are kept: it has little time to come back.
pub(super) const REDIAL: Duration = Duration::from_secs(5);

/// What is kept of an earlier session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Retained {
    pub(super) families: Families,
    pub(super) lost_at: Duration,
    /// While the peer is away, its restart time; from then on, our patience.
    pub(super) until: Duration,
}

impl Peer {
    /// The connection is no longer in the list, and ended without a word, or for the sake of another. Without graceful
    /// restart it is for this reason that the session is down.
    pub(super) fn lost(&mut self, connection: &Connection, reason: DownReason, now: Duration) {
        if connection.phase != Phase::Established {
            return;
        }
        let session = connection.session.as_deref().filter(|_| self.config.graceful_restart.is_some());
        let families = session.map_or(Families::NONE, Session::restartable);
        let restart = session.and_then(|session| session.graceful_restart.as_ref());
        let time = restart.map_or(0, |restart| restart.restart_time);
        let settled = self.changed.is_none_or(|up| now.saturating_sub(up) >= COLLIDES_WITHIN);
        if settled {
            // It restarts again: what it has not repeated in between does not stay a second time.
            self.release();
        }
        let lost_at = self.retained.map_or(now, |kept| kept.lost_at);
        let until = lost_at + Duration::from_secs(time.into());
        self.retained = (!families.is_empty()).then_some(Retained { families, lost_at, until });
        let reason = if families.is_empty() { reason } else { DownReason::GracefulRestart };
        self.down(reason, families, now);
    }

    /// Whether a connection beside the established one can be of a peer that has restarted, before the end of its old
    /// connection has reached us.
    pub(super) fn may_have_restarted(&self, now: Duration) -> bool {
        let settled = self.changed.is_some_and(|up| now.saturating_sub(up) >= COLLIDES_WITHIN);
        let restartable = self.session().is_some_and(|session| !session.restartable().is_empty());
        settled && restartable && self.config.graceful_restart.is_some()
    }

    /// The peer has said on another connection who it is: this one it has lost.
    pub(super) fn succeed(&mut self, old: ConnectionId, now: Duration) {
        let Some(connection) = self.remove(old) else { return };
        self.outputs.push_back(Output::Close(old));
        self.lost(&connection, DownReason::ReadFailed, now);
    }

    /// A session is up again.
    pub(super) fn came_back(&mut self, session: &Session, now: Duration) {
        let (Some(kept), Some(terms)) = (self.retained, self.config.graceful_restart) else { return };
        let forwarding = session.forwarding();
        self.retained = Some(Retained { until: now + terms.patience, ..kept });
        self.sweep(kept.families.without(forwarding));
    }

    /// End-of-RIB has come.
    pub(super) fn told_all(&mut self, family: Family) {
        self.sweep(Families::NONE.with(family));
    }

    pub(super) fn tick_retained(&mut self, now: Duration) {
        if self.retained.is_some_and(|kept| kept.until <= now) {
            self.release();
        }
    }

    /// Nothing is kept any longer.
    pub(super) fn release(&mut self) {
        if let Some(kept) = self.retained {
            self.sweep(kept.families);
        }
    }

    fn sweep(&mut self, families: Families) {
        let Some(kept) = self.retained else { return };
        let swept = kept.families.intersection(families);
        let families = kept.families.without(swept);
        self.retained = (!families.is_empty()).then_some(Retained { families, ..kept });
        if !swept.is_empty() {
            self.outputs.push_back(Output::Sweep(swept));
        }
    }
}
