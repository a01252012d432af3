//! What `kube-svc` answers where nobody else does.

use router_common::verdict::{DropReason, Verdict};

use super::{ON_SERVICE, case, dont_fragment};
use crate::packets::build::{Segment, icmp, tcp, udp};
use crate::packets::{Case, Hook, NEIGHBOUR, NODE, POD, SERVICE_NEAR, VIP, World};

/// In the service range, but no VIP.
const NOBODY: [u8; 4] = [10, 96, 7, 7];

const BACK: Verdict = Verdict::Ingress(SERVICE_NEAR);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = to_icmp_and_udp();
    cases.extend(to_tcp());
    cases
}

fn world() -> World {
    World::new().service(&[(NEIGHBOUR, 8080, 0)])
}

fn to_icmp_and_udp() -> Vec<Case> {
    let datagram = |to| udp(ON_SERVICE, (POD, 40_000), to, 63, b"a question");
    let quoted = |packet: &[u8]| packet.get(14..42).map(<[u8]>::to_vec).unwrap_or_default();
    let unreachable = |to, packet: &[u8]| icmp(ON_SERVICE, to, POD, 64, (3, 3), [0; 4], &quoted(packet));
    vec![
        case(
            "a VIP answers ping",
            Hook::ServiceIn,
            world(),
            icmp(ON_SERVICE, POD, VIP, 63, (8, 0), [0, 7, 0, 1], b"0123456789"),
            BACK,
        )
        .out(icmp(ON_SERVICE, VIP, POD, 64, (0, 0), [0, 7, 0, 1], b"0123456789")),
        case(
            "an address that is no VIP does not",
            Hook::ServiceIn,
            world(),
            icmp(ON_SERVICE, POD, NOBODY, 63, (8, 0), [0, 7, 0, 1], b"0123456789"),
            Verdict::Drop(DropReason::UnknownVip),
        ),
        case(
            "UDP to a port that is not served is refused by ICMP",
            Hook::ServiceIn,
            world(),
            datagram((VIP, 81)),
            BACK,
        )
        .out(dont_fragment(unreachable(VIP, &datagram((VIP, 81))))),
        case(
            "UDP to an address that is no VIP is dropped",
            Hook::ServiceIn,
            world(),
            datagram((NOBODY, 53)),
            Verdict::Drop(DropReason::UnknownVip),
        ),
    ]
}

fn to_tcp() -> Vec<Case> {
    let syn = |port| tcp(ON_SERVICE, (POD, 40_000), (VIP, port), 63, Segment::SYN, b"");
    let reset = |port, segment| dont_fragment(tcp(ON_SERVICE, (VIP, port), (POD, 40_000), 64, segment, b""));
    let refused = Segment { rst: true, ack: Some(1001), sequence: 0, window: 0, ..Segment::default() };
    vec![
        case("a SYN to a port that is not served is reset", Hook::ServiceIn, world(), syn(81), BACK)
            .out(reset(81, refused)),
        case(
            "a SYN to a service without backends is reset",
            Hook::ServiceIn,
            World::new().service(&[]),
            syn(80),
            BACK,
        )
        .out(reset(80, refused)),
        case(
            "a process of this node is refused in the same way",
            Hook::ServiceIn,
            world(),
            tcp(ON_SERVICE, (NODE, 41_000), (VIP, 81), 64, Segment::SYN, b""),
            BACK,
        )
        .out(dont_fragment(tcp(ON_SERVICE, (VIP, 81), (NODE, 41_000), 64, refused, b""))),
        case(
            "TCP in midstream, of no flow, is reset with the number it expects",
            Hook::ServiceIn,
            world(),
            tcp(ON_SERVICE, (POD, 40_000), (VIP, 80), 63, Segment::DATA, b"data"),
            BACK,
        )
        .out(reset(80, Segment { rst: true, sequence: 2000, window: 0, ..Segment::default() })),
        case(
            "a reset is not answered",
            Hook::ServiceIn,
            world(),
            tcp(ON_SERVICE, (POD, 40_000), (VIP, 81), 63, Segment { rst: true, ..Segment::default() }, b""),
            Verdict::Drop(DropReason::NoFlow),
        ),
    ]
}
