//! Each set of attributes once, however many routes carry it. Sets that are equal are the same allocation, so the rest
//! of the RIB compares pointers.

use std::collections::HashSet;
use std::sync::Arc;

use crate::message::attribute::Attributes;

/// Below this many sets nothing is swept.
const LEAST_SWEPT: usize = 1024;

pub(super) struct Interner {
    sets: HashSet<Arc<Attributes>>,
    /// Sweep when there are this many: sets that nobody else holds are at most half of all, and a sweep costs each
    /// insertion a constant.
    sweep_at: usize,
}

impl Default for Interner {
    fn default() -> Self {
        Self { sets: HashSet::new(), sweep_at: LEAST_SWEPT }
    }
}

impl Interner {
    pub(super) fn intern(&mut self, attributes: Attributes) -> Arc<Attributes> {
        if let Some(known) = self.sets.get(&attributes) {
            return Arc::clone(known);
        }
        if self.sets.len() >= self.sweep_at {
            self.sweep();
        }
        let shared = Arc::new(attributes);
        self.sets.insert(Arc::clone(&shared));
        shared
    }

    fn sweep(&mut self) {
        self.sets.retain(|set| Arc::strong_count(set) > 1);
        self.sweep_at = (self.sets.len() * 2).max(LEAST_SWEPT);
        self.sets.shrink_to(self.sweep_at);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.sets.len()
    }
}
