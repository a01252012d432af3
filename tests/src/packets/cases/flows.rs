//! Packets of flows that exist: answers, ICMP errors, fragments, endings.

use router_common::abi::{Flow, flow_flags, seen};
use router_common::verdict::{DropReason, Verdict};

use super::{FROM_POD, ON_SERVICE, PORT, TCP, TO_POD, UDP, case, incoming, outgoing};
use crate::packets::build::{Macs, Segment, icmp, tcp, udp, with_fragment};
use crate::packets::{
    BRIDGE_MAC, Case, Hook, NEIGHBOUR, NEIGHBOUR_MAC, NODE, OTHER, POD, POD_MAC, REMOTE, SERVICE_NEAR, VIP,
    World,
};

/// On the way to [`REMOTE`].
const ROUTER: [u8; 4] = [192, 168, 77, 1];
/// More fragments follow.
const MORE: u16 = 0x2000;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = replies();
    cases.extend(errors());
    cases.extend(errors_to_the_node());
    cases.extend(errors_from_clients());
    cases.extend(fragments());
    cases.extend(endings());
    cases.extend(resolved_anew());
    cases.extend(torn());
    cases.extend(outlived());
    cases
}

fn replies() -> Vec<Case> {
    let world = || World::new().service(&[(NEIGHBOUR, 8080, 0)]);
    let fast = |mut flow: router_common::abi::Flow<[u8; 4]>| {
        flow.flags |= flow_flags::FAST;
        flow
    };
    let direct = Macs { source: POD_MAC, destination: NEIGHBOUR_MAC };
    vec![
        case(
            "a slow answer to a neighbour is given to the bridge, so that the stack sees it too",
            Hook::PodIn,
            world().flow(TCP, incoming()),
            tcp(direct, (POD, 8080), (NEIGHBOUR, 40_000), 64, Segment::DATA, b"x"),
            Verdict::Pass,
        )
        .out(tcp(FROM_POD, (POD, 8080), (NEIGHBOUR, 40_000), 64, Segment::DATA, b"x")),
        case(
            "a slow answer becomes the VIP's at the client's own veth",
            Hook::PodOut,
            world().flow(TCP, outgoing()),
            tcp(TO_POD, (NEIGHBOUR, 8080), (POD, 40_000), 63, Segment::DATA, b"x"),
            Verdict::Pass,
        )
        .out(tcp(TO_POD, (VIP, 80), (POD, 40_000), 63, Segment::DATA, b"x")),
        case(
            "a fast answer goes straight into the client's namespace, from the VIP, one hop on",
            Hook::PodIn,
            world().flow(TCP, fast(incoming())),
            tcp(FROM_POD, (POD, 8080), (NEIGHBOUR, 40_000), 64, Segment::DATA, b"x"),
            Verdict::Peer(OTHER),
        )
        .out(tcp(direct, (VIP, 80), (NEIGHBOUR, 40_000), 63, Segment::DATA, b"x")),
        case(
            "a request of a slow flow keeps its backend",
            Hook::PodIn,
            world().flow(TCP, outgoing()),
            tcp(FROM_POD, (POD, 40_000), (VIP, 80), 64, Segment::DATA, b"x"),
            Verdict::Pass,
        )
        .out(tcp(FROM_POD, (POD, 40_000), (NEIGHBOUR, 8080), 64, Segment::DATA, b"x")),
        case(
            "a translated request reaches the server's veth as it is",
            Hook::PodOut,
            world().flow(TCP, incoming()),
            tcp(TO_POD, (NEIGHBOUR, 40_000), (POD, 8080), 63, Segment::DATA, b"x"),
            Verdict::Pass,
        ),
        case(
            "a fast answer off the wire goes straight into the client's namespace",
            Hook::UplinkIn,
            World::new().flow(TCP, {
                let mut flow = fast(outgoing());
                flow.flags &= !flow_flags::LOCAL_POD;
                flow.backend = REMOTE;
                flow
            }),
            tcp(TO_POD, (REMOTE, 8080), (POD, 40_000), 62, Segment::DATA, b"x"),
            Verdict::Peer(1),
        )
        .out(tcp(TO_POD, (VIP, 80), (POD, 40_000), 61, Segment::DATA, b"x")),
        case(
            "traffic to the node outside our ports is none of ours",
            Hook::UplinkIn,
            world(),
            tcp(TO_POD, (REMOTE, 8080), (NODE, 22), 62, Segment::DATA, b"x"),
            Verdict::Pass,
        ),
    ]
}

fn errors() -> Vec<Case> {
    let world = || World::new().service(&[(NEIGHBOUR, 8080, 0)]).flow(TCP, outgoing());
    let sent = quote(&tcp(FROM_POD, (POD, 40_000), (VIP, 80), 64, Segment::DATA, b""));
    // As the stack quotes it: translated; the quoted transport checksum lies beyond the eight bytes.
    let translated = quote(&tcp(FROM_POD, (POD, 40_000), (NEIGHBOUR, 8080), 64, Segment::DATA, b""));
    let error = |quoted: &[u8]| icmp(TO_POD, NODE, POD, 64, (3, 4), [0, 0, 5, 0x78], quoted);
    vec![
        case(
            "an error about a translated packet tells the client of the packet it sent",
            Hook::PodOut,
            world(),
            error(&translated),
            Verdict::Pass,
        )
        .out(error(&sent)),
        case(
            "an error from the backend itself comes from the VIP",
            Hook::PodOut,
            world(),
            icmp(TO_POD, NEIGHBOUR, POD, 64, (3, 3), [0; 4], &translated),
            Verdict::Pass,
        )
        .out(icmp(TO_POD, VIP, POD, 64, (3, 3), [0; 4], &sent)),
        case(
            "an error about a packet of no flow passes as it is",
            Hook::PodOut,
            World::new(),
            error(&translated),
            Verdict::Pass,
        ),
    ]
}

fn errors_to_the_node() -> Vec<Case> {
    let host = router_common::abi::Flow {
        client: NODE,
        client_port: 41_000,
        source: NODE,
        source_port: 50_000,
        backend: REMOTE,
        flags: flow_flags::HOST_CLIENT,
        ..outgoing()
    };
    vec![
        case(
            "a router's error about a packet of the node's own comes in where it came, quoting the VIP",
            Hook::UplinkIn,
            World::new().flow(TCP, host),
            icmp(
                TO_POD,
                ROUTER,
                NODE,
                64,
                (3, 4),
                [0, 0, 5, 0x78],
                &quote(&tcp(FROM_POD, (NODE, 50_000), (REMOTE, 8080), 64, Segment::DATA, b"")),
            ),
            Verdict::Pass,
        )
        .out(icmp(
            TO_POD,
            ROUTER,
            NODE,
            64,
            (3, 4),
            [0, 0, 5, 0x78],
            &quote(&tcp(FROM_POD, (NODE, 41_000), (VIP, 80), 64, Segment::DATA, b"")),
        )),
        case(
            "a router's error to a process of this node stays where it came in, and quotes what that sent",
            Hook::UplinkIn,
            from_this_node(),
            icmp(TO_POD, ROUTER, NODE, 64, (3, 4), [0, 0, 5, 0x78], &quote(&on_the_wire())),
            Verdict::Pass,
        )
        .out(icmp(TO_POD, ROUTER, NODE, 64, (3, 4), [0, 0, 5, 0x78], &quote(&as_dialled()))),
        case(
            "a remote backend's error to a process of this node comes from the VIP by way of kube-svc",
            Hook::UplinkIn,
            from_this_node(),
            icmp(TO_POD, REMOTE, NODE, 64, (3, 3), [0; 4], &quote(&on_the_wire())),
            Verdict::Ingress(SERVICE_NEAR),
        )
        .out(icmp(ON_SERVICE, VIP, NODE, 64, (3, 3), [0; 4], &quote(&as_dialled()))),
    ]
}

fn errors_from_clients() -> Vec<Case> {
    vec![
        case(
            "a client's error about an answer goes to the backend, and quotes what that sent",
            Hook::PodIn,
            World::new().service(&[(NEIGHBOUR, 8080, 0)]).flow(TCP, outgoing()),
            icmp(
                FROM_POD,
                POD,
                VIP,
                64,
                (3, 3),
                [0; 4],
                &quote(&tcp(TO_POD, (VIP, 80), (POD, 40_000), 63, Segment::DATA, b"")),
            ),
            Verdict::Pass,
        )
        .out(icmp(
            FROM_POD,
            POD,
            NEIGHBOUR,
            64,
            (3, 3),
            [0; 4],
            &quote(&tcp(TO_POD, (NEIGHBOUR, 8080), (POD, 40_000), 63, Segment::DATA, b"")),
        )),
    ]
}

/// What an error says of the packet that it is about.
fn quote(packet: &[u8]) -> Vec<u8> {
    packet.get(14..42).map(<[u8]>::to_vec).unwrap_or_default()
}

/// A process of this node dials the VIP, and a remote pod serves.
fn from_this_node() -> World {
    World::new().flow(
        TCP,
        Flow {
            client: NODE,
            source: NODE,
            source_port: PORT,
            backend: REMOTE,
            flags: flow_flags::HOST_CLIENT | flow_flags::FAST,
            ..outgoing()
        },
    )
}

fn as_dialled() -> Vec<u8> {
    tcp(TO_POD, (NODE, 40_000), (VIP, 80), 64, Segment::DATA, b"")
}

fn on_the_wire() -> Vec<u8> {
    tcp(TO_POD, (NODE, PORT), (REMOTE, 8080), 64, Segment::DATA, b"")
}

fn fragments() -> Vec<Case> {
    let world = || World::new().service(&[(NEIGHBOUR, 8080, 0)]);
    let datagram = |to| udp(FROM_POD, (POD, 40_000), to, 64, b"first half of it");
    let rest = |to| with_fragment(udp(FROM_POD, (POD, 0x6162), to, 64, b"the rest"), 7, 3);
    vec![
        case(
            "a first fragment is translated, ports and all",
            Hook::PodIn,
            world(),
            with_fragment(datagram((VIP, 80)), 7, MORE),
            Verdict::Pass,
        )
        .out(with_fragment(datagram((NEIGHBOUR, 8080)), 7, MORE)),
        case(
            "a later fragment follows the first, and only its addresses change",
            Hook::PodIn,
            world(),
            rest((VIP, 0x6364)),
            Verdict::Pass,
        )
        .after(Hook::PodIn, with_fragment(datagram((VIP, 80)), 7, MORE))
        .out({
            let mut packet = rest((VIP, 0x6364));
            let translated = rest((NEIGHBOUR, 0x6364));
            // Everything of the IP header from its checksum on; what looks like UDP is data.
            if let (Some(to), Some(from)) = (packet.get_mut(24..34), translated.get(24..34)) {
                to.copy_from_slice(from);
            }
            packet
        }),
        case(
            "a fragment that overtakes its first is dropped",
            Hook::PodIn,
            world(),
            rest((VIP, 0x6364)),
            Verdict::Drop(DropReason::OrphanFragment),
        ),
    ]
}

fn endings() -> Vec<Case> {
    let syn = || tcp(FROM_POD, (POD, 40_000), (VIP, 80), 64, Segment::SYN, b"");
    let data = || tcp(FROM_POD, (POD, 40_000), (VIP, 80), 64, Segment::DATA, b"x");
    // The service's only backend is another one than the flow's.
    let moved = |mut flow: router_common::abi::Flow<[u8; 4]>, protocol| {
        flow.backend = REMOTE;
        flow.backend_id = 999;
        flow.flags = 0;
        World::new().service(&[(NEIGHBOUR, 8080, 0)]).flow(protocol, flow)
    };
    let stale = |protocol| {
        let mut world = moved(outgoing(), protocol);
        world.meta.generation = 2;
        world
    };
    vec![
        case(
            "a SYN on a flow that is closing begins another, balanced anew",
            Hook::PodIn,
            moved(router_common::abi::Flow { seen: seen::FIN_REPLY, ..outgoing() }, TCP),
            syn(),
            Verdict::Pass,
        )
        .out(tcp(FROM_POD, (POD, 40_000), (NEIGHBOUR, 8080), 64, Segment::SYN, b"")),
        case(
            "a SYN on a live flow stays with its backend",
            Hook::PodIn,
            moved(outgoing(), TCP),
            syn(),
            Verdict::Pass,
        )
        .out(tcp(FROM_POD, (POD, 40_000), (REMOTE, 8080), 64, Segment::SYN, b"")),
        case(
            "TCP whose backend is gone is left to kube-svc as it is, which resets it",
            Hook::PodIn,
            stale(TCP),
            data(),
            Verdict::Pass,
        ),
        case(
            "UDP whose backend is gone begins anew with another",
            Hook::PodIn,
            stale(UDP),
            udp(FROM_POD, (POD, 40_000), (VIP, 80), 64, b"x"),
            Verdict::Pass,
        )
        .out(udp(FROM_POD, (POD, 40_000), (NEIGHBOUR, 8080), 64, b"x")),
    ]
}

fn resolved_anew() -> Vec<Case> {
    vec![
        case(
            "under a new generation a flow whose backend stands goes on, where its pod is now",
            Hook::PodIn,
            {
                let mut world = World::new().fast().service(&[(NEIGHBOUR, 8080, 0)]);
                let mut flow = outgoing();
                flow.flags |= flow_flags::FAST;
                flow.server_ifindex = 77;
                flow.server_mac = BRIDGE_MAC;
                world = world.flow(TCP, flow);
                world.meta.generation = 2;
                world
            },
            tcp(FROM_POD, (POD, 40_000), (VIP, 80), 64, Segment::DATA, b"x"),
            Verdict::Peer(OTHER),
        )
        .out(tcp(
            Macs { source: POD_MAC, destination: NEIGHBOUR_MAC },
            (POD, 40_000),
            (NEIGHBOUR, 8080),
            63,
            Segment::DATA,
            b"x",
        )),
    ]
}

/// New flows of which the map has evicted one half.
fn torn() -> Vec<Case> {
    let world = || World::new().service(&[(NEIGHBOUR, 8080, 0)]);
    let request = || tcp(FROM_POD, (POD, 40_000), (VIP, 80), 64, Segment::DATA, b"x");
    let reply = || tcp(TO_POD, (NEIGHBOUR, 8080), (POD, 40_000), 63, Segment::DATA, b"x");
    vec![
        case(
            "a request puts back the server's half of its flow, so that the answer is restored",
            Hook::PodOut,
            world().half(TCP, outgoing(), flow_flags::CLIENT),
            reply(),
            Verdict::Pass,
        )
        .after(Hook::PodIn, request())
        .out(tcp(TO_POD, (VIP, 80), (POD, 40_000), 63, Segment::DATA, b"x")),
        case(
            "an answer puts back the client's half of its flow, so that the next request is no stranger",
            Hook::PodIn,
            world().half(TCP, outgoing(), flow_flags::SERVER),
            request(),
            Verdict::Pass,
        )
        .after(Hook::PodOut, reply())
        .out(tcp(FROM_POD, (POD, 40_000), (NEIGHBOUR, 8080), 64, Segment::DATA, b"x")),
    ]
}

/// Flows that are left behind by what they were made for.
fn outlived() -> Vec<Case> {
    let world = || World::new().service(&[(NEIGHBOUR, 8080, 0)]);
    let untranslated = router_common::abi::Flow {
        source: POD,
        backend: VIP,
        backend_port: 80,
        service: 0,
        backend_id: 0,
        server_ifindex: 0,
        ..outgoing()
    };
    let whole = flow_flags::CLIENT | flow_flags::SERVER;
    let elsewhere = router_common::abi::Flow { edge: 77, backend: REMOTE, flags: 0, ..outgoing() };
    let displaced = router_common::abi::Flow {
        frontend: NEIGHBOUR,
        frontend_port: 8080,
        source_port: super::PORT,
        service: 0,
        backend_id: 0,
        server_ifindex: 0,
        flags: flow_flags::DISPLACED,
        ..outgoing()
    };
    vec![
        case(
            "UDP to a VIP from before there was a service is balanced once there is",
            Hook::PodIn,
            world().half(UDP, untranslated, whole),
            udp(FROM_POD, (POD, 40_000), (VIP, 80), 64, b"x"),
            Verdict::Pass,
        )
        .out(udp(FROM_POD, (POD, 40_000), (NEIGHBOUR, 8080), 64, b"x")),
        case(
            "so is a SYN that is sent again",
            Hook::PodIn,
            world().half(TCP, untranslated, whole),
            tcp(FROM_POD, (POD, 40_000), (VIP, 80), 64, Segment::SYN, b""),
            Verdict::Pass,
        )
        .out(tcp(FROM_POD, (POD, 40_000), (NEIGHBOUR, 8080), 64, Segment::SYN, b"")),
        case(
            "a pod is not held to the flow of one that had its address before",
            Hook::PodIn,
            world().flow(TCP, elsewhere),
            tcp(FROM_POD, (POD, 40_000), (VIP, 80), 64, Segment::SYN, b""),
            Verdict::Pass,
        )
        .out(tcp(FROM_POD, (POD, 40_000), (NEIGHBOUR, 8080), 64, Segment::SYN, b"")),
        case(
            "a direct flow keeps its other port when the balanced one that made it so is gone",
            Hook::PodIn,
            world().flow(TCP, displaced),
            tcp(FROM_POD, (POD, 40_000), (NEIGHBOUR, 8080), 64, Segment::DATA, b"x"),
            Verdict::Pass,
        )
        .out(tcp(FROM_POD, (POD, super::PORT), (NEIGHBOUR, 8080), 64, Segment::DATA, b"x")),
    ]
}
