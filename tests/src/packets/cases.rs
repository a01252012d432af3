//! The cases, by hook and subject.

mod answers;
mod flows;
mod node_ports;
mod pods;
mod requests;

use router_common::abi::{Flow, FlowKey, flow_flags, protocol};
use router_common::hook::flow::{client_key, server_key};
use router_common::verdict::Verdict;

use super::build::{Macs, with_fragment};
use super::{
    BRIDGE_MAC, Case, DEVICE, Hook, MARK, NEIGHBOUR, NEIGHBOUR_MAC, OTHER, POD, POD_MAC, SERVICE_MAC, V4,
    VIP, World,
};

/// What the pod behind the device sends to its gateway.
pub const FROM_POD: Macs = Macs { source: POD_MAC, destination: BRIDGE_MAC };
/// What the bridge delivers to the pod behind the device.
pub const TO_POD: Macs = Macs { source: BRIDGE_MAC, destination: POD_MAC };
/// What goes from end to end of `kube-svc`.
pub const ON_SERVICE: Macs = Macs { source: SERVICE_MAC, destination: SERVICE_MAC };
/// The only source port that is ours in a case, so that it is known.
pub const PORT: u16 = 50_000;

/// Every case.
pub fn all() -> Vec<Case> {
    let mut cases = requests::cases();
    cases.extend(flows::cases());
    cases.extend(pods::cases());
    cases.extend(answers::cases());
    cases.extend(node_ports::cases());
    cases
}

/// A case without packets before it.
fn case(name: &'static str, hook: Hook, world: World, packet: Vec<u8>, verdict: Verdict) -> Case {
    Case { name, hook, world, before: Vec::new(), mark: 0, packet, verdict, out: None }
}

/// As what we send ourselves.
fn dont_fragment(packet: Vec<u8>) -> Vec<u8> {
    with_fragment(packet, 0, 0x4000)
}

impl Case {
    /// With bytes that differ from those that came in.
    #[must_use]
    fn out(mut self, packet: Vec<u8>) -> Self {
        self.out = Some(packet);
        self
    }

    /// With our mark on the packet.
    #[must_use]
    const fn marked(mut self) -> Self {
        self.mark = MARK;
        self
    }

    /// With a packet that went before, through the same maps.
    #[must_use]
    fn after(mut self, hook: Hook, packet: Vec<u8>) -> Self {
        self.before.push((hook, packet));
        self
    }
}

impl World {
    /// With one reserved source port, [`PORT`].
    #[must_use]
    fn one_port(mut self) -> Self {
        self.meta.port_first = PORT;
        self.meta.port_last = PORT;
        self
    }

    /// With one half of a flow that is new, or all of one that is not translated.
    #[must_use]
    fn half(mut self, protocol: u8, flow: Flow<V4>, side: u16) -> Self {
        let key = if side == flow_flags::CLIENT {
            client_key(&flow, protocol)
        } else {
            server_key(&flow, protocol)
        };
        self.flows.push((key, Flow { flags: flow.flags | side, ..flow }, false));
        self
    }

    /// With both halves of a flow, confirmed.
    #[must_use]
    fn flow(mut self, protocol: u8, flow: Flow<V4>) -> Self {
        let half = |key: FlowKey<V4>, side: u16| (key, Flow { flags: flow.flags | side, ..flow }, true);
        self.flows.push(half(server_key(&flow, protocol), flow_flags::SERVER));
        self.flows.push(half(client_key(&flow, protocol), flow_flags::CLIENT));
        self
    }
}

/// The pod behind the device dials the VIP, and its neighbour serves.
fn outgoing() -> Flow<V4> {
    Flow {
        client: POD,
        frontend: VIP,
        source: POD,
        backend: NEIGHBOUR,
        client_port: 40_000,
        frontend_port: 80,
        source_port: 40_000,
        backend_port: 8080,
        service: 1,
        backend_id: 100,
        generation: 1,
        edge: DEVICE,
        server_ifindex: OTHER,
        server_mac: NEIGHBOUR_MAC,
        client_mac: POD_MAC,
        flags: flow_flags::LOCAL_POD,
        seen: 0,
        pad: 0,
        packets: 0,
        bytes: 0,
        last_seen: 0,
        created: 0,
    }
}

/// The neighbour dials the VIP, and the pod behind the device serves.
fn incoming() -> Flow<V4> {
    Flow {
        client: NEIGHBOUR,
        source: NEIGHBOUR,
        backend: POD,
        edge: OTHER,
        server_ifindex: DEVICE,
        server_mac: POD_MAC,
        client_mac: NEIGHBOUR_MAC,
        ..outgoing()
    }
}

/// The protocols that are balanced.
const TCP: u8 = protocol::TCP;
const UDP: u8 = protocol::UDP;
