//! What happens to a packet, and why where it is dropped.

/// The end of a hook. Becomes a return code of the kernel in one place (`router-ebpf`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// The next program, or the stack, takes it from here.
    Pass,
    /// Dropped, counted under the reason.
    Drop(DropReason),
    /// Into the namespace behind the veth whose host end this is; skips the veth's egress hook.
    Peer(u32),
    /// Out of an Ethernet device, next hop and MACs as the kernel's neighbour table says.
    Neighbour(u32),
    /// Out of this device as it is: hairpin, back into the pod it came from.
    Out(u32),
    /// In at this device, as if it had just been received there.
    Ingress(u32),
}

macro_rules! reasons {
    ($( $(#[$meta:meta])* $name:ident = $number:literal, $text:literal; )+) => {
        /// Why a packet was dropped. The number is the index of its row in `counters`, and stays.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum DropReason { $( $(#[$meta])* $name = $number, )+ }

        impl DropReason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &[Self] = &[ $( Self::$name, )+ ];

            /// Its name in metrics, events and `status`.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$name => $text, )+ }
            }
        }
    };
}

reasons! {
    /// A pod sent with an IP source that is not its own, or somebody outside with one of ours.
    SpoofedSource = 1, "spoofed-source";
    /// A pod announced by ARP an address or MAC that is not its own.
    SpoofedArp = 2, "spoofed-arp";
    /// A pod sent a frame that is neither ARP nor IP.
    UnknownProtocol = 3, "unknown-protocol";
    /// A frame reached a pod's veth with a destination that is not that pod's (a flooded bridge port).
    NotThisPod = 4, "not-this-pod";
    /// Headers that cannot be read.
    Malformed = 5, "malformed";
    /// A fragment that overtook the one that carries the ports.
    OrphanFragment = 6, "orphan-fragment";
    /// No source port was left for the translation.
    NoSourcePort = 7, "no-source-port";
    /// A map was full.
    MapFull = 8, "map-full";
    /// TTL ran out on an exit where the stack could not have told the sender.
    TtlExceeded = 9, "ttl-exceeded";
    /// Too big for our exit, and answers of our own were due too often.
    TooBig = 10, "too-big";
    /// The route of the exit is missing.
    NoRoute = 11, "no-route";
    /// A VIP without a frontend for this port; answered with a refusal.
    UnknownPort = 12, "unknown-port";
    /// A service without endpoints; answered with a refusal.
    NoEndpoint = 13, "no-endpoint";
    /// An address in the service range that is no VIP.
    UnknownVip = 14, "unknown-vip";
    /// TCP to a VIP that neither begins a flow nor belongs to one; answered with a reset.
    NoFlow = 15, "no-flow";
    /// The flow's backend is gone; answered.
    BackendGone = 16, "backend-gone";
    /// An answer of ours was due, but the rate limit held it back.
    RateLimited = 17, "rate-limited";
    /// A table contradicted another while it was being changed.
    Inconsistent = 18, "inconsistent";
    /// The kernel refused a rewrite.
    RewriteFailed = 19, "rewrite-failed";
    /// Nothing is known of this node yet.
    NotReady = 20, "not-ready";
}

/// Rows of `counters`: one a reason, with room to grow.
pub const COUNTERS: u32 = 64;

const _: () = assert!(DropReason::ALL.len() < COUNTERS as usize);
