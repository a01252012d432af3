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

impl<A: Address> std::fmt::Display for Op<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

#[derive(Debug)]
pub struct EbpfPlane<A>(std::marker::PhantomData<A>);

impl<A: Address> super::Plane for EbpfPlane<A> {
    type Want = ();
    type Tables = Tables<A>;
    type Op = Op<A>;
    fn owners(_: &(), _: &Tables<A>) -> BTreeSet<super::Owner> {
        BTreeSet::new()
    }
    fn plan(_: &(), _: &Tables<A>, owner: &super::Owner, _: std::time::Duration) -> super::Group<Op<A>> {
        super::Group { owner: owner.clone(), needs: Vec::new(), puts: Vec::new(), dels: Vec::new() }
    }
}
