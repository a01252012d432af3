//! Which backend a new flow gets. Round robin: the next slot in turn on this CPU.
//!
//! Absent: Maglev, least connections, source hashing and affinity, which no Service can ask for yet.

use crate::abi::{Address, Backend, Frontend, SlotKey};
use crate::kernel::Kernel;

/// A backend and its id.
#[derive(Clone, Copy, Debug)]
pub struct Choice<A: Address> {
    pub id: u32,
    pub backend: Backend<A>,
}

/// Picks a backend for a new flow. A slot may vanish under our eyes while an endpoint is removed: then the first
/// one stands in. `None`: the service has no backend.
#[inline(always)]
pub fn pick<A: Address, K: Kernel<A>>(kernel: &mut K, frontend: &Frontend) -> Option<Choice<A>> {
    let index = kernel.turn(frontend.service).checked_rem(frontend.count)?;
    slot(kernel, frontend.service, index).or_else(|| slot(kernel, frontend.service, 0))
}

#[inline(always)]
fn slot<A: Address, K: Kernel<A>>(kernel: &K, service: u32, index: u32) -> Option<Choice<A>> {
    let id = kernel.slot(&SlotKey { service, index })?.backend;
    let backend = kernel.backend(id)?;
    (backend.service == service).then_some(Choice { id, backend })
}
