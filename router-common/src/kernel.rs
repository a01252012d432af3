//! What a hook may ask of the kernel: its maps, its clock, the packet in its hands, and a few services.
//!
//! `router-ebpf` answers with BPF helpers, the tests with a model in memory. Rows are handed out as copies;
//! where a hook is compiled for the kernel only the fields it looks at are read.

use core::ops::Deref;

use crate::abi::{
    Address, Backend, Counter, Device, Event, Flow, FlowKey, Fragment, FragmentKey, Frontend, FrontendKey,
    Meta, Pod, Slot, SlotKey,
};

/// A flow that was found, and where.
#[derive(Clone, Copy, Debug)]
pub struct Found<E> {
    /// The row, in place.
    pub entry: E,
    /// Whether it lives in `flows`, which never evicts.
    pub confirmed: bool,
}

/// How an insertion into `flows_new` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    Created,
    Exists,
    Full,
}

/// Where the route to a destination leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Out of this device.
    Via(u32),
    /// Not forwarded, but not refused either: the address is this host's own, or no route leads to it.
    Local,
    /// Unreachable, or unknown.
    None,
}

/// Which part of the checksum a difference belongs to: with checksum offload (`CHECKSUM_PARTIAL`) the field
/// covers the pseudo-header and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covered {
    /// Addresses, which the pseudo-header repeats.
    PseudoHeader,
    /// Anything else, ports above all.
    Payload,
}

/// The kernel, as one packet sees it.
pub trait Kernel<A: Address> {
    /// A row of `flows` or `flows_new`, in place.
    type Entry: Copy;
    /// The row of an entry: in place, or as it was.
    type View: Deref<Target = Flow<A>>;

    /// `CLOCK_MONOTONIC` in ns, as coarse as a tick.
    fn now(&self) -> u64;
    /// A random number.
    fn random(&mut self) -> u32;
    /// The device whose hook this is.
    fn ifindex(&self) -> u32;

    /// Length of the packet in bytes, from its Ethernet header on.
    fn length(&self) -> u32;
    /// 32-bit words as they lie in memory, at a constant offset within the first 64 bytes.
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]>;
    /// Writes words at a constant offset within the first 64 bytes.
    #[must_use]
    fn set_words<const N: usize>(&mut self, offset: usize, words: [u32; N]) -> bool;
    /// Bytes at any offset.
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
    /// Writes bytes at any offset.
    #[must_use]
    fn set_bytes<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> bool;
    /// Adds a ones' complement difference to the checksum at `offset`. A UDP checksum of 0 means none, and
    /// stays; one that becomes 0 is written as `0xffff`.
    #[must_use]
    fn adjust_checksum(&mut self, offset: usize, difference: u32, covered: Covered, udp: bool) -> bool;
    /// Cuts or grows the packet's tail, so that it is this long.
    #[must_use]
    fn resize(&mut self, length: u32) -> bool;
    /// The packet's mark, ours or another's.
    fn marked(&self) -> u32;
    /// Sets the packet's mark, for the stack's eyes.
    fn mark(&mut self, mark: u32);
    /// Declares the packet to be for the host (or namespace) that receives it, whatever its MAC was.
    fn for_this_host(&mut self);

    /// The row of `meta`, in place; `None` until the agent has written it.
    fn meta(&self) -> Option<&'static Meta>;
    fn frontend(&self, key: &FrontendKey<A>) -> Option<Frontend>;
    fn slot(&self, key: &SlotKey) -> Option<Slot>;
    fn backend(&self, id: u32) -> Option<Backend<A>>;
    fn pod(&self, address: A) -> Option<Pod>;
    fn device(&self, ifindex: u32) -> Option<Device>;
    /// This CPU's next number for a service, in turn.
    fn turn(&mut self, service: u32) -> u32;

    /// Looks in `flows`, then in `flows_new`.
    fn find(&mut self, key: &FlowKey<A>) -> Option<Found<Self::Entry>>;
    fn read(&self, entry: Self::Entry) -> Self::View;
    fn change(&mut self, entry: Self::Entry, change: impl FnOnce(&mut Flow<A>));
    /// Into `flows_new`, unless the key is in either map.
    fn insert(&mut self, key: &FlowKey<A>, flow: &Flow<A>) -> Inserted;
    /// Moves a flow to `flows`; false if that is full.
    #[must_use]
    fn confirm(&mut self, key: &FlowKey<A>, flow: &Flow<A>) -> bool;
    /// Out of both maps.
    fn remove(&mut self, key: &FlowKey<A>);
    fn fragment(&self, key: &FragmentKey<A>) -> Option<Fragment>;
    fn remember_fragment(&mut self, key: &FragmentKey<A>, ports: &Fragment);

    /// Where the stack would forward a packet from `source`, in at `device`, to `destination`.
    fn route(&mut self, device: u32, source: A, destination: A, protocol: u8) -> Route;
    /// The MTU of a device, if the packet, or a segment it stands for, does not fit it.
    fn too_big_for(&mut self, ifindex: u32) -> Option<u32>;
    /// Whether a UDP socket of this host is connected to the sender of such a packet.
    fn is_awaited(&mut self, source: A, source_port: u16, destination: A, destination_port: u16) -> bool;
    /// Takes a token of this CPU's bucket for answers that we make ourselves.
    fn may_answer(&mut self) -> bool;
    /// Adds to a row of `counters`.
    fn count(&mut self, index: u32, counter: Counter);
    /// Offers a sampled event to the agent.
    fn report(&mut self, event: Event<A>);
}

/// Answers of our own a second and CPU (refusals, ping), and events a second and CPU.
pub const ANSWERS_PER_SECOND: u64 = 1_000;
/// See [`ANSWERS_PER_SECOND`].
pub const EVENTS_PER_SECOND: u64 = 100;
