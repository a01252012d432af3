//! The policies of this node, under upstream's names: to other nodes go this node's pod ranges; to routers outside its
//! VIPs, and its pod ranges if asked for; nothing that one peer taught us goes to another. From everybody comes
//! everything but our own VIPs and default routes.

use std::net::IpAddr;

use ipnet::IpNet;
use router_bgp::policy::{
    Actions, Assignment, Policies, Policy, PolicyError, PrefixRange, PrefixSet, Statement, Verdict,
};
use router_core::peering::Wanted;

const POD_CIDRS: &str = "podcidrdefinedset";
const VIPS: &str = "servicevipsdefinedset";
const DEFAULT_ROUTE: &str = "defaultroutedefinedset";
const NODES: &str = "iBGPpeerset";
const EXTERNALS: &str = "externalpeerset";
const ALL: &str = "allpeerset";

/// The sets of one speaker. An empty one is left out with every statement that names it.
pub(super) fn of(wanted: &Wanted, serial: u32) -> Result<Policies, PolicyError> {
    let default_route: IpNet = IpNet::V4(ipnet::Ipv4Net::default());
    let vips = wanted.vips.iter().map(|vip| IpNet::from(*vip));
    let prefixes = [
        (POD_CIDRS, wanted.pod_cidrs.iter().copied().map(PrefixRange::exact).collect::<PrefixSet>()),
        (VIPS, vips.map(PrefixRange::exact).collect()),
        (DEFAULT_ROUTE, [PrefixRange::exact(default_route)].into_iter().collect()),
    ];
    let peers = |is_wanted: fn(bool) -> bool| -> Vec<IpNet> {
        let neighbours = wanted.neighbours.iter().filter(|(_, it)| is_wanted(it.node.is_some()));
        neighbours.map(|(address, _): (&IpAddr, _)| IpNet::from(*address)).collect()
    };
    let neighbors = [(NODES, peers(|node| node)), (EXTERNALS, peers(|node| !node)), (ALL, peers(|_| true))];
    let filled = |prefix_set: &str, neighbor_set: &str| {
        prefixes.iter().any(|(name, set)| *name == prefix_set && !set.is_empty())
            && neighbors.iter().any(|(name, set)| *name == neighbor_set && !set.is_empty())
    };
    let statement = |prefix_set: &str, neighbor_set: &str, verdict| {
        filled(prefix_set, neighbor_set).then(|| Statement {
            name: format!("{prefix_set}{neighbor_set}"),
            prefixes: Some(prefix_set.to_owned()),
            neighbors: Some(neighbor_set.to_owned()),
            actions: Actions::only(verdict),
        })
    };
    let export = [
        statement(POD_CIDRS, NODES, Verdict::Accept),
        statement(VIPS, EXTERNALS, Verdict::Accept),
        statement(POD_CIDRS, EXTERNALS, Verdict::Accept).filter(|_| wanted.advertise_pod_cidrs),
    ];
    let import = [statement(VIPS, ALL, Verdict::Reject), statement(DEFAULT_ROUTE, ALL, Verdict::Reject)];
    let policy = |direction: &str, statements: Vec<Statement>| {
        vec![Policy { name: format!("kube_router_{direction}{serial}"), statements }]
    };
    let export = Assignment {
        policies: policy("export", export.into_iter().flatten().collect()),
        default: Verdict::Reject,
    };
    let import = Assignment {
        policies: policy("import", import.into_iter().flatten().collect()),
        default: Verdict::Accept,
    };
    Policies::new(
        prefixes.into_iter().map(|(name, set)| (name.to_owned(), set)).collect(),
        neighbors.into_iter().map(|(name, set)| (name.to_owned(), set)).collect(),
        import,
        export,
    )
}
