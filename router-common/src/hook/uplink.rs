//! The two hooks of an uplink.
//!
//! In: requests to node ports, which are balanced here, at their clients' edge; and replies to flows whose server is
//! beyond the uplink. A process of this node, and a client outside whose server is on another node, were given a
//! source port that is ours alone, so other traffic to the node costs no look in a map. Slow replies to pods go by the
//! stack to the client's veth.
//!
//! Out: slow replies to clients outside. They carry our mark, so all else costs no look in a map either.

use crate::abi::{FrontendKey, Meta, flow_flags};
use crate::hook::create::{Client, balance, refresh_reply, refresh_request};
use crate::hook::flow::{
    Direction, Towards, begins_anew, direction, forget, forward, key, note, restore, untranslated,
};
use crate::hook::{Kind, Packet, bounce, drop_packet, icmp, packet};
use crate::kernel::{Found, Kernel};
use crate::packet::{ethertype, ipv4};
use crate::verdict::{DropReason, Verdict};

/// What comes in from the network.
#[inline(always)]
pub fn ingress<K: Kernel<[u8; 4]>>(kernel: &mut K) -> Verdict {
    if ethertype(kernel) != Some(ethertype::IPV4) {
        return Verdict::Pass;
    }
    let Some(meta) = kernel.meta() else { return Verdict::Pass };
    let Some(header) = ipv4(kernel) else { return Verdict::Pass };
    let packet = packet(kernel, header);
    match packet.kind {
        Kind::Transport | Kind::Fragment => received(kernel, meta, &packet),
        _ => icmp::about_flow(kernel, meta, &packet),
    }
}

#[inline(always)]
fn received<K: Kernel<[u8; 4]>>(kernel: &mut K, meta: &'static Meta, packet: &Packet<[u8; 4]>) -> Verdict {
    let port = packet.ports.destination;
    let to_node = packet.header.destination == meta.node4;
    let reserved = port >= meta.port_first && port <= meta.port_last;
    let node_port = to_node && port >= meta.node_port_first && port <= meta.node_port_last;
    if to_node && !reserved && !node_port {
        return Verdict::Pass;
    }
    let found = kernel.find(&key(packet));
    // In one place, since the verifier follows a flow's beginning from each.
    if node_port && let Some(known) = begins(kernel, meta, packet, found) {
        return begin(kernel, meta, packet, known);
    }
    let Some(found) = found else { return Verdict::Pass };
    let flow = kernel.read(found.entry);
    if untranslated(&flow) {
        return Verdict::Pass;
    }
    let towards = match direction(&flow, packet) {
        Direction::Reply if flow.flags & (flow_flags::FAST | flow_flags::HOST_CLIENT) != 0 => Towards::Client,
        Direction::Request if node_port && flow.flags & flow_flags::OUTSIDE_CLIENT != 0 => Towards::Server,
        _ => return Verdict::Pass,
    };
    if towards == Towards::Client {
        if flow.generation != meta.generation {
            refresh_reply(kernel, meta, found.entry);
        }
        note(kernel, found, &flow, packet, false);
    }
    let verdict = carry(kernel, found.entry, packet, towards);
    if towards == Towards::Server {
        note(kernel, found, &flow, packet, true);
    }
    verdict
}

/// Whether a packet to a node port begins a flow, and then whether it was of one that is over.
#[inline(always)]
fn begins<K: Kernel<[u8; 4]>>(
    kernel: &mut K,
    meta: &'static Meta,
    packet: &Packet<[u8; 4]>,
    found: Option<Found<K::Entry>>,
) -> Option<bool> {
    let Some(found) = found else { return Some(false) };
    let flow = kernel.read(found.entry);
    if flow.flags & flow_flags::OUTSIDE_CLIENT == 0 || direction(&flow, packet) != Direction::Request {
        return None;
    }
    let lost = flow.generation != meta.generation && !refresh_request(kernel, meta, found.entry);
    if lost {
        forget(kernel, &flow, packet.header.protocol);
    }
    (lost || begins_anew(kernel, &flow, packet)).then_some(true)
}

/// The first packet of a flow to a node port, or one that the stack is to have: a process of this node may use the same
/// number for a port of its own. `known`: it was of a flow of ours that is over.
#[inline(always)]
fn begin<K: Kernel<[u8; 4]>>(
    kernel: &mut K,
    meta: &'static Meta,
    packet: &Packet<[u8; 4]>,
    known: bool,
) -> Verdict {
    match first(kernel, meta, packet, known) {
        Ok(Begun::Made) => {
            let Some(found) = kernel.find(&key(packet)) else {
                return Verdict::Drop(DropReason::Inconsistent);
            };
            carry(kernel, found.entry, packet, Towards::Server)
        }
        Ok(Begun::NotOurs) => Verdict::Pass,
        Ok(Begun::Refused) => icmp::refuse(kernel, meta, packet, icmp::Asker::Here),
        Err(reason) => drop_packet(kernel, packet, reason),
    }
}

/// What becomes of the first packet of a flow.
enum Begun {
    /// A balanced flow was made.
    Made,
    /// No node port is dialled.
    NotOurs,
    /// A service without backends, or the middle of a flow whose backend is gone.
    Refused,
}

#[inline(never)]
fn first<K: Kernel<[u8; 4]>>(
    kernel: &mut K,
    meta: &'static Meta,
    packet: &Packet<[u8; 4]>,
    known: bool,
) -> Result<Begun, DropReason> {
    let header = &packet.header;
    let dialled = FrontendKey {
        address: header.destination,
        port: packet.ports.destination,
        protocol: header.protocol,
        pad: 0,
    };
    if !packet.ports.opens(header.protocol) {
        return Ok(if known { Begun::Refused } else { Begun::NotOurs });
    }
    let Some(frontend) = kernel.frontend(&dialled) else { return Ok(Begun::NotOurs) };
    // Nobody outside has an address of ours.
    if header.source == meta.node4 || kernel.pod(header.source).is_some() {
        return Err(DropReason::SpoofedSource);
    }
    let (to, from) = (packet.ports.destination, packet.ports.source);
    if header.protocol == crate::abi::protocol::UDP
        && kernel.is_awaited(header.source, from, header.destination, to)
    {
        return Ok(Begun::NotOurs);
    }
    if frontend.count == 0 {
        return Ok(Begun::Refused);
    }
    balance(kernel, meta, meta.node4, &frontend, packet, Client::Outside)?;
    Ok(Begun::Made)
}

/// Sends a packet on its way, unless it comes from outside and is too big to leave again: the stack, which has no part in
/// such a flow, cannot answer.
#[inline(always)]
fn carry<K: Kernel<[u8; 4]>>(
    kernel: &mut K,
    entry: K::Entry,
    packet: &Packet<[u8; 4]>,
    towards: Towards,
) -> Verdict {
    let flow = kernel.read(entry);
    if flow.flags & (flow_flags::OUTSIDE_CLIENT | flow_flags::LOCAL_POD | flow_flags::OWN_NODE)
        == flow_flags::OUTSIDE_CLIENT
    {
        let exit = if towards == Towards::Server { flow.server_ifindex } else { flow.edge };
        if let Some(mtu) = kernel.too_big_for(exit) {
            return too_big(kernel, packet, mtu);
        }
    }
    forward(kernel, &flow, packet, towards)
}

#[inline(never)]
fn too_big<K: Kernel<[u8; 4]>>(kernel: &mut K, packet: &Packet<[u8; 4]>, mtu: u32) -> Verdict {
    if !kernel.may_answer() || !icmp::too_big(kernel, &packet.header, mtu) {
        return drop_packet(kernel, packet, DropReason::TooBig);
    }
    bounce(kernel)
}

/// What leaves for the network.
#[inline(always)]
pub fn egress<K: Kernel<[u8; 4]>>(kernel: &mut K) -> Verdict {
    let Some(meta) = kernel.meta() else { return Verdict::Pass };
    if kernel.marked() & meta.mark == 0 || ethertype(kernel) != Some(ethertype::IPV4) {
        return Verdict::Pass;
    }
    let Some(header) = ipv4(kernel) else { return Verdict::Pass };
    let packet = packet(kernel, header);
    match packet.kind {
        Kind::Transport | Kind::Fragment => left(kernel, &packet),
        _ => icmp::at_edge(kernel, &packet),
    }
}

/// A reply leaves by the device that its route names, which may be another than the one its request came in by.
#[inline(always)]
fn left<K: Kernel<[u8; 4]>>(kernel: &mut K, packet: &Packet<[u8; 4]>) -> Verdict {
    let Some(found) = kernel.find(&key(packet)) else { return Verdict::Pass };
    let flow = kernel.read(found.entry);
    if flow.flags & flow_flags::OUTSIDE_CLIENT == 0 || direction(&flow, packet) != Direction::Reply {
        return Verdict::Pass;
    }
    note(kernel, found, &flow, packet, false);
    restore(kernel, &flow, packet)
}
