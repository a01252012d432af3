//! The eBPF plane: frontends, their slots and backends, pods and devices, as rows of `router_common::abi`.
//!
//! A frontend's backends sit in slots `0..count`. One that is new is written before the slot that names it, and a
//! slot before the count that covers it; one that leaves is overwritten by the last, or by a new one, before the
//! count drops, and sits past the count for as long as it may keep its flows. Rows that are right keep their ids, wherever the agent starts from.
//!
//! Deliberately absent: the `meta` row and the devices of `kube-svc`, which are the driver's own, and all that
//! the kernel writes itself.

mod frontend;
mod ids;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use router_common::abi::{
    Address, Backend, Device, Frontend as FrontendRow, FrontendKey, Pod, PodKey, Slot, SlotKey, device_flags,
    device_kind, pod_flags,
};

use self::ids::Ids;
use super::{Family, Group, Owner, Plane};
use crate::cluster::Cluster;
use crate::model::service::{Frontend, Protocol};
use crate::problem::Subject;

/// One family's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables<A: Address> {
    pub frontends: BTreeMap<FrontendKey<A>, FrontendRow>,
    pub slots: BTreeMap<SlotKey, Slot>,
    pub backends: BTreeMap<u32, Backend<A>>,
    pub pods: BTreeMap<PodKey<A>, Pod>,
    pub devices: BTreeMap<u32, Device>,
    /// Ids of backends and services that flows may still hold: not to be given to another.
    pub resting: BTreeSet<u32>,
}

impl<A: Address> Default for Tables<A> {
    fn default() -> Self {
        Self {
            frontends: BTreeMap::new(),
            slots: BTreeMap::new(),
            backends: BTreeMap::new(),
            pods: BTreeMap::new(),
            devices: BTreeMap::new(),
            resting: BTreeSet::new(),
        }
    }
}

/// One write. A driver raises `meta.generation` once after any delete, and after any put over another row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<A: Address> {
    PutBackend(u32, Backend<A>),
    PutSlot(SlotKey, Slot),
    PutFrontend(FrontendKey<A>, FrontendRow),
    PutPod(PodKey<A>, Pod),
    PutDevice(u32, Device),
    DeleteFrontend(FrontendKey<A>),
    DeleteSlot(SlotKey),
    DeleteBackend(u32),
    DeletePod(PodKey<A>),
    DeleteDevice(u32),
}

impl<A: Family> fmt::Display for Op<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dialled = |key: &FrontendKey<A>| SocketAddr::new(key.address.ip(), key.port);
        match self {
            Self::PutBackend(id, row) => {
                let socket = SocketAddr::new(row.address.ip(), row.port);
                write!(f, "put backend {id}: {socket} of service {}, flags {}", row.service, row.flags)
            }
            Self::PutSlot(key, row) => {
                write!(f, "put slot {} of service {}: backend {}", key.index, key.service, row.backend)
            }
            Self::PutFrontend(key, row) => {
                let (socket, protocol) = (dialled(key), key.protocol);
                write!(f, "put frontend {socket}/{protocol}: service {}, {} backends", row.service, row.count)
            }
            Self::PutPod(key, row) => {
                write!(f, "put pod {}: device {}, flags {}", key.address.ip(), row.ifindex, row.flags)
            }
            Self::PutDevice(ifindex, row) => {
                write!(f, "put device {ifindex}: kind {}, flags {}", row.kind, row.flags)
            }
            Self::DeleteFrontend(key) => write!(f, "delete frontend {}/{}", dialled(key), key.protocol),
            Self::DeleteSlot(key) => write!(f, "delete slot {} of service {}", key.index, key.service),
            Self::DeleteBackend(id) => write!(f, "delete backend {id}"),
            Self::DeletePod(key) => write!(f, "delete pod {}", key.address.ip()),
            Self::DeleteDevice(ifindex) => write!(f, "delete device {ifindex}"),
        }
    }
}

/// The plane of one family.
#[derive(Debug)]
pub struct EbpfPlane<A>(PhantomData<A>);

impl<A: Family> Plane for EbpfPlane<A> {
    type Want = Cluster;
    type Tables = Tables<A>;
    type Op = Op<A>;

    fn owners(want: &Cluster, have: &Tables<A>) -> BTreeSet<Owner> {
        let mut owners = wanted_owners::<A>(want);
        owners.extend(have.frontends.keys().filter_map(frontend_owner));
        owners.extend(have.pods.keys().map(|key| Owner::Pod(key.address.ip())));
        let ours = have.devices.iter().filter(|(_, row)| is_planned(row.kind));
        owners.extend(ours.map(|(ifindex, _)| Owner::Device(*ifindex)));
        owners.extend(strays(have));
        owners
    }

    fn plan(want: &Cluster, have: &Tables<A>, owner: &Owner, _now: Duration) -> Group<Op<A>> {
        plan_with(want, have, owner, &mut Ids::default())
    }

    fn apply(have: &mut Tables<A>, op: &Op<A>) {
        match *op {
            Op::PutBackend(id, row) => drop(have.backends.insert(id, row)),
            Op::PutSlot(key, row) => drop(have.slots.insert(key, row)),
            Op::PutFrontend(key, row) => drop(have.frontends.insert(key, row)),
            Op::PutPod(key, row) => drop(have.pods.insert(key, row)),
            Op::PutDevice(ifindex, row) => drop(have.devices.insert(ifindex, row)),
            Op::DeleteFrontend(key) => {
                let gone = have.frontends.remove(&key).map(|row| row.service);
                have.resting.extend(gone.filter(|service| *service != 0));
            }
            Op::DeleteSlot(key) => drop(have.slots.remove(&key)),
            Op::DeleteBackend(id) => {
                have.backends.remove(&id);
                have.resting.insert(id);
            }
            Op::DeletePod(key) => drop(have.pods.remove(&key)),
            Op::DeleteDevice(ifindex) => drop(have.devices.remove(&ifindex)),
        }
    }

    fn subject(want: &Cluster, owner: &Owner) -> Subject {
        let service = |key: Option<&crate::model::Key>| key.cloned().map(Subject::Service);
        let known = match owner {
            Owner::Vip(address) => service(want.services_on(*address).next()),
            Owner::Frontend(frontend) => service(want.service_of(frontend)),
            Owner::Device(ifindex) => {
                let name = want.veth(*ifindex).map(|veth| veth.name.as_str()).or(want.uplink(*ifindex));
                name.map(|name| Subject::Link(name.to_owned()))
            }
            Owner::Pod(address) => {
                let veth = want.claimants(*address).first().and_then(|first| want.veth(*first));
                veth.map(|veth| Subject::Link(veth.name.clone()))
            }
            Owner::Leavings(_) | Owner::Backend(_) => None,
        };
        known.unwrap_or_else(|| Subject::Table(owner.to_string()))
    }

    fn plan_all(
        want: &Cluster,
        have: &mut Tables<A>,
        owners: &BTreeSet<Owner>,
        _now: Duration,
    ) -> Vec<Group<Op<A>>> {
        let mut ids = Ids::default();
        let mut groups = Vec::new();
        for owner in owners {
            let group = plan_with(want, have, owner, &mut ids);
            group.puts.iter().chain(&group.dels).for_each(|op| Self::apply(have, op));
            if !group.is_empty() {
                groups.push(group);
            }
        }
        groups
    }
}

/// Where a client can get: every frontend with its backends, and every VIP with none. Two tables that realize the
/// same are the same to whoever dials.
pub type Realized = BTreeMap<(IpAddr, u16, u8), BTreeSet<SocketAddr>>;

/// What the tables do, or the row that makes them do something wrong.
pub fn realized<A: Family>(tables: &Tables<A>) -> Result<Realized, Broken> {
    let mut all = Realized::new();
    for (key, row) in &tables.frontends {
        let dialled = (key.address.ip(), key.port, key.protocol);
        let mut backends = BTreeSet::new();
        for index in 0..row.count {
            let slot = SlotKey { service: row.service, index };
            let id = tables.slots.get(&slot).ok_or(Broken::NoSlot(slot))?.backend;
            let backend = tables.backends.get(&id).ok_or(Broken::NoBackend(slot, id))?;
            if backend.service != row.service {
                return Err(Broken::ForeignBackend(slot, id, backend.service));
            }
            backends.insert(SocketAddr::new(backend.address.ip(), backend.port));
        }
        all.insert(dialled, backends);
    }
    Ok(all)
}

/// Why tables do not work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("slot {} of service {} is missing", .0.index, .0.service)]
    NoSlot(SlotKey),
    #[error("slot {} of service {} names backend {}, which is missing", .0.index, .0.service, .1)]
    NoBackend(SlotKey, u32),
    #[error("slot {} of service {} names backend {}, which is of service {}", .0.index, .0.service, .1, .2)]
    ForeignBackend(SlotKey, u32, u32),
}

fn plan_with<A: Family>(want: &Cluster, have: &Tables<A>, owner: &Owner, ids: &mut Ids) -> Group<Op<A>> {
    let mut group = Group::empty(owner.clone());
    match owner {
        Owner::Vip(address) => plan_vip(want, have, *address, &mut group),
        Owner::Frontend(frontend) => frontend::plan(want, have, frontend, ids, &mut group),
        Owner::Leavings(service) => frontend::clear(have, *service, &mut group),
        Owner::Backend(id) => {
            if have.backends.contains_key(id) {
                group.dels.push(Op::DeleteBackend(*id));
            }
        }
        Owner::Pod(address) => plan_pod(want, have, *address, &mut group),
        Owner::Device(ifindex) => plan_device(want, have, *ifindex, &mut group),
    }
    group
}

fn wanted_owners<A: Family>(want: &Cluster) -> BTreeSet<Owner> {
    let ours = |address: &IpAddr| A::from_ip(*address).is_some();
    let frontends = want.frontends().filter(|frontend| ours(&frontend.address));
    let mut owners: BTreeSet<Owner> = frontends.map(|frontend| Owner::Frontend(*frontend)).collect();
    owners.extend(want.vips().filter(ours).map(Owner::Vip));
    owners.extend(want.pod_addresses().filter(ours).map(Owner::Pod));
    let veths = want.veths().map(|(ifindex, _)| ifindex);
    owners.extend(veths.chain(want.uplinks()).map(Owner::Device));
    owners
}

/// Who owns a frontend row. A row that nobody could have asked for is a frontend of its own, and unwanted.
fn frontend_owner<A: Family>(key: &FrontendKey<A>) -> Option<Owner> {
    let address = key.address.ip();
    if (key.port, key.protocol) == (0, 0) {
        return Some(Owner::Vip(address));
    }
    let protocol = Protocol::from_number(key.protocol)?;
    Some(Owner::Frontend(Frontend { address, port: key.port, protocol }))
}

/// Slots that no frontend leads to, and backends that no slot leads to.
fn strays<A: Family>(have: &Tables<A>) -> BTreeSet<Owner> {
    let led_to: BTreeSet<u32> = have.frontends.values().map(|row| row.service).collect();
    let named: BTreeSet<(u32, u32)> =
        have.slots.iter().map(|(key, row)| (key.service, row.backend)).collect();
    let slots = have.slots.keys().filter(|key| !led_to.contains(&key.service));
    let mut owners: BTreeSet<Owner> = slots.map(|key| Owner::Leavings(key.service)).collect();
    let loose = have.backends.iter().filter(|(id, row)| !named.contains(&(row.service, **id)));
    owners.extend(loose.map(|(id, _)| Owner::Backend(*id)));
    owners
}

fn plan_vip<A: Family>(want: &Cluster, have: &Tables<A>, address: IpAddr, group: &mut Group<Op<A>>) {
    let Some(octets) = A::from_ip(address) else { return };
    let key = FrontendKey { address: octets, port: 0, protocol: 0, pad: 0 };
    let row = FrontendRow { service: 0, count: 0 };
    let held = have.frontends.get(&key);
    if want.services_on(address).next().is_some() {
        if held != Some(&row) {
            group.puts.push(Op::PutFrontend(key, row));
        }
    } else if held.is_some() {
        group.dels.push(Op::DeleteFrontend(key));
    }
}

/// A veth that the row names keeps the address as long as it reports it; else the first that does gets it.
fn plan_pod<A: Family>(want: &Cluster, have: &Tables<A>, address: IpAddr, group: &mut Group<Op<A>>) {
    let Some(octets) = A::from_ip(address) else { return };
    let key = PodKey { address: octets };
    let held = have.pods.get(&key);
    let claimants = want.claimants(address);
    let holder = held.map(|row| row.ifindex).filter(|ifindex| claimants.contains(ifindex));
    let winner = holder.or_else(|| claimants.first().copied());
    let veth = winner.and_then(|ifindex| Some((ifindex, want.veth(ifindex)?)));
    if let Some((ifindex, veth)) = veth {
        let flags = if veth.no_fast { pod_flags::NO_FAST } else { 0 };
        let row = Pod { ifindex, mac: veth.mac, flags };
        if held != Some(&row) {
            group.puts.push(Op::PutPod(key, row));
        }
    } else if held.is_some() {
        group.dels.push(Op::DeletePod(key));
    }
}

/// A pod's device is bound once the pod has an address of our ranges, also if another has it: then it may use
/// none. Its pods come first: bound before them, it would be cut off.
fn plan_device<A: Family>(want: &Cluster, have: &Tables<A>, ifindex: u32, group: &mut Group<Op<A>>) {
    let wanted = if let Some(veth) = want.veth(ifindex) {
        let claims = veth.addresses.iter().filter(|address| want.claimants(**address).contains(&ifindex));
        group.needs.extend(claims.map(|address| Owner::Pod(*address)));
        let flags = if group.needs.is_empty() { 0 } else { device_flags::BOUND };
        Some(Device { kind: device_kind::POD, flags })
    } else {
        want.uplink(ifindex).map(|_| Device { kind: device_kind::UPLINK, flags: 0 })
    };
    let held = have.devices.get(&ifindex).filter(|row| is_planned(row.kind));
    match wanted {
        Some(row) if held != Some(&row) => group.puts.push(Op::PutDevice(ifindex, row)),
        None if held.is_some() => group.dels.push(Op::DeleteDevice(ifindex)),
        _ => {}
    }
}

fn is_planned(kind: u16) -> bool {
    kind == device_kind::POD || kind == device_kind::UPLINK
}
