//! The driver of the eBPF plane: reads and writes the tables that the programs look things up in, and `meta`.
//!
//! Writes go in batches, but in the order in which they were planned: a batch ends where the next write is for
//! another map. Puts of all groups come before deletes of any, and the generation is raised last, so that a flow
//! which resolves itself anew finds only what stands. A row that fails is charged to its owner, and the rows of that
//! owner which would follow are left out; what is already written of it stands, because each prefix of a group is a
//! working table.
//! Absent: flows, which the kernel writes itself (`flows.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use router_common::abi::{
    Backend, Device, DeviceKey, Frontend, FrontendKey, LAYOUT, Meta, Pod, PodKey, Slot, SlotKey, meta_flags,
};
use router_core::plan::ebpf::{EbpfPlane, Op, Tables};
use router_core::plan::{Group, Owner};

use crate::node::firewall::MARK;
use crate::node::links::View;
use crate::reconcile::Driver;
use crate::sys::bpf::{Failure, MetaRow, Row, Table};
use crate::sys::clock::monotonic;

type V4 = [u8; 4];

/// How long the programs serve new flows when nobody renews the lease.
const LEASE: Duration = Duration::from_mins(30);

/// `meta`, shared by those who each know a part of it.
#[derive(Clone, Debug)]
pub(crate) struct SharedMeta {
    row: Arc<Mutex<MetaRow>>,
}

impl SharedMeta {
    /// Takes it out of a loaded object, and fills in what does not change. The generation of an adopted row goes on.
    pub(crate) fn take(ebpf: &mut Ebpf, fast: bool, ports: &RangeInclusive<u16>) -> Result<Self> {
        let shared = Self { row: Arc::new(Mutex::new(MetaRow::take(ebpf)?)) };
        shared.change(|meta| {
            meta.layout = LAYOUT;
            meta.generation = meta.generation.wrapping_add(1);
            meta.flags = if fast { meta_flags::FAST } else { 0 };
            meta.mark = MARK;
            meta.port_first = *ports.start();
            meta.port_last = *ports.end();
        })?;
        Ok(shared)
    }

    /// The row as it stands.
    #[cfg(test)]
    fn get(&self) -> Result<Meta> {
        self.row.lock().unwrap_or_else(PoisonError::into_inner).get()
    }

    /// Writes the row if `change` makes it another.
    fn change(&self, change: impl FnOnce(&mut Meta)) -> Result<()> {
        let mut row = self.row.lock().unwrap_or_else(PoisonError::into_inner);
        let before = row.get()?;
        let mut after = before;
        change(&mut after);
        if after == before { Ok(()) } else { row.set(after) }
    }

    /// Devices, as the kernel reports them. A change raises the generation: flows cache exits and MACs.
    pub(crate) fn set_devices(&self, view: &View) -> Result<()> {
        self.change(|meta| {
            let before = *meta;
            (meta.bridge_ifindex, meta.bridge_mac) = view.bridge.unwrap_or_default();
            let pair = view.service;
            meta.service_near_ifindex = pair.map_or(0, |pair| pair.near);
            meta.service_far_ifindex = pair.map_or(0, |pair| pair.far);
            meta.service_mac = pair.map_or([0; 6], |pair| pair.mac);
            if *meta != before {
                meta.generation = meta.generation.wrapping_add(1);
            }
        })
    }

    /// This node's address.
    pub(crate) fn set_node(&self, address: V4) -> Result<()> {
        self.change(|meta| {
            if meta.node4 != address {
                meta.node4 = address;
                meta.generation = meta.generation.wrapping_add(1);
            }
        })
    }

    /// The lowest and the highest node port, if there is one: what is dialled between them is looked up.
    pub(crate) fn set_node_ports(&self, ports: Option<(u16, u16)>) -> Result<()> {
        self.change(|meta| (meta.node_port_first, meta.node_port_last) = ports.unwrap_or_default())
    }

    /// Vouches for the tables from now on for half an hour.
    pub(crate) fn renew_lease(&self) -> Result<()> {
        let until = monotonic().context("cannot read the clock")? + LEASE;
        self.change(|meta| meta.lease = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX))
    }

    fn raise_generation(&self) -> Result<()> {
        self.change(|meta| meta.generation = meta.generation.wrapping_add(1))
    }
}

/// Ids of backends and of service ports that a flow may hold, though no table has them any more: those that the last
/// sweep found in flows, and those deleted since it began. Shared by who deletes and who sweeps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resting {
    ids: Arc<Mutex<RestingIds>>,
}

#[derive(Debug, Default)]
struct RestingIds {
    held: BTreeSet<u32>,
    /// Deleted before the sweep under way, or the last one, began.
    settling: BTreeSet<u32>,
    /// Deleted since.
    deleted: BTreeSet<u32>,
}

impl Resting {
    /// A sweep begins: what it does not find of the ids deleted until now, no flow holds.
    pub(crate) fn sweep_begins(&self) {
        let mut ids = self.lock();
        let deleted = std::mem::take(&mut ids.deleted);
        ids.settling.extend(deleted);
    }

    /// It has ended, and found these.
    pub(crate) fn sweep_ended(&self, held: BTreeSet<u32>) {
        let mut ids = self.lock();
        ids.held = held;
        ids.settling.clear();
    }

    fn delete(&self, deleted: impl IntoIterator<Item = u32>) {
        self.lock().deleted.extend(deleted);
    }

    /// All of them.
    pub(crate) fn ids(&self) -> BTreeSet<u32> {
        let ids = self.lock();
        ids.held.iter().chain(&ids.settling).chain(&ids.deleted).copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, RestingIds> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tables that are planned.
#[derive(Debug)]
pub(crate) struct EbpfDriver {
    frontends: Table<Row<FrontendKey<V4>>, Row<Frontend>>,
    slots: Table<Row<SlotKey>, Row<Slot>>,
    backends: Table<u32, Row<Backend<V4>>>,
    pods: Table<Row<PodKey<V4>>, Row<Pod>>,
    devices: Table<Row<DeviceKey>, Row<Device>>,
    meta: SharedMeta,
    resting: Resting,
}

impl EbpfDriver {
    /// Takes the tables out of a loaded object. `resting` is shared with the sweep.
    pub(crate) fn take(ebpf: &mut Ebpf, meta: SharedMeta, resting: Resting) -> Result<Self> {
        Ok(Self {
            frontends: Table::take(ebpf, "FRONTENDS4")?,
            slots: Table::take(ebpf, "SLOTS")?,
            backends: Table::take(ebpf, "BACKENDS4")?,
            pods: Table::take(ebpf, "PODS4")?,
            devices: Table::take(ebpf, "DEVICES")?,
            meta,
            resting,
        })
    }

    /// The tables that are pinned in `folder`, without touching them; `None` if there are none.
    pub(crate) fn read_pinned(folder: &Path) -> Result<Option<Tables<V4>>> {
        macro_rules! open {
            ($name:literal) => {
                match Table::pinned(folder, $name)? {
                    Some(table) => table,
                    None => return Ok(None),
                }
            };
        }
        let resting = BTreeSet::new();
        let (frontends, slots, backends) = (open!("FRONTENDS4"), open!("SLOTS"), open!("BACKENDS4"));
        read(&frontends, &slots, &backends, &open!("PODS4"), &open!("DEVICES"), resting).map(Some)
    }

    /// All rows, whoever owns them: a row does not name its owner, and reading is cheap beside planning.
    pub(crate) fn read_all(&self) -> Result<Tables<V4>> {
        let Self { frontends, slots, backends, pods, devices, resting, .. } = self;
        read(frontends, slots, backends, pods, devices, resting.ids())
    }

    /// Puts of all groups, then deletes of all in reverse, then a new generation. Returns who failed, and why.
    pub(crate) fn apply_all(&mut self, groups: &[Group<Op<V4>>]) -> Vec<(Owner, anyhow::Error)> {
        let puts: Vec<_> = groups
            .iter()
            .enumerate()
            .flat_map(|(group, ops)| ops.puts.iter().map(move |op| (group, *op)))
            .collect();
        let deletes: Vec<_> = groups
            .iter()
            .enumerate()
            .rev()
            .flat_map(|(group, ops)| ops.dels.iter().map(move |op| (group, *op)))
            .collect();
        let cached = puts.iter().chain(&deletes).any(|(_, op)| self.is_cached(op));
        self.rest(&deletes);
        let mut failed: BTreeMap<usize, anyhow::Error> = BTreeMap::new();
        self.write(&puts, &mut failed);
        self.write(&deletes, &mut failed);
        if cached && let Err(error) = self.meta.raise_generation() {
            tracing::error!("cannot raise the generation, flows keep what they cached: {error:#}");
        }
        failed
            .into_iter()
            .filter_map(|(group, error)| Some((groups.get(group)?.owner.clone(), error)))
            .collect()
    }

    /// Whether live flows may have cached what this write changes: where a backend or pod is, or that it is there
    /// at all. Slots and frontends choose for new flows only, and a backend that is new is in none.
    fn is_cached(&self, op: &Op<V4>) -> bool {
        match op {
            Op::PutBackend(id, row) => {
                !matches!(self.backends.get(id), Ok(found) if found.is_none_or(|found| found.into_inner() == *row))
            }
            Op::PutSlot(..) | Op::PutFrontend(..) => false,
            Op::PutPod(..)
            | Op::PutDevice(..)
            | Op::DeleteFrontend(_)
            | Op::DeleteSlot(_)
            | Op::DeleteBackend(_)
            | Op::DeletePod(_)
            | Op::DeleteDevice(_) => true,
        }
    }

    /// Notes the ids that these deletes set free, before they do.
    fn rest(&self, deletes: &[(usize, Op<V4>)]) {
        self.resting.delete(deletes.iter().filter_map(|(_, op)| match op {
            Op::DeleteBackend(id) => Some(*id),
            Op::DeleteFrontend(key) => {
                let row = self.frontends.get(&Row::new(*key)).ok().flatten()?;
                Some(row.into_inner().service).filter(|service| *service != 0)
            }
            _ => None,
        }));
    }

    /// In order, in runs for one map each.
    fn write(&mut self, ops: &[(usize, Op<V4>)], failed: &mut BTreeMap<usize, anyhow::Error>) {
        for run in ops.chunk_by(|a, b| std::mem::discriminant(&a.1) == std::mem::discriminant(&b.1)) {
            let run: Vec<(usize, Op<V4>)> =
                run.iter().filter(|(group, _)| !failed.contains_key(group)).copied().collect();
            let ops: Vec<Op<V4>> = run.iter().map(|(_, op)| *op).collect();
            for failure in self.write_run(&ops) {
                if let Some((group, _)) = run.get(failure.index) {
                    failed.entry(*group).or_insert(failure.error);
                }
            }
        }
    }

    /// Ops of one kind.
    fn write_run(&mut self, ops: &[Op<V4>]) -> Vec<Failure> {
        macro_rules! all {
            ($pattern:pat => $row:expr) => {
                ops.iter()
                    .filter_map(|op| if let $pattern = *op { Some($row) } else { None })
                    .collect::<Vec<_>>()
            };
        }
        match ops.first() {
            None => Vec::new(),
            Some(Op::PutBackend(..)) => {
                self.backends.put(&all!(Op::PutBackend(id, row) => (id, Row::new(row))))
            }
            Some(Op::PutSlot(..)) => {
                self.slots.put(&all!(Op::PutSlot(key, row) => (Row::new(key), Row::new(row))))
            }
            Some(Op::PutFrontend(..)) => {
                self.frontends.put(&all!(Op::PutFrontend(key, row) => (Row::new(key), Row::new(row))))
            }
            Some(Op::PutPod(..)) => {
                self.pods.put(&all!(Op::PutPod(key, row) => (Row::new(key), Row::new(row))))
            }
            Some(Op::PutDevice(..)) => self
                .devices
                .put(&all!(Op::PutDevice(ifindex, row) => (Row::new(DeviceKey { ifindex }), Row::new(row)))),
            Some(Op::DeleteFrontend(_)) => {
                self.frontends.delete(&all!(Op::DeleteFrontend(key) => Row::new(key)))
            }
            Some(Op::DeleteSlot(_)) => self.slots.delete(&all!(Op::DeleteSlot(key) => Row::new(key))),
            Some(Op::DeleteBackend(_)) => self.backends.delete(&all!(Op::DeleteBackend(id) => id)),
            Some(Op::DeletePod(_)) => self.pods.delete(&all!(Op::DeletePod(key) => Row::new(key))),
            Some(Op::DeleteDevice(_)) => {
                self.devices.delete(&all!(Op::DeleteDevice(ifindex) => Row::new(DeviceKey { ifindex })))
            }
        }
    }
}

impl Driver<EbpfPlane<V4>> for EbpfDriver {
    async fn read(&mut self) -> Result<Tables<V4>> {
        self.read_all()
    }

    async fn apply(&mut self, groups: &[Group<Op<V4>>]) -> Vec<(Owner, anyhow::Error)> {
        self.apply_all(groups)
    }
}

fn read(
    frontends: &Table<Row<FrontendKey<V4>>, Row<Frontend>>,
    slots: &Table<Row<SlotKey>, Row<Slot>>,
    backends: &Table<u32, Row<Backend<V4>>>,
    pods: &Table<Row<PodKey<V4>>, Row<Pod>>,
    devices: &Table<Row<DeviceKey>, Row<Device>>,
    resting: BTreeSet<u32>,
) -> Result<Tables<V4>> {
    Ok(Tables {
        frontends: rows(frontends, Row::into_inner, Row::into_inner)?,
        slots: rows(slots, Row::into_inner, Row::into_inner)?,
        backends: rows(backends, |id| id, Row::into_inner)?,
        pods: rows(pods, Row::into_inner, Row::into_inner)?,
        devices: rows(devices, |key| key.into_inner().ifindex, Row::into_inner)?,
        resting,
    })
}

fn rows<K: aya::Pod, V: aya::Pod, Key: Ord, Value>(
    table: &Table<K, V>,
    key: impl Fn(K) -> Key,
    value: impl Fn(V) -> Value,
) -> Result<BTreeMap<Key, Value>> {
    Ok(table.all()?.into_iter().map(|(found, row)| (key(found), value(row))).collect())
}

#[cfg(test)]
mod tests {
    use router_common::abi::device_kind;

    use super::*;
    use crate::node::prepare::RESERVED_PORTS;
    use crate::sys::bpf::{OBJECT, load};

    fn driver() -> EbpfDriver {
        let mut ebpf = load(OBJECT, None).unwrap();
        let meta = SharedMeta::take(&mut ebpf, true, &RESERVED_PORTS).unwrap();
        EbpfDriver::take(&mut ebpf, meta, Resting::default()).unwrap()
    }

    fn backend(last: u8) -> Backend<V4> {
        Backend { address: [10, 244, 0, last], port: 8080, flags: 0, service: 1 }
    }

    fn vip() -> FrontendKey<V4> {
        FrontendKey { address: [10, 96, 0, 1], port: 80, protocol: 6, pad: 0 }
    }

    fn service(puts: Vec<Op<V4>>, dels: Vec<Op<V4>>) -> Group<Op<V4>> {
        Group { owner: Owner::Device(1), needs: Vec::new(), puts, dels }
    }

    fn pod(last: u8) -> PodKey<V4> {
        PodKey { address: [10, 244, last, 1] }
    }

    const POD: Pod = Pod { ifindex: 7, mac: [2; 6], flags: 0 };

    #[test]
    fn what_is_applied_is_read_back_and_deleted_again() {
        let mut driver = driver();
        let slot = SlotKey { service: 1, index: 0 };
        let device = Device { kind: device_kind::POD, flags: 0 };
        let puts = vec![
            Op::PutBackend(5, backend(5)),
            Op::PutSlot(slot, Slot { backend: 5 }),
            Op::PutFrontend(vip(), Frontend { service: 1, count: 1 }),
            Op::PutPod(pod(1), POD),
            Op::PutDevice(7, device),
        ];
        assert!(driver.apply_all(&[service(puts, Vec::new())]).is_empty());
        let read = driver.read_all().unwrap();
        assert_eq!(read.backends, BTreeMap::from([(5, backend(5))]));
        assert_eq!(read.slots, BTreeMap::from([(slot, Slot { backend: 5 })]));
        assert_eq!(read.frontends, BTreeMap::from([(vip(), Frontend { service: 1, count: 1 })]));
        assert_eq!(read.pods, BTreeMap::from([(pod(1), POD)]));
        assert_eq!(read.devices, BTreeMap::from([(7, device)]));
        assert_eq!(read.resting, BTreeSet::new());
        let dels = vec![
            Op::DeleteFrontend(vip()),
            Op::DeleteSlot(slot),
            Op::DeleteBackend(5),
            Op::DeletePod(pod(1)),
            Op::DeleteDevice(7),
            Op::DeleteDevice(8),
        ];
        assert!(driver.apply_all(&[service(Vec::new(), dels)]).is_empty());
        let empty = driver.read_all().unwrap();
        assert!(empty.backends.is_empty() && empty.slots.is_empty() && empty.frontends.is_empty());
        assert!(empty.pods.is_empty() && empty.devices.is_empty());
        assert_eq!(empty.resting, BTreeSet::from([1, 5]), "the service's id and its backend's");
    }

    #[test]
    fn the_generation_rises_when_flows_may_have_cached_what_changed_and_only_then() {
        let mut driver = driver();
        let generation = |driver: &EbpfDriver| driver.meta.get().unwrap().generation;
        let before = generation(&driver);
        let put = |ops| [service(ops, Vec::new())];
        driver.apply_all(&put(vec![Op::PutFrontend(vip(), Frontend { service: 1, count: 0 })]));
        driver.apply_all(&put(vec![Op::PutBackend(5, backend(5))]));
        driver.apply_all(&put(vec![Op::PutBackend(5, backend(5))]));
        assert_eq!(generation(&driver), before, "what is new, or as it was, is in no flow");
        driver.apply_all(&put(vec![Op::PutBackend(5, backend(6))]));
        assert_eq!(generation(&driver), before + 1);
        driver.apply_all(&put(vec![Op::PutPod(pod(1), POD)]));
        assert_eq!(generation(&driver), before + 2);
        driver.apply_all(&[service(Vec::new(), vec![Op::DeleteBackend(5)])]);
        assert_eq!(generation(&driver), before + 3);
        driver.apply_all(&[]);
        assert_eq!(generation(&driver), before + 3);
    }

    #[test]
    fn an_id_rests_until_a_sweep_that_began_after_its_end_does_not_find_it() {
        let resting = Resting::default();
        resting.delete([1]);
        resting.sweep_begins();
        resting.delete([2]);
        assert_eq!(resting.ids(), BTreeSet::from([1, 2]));
        resting.sweep_ended(BTreeSet::from([7]));
        assert_eq!(resting.ids(), BTreeSet::from([2, 7]));
        resting.sweep_begins();
        resting.sweep_ended(BTreeSet::new());
        assert_eq!(resting.ids(), BTreeSet::new());
    }

    #[test]
    fn a_full_map_is_the_problem_of_the_owner_that_found_it_so_and_names_its_size() {
        let mut driver = driver();
        let capacity = u32::try_from(router_common::abi::maps::PODS).unwrap();
        let key = |number: u32| PodKey { address: number.to_be_bytes() };
        let fill: Vec<_> = (0..capacity - 1).map(|number| Op::PutPod(key(number), POD)).collect();
        let two = vec![
            Op::PutPod(key(capacity), POD),
            Op::PutPod(key(capacity + 1), POD),
            Op::PutBackend(9, backend(9)),
        ];
        let groups = [
            Group { owner: Owner::Device(1), needs: Vec::new(), puts: fill, dels: Vec::new() },
            Group { owner: Owner::Device(2), needs: Vec::new(), puts: two, dels: Vec::new() },
            Group {
                owner: Owner::Device(3),
                needs: Vec::new(),
                puts: vec![Op::PutBackend(3, backend(3)), Op::PutPod(key(0), Pod { ifindex: 9, ..POD })],
                dels: Vec::new(),
            },
        ];
        let failed = driver.apply_all(&groups);
        assert_eq!(failed.len(), 1, "{failed:?}");
        assert_eq!(failed[0].0, Owner::Device(2));
        assert_eq!(failed[0].1.to_string(), "map PODS4 is full: it holds 4096 rows");
        let read = driver.read_all().unwrap();
        assert_eq!(
            read.backends.keys().copied().collect::<Vec<_>>(),
            [3],
            "a failed owner's later rows were written"
        );
        assert_eq!(read.pods[&key(0)].ifindex, 9, "an owner behind the failed one was held back");
    }

    #[test]
    fn meta_holds_what_the_node_is_and_is_not_written_for_nothing() {
        let mut ebpf = load(OBJECT, None).unwrap();
        let meta = SharedMeta::take(&mut ebpf, true, &RESERVED_PORTS).unwrap();
        let view = View {
            bridge: Some((3, [3; 6])),
            service: Some(crate::node::service_link::ServiceLink { near: 4, far: 5, mac: [9; 6] }),
            ..View::default()
        };
        meta.set_devices(&view).unwrap();
        meta.set_node([192, 0, 2, 1]).unwrap();
        meta.renew_lease().unwrap();
        let row = meta.get().unwrap();
        assert_eq!((row.layout, row.mark, row.flags), (LAYOUT, 1 << 27, meta_flags::FAST));
        assert_eq!((row.bridge_ifindex, row.bridge_mac), (3, [3; 6]));
        assert_eq!((row.service_near_ifindex, row.service_far_ifindex, row.service_mac), (4, 5, [9; 6]));
        assert_eq!((row.port_first, row.port_last, row.node4), (49_152, 65_535, [192, 0, 2, 1]));
        let left = Duration::from_nanos(row.lease).saturating_sub(monotonic().unwrap());
        assert!(left + Duration::from_mins(1) > LEASE && left <= LEASE, "{left:?}");
        meta.set_devices(&view).unwrap();
        meta.set_node([192, 0, 2, 1]).unwrap();
        assert_eq!(meta.get().unwrap().generation, row.generation);
    }
}
