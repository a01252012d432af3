//! The packet and the maps, as the kernel's helpers offer them: every unsafe access is here.

#![expect(unsafe_code, reason = "BPF helpers and packet memory; the verifier proves each access")]

use core::mem::MaybeUninit;

use aya_ebpf::bindings::{
    __sk_buff, BPF_ANY, BPF_F_INGRESS, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_FIB_LKUP_RET_FRAG_NEEDED,
    BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_NOT_FWDED, BPF_FIB_LKUP_RET_SUCCESS, BPF_NOEXIST,
    TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_fib_lookup,
};
use aya_ebpf::helpers::{
    bpf_get_prandom_u32, bpf_ktime_get_coarse_ns, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer,
    generated,
};
use aya_ebpf::programs::TcContext;
use router_common::abi::{
    Backend, Counter, Device, DeviceKey, Event, Flow, FlowKey, Fragment, FragmentKey, Frontend, FrontendKey,
    Meta, Pod, PodKey, Slot, SlotKey, maps as sizes,
};
use router_common::kernel::{ANSWERS_PER_SECOND, Covered, EVENTS_PER_SECOND, Found, Inserted, Kernel, Route};
use router_common::nat::fold;
use router_common::verdict::Verdict;

use crate::maps;

type V4 = [u8; 4];
const PACKET_HOST: u32 = 0;
/// `BPF_MTU_CHK_SEGS`: each segment of a packet that stands for many.
const CHECK_SEGMENTS: u64 = 1;
const AF_INET: u8 = 2;
/// `BPF_F_CURRENT_NETNS`.
const CURRENT_NAMESPACE: u64 = u64::MAX;
const EEXIST: i32 = -17;
/// Bytes that every hook reads by pointer: Ethernet, IPv4 without options, TCP without options.
const WINDOW: usize = 54;

/// A packet in a tc hook.
pub(crate) struct Skb {
    skb: *mut __sk_buff,
    /// Read once: where two paths read it, the compiler may make them share an address, which the verifier refuses.
    ifindex: u32,
}

impl Skb {
    /// Makes sure that the headers can be read by pointer, where the packet has them at all.
    #[inline(always)]
    pub(crate) fn new(context: &TcContext) -> Self {
        // SAFETY: the context is the one this program was called with.
        let ifindex = unsafe { (*context.skb.skb).ifindex };
        let skb = Self { skb: context.skb.skb, ifindex };
        let (data, end) = skb.bounds();
        if data + WINDOW > end {
            let length = skb.length();
            let wanted = if (length as usize) < WINDOW { length } else { WINDOW as u32 };
            // SAFETY: the context is the one this program was called with.
            unsafe { generated::bpf_skb_pull_data(skb.skb, wanted) };
        }
        skb
    }

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: the context outlives the program; the verifier knows both fields as packet pointers.
        unsafe { ((*self.skb).data as usize, (*self.skb).data_end as usize) }
    }

    /// Carries out a verdict, and leaves it in `cb` for whoever runs the program by hand.
    #[inline(always)]
    pub(crate) fn act(&mut self, verdict: Verdict) -> i32 {
        let (kind, detail) = match verdict {
            Verdict::Pass => (0, 0),
            Verdict::Drop(reason) => (1, reason as u32),
            Verdict::Peer(ifindex) => (2, ifindex),
            Verdict::Neighbour(ifindex) => (3, ifindex),
            Verdict::Out(ifindex) => (4, ifindex),
            Verdict::Ingress(ifindex) => (5, ifindex),
        };
        // SAFETY: `cb` is ours to write while the program runs.
        unsafe {
            (*self.skb).cb[0] = kind;
            (*self.skb).cb[1] = detail;
        }
        match verdict {
            Verdict::Pass => TC_ACT_UNSPEC,
            Verdict::Drop(reason) => {
                let bytes = u64::from(self.length());
                self.count(reason as u32, Counter { packets: 1, bytes });
                TC_ACT_SHOT as i32
            }
            // SAFETY: plain helper calls with scalars.
            Verdict::Peer(ifindex) => unsafe { bpf_redirect_peer(ifindex, 0) as i32 },
            Verdict::Neighbour(ifindex) => unsafe {
                bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) as i32
            },
            Verdict::Out(ifindex) => unsafe { bpf_redirect(ifindex, 0) as i32 },
            Verdict::Ingress(ifindex) => unsafe { bpf_redirect(ifindex, u64::from(BPF_F_INGRESS)) as i32 },
        }
    }

    /// Takes a token of one of this CPU's buckets, which hold a second's worth.
    #[inline(never)]
    fn take_token(&self, bucket: u32, per_second: u64) -> bool {
        let Some(row) = maps::BUCKETS.get_ptr_mut(bucket) else { return false };
        // SAFETY: a per-CPU row, and programs do not interrupt each other on one CPU.
        let row = unsafe { &mut *row };
        let now = self.now();
        // `packets` counts tokens, `bytes` says when they were filled.
        if now.wrapping_sub(row.bytes) >= 1_000_000_000 {
            row.bytes = now;
            row.packets = per_second;
        }
        if row.packets == 0 {
            return false;
        }
        row.packets -= 1;
        true
    }
}

impl Kernel<V4> for Skb {
    type Entry = *mut Flow<V4>;
    type View = &'static Flow<V4>;

    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn random(&mut self) -> u32 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: the context outlives the program.
        unsafe { (*self.skb).len }
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let (data, end) = self.bounds();
        if data + offset + N * 4 > end {
            return None;
        }
        // SAFETY: within the packet, as just compared. Programs are loaded only where the kernel has efficient
        // unaligned access, and the BPF target compiles this to plain word loads.
        Some(unsafe { ((data + offset) as *const [u32; N]).read() })
    }

    #[inline(always)]
    fn set_words<const N: usize>(&mut self, offset: usize, words: [u32; N]) -> bool {
        let (data, end) = self.bounds();
        if data + offset + N * 4 > end {
            return false;
        }
        // SAFETY: as in `words`; a program that writes packet memory is given its own copy of it.
        unsafe { ((data + offset) as *mut [u32; N]).write(words) };
        true
    }

    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the helper fills all N bytes or fails; on success they are initialised.
        unsafe {
            let failed = generated::bpf_skb_load_bytes(
                self.skb.cast(),
                offset as u32,
                bytes.as_mut_ptr().cast(),
                N as u32,
            );
            if failed != 0 { None } else { Some(bytes.assume_init()) }
        }
    }

    #[inline(always)]
    fn set_bytes<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> bool {
        // SAFETY: the helper reads N bytes of our stack and checks the packet's bounds itself.
        unsafe {
            generated::bpf_skb_store_bytes(self.skb, offset as u32, (&raw const bytes).cast(), N as u32, 0)
                == 0
        }
    }

    #[inline(always)]
    fn adjust_checksum(&mut self, offset: usize, difference: u32, covered: Covered, udp: bool) -> bool {
        let mut flags = 0;
        if covered == Covered::PseudoHeader {
            flags |= u64::from(BPF_F_PSEUDO_HDR);
        }
        if udp {
            flags |= u64::from(BPF_F_MARK_MANGLED_0);
        }
        // A ones' complement sum is the same in either byte order, but for the order of its own two bytes.
        let difference = u64::from(fold(difference).to_be());
        // SAFETY: the helper checks the packet's bounds itself.
        unsafe { generated::bpf_l4_csum_replace(self.skb, offset as u32, 0, difference, flags) == 0 }
    }

    #[inline(always)]
    fn resize(&mut self, length: u32) -> bool {
        // SAFETY: a helper on our own context.
        unsafe { generated::bpf_skb_change_tail(self.skb, length, 0) == 0 }
    }

    #[inline(always)]
    fn marked(&self) -> u32 {
        // SAFETY: the context outlives the program.
        unsafe { (*self.skb).mark }
    }

    #[inline(always)]
    fn mark(&mut self, mark: u32) {
        // SAFETY: `mark` is writable in this program type.
        unsafe { (*self.skb).mark = mark };
    }

    #[inline(always)]
    fn for_this_host(&mut self) {
        // SAFETY: a helper on our own context.
        unsafe { generated::bpf_skb_change_type(self.skb, PACKET_HOST) };
    }

    #[inline(always)]
    fn meta(&self) -> Option<&'static Meta> {
        // SAFETY: an array's row stays where it is as long as the program.
        maps::META.get_ptr(0).map(|row| unsafe { &*row }).filter(|meta| meta.layout != 0)
    }

    #[inline(always)]
    fn frontend(&self, key: &FrontendKey<V4>) -> Option<Frontend> {
        // SAFETY: the row is copied at once; without preallocation it is not reused while we read.
        maps::FRONTENDS4.get_ptr(key).map(|row| unsafe { *row })
    }

    #[inline(always)]
    fn slot(&self, key: &SlotKey) -> Option<Slot> {
        // SAFETY: as in `frontend`.
        maps::SLOTS.get_ptr(key).map(|row| unsafe { *row })
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<Backend<V4>> {
        // SAFETY: as in `frontend`.
        maps::BACKENDS4.get_ptr(id).map(|row| unsafe { *row })
    }

    #[inline(always)]
    fn pod(&self, address: V4) -> Option<Pod> {
        // SAFETY: as in `frontend`.
        maps::PODS4.get_ptr(PodKey { address }).map(|row| unsafe { *row })
    }

    #[inline(always)]
    fn device(&self, ifindex: u32) -> Option<Device> {
        // SAFETY: as in `frontend`.
        maps::DEVICES.get_ptr(DeviceKey { ifindex }).map(|row| unsafe { *row })
    }

    #[inline(always)]
    fn turn(&mut self, service: u32) -> u32 {
        let Some(cursor) = maps::CURSORS.get_ptr_mut(service & (sizes::CURSORS as u32 - 1)) else { return 0 };
        // SAFETY: a per-CPU row, and programs do not interrupt each other on one CPU.
        unsafe {
            let turn = *cursor;
            *cursor = turn.wrapping_add(1);
            turn
        }
    }

    #[inline(always)]
    fn find(&mut self, key: &FlowKey<V4>) -> Option<Found<Self::Entry>> {
        if let Some(entry) = maps::FLOWS4.get_ptr_mut(key) {
            return Some(Found { entry, confirmed: true });
        }
        maps::FLOWS_NEW4.get_ptr_mut(key).map(|entry| Found { entry, confirmed: false })
    }

    #[inline(always)]
    fn read(&self, entry: Self::Entry) -> &'static Flow<V4> {
        // SAFETY: rows stay readable while the program runs; one reused under us costs one packet at most.
        unsafe { &*entry }
    }

    #[inline(always)]
    fn change(&mut self, entry: Self::Entry, change: impl FnOnce(&mut Flow<V4>)) {
        // SAFETY: as in `read`; concurrent writers write the same bits, or counters that may lose a count.
        change(unsafe { &mut *entry });
    }

    #[inline(always)]
    fn insert(&mut self, key: &FlowKey<V4>, flow: &Flow<V4>) -> Inserted {
        if maps::FLOWS4.get_ptr(key).is_some() {
            return Inserted::Exists;
        }
        match maps::FLOWS_NEW4.insert(key, flow, u64::from(BPF_NOEXIST)) {
            Ok(()) => {}
            Err(EEXIST) => return Inserted::Exists,
            Err(_) => return Inserted::Full,
        }
        // It may have been confirmed, and so have moved, between the two.
        if maps::FLOWS4.get_ptr(key).is_some() {
            let _ = maps::FLOWS_NEW4.remove(key);
            return Inserted::Exists;
        }
        Inserted::Created
    }

    #[inline(always)]
    fn confirm(&mut self, key: &FlowKey<V4>, flow: &Flow<V4>) -> bool {
        if !matches!(maps::FLOWS4.insert(key, flow, u64::from(BPF_NOEXIST)), Ok(()) | Err(EEXIST)) {
            return false;
        }
        let _ = maps::FLOWS_NEW4.remove(key);
        true
    }

    #[inline(always)]
    fn remove(&mut self, key: &FlowKey<V4>) {
        let _ = maps::FLOWS4.remove(key);
        let _ = maps::FLOWS_NEW4.remove(key);
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey<V4>) -> Option<Fragment> {
        // SAFETY: the row is copied at once; a reused one costs one packet at most.
        maps::FRAGMENTS4.get_ptr(key).map(|row| unsafe { *row })
    }

    #[inline(always)]
    fn remember_fragment(&mut self, key: &FragmentKey<V4>, ports: &Fragment) {
        let _ = maps::FRAGMENTS4.insert(key, ports, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn route(&mut self, device: u32, source: V4, destination: V4, protocol: u8) -> Route {
        const { assert!(size_of::<bpf_fib_lookup>() == size_of::<[u32; 16]>()) }
        let Some(room) = maps::ROUTE.get_ptr_mut(0) else { return Route::None };
        // SAFETY: a per-CPU row of that size, and programs do not interrupt each other on one CPU; all-zero is a
        // valid value of this plain structure.
        let lookup = unsafe {
            room.write([0; 16]);
            &mut *room.cast::<bpf_fib_lookup>()
        };
        lookup.family = AF_INET;
        lookup.l4_protocol = protocol;
        lookup.ifindex = device;
        lookup.__bindgen_anon_3.ipv4_src = u32::from_ne_bytes(source);
        lookup.__bindgen_anon_4.ipv4_dst = u32::from_ne_bytes(destination);
        // SAFETY: the helper reads and writes the structure we own.
        let result = unsafe {
            generated::bpf_fib_lookup(self.skb.cast(), lookup, size_of::<bpf_fib_lookup>() as i32, 0)
        };
        // The neighbour need not be known, nor this packet fit: the device is what was asked for.
        if result == i64::from(BPF_FIB_LKUP_RET_SUCCESS)
            || result == i64::from(BPF_FIB_LKUP_RET_NO_NEIGH)
            || result == i64::from(BPF_FIB_LKUP_RET_FRAG_NEEDED)
        {
            Route::Via(lookup.ifindex)
        } else if result == i64::from(BPF_FIB_LKUP_RET_NOT_FWDED) {
            Route::Local
        } else {
            Route::None
        }
    }

    #[inline(always)]
    fn too_big_for(&mut self, ifindex: u32) -> Option<u32> {
        let mut mtu = 0u32;
        // SAFETY: the helper writes the MTU to our stack.
        let fits = unsafe {
            generated::bpf_check_mtu(self.skb.cast(), ifindex, &raw mut mtu, 0, CHECK_SEGMENTS) == 0
        };
        if fits { None } else { Some(mtu) }
    }

    #[inline(always)]
    fn is_awaited(&mut self, source: V4, source_port: u16, destination: V4, destination_port: u16) -> bool {
        let mut tuple = [
            u32::from_ne_bytes(source),
            u32::from_ne_bytes(destination),
            u32::from(source_port.to_be()) | u32::from(destination_port.to_be()) << 16,
        ];
        // SAFETY: the helper reads the tuple (addresses, then ports, as struct bpf_sock_tuple has them) from our stack; what
        // it returns is released below.
        unsafe {
            let socket = generated::bpf_sk_lookup_udp(
                self.skb.cast(),
                tuple.as_mut_ptr().cast(),
                size_of_val(&tuple) as u32,
                CURRENT_NAMESPACE,
                0,
            );
            if socket.is_null() {
                return false;
            }
            let peer = (*socket).dst_port;
            generated::bpf_sk_release(socket.cast());
            peer != 0
        }
    }

    #[inline(always)]
    fn may_answer(&mut self) -> bool {
        self.take_token(0, ANSWERS_PER_SECOND)
    }

    #[inline(always)]
    fn count(&mut self, index: u32, counter: Counter) {
        if let Some(row) = maps::COUNTERS.get_ptr_mut(index) {
            // SAFETY: a per-CPU row, and programs do not interrupt each other on one CPU.
            unsafe {
                (*row).packets += counter.packets;
                (*row).bytes += counter.bytes;
            }
        }
    }

    #[inline(always)]
    fn report(&mut self, event: Event<V4>) {
        if self.take_token(1, EVENTS_PER_SECOND) {
            // Where the ring is full the event is lost; the counter of its reason is not.
            let _ = maps::EVENTS.output_untyped::<Event<V4>>(&event, 0);
        }
    }
}
