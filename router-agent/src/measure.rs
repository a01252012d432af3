//! What the parts count and time while they run, for whoever exposes it (`serve/metrics.rs`).
//!
//! Numbers of the process, so they are statics: a part adds to its own without being handed anything, and a reader takes
//! them without asking anybody. They only grow, but for gauges. What can be read when it is wanted is not here.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Grows.
#[derive(Debug)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Stands somewhere.
#[derive(Debug)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn set(&self, value: usize) {
        self.0.store(value as u64, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Places in a histogram, the last for what is above every bound.
const PLACES: usize = 16;

/// How often values lay between which bounds.
#[derive(Debug)]
pub(crate) struct Histogram {
    /// Upper bounds, ascending, fewer than [`PLACES`].
    bounds: &'static [u64],
    /// What one is in the unit that is exposed.
    scale: f64,
    places: [AtomicU64; PLACES],
    sum: AtomicU64,
}

/// A histogram as it stood.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Distribution {
    /// Upper bound, and how many values were not above it.
    pub(crate) buckets: Vec<(f64, u64)>,
    pub(crate) sum: f64,
    pub(crate) count: u64,
}

impl Histogram {
    const fn new(bounds: &'static [u64], scale: f64) -> Self {
        assert!(bounds.len() < PLACES);
        Self { bounds, scale, places: [const { AtomicU64::new(0) }; PLACES], sum: AtomicU64::new(0) }
    }

    /// Of times, in seconds.
    const fn of_times(bounds: &'static [u64]) -> Self {
        Self::new(bounds, 1e-9)
    }

    pub(crate) fn observe(&self, value: u64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        self.sum.fetch_add(value, Relaxed);
        if let Some(place) = self.places.get(place) {
            place.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn took(&self, time: Duration) {
        self.observe(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The count is that of the places, so that it always agrees with them.
    #[expect(clippy::cast_precision_loss, reason = "a float is what is exposed")]
    pub(crate) fn read(&self) -> Distribution {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(self.bounds.len());
        for (place, value) in self.places.iter().enumerate() {
            count += value.load(Relaxed);
            buckets.extend(self.bounds.get(place).map(|bound| (*bound as f64 * self.scale, count)));
        }
        Distribution { buckets, sum: self.sum.load(Relaxed) as f64 * self.scale, count }
    }
}

const MILLISECOND: u64 = 1_000_000;

/// Upstream's bounds: 5 ms to 10 s.
const PASSES: &[u64] = &[
    5 * MILLISECOND,
    10 * MILLISECOND,
    25 * MILLISECOND,
    50 * MILLISECOND,
    100 * MILLISECOND,
    250 * MILLISECOND,
    500 * MILLISECOND,
    1_000 * MILLISECOND,
    2_500 * MILLISECOND,
    5_000 * MILLISECOND,
    10_000 * MILLISECOND,
];

/// From 50 µs on, where ours mostly are.
const MOMENTS: &[u64] = &[
    50_000,
    100_000,
    250_000,
    500_000,
    MILLISECOND,
    2 * MILLISECOND + MILLISECOND / 2,
    5 * MILLISECOND,
    10 * MILLISECOND,
    25 * MILLISECOND,
    50 * MILLISECOND,
    100 * MILLISECOND,
    500 * MILLISECOND,
    1_000 * MILLISECOND,
    10_000 * MILLISECOND,
];

/// Writes of a pass.
const WRITES: &[u64] = &[0, 1, 2, 5, 10, 20, 50, 100, 1_000, 10_000, 100_000];

/// The loop of services.
#[derive(Debug)]
pub(crate) struct Services {
    /// A whole pass, plans and writes.
    pub(crate) passes: Histogram,
    /// From the first event that a pass takes in to the end of that pass.
    pub(crate) visible: Histogram,
    /// Rows that a pass puts and deletes.
    pub(crate) writes: Histogram,
    pub(crate) events: Counter,
    /// Owners whose writes failed, each time.
    pub(crate) failures: Counter,
}

pub(crate) static SERVICES: Services = Services {
    passes: Histogram::of_times(PASSES),
    visible: Histogram::of_times(MOMENTS),
    writes: Histogram::new(WRITES, 1.0),
    events: Counter::new(),
    failures: Counter::new(),
};

/// The loop of learned routes.
#[derive(Debug)]
pub(crate) struct Routes {
    /// Learned routes that the kernel holds.
    pub(crate) synced: Gauge,
    pub(crate) added: Counter,
    pub(crate) removed: Counter,
    /// A pass that writes.
    pub(crate) passes: Histogram,
}

pub(crate) static ROUTES: Routes = Routes {
    synced: Gauge::new(),
    added: Counter::new(),
    removed: Counter::new(),
    passes: Histogram::of_times(PASSES),
};

/// The BGP speaker.
#[derive(Debug)]
pub(crate) struct Bgp {
    /// Changes of best paths.
    pub(crate) best_paths: Counter,
    pub(crate) pod_routes: Counter,
    pub(crate) vips_advertised: Counter,
    pub(crate) vips_withdrawn: Counter,
    /// Bringing policies, neighbours and routes in step with the cluster.
    pub(crate) changes: Histogram,
    /// The same, and what the cluster comes to before it.
    pub(crate) nodes: Histogram,
}

pub(crate) static BGP: Bgp = Bgp {
    best_paths: Counter::new(),
    pod_routes: Counter::new(),
    vips_advertised: Counter::new(),
    vips_withdrawn: Counter::new(),
    changes: Histogram::of_times(PASSES),
    nodes: Histogram::of_times(PASSES),
};

/// Making a page of metrics.
pub(crate) static EXPORTS: Histogram = Histogram::of_times(PASSES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_bucket_of_its_bound_and_in_all_above() {
        let histogram = Histogram::new(&[1, 10], 0.5);
        for value in [0, 1, 2, 10, 11] {
            histogram.observe(value);
        }
        let read = histogram.read();
        assert_eq!(read.buckets, [(0.5, 2), (5.0, 4)]);
        assert_eq!((read.sum, read.count), (12.0, 5));
    }
}
