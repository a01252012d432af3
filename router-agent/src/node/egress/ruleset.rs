//! What is masqueraded, as the text of a table: the same that `nft` shows of it, so that the two can be compared.
//!
//! A packet from a pod of any node gets the address of the interface by which it leaves, unless it goes to a pod, to
//! a node, or to somebody on the link or in a group. What goes to a Service is none of these yet, and goes to
//! `kube-svc`; what our programs have translated is on its way to a pod or a node, or else needs it.
//! The chain comes after those of the host's own NAT (`srcnat`), whose word on a connection then counts.

use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};
use std::net::IpAddr;

use ipnet::IpNet;
use router_core::cluster::RoutingView;

/// Name of our table, in each family.
pub(crate) const TABLE: &str = "kube-router";

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// In the words of nft.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    const fn address_type(self) -> &'static str {
        match self {
            Self::V4 => "ipv4_addr",
            Self::V6 => "ipv6_addr",
        }
    }

    /// Link-local and multicast destinations, and the broadcast.
    const fn never(self) -> &'static str {
        match self {
            Self::V4 => "169.254.0.0/16, 224.0.0.0/4, 255.255.255.255",
            Self::V6 => "fe80::/10, ff00::/8",
        }
    }

    const fn has(self, address: IpAddr) -> bool {
        matches!((self, address), (Self::V4, IpAddr::V4(_)) | (Self::V6, IpAddr::V6(_)))
    }
}

/// What egress depends on: the nodes of the cluster, this one among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Nodes {
    /// Without those that lie in another, which a set of ranges does not take.
    pod_cidrs: Vec<IpNet>,
    addresses: BTreeSet<IpAddr>,
}

impl Nodes {
    /// All that there are.
    pub(super) fn of(view: &RoutingView) -> Self {
        let nodes = || std::iter::once(&view.node).chain(view.others.values());
        let ranges: BTreeSet<IpNet> = nodes().flat_map(|node| &node.pod_cidrs).map(IpNet::trunc).collect();
        let mut pod_cidrs: Vec<IpNet> = Vec::new();
        for range in ranges {
            // In their order a range comes right after the one that it lies in, or after others in that.
            if pod_cidrs.last().is_none_or(|last| !last.contains(&range)) {
                pod_cidrs.push(range);
            }
        }
        Self { pod_cidrs, addresses: nodes().flat_map(|node| &node.addresses).copied().collect() }
    }
}

/// The table of a family in which there are pods.
pub(super) fn table(family: Family, nodes: &Nodes) -> Option<String> {
    let pod_cidrs = nodes.pod_cidrs.iter().filter(|range| family.has(range.addr())).map(|range| {
        // A range of one address is shown as that.
        let is_address = range.prefix_len() == range.max_prefix_len();
        if is_address { range.addr().to_string() } else { range.to_string() }
    });
    let pod_cidrs = elements(pod_cidrs)?;
    let addresses = nodes.addresses.iter().filter(|address| family.has(**address));
    let addresses = elements(addresses).unwrap_or_default();
    let (name, kind, never) = (family.name(), family.address_type(), family.never());
    Some(format!(
        "table {name} {TABLE} {{
	set pod-cidrs {{
		type {kind}
		flags interval
{pod_cidrs}	}}

	set node-addresses {{
		type {kind}
{addresses}	}}

	chain egress {{
		type nat hook postrouting priority srcnat + 10; policy accept;
		{name} saddr != @pod-cidrs return
		oifname \"kube-bridge\" return
		oifname \"kube-svc\" return
		{name} daddr @pod-cidrs return
		{name} daddr @node-addresses return
		{name} daddr {{ {never} }} return
		meta l4proto {{ tcp, udp, sctp }} masquerade to :{PORTS} fully-random
		masquerade
	}}
}}
"
    ))
}

/// Above the node ports (30000-32767) and below the ports that are ours alone.
const PORTS: &str = "32768-49151";

/// Their line in a set, if there are any: nft takes no empty one.
fn elements(all: impl Iterator<Item = impl Display>) -> Option<String> {
    let mut line = String::new();
    for element in all {
        let before = if line.is_empty() { "\t\telements = { " } else { ", " };
        let _ = write!(line, "{before}{element}");
    }
    (!line.is_empty()).then(|| format!("{line} }}\n"))
}

/// A script that leaves no table of ours in a family.
pub(super) fn removal(family: Family) -> String {
    let name = family.name();
    // The first line is for where there is none: only what exists can be deleted.
    format!("table {name} {TABLE}\ndelete table {name} {TABLE}\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use router_core::model::node::Node;

    use super::*;
    use crate::node::prepare::RESERVED_PORTS;

    fn node(pod_cidrs: &[&str], addresses: &[&str]) -> Node {
        Node {
            pod_cidrs: pod_cidrs.iter().map(|text| text.parse().unwrap()).collect(),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    fn nodes(own: Node, others: &[Node]) -> Nodes {
        let named = others.iter().enumerate().map(|(number, node)| (number.to_string(), node.clone()));
        Nodes::of(&RoutingView { node: own, others: named.collect(), vips: BTreeSet::new(), settled: true })
    }

    #[test]
    fn every_node_s_ranges_and_addresses_are_elements_of_their_family_s_table() {
        let own = node(&["10.244.1.0/24", "fd00:1::/64"], &["192.0.2.1", "2001:db8::1"]);
        let all = nodes(
            own,
            &[node(&["10.244.9.0/24"], &["192.0.2.9", "198.51.100.9"]), node(&[], &["192.0.2.7"])],
        );
        let v4 = table(Family::V4, &all).unwrap();
        assert!(v4.contains("elements = { 10.244.1.0/24, 10.244.9.0/24 }"), "{v4}");
        assert!(v4.contains("elements = { 192.0.2.1, 192.0.2.7, 192.0.2.9, 198.51.100.9 }"), "{v4}");
        let v6 = table(Family::V6, &all).unwrap();
        assert!(v6.contains("elements = { fd00:1::/64 }") && v6.contains("{ 2001:db8::1 }"), "{v6}");
        assert!(!v6.contains("ip saddr") && !v4.contains("ip6"), "{v4}{v6}");
    }

    #[test]
    fn a_family_without_pods_has_no_table() {
        let all = nodes(node(&["10.244.1.0/24"], &["192.0.2.1", "2001:db8::1"]), &[]);
        assert_eq!(table(Family::V6, &all), None);
        assert_eq!(table(Family::V4, &nodes(node(&[], &["192.0.2.1"]), &[])), None);
    }

    #[test]
    fn a_range_in_another_is_left_out_and_each_is_written_from_its_start() {
        let own = node(&["10.244.1.7/24", "10.244.1.64/26", "10.244.1.0/25"], &[]);
        let all = nodes(own, &[node(&["10.244.0.0/24", "10.1.1.1/32", "10.244.1.0/24"], &[])]);
        let v4 = table(Family::V4, &all).unwrap();
        assert!(v4.contains("elements = { 10.1.1.1, 10.244.0.0/24, 10.244.1.0/24 }"), "{v4}");
    }

    #[test]
    fn masqueraded_ports_are_neither_ours_nor_node_ports() {
        let (first, last) = PORTS.split_once('-').unwrap();
        let range = first.parse::<u16>().unwrap()..=last.parse::<u16>().unwrap();
        assert_eq!((*range.start(), *range.end() + 1), (32_768, *RESERVED_PORTS.start()));
    }

    #[test]
    fn what_nobody_knows_is_in_no_table() {
        let view = RoutingView {
            node: Node::default(),
            others: BTreeMap::new(),
            vips: BTreeSet::new(),
            settled: true,
        };
        assert_eq!(table(Family::V4, &Nodes::of(&view)), None);
    }
}
