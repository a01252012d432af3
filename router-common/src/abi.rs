//! Key and value of every map, as `bpftool map dump` shows them: addresses as octets in network order, ports
//! and all other integers in host order, padding named.
//!
//! Each type is generic over the address family where it holds an address; IPv4 rows are `…<[u8; 4]>`.
//! A type made by `row!` has no hidden padding ([`Row::PACKED_SIZE`] is compared with its size where it is
//! carried into a map) and any bytes are a value of it ([`FromBytes`]).

use core::fmt::Debug;
use core::hash::Hash;

use zerocopy::{FromBytes, Immutable};

/// Version of every layout in this file. It is part of the pin path: rows of another layout are never reused.
pub const LAYOUT: u32 = 1;

/// Protocol numbers of the IANA registry, as they stand in keys.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
}

/// An address of one family: four octets or sixteen, in network order.
pub trait Address: Copy + Eq + Ord + Hash + Debug + FromBytes + Immutable + 'static {
    /// The unspecified address.
    const UNSPECIFIED: Self;
    /// The source under which a backend on this node's own network sees a process of this node that dialled a
    /// VIP: link-local, routed to `kube-svc`, assigned nowhere.
    const OWN_NODE_CLIENT: Self;
    /// As a number, the first octet weighing most.
    fn number(self) -> impl Ord;
    /// The ones' complement sum of its 16-bit words, not folded.
    fn sum(self) -> u32;
}

impl Address for [u8; 4] {
    const UNSPECIFIED: Self = [0; 4];
    const OWN_NODE_CLIENT: Self = [169, 254, 255, 1];

    #[inline(always)]
    fn number(self) -> impl Ord {
        u32::from_be_bytes(self)
    }

    #[inline(always)]
    fn sum(self) -> u32 {
        let number = u32::from_be_bytes(self);
        (number >> 16) + (number & 0xffff)
    }
}

impl Address for [u8; 16] {
    const UNSPECIFIED: Self = [0; 16];
    const OWN_NODE_CLIENT: Self = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1];

    #[inline(always)]
    fn number(self) -> impl Ord {
        u128::from_be_bytes(self)
    }

    #[inline(always)]
    fn sum(self) -> u32 {
        let number = u128::from_be_bytes(self);
        let mut sum = 0;
        let mut shift = 0;
        while shift < 128 {
            sum += (number >> shift) as u32 & 0xffff;
            shift += 16;
        }
        sum
    }
}

/// A key or value of a map.
pub trait Row: Copy + FromBytes + Immutable + 'static {
    /// Sum of the sizes of its fields: equal to its size if, and only if, it has no hidden padding.
    const PACKED_SIZE: usize;
}

/// Declares a map row: its fields, and [`Row`] from them.
macro_rules! row {
    (
        $(#[$meta:meta])*
        $align:literal, pub struct $name:ident $(<$family:ident>)? {
            $( $(#[$field_meta:meta])* pub $field:ident: $type:ty, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, FromBytes, Immutable)]
        #[repr(C, align($align))]
        pub struct $name $(<$family: Address>)? {
            $( $(#[$field_meta])* pub $field: $type, )+
        }

        impl $(<$family: Address>)? Row for $name $(<$family>)? {
            const PACKED_SIZE: usize = 0 $( + size_of::<$type>() )+;
        }
    };
}

row! {
    /// What a client dials. A row with `port` and `protocol` 0 says that the address is a VIP at all: it is what
    /// answers ping, and what tells an unknown port from a foreign address.
    4, pub struct FrontendKey<A> {
        pub address: A,
        pub port: u16,
        /// [`protocol`], or 0.
        pub protocol: u8,
        pub pad: u8,
    }
}

row! {
    /// A service port behind a [`FrontendKey`].
    4, pub struct Frontend {
        /// The service port's id, never 0.
        pub service: u32,
        /// Backends in rotation: slots `0..count` of `service`.
        pub count: u32,
    }
}

row! {
    /// A place in a service's rotation. Keyed by service, so a slot can never belong to another one.
    4, pub struct SlotKey {
        pub service: u32,
        pub index: u32,
    }
}

row! {
    /// Who sits in a slot.
    4, pub struct Slot {
        /// Key of `backends`, never 0.
        pub backend: u32,
    }
}

row! {
    /// Where we send, keyed by its id. An id belongs to one service port and one endpoint, and is not used for
    /// another before a sweep has seen that no flow holds it.
    4, pub struct Backend<A> {
        pub address: A,
        pub port: u16,
        /// [`backend_flags`].
        pub flags: u16,
        /// The service port it serves.
        pub service: u32,
    }
}

/// Bits of [`Backend::flags`].
pub mod backend_flags {
    /// The address is one of this node's own: the backend is a process of this host.
    pub const OWN_NODE: u16 = 1;
}

row! {
    /// The two ends of a packet in numeric order of address, then port, so that both directions of a
    /// conversation, and both local pods of one, share a row.
    4, pub struct FlowKey<A> {
        pub low: A,
        pub high: A,
        pub low_port: u16,
        pub high_port: u16,
        /// [`protocol`].
        pub protocol: u8,
        /// [`key_kind`].
        pub kind: u8,
        pub pad: u16,
    }
}

/// Values of [`FlowKey::kind`].
pub mod key_kind {
    /// A tuple as it is on the wire.
    pub const WIRE: u8 = 0;
    /// The client's side of a flow that dials a backend directly with a tuple that a balanced flow already uses
    /// on its server side: the client's packets look alike on the wire, so they are told apart here.
    pub const DISPLACED: u8 = 1;
}

row! {
    /// One half of a flow, or all of an untranslated one. Each half holds the whole translation, so that a packet
    /// of an established flow costs one look-up.
    8, pub struct Flow<A> {
        /// Client side, what the client sends: its address and port, and what it dialled.
        pub client: A,
        pub frontend: A,
        /// Server side, what the server sees: the source it is given, and itself.
        pub source: A,
        pub backend: A,
        pub client_port: u16,
        pub frontend_port: u16,
        pub source_port: u16,
        pub backend_port: u16,
        /// The service port, or 0 where nothing balanced this flow.
        pub service: u32,
        /// Key of `backends`, or 0.
        pub backend_id: u32,
        /// [`Meta::generation`] under which translation and exits were last resolved.
        pub generation: u32,
        /// The device at the client's edge, where the translation happens (0: not known yet).
        pub edge: u32,
        /// Where the server is reached: the host end of the pod's veth, or the uplink (0: by the stack).
        pub server_ifindex: u32,
        /// MAC of the server's pod and of the client's, where they are pods of this node.
        pub server_mac: [u8; 6],
        pub client_mac: [u8; 6],
        /// [`flow_flags`].
        pub flags: u16,
        /// What has been seen: [`seen`]. Written by both directions of this half only.
        pub seen: u16,
        pub pad: u32,
        /// Packets and bytes in the direction that this half carries (an untranslated flow carries both).
        pub packets: u64,
        pub bytes: u64,
        /// `CLOCK_MONOTONIC` in ns of the last packet, at most a second old.
        pub last_seen: u64,
        /// The same of the flow's creation.
        pub created: u64,
    }
}

/// Bits of [`Flow::flags`].
pub mod flow_flags {
    /// This row is the client's side.
    pub const CLIENT: u16 = 1;
    /// This row is the server's side. Both bits: the flow is not translated and this is all of it.
    pub const SERVER: u16 = 2;
    /// Neither direction enters the stack.
    pub const FAST: u16 = 4;
    /// The client is a process of this node.
    pub const HOST_CLIENT: u16 = 8;
    /// The client is its own backend.
    pub const HAIRPIN: u16 = 16;
    /// The backend is a pod of this node.
    pub const LOCAL_POD: u16 = 32;
    /// The backend is a process of this node.
    pub const OWN_NODE: u16 = 64;
    /// The client's row has kind [`super::key_kind::DISPLACED`].
    pub const DISPLACED: u16 = 128;
    /// The client is beyond an uplink: it dialled a node port.
    pub const OUTSIDE_CLIENT: u16 = 256;
}

/// Bits of [`Flow::seen`].
pub mod seen {
    /// A packet from the client, after the one that made the flow.
    pub const REQUEST: u16 = 1;
    /// A packet from the server.
    pub const REPLY: u16 = 2;
    /// The client answered a reply: the flow lives in `flows`, which never evicts.
    pub const CONFIRMED: u16 = 4;
    /// FIN from the client; from the server.
    pub const FIN_REQUEST: u16 = 8;
    pub const FIN_REPLY: u16 = 16;
    /// RST from either.
    pub const RESET: u16 = 32;
    /// Any of the three.
    pub const CLOSING: u16 = FIN_REQUEST | FIN_REPLY | RESET;
}

row! {
    /// The key of `pods`: an address alone.
    4, pub struct PodKey<A> {
        pub address: A,
    }
}

row! {
    /// A pod of this node, bound by what the kernel reports of the peer of its veth.
    4, pub struct Pod {
        /// Host end of its veth.
        pub ifindex: u32,
        /// Its own MAC, inside its namespace.
        pub mac: [u8; 6],
        /// [`pod_flags`].
        pub flags: u16,
    }
}

/// Bits of [`Pod::flags`].
pub mod pod_flags {
    /// Deliver through the stack: the veth has a queueing discipline of its own.
    pub const NO_FAST: u16 = 1;
}

row! {
    /// The key of `devices`: an interface index.
    4, pub struct DeviceKey {
        pub ifindex: u32,
    }
}

row! {
    /// A device that carries a program of ours.
    4, pub struct Device {
        /// [`device_kind`].
        pub kind: u16,
        /// [`device_flags`].
        pub flags: u16,
    }
}

/// Values of [`Device::kind`].
pub mod device_kind {
    /// Host end of a pod's veth.
    pub const POD: u16 = 1;
    /// Leads out of the node, with Ethernet headers.
    pub const UPLINK: u16 = 2;
    /// The near end of `kube-svc`, to which VIPs are routed.
    pub const SERVICE_NEAR: u16 = 3;
    /// The far end of `kube-svc`, whose ingress balances.
    pub const SERVICE_FAR: u16 = 4;
}

/// Bits of [`Device::flags`].
pub mod device_flags {
    /// At least one address of the pod behind it is in `pods`; it may use no other.
    pub const BOUND: u16 = 1;
}

row! {
    /// The key of `fragments`.
    4, pub struct FragmentKey<A> {
        pub source: A,
        pub destination: A,
        pub identification: u32,
        pub protocol: u32,
    }
}

row! {
    /// The ports that the first fragment carried.
    4, pub struct Fragment {
        pub source_port: u16,
        pub destination_port: u16,
    }
}

row! {
    /// The one row of `meta`.
    8, pub struct Meta {
        pub layout: u32,
        /// Read before any table; raised after tables have lost something. A flow resolved under an older one is
        /// resolved once more by its next packet.
        pub generation: u32,
        /// `CLOCK_MONOTONIC` in ns until which the agent vouches for the tables.
        pub lease: u64,
        /// [`meta_flags`].
        pub flags: u32,
        /// Bit that we set on what we translated and passed to the stack.
        pub mark: u32,
        pub bridge_ifindex: u32,
        pub service_near_ifindex: u32,
        pub service_far_ifindex: u32,
        pub bridge_mac: [u8; 6],
        /// Both ends of `kube-svc` have it.
        pub service_mac: [u8; 6],
        /// Source ports that are ours alone, both ends included.
        pub port_first: u16,
        pub port_last: u16,
        /// This node's address, by family.
        pub node4: [u8; 4],
        pub node6: [u8; 16],
        /// The lowest and the highest node port of any service; 0 and 0: there is none.
        pub node_port_first: u16,
        pub node_port_last: u16,
        pub pad: [u8; 4],
    }
}

/// Bits of [`Meta::flags`].
pub mod meta_flags {
    /// `--fast-path`.
    pub const FAST: u32 = 1;
}

row! {
    /// A sampled happening, as it leaves through the ring buffer `events`.
    8, pub struct Event<A> {
        /// `CLOCK_MONOTONIC` in ns.
        pub time: u64,
        pub ifindex: u32,
        /// A `DropReason`.
        pub reason: u32,
        pub source: A,
        pub destination: A,
        pub source_port: u16,
        pub destination_port: u16,
        pub protocol: u8,
        pub pad: [u8; 3],
    }
}

row! {
    /// The key of `counters`: drops by reason, and answers by kind.
    4, pub struct CounterKey {
        pub index: u32,
    }
}

row! {
    /// A per-CPU counter.
    8, pub struct Counter {
        pub packets: u64,
        pub bytes: u64,
    }
}

/// Names and capacities of the maps. What is not preallocated costs memory only for the rows it holds.
pub mod maps {
    /// One family's frontends.
    pub const FRONTENDS: usize = 65_536;
    /// Not preallocated.
    pub const SLOTS: usize = 1_048_576;
    /// Not preallocated.
    pub const BACKENDS: usize = 1_048_576;
    /// Confirmed flows; never evicts, not preallocated.
    pub const FLOWS: usize = 524_288;
    /// Unanswered flows; least recently used leave first.
    pub const FLOWS_NEW: usize = 131_072;
    /// Pods of this node.
    pub const PODS: usize = 4_096;
    /// Devices with a program of ours.
    pub const DEVICES: usize = 4_096;
    /// Fragmented packets under way.
    pub const FRAGMENTS: usize = 8_192;
    /// Round-robin cursors: a service uses the one of its id modulo this.
    pub const CURSORS: usize = 4_096;
    /// Bytes of the event ring.
    pub const EVENTS: usize = 262_144;
}

impl<A: Address> FlowKey<A> {
    /// The key of a packet from `source` to `destination`.
    #[inline(always)]
    pub fn new(source: A, source_port: u16, destination: A, destination_port: u16, protocol: u8) -> Self {
        if (source.number(), source_port) <= (destination.number(), destination_port) {
            Self {
                low: source,
                high: destination,
                low_port: source_port,
                high_port: destination_port,
                protocol,
                kind: key_kind::WIRE,
                pad: 0,
            }
        } else {
            Self {
                low: destination,
                high: source,
                low_port: destination_port,
                high_port: source_port,
                protocol,
                kind: key_kind::WIRE,
                pad: 0,
            }
        }
    }
}

const _: () = {
    assert!(size_of::<FrontendKey<[u8; 4]>>() == 8 && FrontendKey::<[u8; 4]>::PACKED_SIZE == 8);
    assert!(size_of::<FrontendKey<[u8; 16]>>() == 20 && FrontendKey::<[u8; 16]>::PACKED_SIZE == 20);
    assert!(size_of::<Frontend>() == 8 && Frontend::PACKED_SIZE == 8);
    assert!(size_of::<Backend<[u8; 4]>>() == 12 && Backend::<[u8; 4]>::PACKED_SIZE == 12);
    assert!(size_of::<FlowKey<[u8; 4]>>() == 16 && FlowKey::<[u8; 4]>::PACKED_SIZE == 16);
    assert!(size_of::<FlowKey<[u8; 16]>>() == 40 && FlowKey::<[u8; 16]>::PACKED_SIZE == 40);
    assert!(size_of::<Flow<[u8; 4]>>() == 96 && Flow::<[u8; 4]>::PACKED_SIZE == 96);
    assert!(size_of::<Flow<[u8; 16]>>() == 144 && Flow::<[u8; 16]>::PACKED_SIZE == 144);
    assert!(size_of::<Pod>() == 12 && Pod::PACKED_SIZE == 12);
    assert!(size_of::<Meta>() == 80 && Meta::PACKED_SIZE == 80);
    assert!(size_of::<Event<[u8; 4]>>() == 32 && Event::<[u8; 4]>::PACKED_SIZE == 32);
    assert!(size_of::<Event<[u8; 16]>>() == 56 && Event::<[u8; 16]>::PACKED_SIZE == 56);
};
