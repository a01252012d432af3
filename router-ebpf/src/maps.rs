//! Every map. `bpftool map dump` shows their rows by field name: they are BTF-defined, and their types are plain
//! structs of `router-common`.
//!
//! Absent on purpose: program arrays and timers, which the kernel empties when the last process that held them
//! goes; and IPv6 rows.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use router_common::abi::{
    Backend, Counter, Device, DeviceKey, Flow, FlowKey, Fragment, FragmentKey, Frontend, FrontendKey, Meta,
    Pod, PodKey, Slot, SlotKey, maps,
};
use router_common::verdict::COUNTERS as REASONS;

type V4 = [u8; 4];
const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
pub(crate) static META: Array<Meta, 1> = Array::new();
#[btf_map]
pub(crate) static FRONTENDS4: HashMap<FrontendKey<V4>, Frontend, { maps::FRONTENDS }, ON_DEMAND> =
    HashMap::new();
#[btf_map]
pub(crate) static SLOTS: HashMap<SlotKey, Slot, { maps::SLOTS }, ON_DEMAND> = HashMap::new();
#[btf_map]
pub(crate) static BACKENDS4: HashMap<u32, Backend<V4>, { maps::BACKENDS }, ON_DEMAND> = HashMap::new();
#[btf_map]
pub(crate) static FLOWS4: HashMap<FlowKey<V4>, Flow<V4>, { maps::FLOWS }, ON_DEMAND> = HashMap::new();
#[btf_map]
pub(crate) static FLOWS_NEW4: LruHashMap<FlowKey<V4>, Flow<V4>, { maps::FLOWS_NEW }> = LruHashMap::new();
#[btf_map]
pub(crate) static PODS4: HashMap<PodKey<V4>, Pod, { maps::PODS }, ON_DEMAND> = HashMap::new();
#[btf_map]
pub(crate) static DEVICES: HashMap<DeviceKey, Device, { maps::DEVICES }, ON_DEMAND> = HashMap::new();
#[btf_map]
pub(crate) static FRAGMENTS4: LruHashMap<FragmentKey<V4>, Fragment, { maps::FRAGMENTS }> = LruHashMap::new();
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<Counter, { REASONS as usize }> = PerCpuArray::new();
#[btf_map]
pub(crate) static CURSORS: PerCpuArray<u32, { maps::CURSORS }> = PerCpuArray::new();
#[btf_map]
pub(crate) static EVENTS: RingBuf<(), { maps::EVENTS }> = RingBuf::new();

/// Room for a route look-up, which would not fit on the stack of every kernel.
#[btf_map]
pub(crate) static ROUTE: PerCpuArray<[u32; 16], 1> = PerCpuArray::new();

/// Tokens, and when they were last filled: row 0 for answers, row 1 for events.
#[btf_map]
pub(crate) static BUCKETS: PerCpuArray<Counter, 2> = PerCpuArray::new();
