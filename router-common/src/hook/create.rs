//! Flows that begin: which backend, which source, which exit; and flows whose tables have changed under them.
//!
//! The server's side is inserted first and decides clashes (on one, another source port); the client's side
//! second, and whoever loses that race takes the winner's.

use crate::abi::{
    Address, Flow, Frontend, Meta, Pod, backend_flags, device_kind, flow_flags, meta_flags, pod_flags,
};
use crate::balance::pick;
use crate::hook::Packet;
use crate::hook::flow::{client_key, key, server_key};
use crate::kernel::{Inserted, Kernel, Route};
use crate::verdict::DropReason;

/// Source ports tried before a flow is given up.
const TRIES: u32 = 8;

/// Who opens a flow.
#[derive(Clone, Copy, Debug)]
pub enum Client {
    /// A pod of this node, bound to its address.
    Pod(Pod),
    /// A pod of this node whose address nobody has confirmed yet.
    UnboundPod,
    /// A process of this node, by way of `kube-svc`.
    Host,
    /// Somebody beyond an uplink, who dialled a node port.
    Outside,
}

/// Makes a balanced flow; it is found by the packet's key then.
#[inline(always)]
pub fn balance<A: Address, K: Kernel<A>>(
    kernel: &mut K,
    meta: &Meta,
    node: A,
    frontend: &Frontend,
    packet: &Packet<A>,
    client: Client,
) -> Result<(), DropReason> {
    let choice = pick(kernel, frontend).ok_or(DropReason::NoEndpoint)?;
    let flow = &mut blank(kernel, meta, packet);
    flow.service = frontend.service;
    flow.backend_id = choice.id;
    flow.backend = choice.backend.address;
    flow.backend_port = choice.backend.port;
    let own_node = choice.backend.flags & backend_flags::OWN_NODE != 0;
    place(kernel, meta, node, flow, packet.header.protocol, client, own_node)?;
    let reserved = shares_source(flow.flags);
    claim(kernel, meta, flow, packet.header.protocol, reserved)?;
    settle(kernel, flow, packet.header.protocol)
}

/// Makes a flow that dials a backend directly while its tuple is the server's side of a balanced one.
#[inline(never)]
pub fn displace<A: Address, K: Kernel<A>>(
    kernel: &mut K,
    meta: &Meta,
    packet: &Packet<A>,
) -> Result<(), DropReason> {
    let flow = &mut blank(kernel, meta, packet);
    flow.backend = packet.header.destination;
    flow.backend_port = packet.ports.destination;
    flow.flags = flow_flags::DISPLACED;
    claim(kernel, meta, flow, packet.header.protocol, true)?;
    settle(kernel, flow, packet.header.protocol)
}

/// Notes a flow that nothing translates, so that no balanced flow takes its tuple.
#[inline(never)]
pub fn take_up<A: Address, K: Kernel<A>>(kernel: &mut K, meta: &Meta, packet: &Packet<A>) {
    let mut flow = blank(kernel, meta, packet);
    flow.backend = packet.header.destination;
    flow.backend_port = packet.ports.destination;
    flow.flags = flow_flags::CLIENT | flow_flags::SERVER;
    // Where it is full, the flow lives without a row: nothing of it depends on one.
    let _ = kernel.insert(&key(packet), &flow);
}

/// A flow that begins with this packet, its server still to be found.
#[inline(always)]
fn blank<A: Address, K: Kernel<A>>(kernel: &K, meta: &Meta, packet: &Packet<A>) -> Flow<A> {
    let now = kernel.now();
    Flow {
        client: packet.header.source,
        frontend: packet.header.destination,
        source: packet.header.source,
        backend: A::UNSPECIFIED,
        client_port: packet.ports.source,
        frontend_port: packet.ports.destination,
        source_port: packet.ports.source,
        backend_port: 0,
        service: 0,
        backend_id: 0,
        generation: meta.generation,
        edge: kernel.ifindex(),
        server_ifindex: 0,
        server_mac: [0; 6],
        client_mac: [0; 6],
        flags: 0,
        seen: 0,
        pad: 0,
        packets: 1,
        bytes: u64::from(kernel.length()),
        last_seen: now,
        created: now,
    }
}

/// Whether the server is shown an address that other clients are shown too, so that the port tells them apart. A
/// process of this node has its port alone on this node.
#[inline(always)]
const fn shares_source(flags: u16) -> bool {
    let host = flags & (flow_flags::HOST_CLIENT | flow_flags::OWN_NODE) == flow_flags::HOST_CLIENT;
    let outside = flags & (flow_flags::OUTSIDE_CLIENT | flow_flags::LOCAL_POD) == flow_flags::OUTSIDE_CLIENT;
    host || outside
}

/// Fills in where the server is, how it is reached, and which source it is shown.
#[inline(always)]
fn place<A: Address, K: Kernel<A>>(
    kernel: &mut K,
    meta: &Meta,
    node: A,
    flow: &mut Flow<A>,
    protocol: u8,
    client: Client,
    own_node: bool,
) -> Result<(), DropReason> {
    let may_be_fast = meta.flags & meta_flags::FAST != 0
        && match client {
            Client::Pod(pod) => pod.flags & pod_flags::NO_FAST == 0,
            Client::UnboundPod => false,
            Client::Host | Client::Outside => true,
        };
    let host = matches!(client, Client::Host);
    let outside = matches!(client, Client::Outside);
    match client {
        Client::Pod(pod) => flow.client_mac = pod.mac,
        Client::UnboundPod => {}
        Client::Host => {
            flow.flags |= flow_flags::HOST_CLIENT;
            flow.source = node;
        }
        Client::Outside => flow.flags |= flow_flags::OUTSIDE_CLIENT,
    }
    if own_node {
        flow.flags |= flow_flags::OWN_NODE;
        if host || outside {
            flow.source = A::OWN_NODE_CLIENT;
        }
        return Ok(());
    }
    if let Some(pod) = kernel.pod(flow.backend) {
        flow.flags |= flow_flags::LOCAL_POD;
        flow.server_mac = pod.mac;
        flow.server_ifindex = pod.ifindex;
        if flow.client == flow.backend {
            flow.flags |= flow_flags::HAIRPIN;
            flow.source = flow.frontend;
        } else if may_be_fast && pod.flags & pod_flags::NO_FAST == 0 {
            flow.flags |= flow_flags::FAST;
        } else if host {
            flow.server_ifindex = meta.bridge_ifindex;
        }
        return Ok(());
    }
    if outside {
        flow.source = node;
    } else if !host && !may_be_fast {
        return Ok(());
    }
    let device = match client {
        Client::Host => meta.service_near_ifindex,
        Client::Outside => flow.edge,
        _ => meta.bridge_ifindex,
    };
    match kernel.route(device, flow.source, flow.backend, protocol) {
        Route::Via(ifindex)
            if kernel.device(ifindex).is_some_and(|device| device.kind == device_kind::UPLINK) =>
        {
            flow.server_ifindex = ifindex;
            // What comes in with this node's own address as its source, the stack drops: a flow from outside to another
            // node never enters it.
            if may_be_fast || outside {
                flow.flags |= flow_flags::FAST;
            }
            Ok(())
        }
        _ if host || outside => Err(DropReason::NoRoute),
        _ => Ok(()),
    }
}

/// Claims the server's side under a source port that nobody uses towards that backend.
#[inline(always)]
fn claim<A: Address, K: Kernel<A>>(
    kernel: &mut K,
    meta: &Meta,
    flow: &mut Flow<A>,
    protocol: u8,
    reserved: bool,
) -> Result<(), DropReason> {
    let flags = flow.flags;
    for attempt in 0..TRIES {
        if reserved || attempt > 0 {
            flow.source_port = reserved_port(kernel, meta);
        }
        flow.flags = flags | flow_flags::SERVER;
        match kernel.insert(&server_key(flow, protocol), flow) {
            Inserted::Created => {
                flow.flags = flags | flow_flags::CLIENT;
                return Ok(());
            }
            Inserted::Exists => {}
            Inserted::Full => return Err(DropReason::MapFull),
        }
    }
    Err(DropReason::NoSourcePort)
}

/// Inserts the client's side; if another CPU was first, gives up ours for that one.
#[inline(always)]
fn settle<A: Address, K: Kernel<A>>(kernel: &mut K, flow: &Flow<A>, protocol: u8) -> Result<(), DropReason> {
    let key = client_key(flow, protocol);
    match kernel.insert(&key, flow) {
        Inserted::Created => Ok(()),
        Inserted::Exists => {
            kernel.remove(&server_key(flow, protocol));
            Ok(())
        }
        Inserted::Full => {
            kernel.remove(&server_key(flow, protocol));
            Err(DropReason::MapFull)
        }
    }
}

#[inline(always)]
fn reserved_port<A: Address, K: Kernel<A>>(kernel: &mut K, meta: &Meta) -> u16 {
    let width = u32::from(meta.port_last.wrapping_sub(meta.port_first)) + 1;
    let offset = kernel.random().checked_rem(width).unwrap_or(0);
    meta.port_first.wrapping_add(offset as u16)
}

/// Resolves a request's flow under the present generation. False: its backend is gone.
#[inline(never)]
pub fn refresh_request<A: Address, K: Kernel<A>>(kernel: &mut K, meta: &Meta, entry: K::Entry) -> bool {
    let (backend_id, service, address, port, flags) = {
        let flow = kernel.read(entry);
        (flow.backend_id, flow.service, flow.backend, flow.backend_port, flow.flags)
    };
    if backend_id != 0 {
        let still = kernel.backend(backend_id).is_some_and(|backend| {
            backend.service == service && backend.address == address && backend.port == port
        });
        if !still {
            return false;
        }
    }
    let pod = if flags & flow_flags::LOCAL_POD != 0 { kernel.pod(address) } else { None };
    kernel.change(entry, |row| {
        if let Some(pod) = pod {
            row.server_mac = pod.mac;
            if flags & (flow_flags::FAST | flow_flags::HAIRPIN) != 0 {
                row.server_ifindex = pod.ifindex;
            }
        }
        row.generation = meta.generation;
    });
    true
}

/// The same for a reply: only the way to the client can have changed.
#[inline(never)]
pub fn refresh_reply<A: Address, K: Kernel<A>>(kernel: &mut K, meta: &Meta, entry: K::Entry) {
    let (client, flags) = {
        let flow = kernel.read(entry);
        (flow.client, flow.flags)
    };
    let pod = if flags & flow_flags::HOST_CLIENT == 0 { kernel.pod(client) } else { None };
    kernel.change(entry, |row| {
        if let Some(pod) = pod {
            row.client_mac = pod.mac;
            row.edge = pod.ifindex;
        }
        row.generation = meta.generation;
    });
}
