//! The lowest free ids. Within one run of planning an id that becomes free rests, so each search goes on where
//! the last one ended.

use std::collections::BTreeSet;

use router_common::abi::Address;

use super::Tables;

/// Gives ids for the plans that are made while it lives.
#[derive(Debug, Default)]
pub(super) struct Ids {
    services: Option<BTreeSet<u32>>,
    last_service: u32,
    last_backend: u32,
}

impl Ids {
    /// A service id that nothing has, and no flow.
    pub(super) fn service<A: Address>(&mut self, have: &Tables<A>) -> u32 {
        let taken = self.services.get_or_insert_with(|| {
            let led_to = have.frontends.values().map(|row| row.service);
            let slots = have.slots.keys().map(|key| key.service);
            led_to.chain(slots).chain(have.backends.values().map(|row| row.service)).collect()
        });
        self.last_service = next(self.last_service, |id| taken.contains(&id) || have.resting.contains(&id));
        self.last_service
    }

    /// A backend id that nothing has, and no flow.
    pub(super) fn backend<A: Address>(&mut self, have: &Tables<A>) -> u32 {
        let taken = |id| have.backends.contains_key(&id) || have.resting.contains(&id);
        self.last_backend = next(self.last_backend, taken);
        self.last_backend
    }
}

fn next(last: u32, taken: impl Fn(u32) -> bool) -> u32 {
    (last..u32::MAX).map(|id| id + 1).find(|id| !taken(*id)).expect("maps hold fewer rows than there are ids")
}
