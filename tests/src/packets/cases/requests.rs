//! First packets of flows, from pods and from this node's processes.

use router_common::abi::backend_flags;
use router_common::verdict::{DropReason, Verdict};

use super::{FROM_POD, ON_SERVICE, PORT, case};
use crate::packets::build::{Macs, Segment, tcp, udp, with_options};
use crate::packets::{
    BRIDGE_MAC, Case, DEVICE, Hook, NEIGHBOUR, NEIGHBOUR_MAC, NODE, OTHER, POD, POD_MAC, SERVICE_NEAR, VIP,
    World,
};

/// The address under which a backend of this node sees its processes.
const OWN: [u8; 4] = [169, 254, 255, 1];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = from_pods();
    cases.extend(of_every_form());
    cases.extend(not_balanced());
    cases.extend(clashes());
    cases.extend(from_this_node());
    cases.extend(after_this_node());
    cases
}

fn from_pods() -> Vec<Case> {
    let neighbour = || World::new().service(&[(NEIGHBOUR, 8080, 0)]);
    let syn = |to, ttl| tcp(FROM_POD, (POD, 40_000), to, ttl, Segment::SYN, b"");
    let to_neighbour = Macs { source: POD_MAC, destination: NEIGHBOUR_MAC };
    let back = Macs { source: POD_MAC, destination: POD_MAC };
    vec![
        case(
            "a SYN from a pod for a VIP leaves for the only backend, by the stack, marked",
            Hook::PodIn,
            neighbour(),
            syn((VIP, 80), 64),
            Verdict::Pass,
        )
        .out(syn((NEIGHBOUR, 8080), 64)),
        case(
            "with the fast path a SYN goes straight into the backend's namespace, one hop on",
            Hook::PodIn,
            neighbour().fast(),
            syn((VIP, 80), 64),
            Verdict::Peer(OTHER),
        )
        .out(tcp(to_neighbour, (POD, 40_000), (NEIGHBOUR, 8080), 63, Segment::SYN, b"")),
        case(
            "a packet whose TTL would run out on the fast path is left to the stack as it is",
            Hook::PodIn,
            neighbour().fast(),
            syn((VIP, 80), 1),
            Verdict::Pass,
        ),
        case(
            "a pod that is its own backend gets its packet back, from the VIP",
            Hook::PodIn,
            World::new().service(&[(POD, 8080, 0)]),
            syn((VIP, 80), 64),
            Verdict::Out(DEVICE),
        )
        .out(tcp(back, (VIP, 40_000), (POD, 8080), 64, Segment::SYN, b"")),
    ]
}

fn of_every_form() -> Vec<Case> {
    let neighbour = || World::new().service(&[(NEIGHBOUR, 8080, 0)]);
    let syn = |to| tcp(FROM_POD, (POD, 40_000), to, 64, Segment::SYN, b"");
    vec![
        case(
            "UDP is balanced as TCP is",
            Hook::PodIn,
            neighbour(),
            udp(FROM_POD, (POD, 40_000), (VIP, 80), 64, b"hello"),
            Verdict::Pass,
        )
        .out(udp(FROM_POD, (POD, 40_000), (NEIGHBOUR, 8080), 64, b"hello")),
        case(
            "a UDP packet without checksum keeps none",
            Hook::PodIn,
            neighbour(),
            without_checksum(udp(FROM_POD, (POD, 40_000), (VIP, 80), 64, b"hello")),
            Verdict::Pass,
        )
        .out(without_checksum(udp(FROM_POD, (POD, 40_000), (NEIGHBOUR, 8080), 64, b"hello"))),
        case(
            "IP options stay, and the ports behind them are translated",
            Hook::PodIn,
            neighbour(),
            with_options(syn((VIP, 80))),
            Verdict::Pass,
        )
        .out(with_options(syn((NEIGHBOUR, 8080)))),
        case(
            "a backend on this node's own network is reached through the stack, from the pod's address",
            Hook::PodIn,
            World::new().fast().service(&[(NODE, 6443, backend_flags::OWN_NODE)]),
            syn((VIP, 80)),
            Verdict::Pass,
        )
        .out(syn((NODE, 6443))),
    ]
}

/// To a VIP, and yet for nobody.
fn not_balanced() -> Vec<Case> {
    let neighbour = || World::new().service(&[(NEIGHBOUR, 8080, 0)]);
    let syn = |to| tcp(FROM_POD, (POD, 40_000), to, 64, Segment::SYN, b"");
    vec![
        case(
            "a service without backends is left to kube-svc, which refuses",
            Hook::PodIn,
            World::new().service(&[]),
            syn((VIP, 80)),
            Verdict::Pass,
        ),
        case(
            "a port that the VIP does not serve is left to kube-svc",
            Hook::PodIn,
            neighbour(),
            syn((VIP, 81)),
            Verdict::Pass,
        ),
        case(
            "TCP to a VIP in midstream, of no flow, is left to kube-svc, which resets it",
            Hook::PodIn,
            neighbour(),
            tcp(FROM_POD, (POD, 40_000), (VIP, 80), 64, Segment::DATA, b"data"),
            Verdict::Pass,
        ),
    ]
}

/// Two flows whose packets would be the same.
fn clashes() -> Vec<Case> {
    let neighbour = || World::new().service(&[(NEIGHBOUR, 8080, 0)]);
    let syn = |to| tcp(FROM_POD, (POD, 40_000), to, 64, Segment::SYN, b"");
    vec![
        case(
            "a clash with a direct flow of the same tuple costs the balanced one its source port",
            Hook::PodIn,
            neighbour().one_port(),
            syn((VIP, 80)),
            Verdict::Pass,
        )
        .after(Hook::PodIn, syn((NEIGHBOUR, 8080)))
        .out(tcp(FROM_POD, (POD, PORT), (NEIGHBOUR, 8080), 64, Segment::SYN, b"")),
        case(
            "a direct flow whose tuple a balanced one uses gets another source port",
            Hook::PodIn,
            neighbour().one_port(),
            syn((NEIGHBOUR, 8080)),
            Verdict::Pass,
        )
        .after(Hook::PodIn, syn((VIP, 80)))
        .out(tcp(FROM_POD, (POD, PORT), (NEIGHBOUR, 8080), 64, Segment::SYN, b"")),
        case(
            "where no source port is left the packet is dropped",
            Hook::PodIn,
            {
                let mut world = neighbour();
                (world.meta.port_first, world.meta.port_last) = (40_000, 40_000);
                world
            },
            syn((VIP, 80)),
            Verdict::Drop(DropReason::NoSourcePort),
        )
        .after(Hook::PodIn, syn((NEIGHBOUR, 8080))),
    ]
}

fn from_this_node() -> Vec<Case> {
    let service = |backend| World::new().one_port().service(&[backend]);
    let syn = |from, to, ttl| tcp(ON_SERVICE, from, to, ttl, Segment::SYN, b"");
    let dialled = || syn((NODE, 41_000), (VIP, 80), 64);
    let to_pod = Macs { source: ON_SERVICE.source, destination: POD_MAC };
    vec![
        case(
            "a process of this node reaches a local pod over the bridge, from a port that is ours",
            Hook::ServiceIn,
            service((POD, 8080, 0)),
            dialled(),
            Verdict::Neighbour(21),
        )
        .out(syn((NODE, PORT), (POD, 8080), 64)),
        case(
            "with the fast path it reaches the pod's namespace at once",
            Hook::ServiceIn,
            service((POD, 8080, 0)).fast(),
            dialled(),
            Verdict::Peer(DEVICE),
        )
        .out(tcp(to_pod, (NODE, PORT), (POD, 8080), 63, Segment::SYN, b"")),
        case(
            "a process of this node reaches another one from a link-local source",
            Hook::ServiceIn,
            service((NODE, 6443, backend_flags::OWN_NODE)),
            dialled(),
            Verdict::Ingress(SERVICE_NEAR),
        )
        .out(syn((OWN, 41_000), (NODE, 6443), 64)),
    ]
}

/// What follows the first packet of a process of this node.
fn after_this_node() -> Vec<Case> {
    let service = |backend| World::new().one_port().service(&[backend]);
    let dialled = || tcp(ON_SERVICE, (NODE, 41_000), (VIP, 80), 64, Segment::SYN, b"");
    vec![
        case(
            "the answer of this node's own backend comes back from the VIP",
            Hook::ServiceIn,
            service((NODE, 6443, backend_flags::OWN_NODE)),
            tcp(ON_SERVICE, (NODE, 6443), (OWN, 41_000), 64, Segment::DATA, b"answer"),
            Verdict::Ingress(SERVICE_NEAR),
        )
        .after(Hook::ServiceIn, dialled())
        .out(tcp(ON_SERVICE, (VIP, 80), (NODE, 41_000), 64, Segment::DATA, b"answer")),
        case(
            "a pod's answer to a process of this node comes back by way of kube-svc",
            Hook::PodIn,
            service((POD, 8080, 0)),
            tcp(FROM_POD, (POD, 8080), (NODE, PORT), 64, Segment::DATA, b"answer"),
            Verdict::Ingress(SERVICE_NEAR),
        )
        .after(Hook::ServiceIn, dialled())
        .out(tcp(
            Macs { source: POD_MAC, destination: ON_SERVICE.destination },
            (VIP, 80),
            (NODE, 41_000),
            64,
            Segment::DATA,
            b"answer",
        )),
        case(
            "a remote backend without a route is no way out",
            Hook::ServiceIn,
            service(([203, 0, 113, 9], 8080, 0)),
            dialled(),
            Verdict::Drop(DropReason::NoRoute),
        ),
        case(
            "what comes for a pod from elsewhere on the bridge carries the bridge's MAC, not ours",
            Hook::PodOut,
            service((POD, 8080, 0)),
            tcp(
                Macs { source: BRIDGE_MAC, destination: POD_MAC },
                (NODE, PORT),
                (POD, 8080),
                64,
                Segment::SYN,
                b"",
            ),
            Verdict::Pass,
        )
        .after(Hook::ServiceIn, dialled()),
    ]
}

fn without_checksum(mut packet: Vec<u8>) -> Vec<u8> {
    if let Some(checksum) = packet.get_mut(40..42) {
        checksum.fill(0);
    }
    packet
}
