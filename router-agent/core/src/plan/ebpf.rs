//! The eBPF plane.
use std::collections::{BTreeMap, BTreeSet};

use router_common::abi::{Address, Backend, Device, Frontend, FrontendKey, Pod, PodKey, Slot, SlotKey};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables<A: Address> {
    pub frontends: BTreeMap<FrontendKey<A>, Frontend>,
    pub slots: BTreeMap<SlotKey, Slot>,
    pub backends: BTreeMap<u32, Backend<A>>,
    pub pods: BTreeMap<PodKey<A>, Pod>,
    pub devices: BTreeMap<u32, Device>,
    pub resting: BTreeSet<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<A: Address> {
    PutBackend(u32, Backend<A>),
    PutSlot(SlotKey, Slot),
    PutFrontend(FrontendKey<A>, Frontend),
    PutPod(PodKey<A>, Pod),
    PutDevice(u32, Device),
    DeleteFrontend(FrontendKey<A>),
    DeleteSlot(SlotKey),
    DeleteBackend(u32),
    DeletePod(PodKey<A>),
    DeleteDevice(u32),
}
