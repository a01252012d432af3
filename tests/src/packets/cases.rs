//! The cases.

use router_common::verdict::Verdict;

use super::build::{Macs, Segment, tcp};
use super::{BRIDGE_MAC, Case, Hook, NEIGHBOUR, POD, POD_MAC, VIP, World};

/// What the pod behind the device sends to its gateway.
pub const FROM_POD: Macs = Macs { source: POD_MAC, destination: BRIDGE_MAC };

/// Every case.
pub fn all() -> Vec<Case> {
    vec![Case {
        name: "a SYN from a pod for a VIP leaves for the only backend, by the stack, marked",
        hook: Hook::PodIn,
        world: World::new().service(&[(NEIGHBOUR, 8080, 0)]),
        packet: tcp(FROM_POD, (POD, 40_000), (VIP, 80), 64, Segment::SYN, b""),
        verdict: Verdict::Pass,
        out: Some(tcp(FROM_POD, (POD, 40_000), (NEIGHBOUR, 8080), 64, Segment::SYN, b"")),
    }]
}
