//! ICMP (RFC 792): errors follow the flow of the packet they quote, in both directions; a VIP answers ping; and
//! what nobody serves is refused, TCP by a reset (RFC 9293 section 3.5.2), all else by port unreachable.

use crate::abi::{Address as _, Flow, FlowKey, FrontendKey, Meta, flow_flags, protocol};
use crate::hook::flow::{Direction, direction, untranslated};
use crate::hook::{Kind, Packet, bounce, drop_packet, is_edge, to_host};
use crate::kernel::{Covered, Kernel};
use crate::nat::{Tuple, adjusted, difference, fold, translate};
use crate::packet::{ETHERNET, Header, IPV4, Ports, Position, icmp, quoted_ipv4, tcp};
use crate::verdict::{DropReason, Verdict};

/// Bytes of an ICMP header.
const ICMP: usize = 8;
/// Bytes of the refused packet that an error quotes: its IP header and the first eight of its payload.
const QUOTE: usize = IPV4 + 8;
/// TTL of what we send ourselves.
const OWN_TTL: u8 = 64;

/// An error to a client, by the stack: here, at the client's edge, the quoted packet was translated. A client outside
/// is told by whichever uplink leads to it.
#[inline(always)]
pub fn at_edge<K: Kernel<[u8; 4]>>(kernel: &mut K, packet: &Packet<[u8; 4]>) -> Verdict {
    let header = &packet.header;
    let Some(error) = quoted(kernel, header) else { return Verdict::Pass };
    let outside = error.flow.flags & flow_flags::OUTSIDE_CLIENT != 0;
    if error.way != Direction::Translated || !(outside || is_edge(kernel, &error.flow)) {
        return Verdict::Pass;
    }
    if rewrite(kernel, header, &error) { Verdict::Pass } else { Verdict::Drop(DropReason::RewriteFailed) }
}

/// An error, and the flow it speaks of.
struct Quoted<F> {
    flow: F,
    /// Which way the quoted packet went.
    way: Direction,
    header: Header<[u8; 4]>,
    ports: Ports,
    /// Where the quoted IP header begins.
    offset: usize,
}

/// From a pod or from the network: an error about a flow goes where the flow goes.
#[inline(never)]
pub fn about_flow<K: Kernel<[u8; 4]>>(kernel: &mut K, meta: &Meta, packet: &Packet<[u8; 4]>) -> Verdict {
    let header = &packet.header;
    let Some(error) = quoted(kernel, header) else { return Verdict::Pass };
    let flow = &*error.flow;
    let fast = flow.flags & flow_flags::FAST != 0;
    let to_client = error.way == Direction::Translated;
    let own_node = flow.flags & flow_flags::OWN_NODE != 0;
    let outside = flow.flags & flow_flags::OUTSIDE_CLIENT != 0;
    let host = to_client && flow.flags & flow_flags::HOST_CLIENT != 0;
    // A slow error to a client is translated at the client's edge; one that quotes what nobody has translated says
    // nothing about a flow.
    let at_once = fast || host || (outside && own_node);
    if (to_client && !at_once) || !(to_client || error.way == Direction::Restored) {
        if to_client && outside {
            kernel.mark(meta.mark);
        }
        return Verdict::Pass;
    }
    if !rewrite(kernel, header, &error) {
        return Verdict::Drop(DropReason::RewriteFailed);
    }
    if outside && to_client {
        kernel.mark(0);
        return Verdict::Neighbour(flow.edge);
    }
    if outside && own_node && header.source == flow.client {
        kernel.mark(0);
        return to_host(kernel, meta);
    }
    if !fast && !host {
        kernel.mark(meta.mark);
        return Verdict::Pass;
    }
    if host {
        // What comes from the VIP comes in where that is routed; what comes from a router on the way, where it does.
        if header.source != flow.backend && !own_node {
            kernel.mark(meta.mark);
            return Verdict::Pass;
        }
        kernel.mark(0);
        return to_host(kernel, meta);
    }
    kernel.mark(0);
    if !to_client && flow.flags & flow_flags::LOCAL_POD == 0 {
        return Verdict::Neighbour(flow.server_ifindex);
    }
    if !kernel.set_bytes(0, if to_client { flow.client_mac } else { flow.server_mac }) {
        return Verdict::Drop(DropReason::RewriteFailed);
    }
    kernel.for_this_host();
    Verdict::Peer(if to_client { flow.edge } else { flow.server_ifindex })
}

/// Reads an ICMP error whose quoted packet belongs to a translated flow.
#[inline(always)]
fn quoted<K: Kernel<[u8; 4]>>(kernel: &mut K, header: &Header<[u8; 4]>) -> Option<Quoted<K::View>> {
    if header.protocol != protocol::ICMP || header.fragment == Position::Later {
        return None;
    }
    let [kind] = kernel.bytes::<1>(header.payload)?;
    if !matches!(kind, icmp::UNREACHABLE | icmp::TIME_EXCEEDED | icmp::PARAMETER_PROBLEM) {
        return None;
    }
    let offset = header.payload + ICMP;
    let inner = quoted_ipv4(kernel, offset)?;
    if inner.fragment == Position::Later || !matches!(inner.protocol, protocol::TCP | protocol::UDP) {
        return None;
    }
    let [a, b, c, d] = kernel.bytes::<4>(inner.payload)?;
    let ports =
        Ports { source: u16::from_be_bytes([a, b]), destination: u16::from_be_bytes([c, d]), control: 0 };
    let key = FlowKey::new(inner.source, ports.source, inner.destination, ports.destination, inner.protocol);
    let found = kernel.find(&key)?;
    let flow = kernel.read(found.entry);
    if untranslated(&flow) {
        return None;
    }
    let way = direction(&flow, &Packet { header: inner, ports, kind: Kind::Transport });
    Some(Quoted { flow, way, header: inner, ports, offset })
}

/// Translates an error, outside and in. The quoted transport checksum stays as it was sent: nobody verifies it.
#[inline(always)]
fn rewrite<K: Kernel<[u8; 4]>>(kernel: &mut K, header: &Header<[u8; 4]>, error: &Quoted<K::View>) -> bool {
    let flow = &*error.flow;
    let to_client = error.way == Direction::Translated;
    let (inner, outer_source, outer_destination) = if to_client {
        let source = if header.source == flow.backend { flow.frontend } else { header.source };
        (client_sent(flow), source, flow.client)
    } else {
        let source = if header.source == flow.client { flow.source } else { header.source };
        (server_sent(flow), source, flow.backend)
    };
    let outer =
        Tuple { source: outer_source, destination: outer_destination, source_port: 0, destination_port: 0 };
    rewrite_quote(kernel, header, error, &inner) && translate(kernel, header, None, &outer, header.ttl)
}

/// What the client sent, as it sent it.
#[inline(always)]
fn client_sent(flow: &Flow<[u8; 4]>) -> Tuple<[u8; 4]> {
    Tuple {
        source: flow.client,
        destination: flow.frontend,
        source_port: flow.client_port,
        destination_port: flow.frontend_port,
    }
}

/// What the server sent, as it sent it.
#[inline(always)]
fn server_sent(flow: &Flow<[u8; 4]>) -> Tuple<[u8; 4]> {
    Tuple {
        source: flow.backend,
        destination: flow.source,
        source_port: flow.backend_port,
        destination_port: flow.source_port,
    }
}

#[inline(always)]
fn rewrite_quote<K: Kernel<[u8; 4]>>(
    kernel: &mut K,
    header: &Header<[u8; 4]>,
    error: &Quoted<K::View>,
    inner: &Tuple<[u8; 4]>,
) -> bool {
    let addresses = difference(
        error.header.source.sum() + error.header.destination.sum(),
        inner.source.sum() + inner.destination.sum(),
    );
    let checksum = adjusted(u16::from_be(error.header.checksum), addresses).to_be_bytes();
    let ports = difference(
        u32::from(error.ports.source) + u32::from(error.ports.destination),
        u32::from(inner.source_port) + u32::from(inner.destination_port),
    );
    let [a, b, c, d] = inner.source;
    let [e, f, g, h] = inner.destination;
    let [i, j] = inner.source_port.to_be_bytes();
    let [k, l] = inner.destination_port.to_be_bytes();
    // The quoted header's own sum does not change, so only the ports reach the outer checksum.
    kernel.set_bytes(error.offset + 10, [checksum[0], checksum[1], a, b, c, d, e, f, g, h])
        && kernel.set_bytes(error.header.payload, [i, j, k, l])
        && kernel.adjust_checksum(header.payload + 2, ports, Covered::Payload, false)
}

/// ICMP to a VIP: ping is answered, an error follows its flow, anything else ends here.
#[inline(always)]
pub fn to_vip<K: Kernel<[u8; 4]>>(kernel: &mut K, meta: &Meta, packet: &Packet<[u8; 4]>) -> Verdict {
    let header = &packet.header;
    let vip = FrontendKey { address: header.destination, port: 0, protocol: 0, pad: 0 };
    let Some([kind, code]) = kernel.bytes::<2>(header.payload) else {
        return drop_packet(kernel, packet, DropReason::Malformed);
    };
    if kind != icmp::ECHO || kernel.frontend(&vip).is_none() {
        if kind != icmp::ECHO {
            return match about_flow(kernel, meta, packet) {
                Verdict::Pass => drop_packet(kernel, packet, DropReason::UnknownVip),
                verdict => verdict,
            };
        }
        return drop_packet(kernel, packet, DropReason::UnknownVip);
    }
    if !kernel.may_answer() {
        return drop_packet(kernel, packet, DropReason::RateLimited);
    }
    let back =
        Tuple { source: header.destination, destination: header.source, source_port: 0, destination_port: 0 };
    let changed = difference(
        u32::from(u16::from_be_bytes([icmp::ECHO, code])),
        u32::from(u16::from_be_bytes([icmp::ECHO_REPLY, code])),
    );
    if header.fragment == Position::Later
        || !kernel.set_bytes(header.payload, [icmp::ECHO_REPLY])
        || !kernel.adjust_checksum(header.payload + 2, changed, Covered::Payload, false)
        || !translate(kernel, header, None, &back, OWN_TTL)
    {
        return Verdict::Drop(DropReason::RewriteFailed);
    }
    kernel.mark(0);
    to_host(kernel, meta)
}

/// Where a refusal goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// To a process of this node.
    Host,
    /// Back out of the device that the packet came in by.
    Here,
}

/// Refuses what nobody serves where it was sent.
#[inline(always)]
pub fn refuse<K: Kernel<[u8; 4]>>(
    kernel: &mut K,
    meta: &Meta,
    packet: &Packet<[u8; 4]>,
    asker: Asker,
) -> Verdict {
    let header = &packet.header;
    if !kernel.may_answer() {
        return drop_packet(kernel, packet, DropReason::RateLimited);
    }
    let transport = packet.kind == Kind::Transport;
    if transport && packet.ports.control & tcp::RST != 0 {
        return drop_packet(kernel, packet, DropReason::NoFlow);
    }
    let answered = if transport && header.protocol == protocol::TCP {
        reset(kernel, packet).is_some()
    } else {
        unreachable(kernel, header, icmp::PORT_UNREACHABLE, 0).is_some()
    };
    if !answered {
        return drop_packet(kernel, packet, DropReason::RewriteFailed);
    }
    // Counted, though the answer itself goes on.
    let reason = if transport && !packet.ports.opens(header.protocol) {
        DropReason::NoFlow
    } else {
        DropReason::UnknownPort
    };
    kernel.count(reason as u32, crate::abi::Counter { packets: 1, bytes: u64::from(header.length) });
    kernel.mark(0);
    match asker {
        Asker::Host => to_host(kernel, meta),
        Asker::Here => bounce(kernel),
    }
}

/// Turns a TCP segment into the reset it asks for.
#[inline(never)]
fn reset<K: Kernel<[u8; 4]>>(kernel: &mut K, packet: &Packet<[u8; 4]>) -> Option<()> {
    let header = &packet.header;
    let sequence = u32::from_be_bytes(kernel.bytes::<4>(header.payload + 4)?);
    let acknowledged = u32::from_be_bytes(kernel.bytes::<4>(header.payload + 8)?);
    let [offset] = kernel.bytes::<1>(header.payload + 12)?;
    let control = packet.ports.control;
    let headers = (header.payload - ETHERNET) + usize::from(offset >> 4) * 4;
    let data = usize::from(header.length).wrapping_sub(headers) as u32 & 0xffff;
    let occupied = data + u32::from(control & tcp::SYN != 0) + u32::from(control & tcp::FIN != 0);
    let (sequence, acknowledgement, flags) = if control & tcp::ACK != 0 {
        (acknowledged, 0, tcp::RST)
    } else {
        (0, sequence.wrapping_add(occupied), tcp::RST | tcp::ACK)
    };
    own_header(kernel, header, protocol::TCP, 20)?;
    let [a, b] = packet.ports.destination.to_be_bytes();
    let [c, d] = packet.ports.source.to_be_bytes();
    let words = [
        u32::from_ne_bytes([a, b, c, d]),
        sequence.to_be(),
        acknowledgement.to_be(),
        u32::from_ne_bytes([5 << 4, flags, 0, 0]),
        // The checksum of nothing; what it covers is added below, whoever will finish it.
        u32::from_ne_bytes([0xff, 0xff, 0, 0]),
    ];
    if !kernel.set_words(ETHERNET + IPV4, words) {
        return None;
    }
    let pseudo = header.source.sum() + header.destination.sum() + u32::from(protocol::TCP) + 20;
    let mut data = 0;
    for word in [words[0], words[1], words[2], words[3]] {
        let word = u32::from_be(word);
        data += (word >> 16) + (word & 0xffff);
    }
    let at = ETHERNET + IPV4 + 16;
    (kernel.adjust_checksum(at, u32::from(fold(pseudo)), Covered::PseudoHeader, false)
        && kernel.adjust_checksum(at, u32::from(fold(data)), Covered::Payload, false))
    .then_some(())
}

/// Turns a packet into the ICMP error that it would have to be fragmented to get further (RFC 1191).
#[inline(always)]
#[must_use]
pub fn too_big<K: Kernel<[u8; 4]>>(kernel: &mut K, header: &Header<[u8; 4]>, mtu: u32) -> bool {
    unreachable(kernel, header, icmp::FRAGMENTATION_NEEDED, mtu as u16).is_some()
}

/// Turns a packet into the ICMP error that its destination is unreachable.
#[inline(never)]
fn unreachable<K: Kernel<[u8; 4]>>(
    kernel: &mut K,
    header: &Header<[u8; 4]>,
    code: u8,
    mtu: u16,
) -> Option<()> {
    let quote = kernel.bytes::<QUOTE>(ETHERNET)?;
    own_header(kernel, header, protocol::ICMP, (ICMP + QUOTE) as u16)?;
    let mut sum = u32::from(u16::from_be_bytes([icmp::UNREACHABLE, code])) + u32::from(mtu);
    for pair in quote.as_chunks::<2>().0 {
        sum += u32::from(u16::from_be_bytes(*pair));
    }
    let [high, low] = (!fold(sum)).to_be_bytes();
    let [mtu_high, mtu_low] = mtu.to_be_bytes();
    let at = ETHERNET + IPV4;
    (kernel.set_bytes(at, [icmp::UNREACHABLE, code, high, low, 0, 0, mtu_high, mtu_low])
        && kernel.set_bytes(at + ICMP, quote))
    .then_some(())
}

/// Makes the packet ours: its length, and an IP header back to where it came from.
#[inline(always)]
fn own_header<K: Kernel<[u8; 4]>>(
    kernel: &mut K,
    to: &Header<[u8; 4]>,
    protocol: u8,
    payload: u16,
) -> Option<()> {
    let length = IPV4 as u16 + payload;
    if !kernel.resize((ETHERNET + usize::from(length)) as u32) {
        return None;
    }
    let first = u16::from_be_bytes([0x45, 0]);
    let dont_fragment = 0x4000;
    let life = u16::from_be_bytes([OWN_TTL, protocol]);
    let sum = u32::from(first)
        + u32::from(length)
        + dont_fragment
        + u32::from(life)
        + to.source.sum()
        + to.destination.sum();
    let [high, low] = (!fold(sum)).to_be_bytes();
    let [length_high, length_low] = length.to_be_bytes();
    kernel
        .set_words(
            ETHERNET,
            [
                u32::from_ne_bytes([0x45, 0, length_high, length_low]),
                u32::from_ne_bytes([0, 0, 0x40, 0]),
                u32::from_ne_bytes([OWN_TTL, protocol, high, low]),
                u32::from_ne_bytes(to.destination),
                u32::from_ne_bytes(to.source),
            ],
        )
        .then_some(())
}
