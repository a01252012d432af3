//! How long to wait before the next try, and jitter for every timer (RFC 4271 §10).

use std::time::Duration;

/// Doubles from a second up to a cap, until it is told that things went well.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    failures: u32,
    cap: Duration,
    random: u64,
}

const FIRST: Duration = Duration::from_secs(1);

impl Backoff {
    pub(super) const fn new(cap: Duration, seed: u64) -> Self {
        Self { failures: 0, cap, random: seed }
    }

    pub(super) fn next(&mut self) -> Duration {
        let wait = FIRST.saturating_mul(1 << self.failures.min(16)).min(self.cap);
        self.failures = self.failures.saturating_add(1);
        self.jittered(wait)
    }

    pub(super) const fn reset(&mut self) {
        self.failures = 0;
    }

    /// Between three quarters and all of it.
    pub(super) fn jittered(&mut self, wait: Duration) -> Duration {
        wait.saturating_sub(self.within(wait / 4))
    }

    /// Anything below `range`.
    pub(super) fn within(&mut self, range: Duration) -> Duration {
        // splitmix64: the seed alone makes two runs alike.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        range / 1024 * u32::try_from((mixed ^ (mixed >> 31)) % 1024).unwrap_or_default()
    }
}
