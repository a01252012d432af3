//! Node ports: what clients outside send to them, and what comes back.

use router_common::abi::{Flow, backend_flags, flow_flags};
use router_common::verdict::{DropReason, Verdict};

use super::{FROM_POD, PORT, TCP, UDP, case, dont_fragment, outgoing};
use crate::packets::build::{Macs, Segment, icmp, tcp, udp};
use crate::packets::{
    BRIDGE_MAC, Case, DEVICE, Hook, NEIGHBOUR, NEIGHBOUR_MAC, NODE, NODE_PORT, OTHER, POD, POD_MAC, REMOTE,
    SERVICE_MAC, SERVICE_NEAR, V4, World,
};

/// The client outside, and a router before it.
const CLIENT: V4 = [198, 51, 100, 7];
const ROUTER: V4 = [192, 168, 77, 1];
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 7, 1];
const UPLINK_MAC: [u8; 6] = [2, 0, 0, 0, 7, 2];
const IN: Macs = Macs { source: ROUTER_MAC, destination: UPLINK_MAC };
const BACK: Macs = Macs { source: UPLINK_MAC, destination: ROUTER_MAC };
/// Where this node's own processes serve, and what they see of the client.
const OWN: (V4, u16, u16) = (NODE, 8080, backend_flags::OWN_NODE);
const LINK_LOCAL: V4 = [169, 254, 255, 1];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = requests();
    cases.extend(of_nobody());
    cases.extend(refused());
    cases.extend(from_pods());
    cases.extend(replies());
    cases.extend(errors());
    cases
}

fn syn(ttl: u8) -> Vec<u8> {
    tcp(IN, (CLIENT, 40_000), (NODE, NODE_PORT), ttl, Segment::SYN, b"")
}

/// From the client outside, as it is made in the uplink's hook.
fn from_outside(flow: Flow<V4>) -> Flow<V4> {
    Flow {
        client: CLIENT,
        frontend: NODE,
        frontend_port: NODE_PORT,
        source: CLIENT,
        service: 3,
        backend_id: 300,
        client_mac: [0; 6],
        flags: flow.flags | flow_flags::OUTSIDE_CLIENT,
        ..flow
    }
}

/// To the pod behind the device.
fn to_pod(flags: u16) -> Flow<V4> {
    from_outside(Flow {
        backend: POD,
        server_ifindex: DEVICE,
        server_mac: POD_MAC,
        edge: OTHER,
        flags: flow_flags::LOCAL_POD | flags,
        ..outgoing()
    })
}

/// To the neighbour, or elsewhere.
fn to(backend: V4, source: V4, flags: u16) -> Flow<V4> {
    let mut flow = from_outside(Flow { backend, flags, ..outgoing() });
    if source != CLIENT {
        (flow.source, flow.source_port) = (source, PORT);
    }
    flow
}

/// The client's request, as a process of this node gets it.
fn into_the_node() -> Vec<u8> {
    let macs = Macs { destination: SERVICE_MAC, ..IN };
    tcp(macs, (LINK_LOCAL, PORT), (NODE, 8080), 62, Segment::SYN, b"")
}

fn requests() -> Vec<Case> {
    vec![
        case(
            "a request from outside goes to a local pod by the stack, from its own address",
            Hook::UplinkIn,
            World::new().node_port(&[(NEIGHBOUR, 8080, 0)]),
            syn(62),
            Verdict::Pass,
        )
        .out(tcp(IN, (CLIENT, 40_000), (NEIGHBOUR, 8080), 62, Segment::SYN, b"")),
        case(
            "the same, fast, straight into the pod's namespace",
            Hook::UplinkIn,
            World::new().fast().node_port(&[(NEIGHBOUR, 8080, 0)]),
            udp(IN, (CLIENT, 40_000), (NODE, NODE_PORT), 62, b"x"),
            Verdict::Peer(OTHER),
        )
        .out(udp(
            Macs { destination: NEIGHBOUR_MAC, ..IN },
            (CLIENT, 40_000),
            (NEIGHBOUR, 8080),
            61,
            b"x",
        )),
        case(
            "a request from outside to a process of this node comes in by kube-svc, link-local",
            Hook::UplinkIn,
            World::new().one_port().node_port(&[OWN]),
            syn(62),
            Verdict::Ingress(SERVICE_NEAR),
        )
        .out(into_the_node()),
        case(
            "a request that belongs to a flow to another node leaves again, from this node's address",
            Hook::UplinkIn,
            World::new()
                .one_port()
                .node_port(&[(REMOTE, 8080, 0)])
                .flow(TCP, Flow { server_ifindex: DEVICE, ..to(REMOTE, NODE, flow_flags::FAST) }),
            tcp(IN, (CLIENT, 40_000), (NODE, NODE_PORT), 62, Segment::DATA, b"x"),
            Verdict::Neighbour(DEVICE),
        )
        .out(tcp(IN, (NODE, PORT), (REMOTE, 8080), 61, Segment::DATA, b"x")),
        case(
            "where no route leads to the backend the request is dropped",
            Hook::UplinkIn,
            World::new().one_port().node_port(&[(REMOTE, 8080, 0)]),
            syn(62),
            Verdict::Drop(DropReason::NoRoute),
        ),
        case(
            "a request whose TTL runs out here does not reach this node's own stack",
            Hook::UplinkIn,
            World::new().fast().node_port(&[(NEIGHBOUR, 8080, 0)]),
            syn(1),
            Verdict::Drop(DropReason::TtlExceeded),
        ),
    ]
}

fn of_nobody() -> Vec<Case> {
    let world = || World::new().node_port(&[(NEIGHBOUR, 8080, 0)]);
    vec![
        case(
            "an answer to a process of this node that uses a node port's number is not taken for a request",
            Hook::UplinkIn,
            world(),
            tcp(IN, (CLIENT, 443), (NODE, NODE_PORT), 62, Segment { syn: true, ..Segment::DATA }, b""),
            Verdict::Pass,
        ),
        case(
            "the middle of a connection that nobody here made is the stack's",
            Hook::UplinkIn,
            world(),
            tcp(IN, (CLIENT, 40_000), (NODE, NODE_PORT), 62, Segment::DATA, b"x"),
            Verdict::Pass,
        ),
        case(
            "another port of this node is none of ours",
            Hook::UplinkIn,
            world(),
            tcp(IN, (CLIENT, 40_000), (NODE, NODE_PORT + 1), 62, Segment::SYN, b""),
            Verdict::Pass,
        ),
        case(
            "a request from outside with the address of a pod of ours is dropped",
            Hook::UplinkIn,
            world(),
            tcp(IN, (NEIGHBOUR, 40_000), (NODE, NODE_PORT), 62, Segment::SYN, b""),
            Verdict::Drop(DropReason::SpoofedSource),
        ),
        case(
            "one with this node's own address too",
            Hook::UplinkIn,
            world(),
            tcp(IN, (NODE, 40_000), (NODE, NODE_PORT), 62, Segment::SYN, b""),
            Verdict::Drop(DropReason::SpoofedSource),
        ),
    ]
}

fn reset(macs: Macs, to: (V4, u16)) -> Vec<u8> {
    let refused = Segment { rst: true, ack: Some(1001), sequence: 0, window: 0, ..Segment::default() };
    dont_fragment(tcp(macs, (NODE, NODE_PORT), to, 64, refused, b""))
}

fn refused() -> Vec<Case> {
    let gone = |protocol| {
        let mut world = World::new()
            .node_port(&[(NEIGHBOUR, 8080, 0)])
            .flow(protocol, to(NEIGHBOUR, CLIENT, flow_flags::LOCAL_POD));
        for (_, flow, _) in &mut world.flows {
            flow.backend_id = 999;
        }
        world.meta.generation = 2;
        world
    };
    let quoted = |packet: &[u8]| packet.get(14..42).map(<[u8]>::to_vec).unwrap_or_default();
    let question = udp(IN, (CLIENT, 40_000), (NODE, NODE_PORT), 62, b"question");
    vec![
        case(
            "a node port without backends is reset, back the way the request came",
            Hook::UplinkIn,
            World::new().node_port(&[]),
            syn(62),
            Verdict::Out(DEVICE),
        )
        .out(reset(BACK, (CLIENT, 40_000))),
        case(
            "UDP to it is refused by ICMP",
            Hook::UplinkIn,
            World::new().node_port(&[]),
            question.clone(),
            Verdict::Out(DEVICE),
        )
        .out(dont_fragment(icmp(BACK, NODE, CLIENT, 64, (3, 3), [0; 4], &quoted(&question)))),
        case(
            "a connection whose backend is gone is reset",
            Hook::UplinkIn,
            gone(TCP),
            tcp(IN, (CLIENT, 40_000), (NODE, NODE_PORT), 62, Segment::DATA, b"x"),
            Verdict::Out(DEVICE),
        )
        .out(dont_fragment(tcp(
            BACK,
            (NODE, NODE_PORT),
            (CLIENT, 40_000),
            64,
            Segment { rst: true, sequence: 2000, ..Segment::default() },
            b"",
        ))),
        case(
            "UDP whose backend is gone begins anew with another",
            Hook::UplinkIn,
            gone(UDP),
            question,
            Verdict::Pass,
        )
        .out(udp(IN, (CLIENT, 40_000), (NEIGHBOUR, 8080), 62, b"question")),
    ]
}

fn from_pods() -> Vec<Case> {
    let dial = || tcp(FROM_POD, (POD, 40_000), (NODE, NODE_PORT), 64, Segment::SYN, b"");
    vec![
        case(
            "a pod that dials its own node's port is balanced at its veth, as itself",
            Hook::PodIn,
            World::new().node_port(&[(NEIGHBOUR, 8080, 0)]),
            dial(),
            Verdict::Pass,
        )
        .out(tcp(FROM_POD, (POD, 40_000), (NEIGHBOUR, 8080), 64, Segment::SYN, b"")),
        case(
            "and refused there, if the port has no backends",
            Hook::PodIn,
            World::new().node_port(&[]),
            dial(),
            Verdict::Out(DEVICE),
        )
        .out(reset(Macs { source: BRIDGE_MAC, destination: POD_MAC }, (POD, 40_000))),
    ]
}

fn replies() -> Vec<Case> {
    let answer = |macs, from, to, ttl| tcp(macs, from, to, ttl, Segment::DATA, b"x");
    vec![
        case(
            "a slow answer to a client outside is left to the stack, marked",
            Hook::PodIn,
            World::new().flow(TCP, to_pod(0)),
            answer(FROM_POD, (POD, 8080), (CLIENT, 40_000), 64),
            Verdict::Pass,
        ),
        case(
            "and becomes the node port's where it leaves",
            Hook::UplinkOut,
            World::new().flow(TCP, to_pod(0)),
            answer(BACK, (POD, 8080), (CLIENT, 40_000), 63),
            Verdict::Pass,
        )
        .marked()
        .out(answer(BACK, (NODE, NODE_PORT), (CLIENT, 40_000), 63)),
        case(
            "what carries no mark of ours leaves as it is",
            Hook::UplinkOut,
            World::new().flow(TCP, to_pod(0)),
            answer(BACK, (POD, 8080), (CLIENT, 40_000), 63),
            Verdict::Pass,
        ),
        case(
            "a fast answer leaves by the uplink at once, one hop on",
            Hook::PodIn,
            World::new().flow(TCP, Flow { edge: DEVICE, ..to_pod(flow_flags::FAST) }),
            answer(FROM_POD, (POD, 8080), (CLIENT, 40_000), 64),
            Verdict::Neighbour(DEVICE),
        )
        .out(answer(FROM_POD, (NODE, NODE_PORT), (CLIENT, 40_000), 63)),
        case(
            "an answer from another node leaves for the client",
            Hook::UplinkIn,
            World::new().flow(TCP, to(REMOTE, NODE, flow_flags::FAST)),
            answer(IN, (REMOTE, 8080), (NODE, PORT), 62),
            Verdict::Neighbour(DEVICE),
        )
        .out(answer(IN, (NODE, NODE_PORT), (CLIENT, 40_000), 61)),
        case(
            "an answer of a process of this node leaves from kube-svc",
            Hook::ServiceIn,
            World::new().flow(TCP, to(NODE, LINK_LOCAL, flow_flags::OWN_NODE)),
            answer(IN, (NODE, 8080), (LINK_LOCAL, PORT), 64),
            Verdict::Neighbour(DEVICE),
        )
        .out(answer(IN, (NODE, NODE_PORT), (CLIENT, 40_000), 64)),
    ]
}

fn errors() -> Vec<Case> {
    let quote = |from, to| {
        let packet = tcp(IN, from, to, 60, Segment::DATA, b"");
        packet.get(14..42).map(<[u8]>::to_vec).unwrap_or_default()
    };
    let error = |macs, from, to, quoted: Vec<u8>| icmp(macs, from, to, 60, (3, 4), [0, 0, 5, 0x78], &quoted);
    let (client, port) = ((CLIENT, 40_000), (NODE, NODE_PORT));
    vec![
        case(
            "an error about what went on to another node goes to the client, and quotes what that sent",
            Hook::UplinkIn,
            World::new().flow(TCP, to(REMOTE, NODE, flow_flags::FAST)),
            error(IN, ROUTER, NODE, quote((NODE, PORT), (REMOTE, 8080))),
            Verdict::Neighbour(DEVICE),
        )
        .out(error(IN, ROUTER, CLIENT, quote(client, port))),
        case(
            "a client's error goes on to another node, and quotes what that sent",
            Hook::UplinkIn,
            World::new().flow(TCP, Flow { server_ifindex: DEVICE, ..to(REMOTE, NODE, flow_flags::FAST) }),
            error(IN, CLIENT, NODE, quote(port, client)),
            Verdict::Neighbour(DEVICE),
        )
        .out(error(IN, NODE, REMOTE, quote((REMOTE, 8080), (NODE, PORT)))),
        case(
            "a client's error about a process of this node comes in by kube-svc",
            Hook::UplinkIn,
            World::new().flow(TCP, to(NODE, LINK_LOCAL, flow_flags::OWN_NODE)),
            error(IN, CLIENT, NODE, quote(port, client)),
            Verdict::Ingress(SERVICE_NEAR),
        )
        .out(error(
            Macs { source: SERVICE_MAC, destination: SERVICE_MAC },
            LINK_LOCAL,
            NODE,
            quote((NODE, 8080), (LINK_LOCAL, PORT)),
        )),
        case(
            "a pod's error about what came from outside by the stack is told where it leaves",
            Hook::UplinkOut,
            World::new().flow(TCP, to_pod(0)),
            error(BACK, POD, CLIENT, quote(client, (POD, 8080))),
            Verdict::Pass,
        )
        .marked()
        .out(error(BACK, NODE, CLIENT, quote(client, port))),
    ]
}
