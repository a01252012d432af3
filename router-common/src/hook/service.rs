//! The ingress hook of the far end of `kube-svc`, to which every VIP is routed: balances what this node's own
//! processes send, and answers what nobody claimed (ping, unknown ports, services without endpoints).

use crate::abi::{FrontendKey, Meta, flow_flags, protocol};
use crate::hook::create::{Client, balance, refresh_request};
use crate::hook::flow::{Direction, Towards, begins_anew, direction, forget, forward, key, note};
use crate::hook::{Kind, Packet, drop_packet, icmp, packet};
use crate::kernel::{Kernel, Route};
use crate::packet::{ethertype, ipv4};
use crate::verdict::{DropReason, Verdict};

/// What was routed to a VIP, or to the address under which backends on this node see its own processes.
#[inline(always)]
pub fn ingress<K: Kernel<[u8; 4]>>(kernel: &mut K) -> Verdict {
    if ethertype(kernel) != Some(ethertype::IPV4) {
        return Verdict::Pass;
    }
    let Some(meta) = kernel.meta() else { return Verdict::Drop(DropReason::NotReady) };
    let Some(header) = ipv4(kernel) else { return Verdict::Drop(DropReason::Malformed) };
    let packet = packet(kernel, header);
    match packet.kind {
        Kind::Transport | Kind::Fragment => dialled(kernel, meta, &packet),
        _ if packet.header.protocol == protocol::ICMP => icmp::to_vip(kernel, meta, &packet),
        _ => refuse(kernel, meta, &packet),
    }
}

#[inline(always)]
fn dialled<K: Kernel<[u8; 4]>>(kernel: &mut K, meta: &'static Meta, packet: &Packet<[u8; 4]>) -> Verdict {
    let Some(found) = kernel.find(&key(packet)) else { return begin(kernel, meta, packet) };
    let flow = kernel.read(found.entry);
    match direction(&flow, packet) {
        Direction::Reply if flow.flags & (flow_flags::HOST_CLIENT | flow_flags::OUTSIDE_CLIENT) != 0 => {
            note(kernel, found, &flow, packet, false);
            forward(kernel, &flow, packet, Towards::Client)
        }
        Direction::Request if flow.flags & flow_flags::HOST_CLIENT != 0 => {
            if begins_anew(kernel, &flow, packet) {
                return begin(kernel, meta, packet);
            }
            if flow.generation != meta.generation && !refresh_request(kernel, meta, found.entry) {
                forget(kernel, &flow, packet.header.protocol);
                return begin(kernel, meta, packet);
            }
            let flow = kernel.read(found.entry);
            let verdict = forward(kernel, &flow, packet, Towards::Server);
            note(kernel, found, &flow, packet, true);
            verdict
        }
        _ => refuse(kernel, meta, packet),
    }
}

/// The first packet of a flow, or one that nobody serves.
#[inline(always)]
fn begin<K: Kernel<[u8; 4]>>(kernel: &mut K, meta: &'static Meta, packet: &Packet<[u8; 4]>) -> Verdict {
    match first(kernel, meta, packet) {
        Ok(true) => {
            let Some(found) = kernel.find(&key(packet)) else {
                return Verdict::Drop(DropReason::Inconsistent);
            };
            let flow = kernel.read(found.entry);
            forward(kernel, &flow, packet, Towards::Server)
        }
        Ok(false) => refuse(kernel, meta, packet),
        Err(reason) => drop_packet(kernel, packet, reason),
    }
}

/// Makes a flow if a process of this node opens one to a service that has backends.
#[inline(never)]
fn first<K: Kernel<[u8; 4]>>(
    kernel: &mut K,
    meta: &'static Meta,
    packet: &Packet<[u8; 4]>,
) -> Result<bool, DropReason> {
    let dialled = FrontendKey {
        address: packet.header.destination,
        port: packet.ports.destination,
        protocol: packet.header.protocol,
        pad: 0,
    };
    if !packet.ports.opens(packet.header.protocol) || !is_own(kernel, meta, packet) {
        return Ok(false);
    }
    let Some(frontend) = kernel.frontend(&dialled) else { return Ok(false) };
    if frontend.count == 0 {
        return Ok(false);
    }
    balance(kernel, meta, meta.node4, &frontend, packet, Client::Host)?;
    Ok(true)
}

/// Whether a process of this node sends: under the node's address, or, if it bound itself to another one, one of this
/// host's (the stack lets nobody else in with those).
#[inline(always)]
fn is_own<K: Kernel<[u8; 4]>>(kernel: &mut K, meta: &'static Meta, packet: &Packet<[u8; 4]>) -> bool {
    let source = packet.header.source;
    source == meta.node4
        || (kernel.pod(source).is_none()
            && kernel.route(meta.service_near_ifindex, meta.node4, source, packet.header.protocol)
                == Route::Local)
}

/// Answers with a refusal; what is no VIP at all is dropped.
#[inline(never)]
fn refuse<K: Kernel<[u8; 4]>>(kernel: &mut K, meta: &'static Meta, packet: &Packet<[u8; 4]>) -> Verdict {
    let vip = FrontendKey { address: packet.header.destination, port: 0, protocol: 0, pad: 0 };
    if kernel.frontend(&vip).is_none() {
        return drop_packet(kernel, packet, DropReason::UnknownVip);
    }
    icmp::refuse(kernel, meta, packet, icmp::Asker::Host)
}
