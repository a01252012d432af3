//! The network of the path tests: one node on a hostile host, a router, and behind it a remote host that plays
//! the pods of another node.
//!
//! ```text
//!  node1                        router                        remote
//!  eth0 192.168.77.2 ──── n0 192.168.77.1
//!                              r0 192.168.88.1 ──── eth0 192.168.88.2
//!  pods 10.244.1.0/24                                lo  10.244.9.7, 10.244.9.8
//! ```
//!
//! [`three`] is the larger one, of three nodes. Absent: the nodes' bridges and pods, which come through CNI.

pub mod hostile;
pub mod three;

use std::fs;
use std::iter;
use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context as _, Result};

use self::three::{SITES, Site};
use crate::node::{Node, NodeOptions};

/// The node on its uplink.
pub const NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
/// The router on the node's side.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
/// The router on the far side.
pub const ROUTER_FAR: Ipv4Addr = Ipv4Addr::new(192, 168, 88, 1);
/// The remote host.
pub const REMOTE: Ipv4Addr = Ipv4Addr::new(192, 168, 88, 2);
/// Pods that the remote host plays.
pub const REMOTE_PODS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 244, 9, 7), Ipv4Addr::new(10, 244, 9, 8)];
/// Where they live.
pub const REMOTE_POD_CIDR: &str = "10.244.9.0/24";
/// Where the node's own pods live.
pub const NODE_POD_CIDR: &str = "10.244.1.0/24";
/// The node's uplink.
pub const UPLINK: &str = "eth0";

/// Who computes checksums on the links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// The kernel's default: a packet between namespaces may carry none.
    AsFound,
    /// The sender, always.
    Off,
}

/// Which hosts there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One node; the remote host plays another one's pods.
    OneNode,
    /// Those of [`three`]; the remote host is the client outside.
    ThreeNodes,
}

/// How it is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopologyOptions {
    pub shape: Shape,
    /// Bytes; both ends of the links between nodes and router.
    pub uplink_mtu: u32,
    pub offload: Offload,
    /// Whether the node has a default route, by the router. The remote pods' route is there in any case.
    pub default_route: bool,
    /// `bridge-nf-call-iptables` on the node.
    pub bridge_nf_call: bool,
    /// Whether the node has a bpffs.
    pub bpffs: bool,
}

impl Default for TopologyOptions {
    fn default() -> Self {
        Self {
            shape: Shape::OneNode,
            uplink_mtu: 1500,
            offload: Offload::AsFound,
            default_route: true,
            bridge_nf_call: false,
            bpffs: true,
        }
    }
}

/// It, running. A host is shared with what was put into it, and ends with its last owner.
#[derive(Debug)]
pub struct Topology {
    /// The first node.
    pub node: Arc<Node>,
    /// The nodes beyond it.
    pub others: Vec<Arc<Node>>,
    pub router: Arc<Node>,
    pub remote: Arc<Node>,
    pub options: TopologyOptions,
}

impl Topology {
    /// Builds it.
    pub fn start(prefix: &str, options: TopologyOptions) -> Result<Self> {
        let node = |name| {
            let options = NodeOptions { bpffs: options.bpffs, cgroup: true };
            Node::start(prefix, name, options).map(Arc::new)
        };
        let (others, remote): (&[Site], _) = match options.shape {
            Shape::OneNode => (&[], "remote"),
            Shape::ThreeNodes => (&SITES[1..], "outside"),
        };
        let topology = Self {
            node: node(SITES[0].name)?,
            others: others.iter().map(|site| node(site.name)).collect::<Result<_>>()?,
            router: Arc::new(Node::start(prefix, "router", NodeOptions::HOST)?),
            remote: Arc::new(Node::start(prefix, remote, NodeOptions::HOST)?),
            options,
        };
        topology.connect()?;
        for node in topology.nodes() {
            hostile::make(node, options.bridge_nf_call)?;
        }
        if options.shape == Shape::ThreeNodes {
            three::open(&topology)?;
        }
        if options.offload == Offload::Off {
            for host in topology.hosts() {
                topology.offload_off(host)?;
            }
        }
        Ok(topology)
    }

    /// Nodes, router and remote host.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes().chain([&self.router, &self.remote])
    }

    /// The nodes, in the order of [`three::SITES`].
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        iter::once(&self.node).chain(&self.others)
    }

    /// Turns checksum offload off on every link a host has now but `lo`. For the bridge and the pods' links,
    /// which come later, a test calls it again.
    pub fn offload_off(&self, host: &Node) -> Result<()> {
        for link in host.links()?.iter().filter(|link| *link != "lo") {
            hostile::offload_off(host, link)?;
        }
        Ok(())
    }

    /// Lets packets of at most so many bytes pass between router and remote host, while the remote host still
    /// offers full-sized segments: what the node sends must learn the path MTU from the router.
    pub fn narrow_far_link(&self, mtu: u32) -> Result<()> {
        self.router.ip(&format!("link set r0 mtu {mtu}\n"))?;
        self.remote.ip(&format!("route replace default via {ROUTER_FAR} mtu {mtu} advmss 1460\n"))
    }

    /// Packets with a wrong checksum that anyone here has received: IP, ICMP, TCP and UDP. `pods` are network
    /// namespaces that `ip netns` knows on the node. Conntrack on the node may see one first and call it
    /// invalid: [`hostile::drops`] has those.
    pub fn checksum_errors(&self, pods: &[&str]) -> Result<u64> {
        let mut sum = 0;
        for host in self.hosts() {
            for table in ["snmp", "netstat"] {
                let path = format!("/proc/{}/net/{table}", host.pid());
                let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
                sum += checksum_errors(&text)?;
            }
        }
        for pod in pods {
            for path in ["/proc/net/snmp", "/proc/net/netstat"] {
                sum += checksum_errors(&self.node.run(&["ip", "netns", "exec", pod, "cat", path])?)?;
            }
        }
        Ok(sum)
    }

    fn connect(&self) -> Result<()> {
        for host in self.nodes().chain([&self.router]) {
            host.write("/proc/sys/net/ipv4/ip_forward", "1")?;
        }
        match self.options.shape {
            Shape::OneNode => self.connect_one(),
            Shape::ThreeNodes => three::connect(self),
        }
    }

    fn connect_one(&self) -> Result<()> {
        let mtu = self.options.uplink_mtu;
        let (node, remote) = (self.node.pid(), self.remote.pid());
        self.router.ip(&format!(
            "link add n0 mtu {mtu} type veth peer name {UPLINK} mtu {mtu} netns {node}\n\
             link add r0 type veth peer name eth0 netns {remote}\n\
             addr add {ROUTER}/24 dev n0\n\
             addr add {ROUTER_FAR}/24 dev r0\n\
             link set n0 up\n\
             link set r0 up\n"
        ))?;
        self.node.ip(&format!(
            "addr add {NODE}/24 dev {UPLINK}\n\
             link set {UPLINK} up\n\
             route add {REMOTE_POD_CIDR} via {ROUTER}\n"
        ))?;
        if self.options.default_route {
            self.node.ip(&format!("route add default via {ROUTER}\n"))?;
        }
        let [first, second] = REMOTE_PODS;
        self.remote.ip(&format!(
            "addr add {REMOTE}/24 dev eth0\n\
             link set eth0 up\n\
             addr add {first}/32 dev lo\n\
             addr add {second}/32 dev lo\n\
             route add default via {ROUTER_FAR}\n"
        ))?;
        self.router.ip(&format!(
            "route add {NODE_POD_CIDR} via {NODE}\n\
             route add {REMOTE_POD_CIDR} via {REMOTE}\n"
        ))
    }
}

/// Sums every `InCsumErrors` of a table such as `/proc/net/snmp`: lines come in pairs, names and then values.
fn checksum_errors(table: &str) -> Result<u64> {
    let mut sum = 0;
    let mut found = false;
    let mut lines = table.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        for (name, value) in names.split(' ').zip(values.split(' ')) {
            if name == "InCsumErrors" {
                found = true;
                sum += value.parse::<u64>().with_context(|| format!("InCsumErrors {value}"))?;
            }
        }
    }
    anyhow::ensure!(found, "a table without InCsumErrors");
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_errors_of_every_protocol_count() {
        let text = "Icmp: InMsgs InErrors InCsumErrors OutMsgs\nIcmp: 9 8 2 7\n\
                    Tcp: InSegs InCsumErrors\nTcp: 100 3\nUdp: InCsumErrors IgnoredMulti\nUdp: 4 5\n";
        assert_eq!(checksum_errors(text).unwrap(), 9);
    }

    #[test]
    fn a_table_without_checksum_errors_is_no_zero() {
        assert!(checksum_errors("Ip: Forwarding\nIp: 1\n").is_err());
    }
}
