//! One function a hook: what to do with a packet there.
//!
//! NAT sits at the client's edge, so between edges the stack sees one tuple and its connection tracking agrees.
//! A flow is *fast* (neither direction enters the stack) or *slow* (both do), fixed when it is made.
//!
//! | hook | sees |
//! |---|---|
//! | [`pod::ingress`] | what a pod of this node sends |
//! | [`pod::egress`] | what the stack delivers to it |
//! | [`uplink::ingress`] | what comes in from the network |
//! | [`uplink::egress`] | what leaves for it |
//! | [`service::ingress`] | what was routed to a VIP: this node's own processes, and packets nobody claimed |

pub mod create;
pub mod flow;
pub mod icmp;
pub mod pod;
pub mod service;
pub mod uplink;

use crate::abi::{Address, Event, Flow, Fragment, FragmentKey, Meta, protocol};
use crate::kernel::Kernel;
use crate::packet::{Header, Ports, Position, ports};
use crate::verdict::{DropReason, Verdict};

/// A packet, with what every decision about it needs. One value, so that it lies on the stack once.
#[derive(Clone, Copy, Debug)]
pub struct Packet<A> {
    pub header: Header<A>,
    /// Of TCP and UDP; else 0.
    pub ports: Ports,
    pub kind: Kind,
}

/// What a packet's ports are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP or UDP, its header in this packet.
    Transport,
    /// TCP or UDP, its header in an earlier fragment that told the ports.
    Fragment,
    /// A fragment whose first one has not come by.
    Orphan,
    /// TCP or UDP whose header is cut.
    Malformed,
    /// Neither TCP nor UDP.
    Other,
}

/// Reads the ports, of a later fragment by way of its first.
#[inline(always)]
pub fn packet<A: Address, K: Kernel<A>>(kernel: &mut K, header: Header<A>) -> Packet<A> {
    let none = Ports { source: 0, destination: 0, control: 0 };
    let (ports, kind) = if header.protocol != protocol::TCP && header.protocol != protocol::UDP {
        (none, Kind::Other)
    } else if header.fragment == Position::Later {
        match kernel.fragment(&fragment_key(&header)) {
            Some(known) => {
                let ports =
                    Ports { source: known.source_port, destination: known.destination_port, control: 0 };
                (ports, Kind::Fragment)
            }
            None => (none, Kind::Orphan),
        }
    } else if let Some(ports) = ports(kernel, &header) {
        if header.fragment == Position::First {
            remember(kernel, &header, ports);
        }
        (ports, Kind::Transport)
    } else {
        (none, Kind::Malformed)
    };
    Packet { header, ports, kind }
}

#[inline(never)]
fn remember<A: Address, K: Kernel<A>>(kernel: &mut K, header: &Header<A>, ports: Ports) {
    let ports = Fragment { source_port: ports.source, destination_port: ports.destination };
    kernel.remember_fragment(&fragment_key(header), &ports);
}

#[inline(always)]
fn fragment_key<A: Address>(header: &Header<A>) -> FragmentKey<A> {
    FragmentKey {
        source: header.source,
        destination: header.destination,
        identification: u32::from(header.identification),
        protocol: u32::from(header.protocol),
    }
}

/// Drops with a reason, and offers the packet as an event.
#[inline(never)]
pub fn drop_packet<A: Address, K: Kernel<A>>(
    kernel: &mut K,
    packet: &Packet<A>,
    reason: DropReason,
) -> Verdict {
    let event = Event {
        time: kernel.now(),
        ifindex: kernel.ifindex(),
        reason: reason as u32,
        source: packet.header.source,
        destination: packet.header.destination,
        source_port: packet.ports.source,
        destination_port: packet.ports.destination,
        protocol: packet.header.protocol,
        pad: [0; 3],
    };
    kernel.report(event);
    Verdict::Drop(reason)
}

/// Gives a packet to a process of this node, by way of `kube-svc`: it comes in where the route to its source
/// leads, so that strict reverse path filtering is content.
#[inline(always)]
fn to_host<A: Address, K: Kernel<A>>(kernel: &mut K, meta: &Meta) -> Verdict {
    if !crate::nat::address_frame(kernel, meta.service_mac, meta.service_mac) {
        return Verdict::Drop(DropReason::RewriteFailed);
    }
    Verdict::Ingress(meta.service_near_ifindex)
}

/// Sends a packet back to where it came from.
#[inline(always)]
fn bounce<A: Address, K: Kernel<A>>(kernel: &mut K) -> Verdict {
    let Some(words) = kernel.words::<3>(0) else { return Verdict::Drop(DropReason::RewriteFailed) };
    let [[a, b, c, d], [e, f, g, h], [i, j, k, l]] = words.map(u32::to_ne_bytes);
    if !crate::nat::address_frame(kernel, [g, h, i, j, k, l], [a, b, c, d, e, f]) {
        return Verdict::Drop(DropReason::RewriteFailed);
    }
    kernel.mark(0);
    Verdict::Out(kernel.ifindex())
}

/// Whether a flow's packets at this device are the client's.
#[inline(always)]
fn is_edge<A: Address, K: Kernel<A>>(kernel: &K, flow: &Flow<A>) -> bool {
    flow.edge == kernel.ifindex()
}
