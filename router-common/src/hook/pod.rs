//! The two hooks of a pod's veth, on its host end.
//!
//! From a pod: only ARP and IPv4 with its own addresses (IPv6 passes untouched), and the client's half of every
//! translation. To a pod: only what is addressed to it, and the rest of the translations that came by the stack.

use crate::abi::{Address, Flow, FlowKey, FrontendKey, Meta, Pod, device_flags, flow_flags, key_kind, seen};
use crate::hook::create::{Client, balance, displace, refresh_reply, refresh_request, take_up};
use crate::hook::flow::{
    Direction, Towards, begins_anew, direction, forget, forward, key, note, restore, untranslated,
};
use crate::hook::{Kind, Packet, drop_packet, icmp, is_edge, packet};
use crate::kernel::{Found, Kernel};
use crate::packet::{Header, arp, ethertype, ipv4};
use crate::verdict::{DropReason, Verdict};

/// What a pod sends.
#[inline(always)]
pub fn ingress<K: Kernel<[u8; 4]>>(kernel: &mut K) -> Verdict {
    let Some(meta) = kernel.meta() else { return Verdict::Pass };
    match ethertype(kernel) {
        Some(ethertype::IPV4) => {}
        Some(ethertype::ARP) => return announcement(kernel),
        Some(ethertype::IPV6) => return Verdict::Pass,
        _ => return Verdict::Drop(DropReason::UnknownProtocol),
    }
    let Some(header) = ipv4(kernel) else { return Verdict::Drop(DropReason::Malformed) };
    let packet = packet(kernel, header);
    match packet.kind {
        Kind::Transport | Kind::Fragment => sent(kernel, meta, &packet),
        Kind::Orphan => drop_packet(kernel, &packet, DropReason::OrphanFragment),
        Kind::Malformed => drop_packet(kernel, &packet, DropReason::Malformed),
        Kind::Other => match sender(kernel, &packet.header) {
            Ok(_) => icmp::about_flow(kernel, meta, &packet),
            Err(reason) => drop_packet(kernel, &packet, reason),
        },
    }
}

#[inline(always)]
fn sent<K: Kernel<[u8; 4]>>(kernel: &mut K, meta: &'static Meta, packet: &Packet<[u8; 4]>) -> Verdict {
    let Some(found) = kernel.find(&key(packet)) else {
        // A flow that was displaced outlives the one that displaced it.
        return match kernel.find(&displaced_key(packet)) {
            Some(_) => displaced(kernel, meta, packet),
            None => begin(kernel, meta, packet),
        };
    };
    let flow = kernel.read(found.entry);
    let (way, edge) = (direction(&flow, packet), is_edge(kernel, &flow));
    let anew = match way {
        Direction::Request if edge => {
            begins_anew(kernel, &flow, packet) || is_lost(kernel, meta, found.entry, &flow, packet)
        }
        // The flow of a pod that had this address before, at another veth.
        Direction::Request => is_left_behind(kernel, &flow, packet),
        Direction::Translated if edge && untranslated(&flow) => {
            begins_anew(kernel, &flow, packet) || (!found.confirmed && is_served(kernel, &flow, packet))
        }
        _ => false,
    };
    // In one place, since the verifier follows a flow's beginning anew from each.
    if anew {
        return begin(kernel, meta, packet);
    }
    match way {
        Direction::Request if edge => continued(kernel, found, packet),
        Direction::Reply if answers_here(kernel, &flow) => answered(kernel, meta, found, &flow, packet),
        Direction::Translated if untranslated(&flow) && edge => {
            note(kernel, found, &flow, packet, true);
            Verdict::Pass
        }
        Direction::Translated if edge => displaced(kernel, meta, packet),
        // Not where this flow's packets come from: whoever sends it must own its source.
        way => match sender(kernel, &packet.header) {
            Ok(_) if way == Direction::Reply => answered(kernel, meta, found, &flow, packet),
            Ok(_) => Verdict::Pass,
            Err(reason) => drop_packet(kernel, packet, reason),
        },
    }
}

/// Whether a flow's backend is gone; then the flow goes too. TCP finds none and is reset; UDP begins anew with
/// another backend.
#[inline(always)]
fn is_lost<K: Kernel<[u8; 4]>>(
    kernel: &mut K,
    meta: &'static Meta,
    entry: K::Entry,
    flow: &Flow<[u8; 4]>,
    packet: &Packet<[u8; 4]>,
) -> bool {
    let lost = flow.generation != meta.generation && !refresh_request(kernel, meta, entry);
    if lost {
        forget(kernel, flow, packet.header.protocol);
    }
    lost
}

/// Whether a flow's client was another pod than the one that owns its address now; then the flow goes.
#[inline(never)]
fn is_left_behind<K: Kernel<[u8; 4]>>(
    kernel: &mut K,
    flow: &Flow<[u8; 4]>,
    packet: &Packet<[u8; 4]>,
) -> bool {
    let left = matches!(sender(kernel, &packet.header), Ok(Some(_)));
    if left {
        forget(kernel, flow, packet.header.protocol);
    }
    left
}

/// Whether a service has come to be where a flow, still unanswered, was taken up as one that dials none: then that
/// one goes, and the packet begins another.
#[inline(never)]
fn is_served<K: Kernel<[u8; 4]>>(kernel: &mut K, flow: &Flow<[u8; 4]>, packet: &Packet<[u8; 4]>) -> bool {
    let served = flow.seen & seen::REPLY == 0 && kernel.frontend(&dialled(packet)).is_some();
    if served {
        forget(kernel, flow, packet.header.protocol);
    }
    served
}

#[inline(always)]
fn dialled(packet: &Packet<[u8; 4]>) -> FrontendKey<[u8; 4]> {
    FrontendKey {
        address: packet.header.destination,
        port: packet.ports.destination,
        protocol: packet.header.protocol,
        pad: 0,
    }
}

#[inline(always)]
fn displaced_key(packet: &Packet<[u8; 4]>) -> FlowKey<[u8; 4]> {
    let mut key = key(packet);
    key.kind = key_kind::DISPLACED;
    key
}

/// A pod dials a backend directly with the tuple that a balanced flow of its own has on its server's side.
#[inline(always)]
fn displaced<K: Kernel<[u8; 4]>>(kernel: &mut K, meta: &'static Meta, packet: &Packet<[u8; 4]>) -> Verdict {
    let key = displaced_key(packet);
    let begins = kernel.find(&key).is_none();
    if begins && let Err(reason) = displace(kernel, meta, packet) {
        return drop_packet(kernel, packet, reason);
    }
    let Some(found) = kernel.find(&key) else { return Verdict::Drop(DropReason::Inconsistent) };
    let flow = kernel.read(found.entry);
    let verdict = forward(kernel, &flow, packet, Towards::Server);
    if !begins {
        note(kernel, found, &flow, packet, true);
    }
    verdict
}

/// Sends the packet that made a flow.
#[inline(always)]
fn made<K: Kernel<[u8; 4]>>(kernel: &mut K, key: &FlowKey<[u8; 4]>, packet: &Packet<[u8; 4]>) -> Verdict {
    let Some(found) = kernel.find(key) else { return Verdict::Drop(DropReason::Inconsistent) };
    let flow = kernel.read(found.entry);
    forward(kernel, &flow, packet, Towards::Server)
}

/// Whether a reply leaves by the veth that requests went into, so that its source needs no proof.
#[inline(always)]
fn answers_here<A: Address, K: Kernel<A>>(kernel: &K, flow: &Flow<A>) -> bool {
    flow.server_ifindex == kernel.ifindex()
}

/// A client's packet on a flow that exists.
#[inline(always)]
fn continued<K: Kernel<[u8; 4]>>(
    kernel: &mut K,
    found: Found<K::Entry>,
    packet: &Packet<[u8; 4]>,
) -> Verdict {
    let flow = kernel.read(found.entry);
    let verdict = forward(kernel, &flow, packet, Towards::Server);
    note(kernel, found, &flow, packet, true);
    verdict
}

/// A server's packet on a flow that exists.
#[inline(always)]
fn answered<K: Kernel<[u8; 4]>>(
    kernel: &mut K,
    meta: &'static Meta,
    found: Found<K::Entry>,
    flow: &Flow<[u8; 4]>,
    packet: &Packet<[u8; 4]>,
) -> Verdict {
    if untranslated(flow) {
        note(kernel, found, flow, packet, false);
        return Verdict::Pass;
    }
    if flow.generation != meta.generation {
        refresh_reply(kernel, meta, found.entry);
    }
    // A slow reply to a pod of this node is counted where it is restored.
    if flow.flags & (flow_flags::FAST | flow_flags::HAIRPIN | flow_flags::HOST_CLIENT) != 0 {
        note(kernel, found, flow, packet, false);
    }
    let flow = kernel.read(found.entry);
    forward(kernel, &flow, packet, Towards::Client)
}

/// What becomes of the first packet of a flow.
enum Begun {
    /// A balanced flow was made.
    Made,
    /// No service is dialled.
    Direct,
    /// A VIP that refuses: routed to `kube-svc`, which does.
    Refused,
    /// A node port that refuses, where nobody else does.
    RefusedHere,
}

/// The first packet of a flow.
#[inline(always)]
fn begin<K: Kernel<[u8; 4]>>(kernel: &mut K, meta: &'static Meta, packet: &Packet<[u8; 4]>) -> Verdict {
    match first(kernel, meta, packet) {
        Ok(Begun::Made) => made(kernel, &key(packet), packet),
        Ok(Begun::Direct) => {
            take_up(kernel, meta, packet);
            Verdict::Pass
        }
        Ok(Begun::Refused) => Verdict::Pass,
        Ok(Begun::RefusedHere) => icmp::refuse(kernel, meta, packet, icmp::Asker::Here),
        Err(reason) => drop_packet(kernel, packet, reason),
    }
}

#[inline(never)]
fn first<K: Kernel<[u8; 4]>>(
    kernel: &mut K,
    meta: &'static Meta,
    packet: &Packet<[u8; 4]>,
) -> Result<Begun, DropReason> {
    let client = match sender(kernel, &packet.header)? {
        Some(pod) => Client::Pod(pod),
        None => Client::UnboundPod,
    };
    let Some(frontend) = kernel.frontend(&dialled(packet)) else { return Ok(Begun::Direct) };
    if frontend.count == 0 || !packet.ports.opens(packet.header.protocol) {
        let here = packet.header.destination == meta.node4;
        return Ok(if here { Begun::RefusedHere } else { Begun::Refused });
    }
    balance(kernel, meta, meta.node4, &frontend, packet, client)?;
    Ok(Begun::Made)
}

/// Who sends: the pod bound to that source and this veth; `None` while nobody is bound to either.
#[inline(always)]
fn sender<K: Kernel<[u8; 4]>>(kernel: &mut K, header: &Header<[u8; 4]>) -> Result<Option<Pod>, DropReason> {
    let ifindex = kernel.ifindex();
    match kernel.pod(header.source) {
        Some(pod) if pod.ifindex == ifindex => Ok(Some(pod)),
        Some(_) => Err(DropReason::SpoofedSource),
        None if is_bound(kernel) => Err(DropReason::SpoofedSource),
        None => Ok(None),
    }
}

#[inline(always)]
fn is_bound<A: Address, K: Kernel<A>>(kernel: &K) -> bool {
    kernel.device(kernel.ifindex()).is_some_and(|device| device.flags & device_flags::BOUND != 0)
}

/// ARP from a pod: its own address and MAC, or none (RFC 5227 probes).
#[inline(never)]
fn announcement<K: Kernel<[u8; 4]>>(kernel: &mut K) -> Verdict {
    let Some(announced) = arp(kernel) else { return Verdict::Drop(DropReason::Malformed) };
    let own = match kernel.pod(announced.sender) {
        Some(pod) => {
            pod.ifindex == kernel.ifindex()
                && pod.mac == announced.sender_mac
                && pod.mac == announced.frame_mac
        }
        None => announced.sender == <[u8; 4]>::UNSPECIFIED || !is_bound(kernel),
    };
    if own {
        return Verdict::Pass;
    }
    let event = crate::abi::Event {
        time: kernel.now(),
        ifindex: kernel.ifindex(),
        reason: DropReason::SpoofedArp as u32,
        source: announced.sender,
        destination: [0; 4],
        source_port: 0,
        destination_port: 0,
        protocol: 0,
        pad: [0; 3],
    };
    kernel.report(event);
    Verdict::Drop(DropReason::SpoofedArp)
}

/// What the stack delivers to a pod.
#[inline(always)]
pub fn egress<K: Kernel<[u8; 4]>>(kernel: &mut K) -> Verdict {
    let Some(meta) = kernel.meta() else { return Verdict::Pass };
    if ethertype(kernel) != Some(ethertype::IPV4) {
        return Verdict::Pass;
    }
    let Some(header) = ipv4(kernel) else { return Verdict::Drop(DropReason::Malformed) };
    let packet = packet(kernel, header);
    match packet.kind {
        Kind::Transport | Kind::Fragment => delivered(kernel, meta, &packet),
        Kind::Malformed => drop_packet(kernel, &packet, DropReason::Malformed),
        _ if !addressed_here(kernel, &packet.header) => drop_packet(kernel, &packet, DropReason::NotThisPod),
        Kind::Orphan | Kind::Other => icmp::at_edge(kernel, &packet),
    }
}

#[inline(always)]
fn delivered<K: Kernel<[u8; 4]>>(kernel: &mut K, meta: &'static Meta, packet: &Packet<[u8; 4]>) -> Verdict {
    let key = key(packet);
    let Some(found) = kernel.find(&key) else { return arrived(kernel, meta, packet) };
    let flow = kernel.read(found.entry);
    match direction(&flow, packet) {
        Direction::Reply if !untranslated(&flow) && is_edge(kernel, &flow) => {
            note(kernel, found, &flow, packet, false);
            restore(kernel, &flow, packet)
        }
        Direction::Translated if answers_here(kernel, &flow) => Verdict::Pass,
        Direction::Restored if is_edge(kernel, &flow) => Verdict::Pass,
        way => {
            if !addressed_here(kernel, &packet.header) {
                return drop_packet(kernel, packet, DropReason::NotThisPod);
            }
            // Between two pods of this node the sender's veth has counted already.
            if untranslated(&flow) && kernel.pod(packet.header.source).is_none() {
                note(kernel, found, &flow, packet, way != Direction::Reply);
            }
            Verdict::Pass
        }
    }
}

/// The first packet of a flow that somebody opens to a pod.
#[inline(never)]
fn arrived<K: Kernel<[u8; 4]>>(kernel: &mut K, meta: &'static Meta, packet: &Packet<[u8; 4]>) -> Verdict {
    if !addressed_here(kernel, &packet.header) {
        return drop_packet(kernel, packet, DropReason::NotThisPod);
    }
    if packet.ports.control & crate::packet::tcp::RST == 0 {
        take_up(kernel, meta, packet);
    }
    Verdict::Pass
}

/// Whether this veth's pod may have it: its own address, or anything that is no unicast address.
#[inline(always)]
fn addressed_here<K: Kernel<[u8; 4]>>(kernel: &mut K, header: &Header<[u8; 4]>) -> bool {
    let ifindex = kernel.ifindex();
    match kernel.pod(header.destination) {
        Some(pod) => pod.ifindex == ifindex,
        None => header.destination[0] >= 224 || !is_bound(kernel),
    }
}
