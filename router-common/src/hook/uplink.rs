//! The ingress hook of an uplink: replies to flows whose client is here and whose server is not.
//!
//! A process of this node was given a source port that is ours alone, so other traffic to the node costs no look
//! in a map. Slow replies to pods go by the stack to the client's veth.

use crate::abi::{Meta, flow_flags};
use crate::hook::create::refresh_reply;
use crate::hook::flow::{Direction, Towards, direction, forward, key, note, untranslated};
use crate::hook::{Kind, Packet, icmp, packet};
use crate::kernel::Kernel;
use crate::packet::{ethertype, ipv4};
use crate::verdict::Verdict;

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
    if packet.header.destination == meta.node4 && (port < meta.port_first || port > meta.port_last) {
        return Verdict::Pass;
    }
    let Some(found) = kernel.find(&key(packet)) else { return Verdict::Pass };
    let flow = kernel.read(found.entry);
    let ours = flow.flags & (flow_flags::FAST | flow_flags::HOST_CLIENT) != 0;
    if !ours || untranslated(&flow) || direction(&flow, packet) != Direction::Reply {
        return Verdict::Pass;
    }
    if flow.generation != meta.generation {
        refresh_reply(kernel, meta, found.entry);
    }
    note(kernel, found, &flow, packet, false);
    let flow = kernel.read(found.entry);
    forward(kernel, &flow, packet, Towards::Client)
}
