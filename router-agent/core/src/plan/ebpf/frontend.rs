//! One frontend with its slots and backends.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use router_common::abi::{Backend, Frontend as FrontendRow, FrontendKey, Slot, SlotKey, backend_flags};

use super::{Ids, Op, Tables};
use crate::cluster::Cluster;
use crate::model::service::Frontend;
use crate::plan::{Family, Group, Owner};

/// An endpoint, as rows have it.
type Endpoint<A> = (A, u16);

/// Plans the way to `frontend`'s endpoints in the cluster.
pub(super) fn plan<A: Family>(
    want: &Cluster,
    have: &Tables<A>,
    frontend: &Frontend,
    ids: &mut Ids,
    group: &mut Group<Op<A>>,
) {
    let Some(address) = A::from_ip(frontend.address) else { return };
    let key = FrontendKey { address, port: frontend.port, protocol: frontend.protocol.number(), pad: 0 };
    let held = have.frontends.get(&key);
    group.needs.push(Owner::Vip(frontend.address));
    let Some(endpoints) = want.endpoints(frontend) else {
        if let Some(row) = held {
            group.dels.push(Op::DeleteFrontend(key));
            clear(have, row.service, group);
        }
        return;
    };
    let service = held.map_or_else(|| ids.service(have), |row| row.service);
    let rotation = rotation(have, service, &rows(want, &endpoints.chosen, service), ids);
    let draining = draining(have, service, &rows(want, &endpoints.draining, service));
    let count = u32::try_from(rotation.len()).unwrap_or(u32::MAX);
    put(have, service, 0, &rotation, group);
    let row = FrontendRow { service, count };
    if held != Some(&row) {
        group.puts.push(Op::PutFrontend(key, row));
    }
    // After the count: a place that it still covers is not theirs yet.
    put(have, service, count, &draining, group);
    let kept: BTreeSet<u32> = rotation.iter().chain(&draining).map(|(id, _)| *id).collect();
    let places = count.saturating_add(u32::try_from(draining.len()).unwrap_or(u32::MAX));
    clear_from(have, service, places, &kept, group);
}

/// Deletes every slot of `service` and the backends in them.
pub(super) fn clear<A: Family>(have: &Tables<A>, service: u32, group: &mut Group<Op<A>>) {
    clear_from(have, service, 0, &BTreeSet::new(), group);
}

/// The backend rows of these endpoints.
fn rows<A: Family>(
    want: &Cluster,
    endpoints: &BTreeSet<SocketAddr>,
    service: u32,
) -> BTreeMap<Endpoint<A>, Backend<A>> {
    let row = |endpoint: &SocketAddr| {
        let address = A::from_ip(endpoint.ip())?;
        let flags = if want.is_own(endpoint.ip()) { backend_flags::OWN_NODE } else { 0 };
        Some(((address, endpoint.port()), Backend { address, port: endpoint.port(), flags, service }))
    };
    endpoints.iter().filter_map(row).collect()
}

/// Which backend is to sit in which slot: those that have one keep it, if it is below the new count; the others
/// and then the new ones take the places that are left.
fn rotation<A: Family>(
    have: &Tables<A>,
    service: u32,
    wanted: &BTreeMap<Endpoint<A>, Backend<A>>,
    ids: &mut Ids,
) -> Vec<(u32, Backend<A>)> {
    let mut missing = wanted.clone();
    let mut places = vec![None; wanted.len()];
    let mut movers = Vec::new();
    for (key, slot) in slots_of(have, service) {
        let Some(backend) = have.backends.get(&slot.backend).filter(|row| row.service == service) else {
            continue;
        };
        let Some(row) = missing.remove(&(backend.address, backend.port)) else { continue };
        match usize::try_from(key.index).ok().and_then(|index| places.get_mut(index)) {
            Some(place) => *place = Some((slot.backend, row)),
            None => movers.push((slot.backend, row)),
        }
    }
    let mut newcomers = missing.into_values();
    let mut movers = movers.into_iter();
    let fill = |place: Option<_>| {
        place
            .or_else(|| movers.next())
            .or_else(|| newcomers.next().map(|row| (ids.backend(have), row)))
            .expect("there are as many places as endpoints")
    };
    places.into_iter().map(fill).collect()
}

/// The backends that only keep their flows: those of the wanted ones that stand. They sit in the slots past the count,
/// where nobody picks them.
fn draining<A: Family>(
    have: &Tables<A>,
    service: u32,
    wanted: &BTreeMap<Endpoint<A>, Backend<A>>,
) -> Vec<(u32, Backend<A>)> {
    let mut missing = wanted.clone();
    let held = slots_of(have, service).filter_map(|(_, slot)| {
        let backend = have.backends.get(&slot.backend).filter(|row| row.service == service)?;
        Some((slot.backend, missing.remove(&(backend.address, backend.port))?))
    });
    held.collect()
}

/// Writes the backends and slots from `first` on that are not as they should be, each backend before the slot that names it.
fn put<A: Family>(
    have: &Tables<A>,
    service: u32,
    first: u32,
    backends: &[(u32, Backend<A>)],
    group: &mut Group<Op<A>>,
) {
    let changed = backends.iter().filter(|(id, row)| have.backends.get(id) != Some(row));
    group.puts.extend(changed.map(|(id, row)| Op::PutBackend(*id, *row)));
    for (index, (backend, _)) in (first..).zip(backends) {
        let (key, slot) = (SlotKey { service, index }, Slot { backend: *backend });
        if have.slots.get(&key) != Some(&slot) {
            group.puts.push(Op::PutSlot(key, slot));
        }
    }
}

/// Deletes the slots of `service` from `count` on, then each of its backends in a slot but those in `kept`.
fn clear_from<A: Family>(
    have: &Tables<A>,
    service: u32,
    count: u32,
    kept: &BTreeSet<u32>,
    group: &mut Group<Op<A>>,
) {
    let over = slots_of(have, service).filter(|(key, _)| key.index >= count);
    group.dels.extend(over.map(|(key, _)| Op::DeleteSlot(key)));
    let named: BTreeSet<u32> = slots_of(have, service).map(|(_, slot)| slot.backend).collect();
    let ours = |id: &u32| have.backends.get(id).is_some_and(|row| row.service == service);
    let gone = named.into_iter().filter(|id| !kept.contains(id) && ours(id));
    group.dels.extend(gone.map(Op::DeleteBackend));
}

fn slots_of<A: Family>(have: &Tables<A>, service: u32) -> impl Iterator<Item = (SlotKey, Slot)> + '_ {
    let range = SlotKey { service, index: 0 }..=SlotKey { service, index: u32::MAX };
    have.slots.range(range).map(|(key, slot)| (*key, *slot))
}
