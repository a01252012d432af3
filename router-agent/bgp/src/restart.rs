//! Our own start, as far as it matters to the neighbours and to what an earlier life left behind (RFC 4724 §4.1): until
//! when nothing is announced to those that keep our routes, and when what stands in the kernel and nobody named is stale.
//!
//! Every start counts as a restart, since we do not know better. So that a first one is not held up: only those are waited
//! for that came up and do not restart themselves, and after the first seconds whoever has not come up is not.
//!
//! Route selection is not deferred, though the RFC wants it to be: a better route takes the place of another in one step,
//! and a node passes nothing on that a neighbour could be misled by.

use std::time::Duration;

/// How long a neighbour has to come up, to be waited for: dials are repeated within that time.
const FIRST_SESSIONS: Duration = Duration::from_secs(5);

/// How far a neighbour is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// There is no session.
    Absent,
    /// It has not sent its whole table. `awaited`: it does graceful restart, and does not restart itself.
    Telling { awaited: bool },
    /// It has.
    Whole,
}

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Milestone {
    /// Our restart is over: everybody is announced to, and OPENs no longer have the R bit.
    Announce,
    /// What nobody has named by now is stale.
    Sweep,
}

/// From the start of the speaker to the sweep.
#[derive(Clone, Debug)]
pub struct Restart {
    first_sessions_until: Duration,
    until: Duration,
    passed: Option<Milestone>,
}

impl Restart {
    /// With graceful restart, `patience` is the least of the time that peers keep our routes and the time we may defer.
    pub fn graceful(began: Duration, patience: Duration) -> Self {
        let first_sessions_until = began + FIRST_SESSIONS.min(patience);
        Self { first_sessions_until, until: began + patience, passed: None }
    }

    /// Without it nothing is deferred, and only the sweep is to come.
    pub fn plain(began: Duration, patience: Duration) -> Self {
        Self { passed: Some(Milestone::Announce), ..Self::graceful(began, patience) }
    }

    /// Nothing is announced yet to those that keep our routes.
    pub fn is_deferring(&self) -> bool {
        self.passed.is_none()
    }

    /// Whether the next milestone is reached; ask again after one. `settled`: everything that we announce is there.
    pub fn next(
        &mut self,
        settled: bool,
        neighbours: impl Iterator<Item = Progress>,
        now: Duration,
    ) -> Option<Milestone> {
        let (mut all_up, mut all_whole, mut awaits) = (true, true, false);
        for progress in neighbours {
            all_up &= progress != Progress::Absent;
            all_whole &= progress == Progress::Whole;
            awaits |= progress == Progress::Telling { awaited: true };
        }
        let late = now >= self.until;
        let reached = match self.passed {
            None if late || (settled && !awaits && (all_up || now >= self.first_sessions_until)) => {
                Milestone::Announce
            }
            Some(Milestone::Announce) if late || all_whole => Milestone::Sweep,
            _ => return None,
        };
        self.passed = Some(reached);
        Some(reached)
    }

    /// When to ask, though nothing came.
    pub fn next_deadline(&self, now: Duration) -> Option<Duration> {
        let moments = match self.passed {
            None => [Some(self.first_sessions_until), Some(self.until)],
            Some(Milestone::Announce) => [None, Some(self.until)],
            Some(Milestone::Sweep) => [None, None],
        };
        moments.into_iter().flatten().find(|moment| *moment > now)
    }
}

#[cfg(test)]
mod tests;
