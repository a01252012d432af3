//! What the programs dropped, by reason: read when it is wanted, and remembered for a minute, so that what happens now
//! can be told from what happened once.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use aya::Ebpf;
use router_common::verdict::DropReason;
use tokio::time::{Instant, interval};

use crate::sys::bpf::Counters;

/// A look each time this has passed.
const PERIOD: Duration = Duration::from_secs(10);
/// What "now" is.
const WINDOW: Duration = Duration::from_mins(1);

/// Packets of every reason, in the order of [`DropReason::ALL`].
type Sample = Vec<u64>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Drops {
    counters: Counters,
    /// When the agent started; the counters may be older.
    first: Sample,
    recent: Mutex<VecDeque<(Instant, Sample)>>,
}

/// Drops for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) reason: DropReason,
    /// Since the counters were made.
    pub(crate) total: u64,
    pub(crate) since_start: u64,
    pub(crate) last_minute: u64,
}

impl Drops {
    /// Takes the counters out of a loaded object.
    pub(crate) fn take(ebpf: &mut Ebpf) -> Result<Self> {
        let counters = Counters::take(ebpf)?;
        let first = sample(&counters)?;
        Ok(Self { counters, first, recent: Mutex::default() })
    }

    /// Remembers, until the process ends.
    pub(crate) async fn run(&self) -> Result<()> {
        let mut ticks = interval(PERIOD);
        loop {
            let now = ticks.tick().await;
            let sample = sample(&self.counters)?;
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.push_back((now, sample));
            while recent.get(1).is_some_and(|(at, _)| now - *at >= WINDOW) {
                recent.pop_front();
            }
        }
    }

    /// Every reason, as of now.
    pub(crate) fn look(&self) -> Result<Vec<Dropped>> {
        let now = sample(&self.counters)?;
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let before = recent.front().map_or(&self.first, |(_, sample)| sample);
        let rows = DropReason::ALL.iter().zip(now).zip(self.first.iter().zip(before));
        let dropped = |((reason, total), (first, before)): ((&DropReason, u64), (&u64, &u64))| Dropped {
            reason: *reason,
            total,
            since_start: total.saturating_sub(*first),
            last_minute: total.saturating_sub(*before),
        };
        Ok(rows.map(dropped).collect())
    }
}

fn sample(counters: &Counters) -> Result<Sample> {
    DropReason::ALL.iter().map(|reason| Ok(counters.get(*reason as u32)?.packets)).collect()
}
