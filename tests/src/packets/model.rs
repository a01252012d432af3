//! The kernel, as a hook sees it, in memory: maps are B-trees, helpers do what their documentation says.

use std::collections::BTreeMap;

use router_common::abi::{
    Backend, Counter, Device, Event, Flow, FlowKey, Fragment, FragmentKey, Frontend, FrontendKey, Meta, Pod,
    Slot, SlotKey,
};
use router_common::hook;
use router_common::kernel::{Covered, Found, Inserted, Kernel, Route};
use router_common::nat::adjusted;
use router_common::verdict::Verdict;

use super::{Case, DEVICE, Hook, Outcome, V4, World};

/// Nanoseconds since the model's boot when a packet comes.
const NOW: u64 = 1_000_000_000_000;

/// Maps that outlive a packet.
#[derive(Debug)]
pub struct Model {
    meta: &'static Meta,
    frontends: BTreeMap<FrontendKey<V4>, Frontend>,
    slots: BTreeMap<SlotKey, Slot>,
    backends: BTreeMap<u32, Backend<V4>>,
    pods: BTreeMap<V4, Pod>,
    devices: BTreeMap<u32, Device>,
    pub flows: BTreeMap<FlowKey<V4>, (Flow<V4>, bool)>,
    fragments: BTreeMap<FragmentKey<V4>, Fragment>,
    pub counters: BTreeMap<u32, u64>,
    pub events: Vec<Event<V4>>,
    turns: BTreeMap<u32, u32>,
    random: u32,
    packet: Vec<u8>,
    mark: u32,
    pub now: u64,
}

impl Model {
    /// Holds what a world holds.
    pub fn new(world: &World) -> Self {
        Self {
            // A test's few bytes; the real row lives as long as the program, too.
            meta: Box::leak(Box::new(world.meta)),
            frontends: world.frontends.iter().copied().collect(),
            slots: world.slots.iter().copied().collect(),
            backends: world.backends.iter().copied().collect(),
            pods: world.pods.iter().copied().collect(),
            devices: world.devices.iter().copied().collect(),
            flows: world.flows.iter().map(|(key, flow, confirmed)| (*key, (*flow, *confirmed))).collect(),
            fragments: BTreeMap::new(),
            counters: BTreeMap::new(),
            events: Vec::new(),
            turns: BTreeMap::new(),
            random: 12_345,
            packet: Vec::new(),
            mark: 0,
            now: NOW,
        }
    }

    /// Runs one packet through a hook.
    pub fn run(&mut self, hook: Hook, packet: &[u8], mark: u32) -> Outcome {
        self.packet = packet.to_vec();
        self.mark = mark;
        let verdict = match hook {
            Hook::PodIn => hook::pod::ingress(self),
            Hook::PodOut => hook::pod::egress(self),
            Hook::UplinkIn => hook::uplink::ingress(self),
            Hook::UplinkOut => hook::uplink::egress(self),
            Hook::ServiceIn => hook::service::ingress(self),
        };
        if let Verdict::Drop(reason) = verdict {
            *self.counters.entry(reason as u32).or_default() += 1;
        }
        Outcome { verdict, packet: std::mem::take(&mut self.packet), mark: self.mark }
    }
}

/// Runs a case.
pub fn run(case: &Case) -> Outcome {
    let mut model = Model::new(&case.world);
    for (hook, packet) in &case.before {
        let _ = model.run(*hook, packet, 0);
    }
    model.run(case.hook, &case.packet, case.mark)
}

impl Kernel<V4> for Model {
    type Entry = FlowKey<V4>;
    type View = Box<Flow<V4>>;

    fn now(&self) -> u64 {
        self.now
    }

    fn random(&mut self) -> u32 {
        self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.random
    }

    fn ifindex(&self) -> u32 {
        DEVICE
    }

    fn length(&self) -> u32 {
        u32::try_from(self.packet.len()).expect("a packet is short")
    }

    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let bytes = self.packet.get(offset..offset + N * 4)?;
        let mut words = [0; N];
        for (word, octets) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *word = u32::from_ne_bytes(*octets);
        }
        Some(words)
    }

    fn set_words<const N: usize>(&mut self, offset: usize, words: [u32; N]) -> bool {
        let Some(bytes) = self.packet.get_mut(offset..offset + N * 4) else { return false };
        for (octets, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *octets = word.to_ne_bytes();
        }
        true
    }

    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.packet.get(offset..offset + N)?.try_into().ok()
    }

    fn set_bytes<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> bool {
        let Some(place) = self.packet.get_mut(offset..offset + N) else { return false };
        place.copy_from_slice(&bytes);
        true
    }

    fn adjust_checksum(&mut self, offset: usize, difference: u32, _: Covered, udp: bool) -> bool {
        let Some([high, low]) = self.bytes(offset) else { return false };
        let before = u16::from_be_bytes([high, low]);
        if udp && before == 0 {
            return true;
        }
        let after = adjusted(before, difference);
        let after = if udp && after == 0 { 0xffff } else { after };
        self.set_bytes(offset, after.to_be_bytes())
    }

    fn resize(&mut self, length: u32) -> bool {
        self.packet.resize(length as usize, 0);
        true
    }

    fn marked(&self) -> u32 {
        self.mark
    }

    fn mark(&mut self, mark: u32) {
        self.mark = mark;
    }

    fn for_this_host(&mut self) {}

    fn meta(&self) -> Option<&'static Meta> {
        (self.meta.layout != 0).then_some(self.meta)
    }

    fn frontend(&self, key: &FrontendKey<V4>) -> Option<Frontend> {
        self.frontends.get(key).copied()
    }

    fn slot(&self, key: &SlotKey) -> Option<Slot> {
        self.slots.get(key).copied()
    }

    fn backend(&self, id: u32) -> Option<Backend<V4>> {
        self.backends.get(&id).copied()
    }

    fn pod(&self, address: V4) -> Option<Pod> {
        self.pods.get(&address).copied()
    }

    fn device(&self, ifindex: u32) -> Option<Device> {
        self.devices.get(&ifindex).copied()
    }

    fn turn(&mut self, service: u32) -> u32 {
        let turn = self.turns.entry(service).or_default();
        *turn += 1;
        *turn - 1
    }

    fn find(&mut self, key: &FlowKey<V4>) -> Option<Found<Self::Entry>> {
        self.flows.get(key).map(|(_, confirmed)| Found { entry: *key, confirmed: *confirmed })
    }

    fn read(&self, entry: Self::Entry) -> Self::View {
        Box::new(self.flows.get(&entry).expect("an entry was just found").0)
    }

    fn change(&mut self, entry: Self::Entry, change: impl FnOnce(&mut Flow<V4>)) {
        if let Some((flow, _)) = self.flows.get_mut(&entry) {
            change(flow);
        }
    }

    fn insert(&mut self, key: &FlowKey<V4>, flow: &Flow<V4>) -> Inserted {
        if self.flows.contains_key(key) {
            return Inserted::Exists;
        }
        self.flows.insert(*key, (*flow, false));
        Inserted::Created
    }

    fn confirm(&mut self, key: &FlowKey<V4>, flow: &Flow<V4>) -> bool {
        self.flows.insert(*key, (*flow, true));
        true
    }

    fn remove(&mut self, key: &FlowKey<V4>) {
        self.flows.remove(key);
    }

    fn fragment(&self, key: &FragmentKey<V4>) -> Option<Fragment> {
        self.fragments.get(key).copied()
    }

    fn remember_fragment(&mut self, key: &FragmentKey<V4>, ports: &Fragment) {
        self.fragments.insert(*key, *ports);
    }

    fn route(&mut self, _: u32, _: V4, _: V4, _: u8) -> Route {
        Route::None
    }

    fn too_big_for(&mut self, _: u32) -> Option<u32> {
        None
    }

    fn is_awaited(&mut self, _: V4, _: u16, _: V4, _: u16) -> bool {
        false
    }

    fn may_answer(&mut self) -> bool {
        true
    }

    fn count(&mut self, index: u32, counter: Counter) {
        *self.counters.entry(index).or_default() += counter.packets;
    }

    fn report(&mut self, event: Event<V4>) {
        self.events.push(event);
    }
}
