//! Three nodes in two subnets behind a top of rack, and a client outside.
//!
//! ```text
//!  node1 eth0 192.168.77.2 ──┐  router
//!  node2 eth0 192.168.77.3 ──┴─ rack77 192.168.77.1
//!  node3 eth0 192.168.78.2 ──── rack78 192.168.78.1
//!                               r0     192.168.88.1 ──── outside eth0 192.168.88.2
//! ```
//!
//! Absent: any route to a pod. Who learns none by BGP has none: the nodes' default route is the router.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use anyhow::Result;

use super::{NODE, NODE_POD_CIDR, REMOTE, ROUTER, ROUTER_FAR, Topology, UPLINK, hostile};
use crate::serve::Transport;

/// A node: its name, where it is, and where its pods are.
#[derive(Debug, PartialEq, Eq)]
pub struct Site {
    pub name: &'static str,
    pub address: Ipv4Addr,
    /// The router in its subnet.
    pub router: Ipv4Addr,
    pub pod_cidr: &'static str,
    /// The router's bridge in its subnet.
    rack: &'static str,
}

/// The nodes; the first one is also the only one of the smaller network.
pub const SITES: [Site; 3] = [
    Site { name: "node1", address: NODE, router: ROUTER, pod_cidr: NODE_POD_CIDR, rack: "rack77" },
    Site {
        name: "node2",
        address: Ipv4Addr::new(192, 168, 77, 3),
        router: ROUTER,
        pod_cidr: "10.244.2.0/24",
        rack: "rack77",
    },
    Site {
        name: "node3",
        address: Ipv4Addr::new(192, 168, 78, 2),
        router: Ipv4Addr::new(192, 168, 78, 1),
        pod_cidr: "10.244.3.0/24",
        rack: "rack78",
    },
];

/// What the nodes' firewalls let in, as an operator has it where nodes speak BGP and pods serve on their network.
const OPEN: [(Transport, &str); 3] =
    [(Transport::Tcp, "179"), (Transport::Tcp, HOST_PORTS), (Transport::Udp, HOST_PORTS)];
/// Ports for servers on a node's network.
const HOST_PORTS: &str = "6060:6069";

pub(super) fn open(topology: &Topology) -> Result<()> {
    for node in topology.nodes() {
        for (transport, ports) in OPEN {
            hostile::open(node, transport, ports)?;
        }
    }
    Ok(())
}

pub(super) fn connect(topology: &Topology) -> Result<()> {
    let mtu = topology.options.uplink_mtu;
    let outside = topology.remote.pid();
    let mut router = format!(
        "link add r0 type veth peer name eth0 netns {outside}\n\
         addr add {ROUTER_FAR}/24 dev r0\n\
         link set r0 up\n"
    );
    for [rack, address] in [["rack77", "192.168.77.1"], ["rack78", "192.168.78.1"]] {
        write!(
            router,
            "link add {rack} mtu {mtu} type bridge\naddr add {address}/24 dev {rack}\nlink set {rack} up\n"
        )?;
    }
    for (node, site) in topology.nodes().zip(&SITES) {
        let (Site { name, rack, .. }, pid) = (site, node.pid());
        write!(
            router,
            "link add {name} mtu {mtu} type veth peer name {UPLINK} mtu {mtu} netns {pid}\n\
             link set {name} master {rack} up\n"
        )?;
    }
    topology.router.ip(&router)?;
    for (node, site) in topology.nodes().zip(&SITES) {
        node.ip(&format!("addr add {}/24 dev {UPLINK}\nlink set {UPLINK} up\n", site.address))?;
        if topology.options.default_route {
            node.ip(&format!("route add default via {}\n", site.router))?;
        }
    }
    topology.remote.ip(&format!(
        "addr add {REMOTE}/24 dev eth0\n\
         link set eth0 up\n\
         route add default via {ROUTER_FAR}\n"
    ))
}
