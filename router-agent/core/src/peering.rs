//! Whom this node speaks BGP with, under which terms, and what it announces to whom: from flags and Nodes.
//!
//! Every node peers with every other one under one AS number, if asked to; peers outside the cluster are given by flag.
//! The names of sets and statements are upstream's, since `gobgp policy` shows them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::cluster::RoutingView;
use crate::problem::{Problem, Subject};

/// What flags say about routing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    pub asn: u32,
    /// Where we listen, and where other nodes do.
    pub port: u16,
    /// `None`: the node's own address.
    pub router_id: Option<Ipv4Addr>,
    /// Peer with other nodes.
    pub mesh: bool,
    pub externals: Vec<External>,
    /// To external peers; other nodes get them anyway.
    pub advertise_pod_cidrs: bool,
    pub advertise_cluster_ips: bool,
}

/// A peer outside the cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct External {
    pub address: IpAddr,
    pub asn: u32,
    pub port: u16,
}

/// A neighbour to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    pub asn: u32,
    pub port: u16,
    /// Name of its Node; `None` outside the cluster.
    pub node: Option<String>,
}

/// The speaker to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub asn: u32,
    pub router_id: Ipv4Addr,
    /// Where we listen and whence we dial.
    pub address: IpAddr,
    pub port: u16,
    pub neighbours: BTreeMap<IpAddr, Neighbour>,
    /// This node's pod ranges.
    pub pod_cidrs: BTreeSet<IpNet>,
    pub vips: BTreeSet<IpAddr>,
    pub advertise_pod_cidrs: bool,
}

impl Wanted {
    /// Everything to originate.
    pub fn originated(&self) -> BTreeSet<IpNet> {
        self.pod_cidrs.iter().copied().chain(self.vips.iter().map(|vip| IpNet::from(*vip))).collect()
    }
}

/// What the cluster and the flags come to; without a speaker, why there is none.
pub fn wanted(terms: &Terms, view: &RoutingView) -> (Option<Wanted>, Vec<Problem>) {
    let (address, router_id) = match identity(terms, view) {
        Ok(identity) => identity,
        Err(problem) => return (None, vec![problem]),
    };
    let mut problems = Vec::new();
    let mut neighbours = BTreeMap::new();
    if terms.mesh {
        nodes(terms, view, address, &mut neighbours, &mut problems);
    }
    externals(terms, address, &mut neighbours, &mut problems);
    let vips = view.vips.iter().filter(|vip| terms.advertise_cluster_ips && vip.is_ipv4());
    let cidrs = view.node.pod_cidrs.iter().filter(|prefix| matches!(prefix, IpNet::V4(_)));
    let wanted = Wanted {
        asn: terms.asn,
        router_id,
        address,
        port: terms.port,
        neighbours,
        pod_cidrs: cidrs.map(IpNet::trunc).collect(),
        vips: vips.copied().collect(),
        advertise_pod_cidrs: terms.advertise_pod_cidrs,
    };
    (Some(wanted), problems)
}

/// The address and the router id to speak under.
fn identity(terms: &Terms, view: &RoutingView) -> Result<(IpAddr, Ipv4Addr), Problem> {
    let wrong = |reason, text, remedy| problem(Subject::Speaker, reason, text, remedy);
    let Some(address) = view.node.addresses.first().copied() else {
        let text = "this node has no address to speak under".into();
        return Err(wrong("NoAddress", text, "start its kubelet with --node-ip"));
    };
    match (terms.router_id, address) {
        (Some(router_id), _) | (None, IpAddr::V4(router_id)) => Ok((address, router_id)),
        (None, IpAddr::V6(_)) => {
            let text = format!("the node's address {address} cannot be a router id");
            Err(wrong("NoRouterId", text, "give one by --router-id"))
        }
    }
}

/// Every other node, of those that have one address the first.
fn nodes(
    terms: &Terms,
    view: &RoutingView,
    own: IpAddr,
    neighbours: &mut BTreeMap<IpAddr, Neighbour>,
    problems: &mut Vec<Problem>,
) {
    for (name, node) in &view.others {
        let Some(other) = node.addresses.first().copied() else { continue };
        let mut wrong = |reason, text, remedy| {
            problems.push(problem(Subject::Node(name.clone()), reason, text, remedy));
        };
        if other.is_ipv4() != own.is_ipv4() {
            let text = format!("its address {other} is of another family than this node's {own}");
            wrong("OtherFamily", text, "give both nodes an address of one family");
        } else if other == own {
            let text = format!("it has this node's own address {own}");
            wrong("SameAddress", text, "delete the Node that is wrong");
        } else {
            let neighbour = Neighbour { asn: terms.asn, port: terms.port, node: Some(name.clone()) };
            neighbours.entry(other).or_insert(neighbour);
        }
    }
}

/// The peers given by flag, in place of nodes that have their addresses.
fn externals(
    terms: &Terms,
    own: IpAddr,
    neighbours: &mut BTreeMap<IpAddr, Neighbour>,
    problems: &mut Vec<Problem>,
) {
    for External { address, asn, port } in &terms.externals {
        let mut wrong = |reason, text, remedy| {
            problems.push(problem(Subject::Peer(*address), reason, text, remedy));
        };
        if address.is_ipv4() != own.is_ipv4() {
            let text = format!("this node's address {own} is of another family");
            wrong("OtherFamily", text, "name an address of the node's family by --peer-router-ips");
        } else if *address == own {
            wrong("OwnAddress", "it is this node".into(), "leave it out of --peer-router-ips");
        } else {
            let before = neighbours.insert(*address, Neighbour { asn: *asn, port: *port, node: None });
            if before.is_some_and(|before| before.node.is_some()) {
                let text = "it is also a node of this cluster, and is treated as an outside router".into();
                wrong("AlsoANode", text, "leave it out of --peer-router-ips");
            }
        }
    }
}

fn problem(subject: Subject, reason: &'static str, text: String, remedy: &str) -> Problem {
    Problem { subject, reason, text, remedy: remedy.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::node::Node;

    fn terms() -> Terms {
        Terms {
            asn: 64512,
            port: 179,
            router_id: None,
            mesh: true,
            externals: Vec::new(),
            advertise_pod_cidrs: true,
            advertise_cluster_ips: false,
        }
    }

    fn node(address: &str, range: &str) -> Node {
        Node { addresses: vec![address.parse().unwrap()], pod_cidrs: vec![range.parse().unwrap()] }
    }

    fn view() -> RoutingView {
        let others = [("b", node("192.0.2.2", "10.1.2.0/24")), ("c", node("192.0.2.3", "10.1.3.0/24"))];
        RoutingView {
            node: node("192.0.2.1", "10.1.1.0/24"),
            others: others.into_iter().map(|(name, node)| (name.to_owned(), node)).collect(),
            vips: BTreeSet::from(["10.96.0.1".parse().unwrap()]),
            settled: true,
        }
    }

    fn texts(problems: &[Problem]) -> Vec<String> {
        problems.iter().map(|problem| format!("{}: {}", problem.subject, problem.reason)).collect()
    }

    #[test]
    fn every_other_node_is_a_neighbour_of_our_own_as() {
        let (speaker, problems) = wanted(&terms(), &view());
        let speaker = speaker.unwrap();
        let found: Vec<_> =
            speaker.neighbours.iter().map(|(address, it)| (address.to_string(), it.asn)).collect();
        assert_eq!(found, [("192.0.2.2".into(), 64512), ("192.0.2.3".into(), 64512)]);
        assert_eq!((speaker.router_id.to_string(), problems), ("192.0.2.1".into(), vec![]));
        let alone = wanted(&Terms { mesh: false, ..terms() }, &view()).0.unwrap();
        assert!(alone.neighbours.is_empty());
    }

    #[test]
    fn pod_ranges_are_originated_always_and_vips_if_asked_for() {
        let originated = |terms: &Terms| {
            let prefixes = wanted(terms, &view()).0.unwrap().originated();
            prefixes.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(originated(&terms()), ["10.1.1.0/24"]);
        let both = Terms { advertise_cluster_ips: true, ..terms() };
        assert_eq!(originated(&both), ["10.1.1.0/24", "10.96.0.1/32"]);
    }

    #[test]
    fn what_is_wrong_with_one_neighbour_costs_no_other() {
        let external = |text: &str| External { address: text.parse().unwrap(), asn: 65000, port: 179 };
        let externals = ["192.0.2.254", "192.0.2.1", "2001:db8::1", "192.0.2.2"].map(external).into();
        let mut view = view();
        view.others.insert("d".into(), node("2001:db8::4", "fd00::/64"));
        view.others.insert("e".into(), node("192.0.2.1", "10.1.5.0/24"));
        view.others.insert("f".into(), Node::default());
        let (speaker, problems) = wanted(&Terms { externals, ..terms() }, &view);
        let neighbours: Vec<_> = speaker
            .unwrap()
            .neighbours
            .into_iter()
            .map(|(address, it)| (address.to_string(), it.asn))
            .collect();
        let expected = [("192.0.2.2", 65000), ("192.0.2.3", 64512), ("192.0.2.254", 65000)];
        assert_eq!(neighbours, expected.map(|(address, asn)| (address.to_owned(), asn)));
        let expected = [
            "node d: OtherFamily",
            "node e: SameAddress",
            "BGP peer 192.0.2.1: OwnAddress",
            "BGP peer 2001:db8::1: OtherFamily",
            "BGP peer 192.0.2.2: AlsoANode",
        ];
        assert_eq!(texts(&problems), expected);
    }

    #[test]
    fn without_address_or_router_id_there_is_no_speaker() {
        let nobody = RoutingView { node: Node::default(), ..view() };
        let (speaker, problems) = wanted(&terms(), &nobody);
        assert_eq!((speaker, texts(&problems)), (None, vec!["BGP speaker: NoAddress".to_owned()]));
        let v6 = RoutingView { node: node("2001:db8::1", "fd00::/64"), ..view() };
        let (speaker, problems) = wanted(&terms(), &v6);
        assert_eq!((speaker, texts(&problems)), (None, vec!["BGP speaker: NoRouterId".to_owned()]));
        let given = Terms { router_id: Some([1, 1, 1, 1].into()), ..terms() };
        assert_eq!(wanted(&given, &v6).0.unwrap().router_id.to_string(), "1.1.1.1");
    }
}
