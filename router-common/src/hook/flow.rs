//! Flows that exist: whose packet it is, what it changes in the row, and where it goes.

use crate::abi::{Address, Counter, Flow, FlowKey, flow_flags, key_kind, protocol, seen};
use crate::hook::{Kind, Packet};
use crate::kernel::{Found, Kernel};
use crate::nat::{Tuple, send_to, translate};
use crate::packet::tcp;
use crate::verdict::{DropReason, Verdict};

/// A confirmed UDP flow is at least this old, in ns: a lone answer to a lone question leaves no lasting row.
const ASSURED_UDP: u64 = 2_000_000_000;
/// Rows are touched at most this often, in ns, so that their cache line stays shared.
const TOUCH: u64 = 1_000_000_000;

/// Which way a packet of a flow goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client, as it sends (client side).
    Request,
    /// To the server, as it receives (server side).
    Translated,
    /// From the server, as it sends (server side).
    Reply,
    /// To the client, as it receives (client side).
    Restored,
}

/// The key of a packet.
#[inline(always)]
pub fn key<A: Address>(packet: &Packet<A>) -> FlowKey<A> {
    FlowKey::new(
        packet.header.source,
        packet.ports.source,
        packet.header.destination,
        packet.ports.destination,
        packet.header.protocol,
    )
}

/// The key of a flow's client side.
#[inline(always)]
pub fn client_key<A: Address>(flow: &Flow<A>, protocol: u8) -> FlowKey<A> {
    let mut key = FlowKey::new(flow.client, flow.client_port, flow.frontend, flow.frontend_port, protocol);
    if flow.flags & flow_flags::DISPLACED != 0 {
        key.kind = key_kind::DISPLACED;
    }
    key
}

/// The key of a flow's server side.
#[inline(always)]
pub fn server_key<A: Address>(flow: &Flow<A>, protocol: u8) -> FlowKey<A> {
    FlowKey::new(flow.source, flow.source_port, flow.backend, flow.backend_port, protocol)
}

/// Which way a packet that has a flow's key goes.
#[inline(always)]
pub fn direction<A: Address>(flow: &Flow<A>, packet: &Packet<A>) -> Direction {
    if flow.flags & flow_flags::SERVER != 0 {
        if packet.header.source == flow.backend && packet.ports.source == flow.backend_port {
            Direction::Reply
        } else {
            Direction::Translated
        }
    } else if packet.header.source == flow.client && packet.ports.source == flow.client_port {
        Direction::Request
    } else {
        Direction::Restored
    }
}

/// Whether nothing is translated.
#[inline(always)]
pub fn untranslated<A: Address>(flow: &Flow<A>) -> bool {
    flow.flags & (flow_flags::CLIENT | flow_flags::SERVER) == flow_flags::CLIENT | flow_flags::SERVER
}

/// Notes a packet in its row, after its verdict (the row may move away). A flow that has not proved itself yet gets
/// back what the map of new flows has evicted of it, and moves to `flows` once the client has answered a reply.
#[inline(always)]
pub fn note<A: Address, K: Kernel<A>>(
    kernel: &mut K,
    found: Found<K::Entry>,
    flow: &Flow<A>,
    packet: &Packet<A>,
    from_client: bool,
) {
    let now = kernel.now();
    let bits = observed(packet, from_client);
    let length = u64::from(kernel.length());
    kernel.change(found.entry, |row| {
        if row.seen & bits != bits {
            row.seen |= bits;
        }
        if now.wrapping_sub(row.last_seen) > TOUCH {
            row.last_seen = now;
        }
        row.packets += 1;
        row.bytes += length;
    });
    if found.confirmed {
        return;
    }
    let protocol = packet.header.protocol;
    let side = if from_client { flow_flags::SERVER } else { flow_flags::CLIENT };
    if (from_client && !confirm(kernel, flow, bits, protocol)) || (!from_client && !untranslated(flow)) {
        mend(kernel, flow, protocol, side);
    }
}

#[inline(always)]
fn observed<A: Address>(packet: &Packet<A>, from_client: bool) -> u16 {
    let control = packet.ports.control;
    let mut bits = if from_client { seen::REQUEST } else { seen::REPLY };
    if control & tcp::FIN != 0 {
        bits |= if from_client { seen::FIN_REQUEST } else { seen::FIN_REPLY };
    }
    if control & tcp::RST != 0 {
        bits |= seen::RESET;
    }
    bits
}

/// The client has sent: if the server has answered before, the flow has proved itself. False: its server's half is
/// gone.
#[inline(never)]
fn confirm<A: Address, K: Kernel<A>>(kernel: &mut K, flow: &Flow<A>, bits: u16, protocol: u8) -> bool {
    let server = server_key(flow, protocol);
    let Some(found) = kernel.find(&server) else { return false };
    let mut row = *kernel.read(found.entry);
    if row.seen & seen::REPLY == 0
        || (protocol == protocol::UDP && kernel.now().wrapping_sub(row.created) < ASSURED_UDP)
    {
        return true;
    }
    row.seen |= seen::CONFIRMED;
    // Asked before the row moves: what it leaves behind may be another flow's at once.
    let whole = untranslated(flow);
    if !kernel.confirm(&server, &row) {
        // It stays where rows may leave; that there is no room is to be seen.
        kernel.count(DropReason::MapFull as u32, Counter { packets: 1, bytes: 0 });
        return true;
    }
    if whole {
        return true;
    }
    // Server side first: the client's row leads to it, never the other way round.
    let client = client_key(flow, protocol);
    let Some(found) = kernel.find(&client) else { return true };
    let mut row = *kernel.read(found.entry);
    row.seen |= seen::CONFIRMED | bits;
    let _ = kernel.confirm(&client, &row);
    true
}

/// Puts back the other half of a new flow (`side`), if it was evicted while this one was not. A flow that is closing
/// is left: its halves are being taken away, or soon will be.
#[inline(never)]
fn mend<A: Address, K: Kernel<A>>(kernel: &mut K, flow: &Flow<A>, protocol: u8, side: u16) {
    let key =
        if side == flow_flags::CLIENT { client_key(flow, protocol) } else { server_key(flow, protocol) };
    if flow.seen & seen::CLOSING != 0 || kernel.find(&key).is_some() {
        return;
    }
    let mut row = *flow;
    row.flags = (flow.flags & !(flow_flags::CLIENT | flow_flags::SERVER)) | side;
    row.seen = 0;
    row.packets = 0;
    row.bytes = 0;
    // Another CPU may have been first, or there is no room: then the next packet tries again.
    let _ = kernel.insert(&key, &row);
}

/// A SYN on a flow that is closing begins another one: takes the old one away and says so.
#[inline(always)]
pub fn begins_anew<A: Address, K: Kernel<A>>(kernel: &mut K, flow: &Flow<A>, packet: &Packet<A>) -> bool {
    let syn = packet.header.protocol == protocol::TCP
        && packet.ports.control & (tcp::SYN | tcp::ACK | tcp::RST) == tcp::SYN;
    syn && forget_if_closing(kernel, flow, packet.header.protocol)
}

#[inline(never)]
fn forget_if_closing<A: Address, K: Kernel<A>>(kernel: &mut K, flow: &Flow<A>, protocol: u8) -> bool {
    let server = server_key(flow, protocol);
    let other = kernel.find(&server).map_or(0, |found| kernel.read(found.entry).seen);
    if (flow.seen | other) & seen::CLOSING == 0 {
        return false;
    }
    forget(kernel, flow, protocol);
    true
}

/// Removes both halves, the client's first: it leads to the other.
#[inline(always)]
pub fn forget<A: Address, K: Kernel<A>>(kernel: &mut K, flow: &Flow<A>, protocol: u8) {
    if !untranslated(flow) {
        kernel.remove(&client_key(flow, protocol));
    }
    kernel.remove(&server_key(flow, protocol));
}

/// Which half of a flow's way a packet takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Towards {
    Server,
    Client,
}

/// How it leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Translated, by the stack.
    Stack,
    /// As it is, by the stack: the client's edge will translate.
    Later,
    /// Into a pod's namespace.
    Peer,
    /// Out of an Ethernet device.
    Neighbour,
    /// To a process of this node.
    Host,
    /// Back out of the veth it came in by: the pod is its own backend.
    Back,
}

/// Sends a packet of a translated flow on its way.
///
/// The fast exits are routers: they decrement TTL and mind the MTU, and leave to the stack whatever wants an answer
/// or has to be fragmented.
#[inline(never)]
pub fn forward<K: Kernel<[u8; 4]>>(
    kernel: &mut K,
    flow: &Flow<[u8; 4]>,
    packet: &Packet<[u8; 4]>,
    towards: Towards,
) -> Verdict {
    let Some(meta) = kernel.meta() else { return Verdict::Drop(DropReason::NotReady) };
    let server = towards == Towards::Server;
    let fast = flow.flags & flow_flags::FAST != 0;
    let mut way = if server { way_to_server(flow) } else { way_to_client(flow) };
    let ifindex = if server { flow.server_ifindex } else { flow.edge };
    let mac = if server { flow.server_mac } else { flow.client_mac };
    let routed = fast && matches!(way, Way::Peer | Way::Neighbour);
    let outside = flow.flags & flow_flags::OUTSIDE_CLIENT != 0;
    if routed && packet.header.ttl <= 1 {
        // As the sender made it: the stack answers with time exceeded. It would take for its own what dials a node port.
        return if outside { Verdict::Drop(DropReason::TtlExceeded) } else { Verdict::Pass };
    }
    if routed && way == Way::Neighbour && kernel.too_big_for(ifindex).is_some() {
        // From a local pod to the outside the sender is told of the packet it sent.
        way = if outside { Way::Later } else { Way::Stack };
    }
    if way != Way::Later {
        let to = if server { server_tuple(flow) } else { client_tuple(flow) };
        let ttl = if routed && way != Way::Stack { packet.header.ttl - 1 } else { packet.header.ttl };
        if !rewrite(kernel, packet, &to, ttl) {
            return Verdict::Drop(DropReason::RewriteFailed);
        }
    }
    let (mark, frame) = match way {
        Way::Stack => (meta.mark, None),
        // Between two pods of one bridge the frame would be switched past the stack, whose connection tracking
        // has seen the request.
        Way::Later => (meta.mark, Some(meta.bridge_mac)),
        Way::Peer | Way::Back => (0, Some(mac)),
        Way::Neighbour => (0, None),
        Way::Host => (0, Some(meta.service_mac)),
    };
    kernel.mark(mark);
    if let Some(destination) = frame
        && !send_to(kernel, destination)
    {
        return Verdict::Drop(DropReason::RewriteFailed);
    }
    match way {
        Way::Stack | Way::Later => Verdict::Pass,
        Way::Peer => {
            kernel.for_this_host();
            Verdict::Peer(ifindex)
        }
        Way::Neighbour => Verdict::Neighbour(ifindex),
        Way::Host => Verdict::Ingress(meta.service_near_ifindex),
        Way::Back => Verdict::Out(flow.edge),
    }
}

#[inline(always)]
fn way_to_server<A: Address>(flow: &Flow<A>) -> Way {
    if flow.flags & flow_flags::HAIRPIN != 0 {
        Way::Back
    } else if flow.flags & (flow_flags::FAST | flow_flags::LOCAL_POD)
        == flow_flags::FAST | flow_flags::LOCAL_POD
    {
        Way::Peer
    } else if flow.flags & flow_flags::OWN_NODE != 0
        && flow.flags & (flow_flags::HOST_CLIENT | flow_flags::OUTSIDE_CLIENT) != 0
    {
        Way::Host
    } else if flow.flags & (flow_flags::FAST | flow_flags::HOST_CLIENT) != 0 {
        Way::Neighbour
    } else {
        Way::Stack
    }
}

#[inline(always)]
fn way_to_client<A: Address>(flow: &Flow<A>) -> Way {
    if flow.flags & flow_flags::HAIRPIN != 0 {
        Way::Back
    } else if flow.flags & flow_flags::HOST_CLIENT != 0 {
        Way::Host
    } else if flow.flags & flow_flags::OUTSIDE_CLIENT != 0
        && flow.flags & (flow_flags::FAST | flow_flags::OWN_NODE) != 0
    {
        Way::Neighbour
    } else if flow.flags & flow_flags::FAST != 0 {
        Way::Peer
    } else {
        Way::Later
    }
}

#[inline(always)]
fn server_tuple<A: Address>(flow: &Flow<A>) -> Tuple<A> {
    Tuple {
        source: flow.source,
        destination: flow.backend,
        source_port: flow.source_port,
        destination_port: flow.backend_port,
    }
}

#[inline(always)]
fn client_tuple<A: Address>(flow: &Flow<A>) -> Tuple<A> {
    Tuple {
        source: flow.frontend,
        destination: flow.client,
        source_port: flow.frontend_port,
        destination_port: flow.client_port,
    }
}

/// Restores a server's packet at the client's edge: what came by the stack ends here.
#[inline(never)]
pub fn restore<K: Kernel<[u8; 4]>>(
    kernel: &mut K,
    flow: &Flow<[u8; 4]>,
    packet: &Packet<[u8; 4]>,
) -> Verdict {
    if rewrite(kernel, packet, &client_tuple(flow), packet.header.ttl) {
        Verdict::Pass
    } else {
        Verdict::Drop(DropReason::RewriteFailed)
    }
}

#[inline(always)]
fn rewrite<K: Kernel<[u8; 4]>>(
    kernel: &mut K,
    packet: &Packet<[u8; 4]>,
    to: &Tuple<[u8; 4]>,
    ttl: u8,
) -> bool {
    let ports = if packet.kind == Kind::Transport { Some(&packet.ports) } else { None };
    translate(kernel, &packet.header, ports, to, ttl)
}
