//! What a pod may send, and what may reach it.

use router_common::verdict::{DropReason, Verdict};

use super::{FROM_POD, TO_POD, case};
use crate::packets::build::{Macs, Segment, arp, icmp, tcp, udp};
use crate::packets::{Case, Hook, NEIGHBOUR, NEIGHBOUR_MAC, NODE, POD, POD_MAC, REMOTE, V4, VIP, World};

pub(super) fn cases() -> Vec<Case> {
    let spoofed = |source: V4| udp(FROM_POD, (source, 40_000), (REMOTE, 53), 64, b"x");
    let drop = Verdict::Drop(DropReason::SpoofedSource);
    let mut cases = vec![
        case("a pod may not send as its neighbour", Hook::PodIn, World::new(), spoofed(NEIGHBOUR), drop),
        case("a pod may not send as the node", Hook::PodIn, World::new(), spoofed(NODE), drop),
        case("a pod may not send as a VIP", Hook::PodIn, World::new().service(&[]), spoofed(VIP), drop),
        case(
            "a pod may not send as a stranger, ICMP either",
            Hook::PodIn,
            World::new(),
            icmp(FROM_POD, REMOTE, NEIGHBOUR, 64, (8, 0), [0, 1, 0, 1], b"ping"),
            drop,
        ),
        case("a pod sends directly as itself", Hook::PodIn, World::new(), spoofed(POD), Verdict::Pass),
        case(
            "before anything of a pod is known it may send",
            Hook::PodIn,
            {
                let mut world = World::new();
                world.pods.clear();
                world.devices.clear();
                world
            },
            spoofed(POD),
            Verdict::Pass,
        ),
        case(
            "a pod may not answer in a flow of its neighbour's",
            Hook::PodIn,
            World::new().service(&[(POD, 8080, 0)]).flow(super::TCP, {
                let mut flow = super::outgoing();
                (flow.client, flow.source) = (REMOTE, REMOTE);
                flow.edge = 77;
                flow
            }),
            tcp(FROM_POD, (NEIGHBOUR, 8080), (REMOTE, 40_000), 64, Segment::DATA, b"x"),
            drop,
        ),
    ];
    cases.extend(announcements());
    cases.extend(deliveries());
    cases
}

fn announcements() -> Vec<Case> {
    let drop = Verdict::Drop(DropReason::SpoofedArp);
    let own = arp(POD_MAC, POD_MAC, POD, NEIGHBOUR);
    let mut other_protocol = own.clone();
    if let Some(bytes) = other_protocol.get_mut(12..14) {
        bytes.copy_from_slice(&[0x88, 0xcc]);
    }
    let mut ipv6 = own.clone();
    ipv6.resize(80, 0);
    if let Some(bytes) = ipv6.get_mut(12..14) {
        bytes.copy_from_slice(&[0x86, 0xdd]);
    }
    vec![
        case("a pod asks by ARP as itself", Hook::PodIn, World::new(), own, Verdict::Pass),
        case(
            "a pod that probes for an address has no sender yet",
            Hook::PodIn,
            World::new(),
            arp(POD_MAC, POD_MAC, [0; 4], POD),
            Verdict::Pass,
        ),
        case(
            "a pod may not announce its neighbour's address",
            Hook::PodIn,
            World::new(),
            arp(POD_MAC, POD_MAC, NEIGHBOUR, NEIGHBOUR),
            drop,
        ),
        case(
            "a pod may not announce the node's address",
            Hook::PodIn,
            World::new(),
            arp(POD_MAC, POD_MAC, NODE, NODE),
            drop,
        ),
        case(
            "a pod may not announce its own address with another MAC",
            Hook::PodIn,
            World::new(),
            arp(POD_MAC, NEIGHBOUR_MAC, POD, POD),
            drop,
        ),
        case(
            "a frame that is neither ARP nor IP goes nowhere",
            Hook::PodIn,
            World::new(),
            other_protocol,
            Verdict::Drop(DropReason::UnknownProtocol),
        ),
        case("IPv6 passes untouched", Hook::PodIn, World::new(), ipv6, Verdict::Pass),
    ]
}

fn deliveries() -> Vec<Case> {
    let flooded = Macs { source: TO_POD.source, destination: NEIGHBOUR_MAC };
    vec![
        case(
            "what is addressed to the pod reaches it",
            Hook::PodOut,
            World::new(),
            udp(TO_POD, (NEIGHBOUR, 53), (POD, 40_000), 64, b"x"),
            Verdict::Pass,
        ),
        case(
            "a frame flooded to the wrong port is dropped there",
            Hook::PodOut,
            World::new(),
            udp(flooded, (NODE, 53), (NEIGHBOUR, 40_000), 64, b"x"),
            Verdict::Drop(DropReason::NotThisPod),
        ),
        case(
            "so is a flooded ping",
            Hook::PodOut,
            World::new(),
            icmp(flooded, NODE, NEIGHBOUR, 64, (8, 0), [0, 1, 0, 1], b"ping"),
            Verdict::Drop(DropReason::NotThisPod),
        ),
        case(
            "multicast reaches every pod",
            Hook::PodOut,
            World::new(),
            udp(TO_POD, (NODE, 5353), ([224, 0, 0, 251], 5353), 1, b"x"),
            Verdict::Pass,
        ),
    ]
}
