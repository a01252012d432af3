//! The policies of this node, under upstream's names: to other nodes go this node's pod ranges; to routers outside its
//! VIPs, and its pod ranges if asked for; nothing that one peer taught us goes to another. From everybody comes
//! everything but our own VIPs and default routes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use router_bgp::policy::{
    Actions, Assignment, Policies, Policy, PolicyError, PrefixRange, PrefixSet, Statement, Verdict,
};
use router_bgp::rib::Rib;
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

/// Whether both come to the same statements about the same neighbours and pod ranges.
pub(super) fn differ_in_vips_alone(one: &Wanted, other: &Wanted) -> bool {
    let rest = |it: &Wanted| (it.vips.is_empty(), it.advertise_pod_cidrs);
    one.neighbours == other.neighbours && one.pod_cidrs == other.pod_cidrs && rest(one) == rest(other)
}

/// VIPs come and go with every Service: what concerns none of these is not looked at.
pub(super) fn change_vips(rib: &mut Rib, before: &BTreeSet<IpAddr>, now: &BTreeSet<IpAddr>) {
    let ranges = |all: &BTreeSet<IpAddr>, but: &BTreeSet<IpAddr>| -> Vec<PrefixRange> {
        all.difference(but).map(|vip| PrefixRange::exact(IpNet::from(*vip))).collect()
    };
    rib.change_prefix_set(VIPS, &ranges(now, before), &ranges(before, now));
}

#[cfg(test)]
mod tests {
    use router_bgp::asn::Asn;
    use router_bgp::policy::Direction;
    use router_bgp::rib::{Limits, RibConfig};
    use router_core::peering::Neighbour;

    use super::*;

    fn wanted(vips: &[u8]) -> Wanted {
        let neighbour = |asn, node: Option<&str>| Neighbour { asn, port: 179, node: node.map(str::to_owned) };
        Wanted {
            asn: 64512,
            router_id: [192, 0, 2, 1].into(),
            address: [192, 0, 2, 1].into(),
            port: 179,
            neighbours: [
                ([192, 0, 2, 2].into(), neighbour(64512, Some("b"))),
                ([192, 0, 2, 254].into(), neighbour(65000, None)),
            ]
            .into(),
            pod_cidrs: ["10.1.1.0/24".parse().unwrap()].into(),
            vips: vips.iter().map(|last| [10, 96, 0, *last].into()).collect(),
            advertise_pod_cidrs: true,
        }
    }

    fn names(policies: &Policies, direction: Direction) -> Vec<String> {
        let policies = policies.assignment(direction).policies.iter();
        policies.flat_map(|it| it.statements.iter().map(|statement| statement.name.clone())).collect()
    }

    #[test]
    fn statements_are_upstreams_and_none_names_an_empty_set() {
        let all = of(&wanted(&[1]), 7).unwrap();
        assert_eq!(
            names(&all, Direction::Export),
            [
                "podcidrdefinedsetiBGPpeerset",
                "servicevipsdefinedsetexternalpeerset",
                "podcidrdefinedsetexternalpeerset"
            ]
        );
        assert_eq!(
            names(&all, Direction::Import),
            ["servicevipsdefinedsetallpeerset", "defaultroutedefinedsetallpeerset"]
        );
        assert_eq!(all.assignment(Direction::Export).policies[0].name, "kube_router_export7");
        let alone = Wanted { neighbours: [].into(), ..wanted(&[]) };
        assert!(names(&of(&alone, 1).unwrap(), Direction::Export).is_empty());
    }

    #[test]
    fn vips_that_come_and_go_leave_what_a_fresh_start_would_make() {
        let (before, now) = (wanted(&[1, 2]), wanted(&[2, 3]));
        assert!(differ_in_vips_alone(&before, &now));
        assert!(!differ_in_vips_alone(&before, &wanted(&[])), "its statements go");
        assert!(!differ_in_vips_alone(&before, &Wanted { advertise_pod_cidrs: false, ..now.clone() }));
        assert!(!differ_in_vips_alone(&before, &Wanted { neighbours: [].into(), ..now.clone() }));
        let mut rib =
            Rib::new(RibConfig { asn: Asn(64512), router_id: before.router_id, limits: Limits::default() });
        rib.set_policies(of(&before, 1).unwrap());
        change_vips(&mut rib, &before.vips, &now.vips);
        let sets = |policies: &Policies| -> Vec<(String, Vec<PrefixRange>)> {
            policies.prefix_sets().map(|(name, set)| (name.to_owned(), set.iter().collect())).collect()
        };
        let fresh = of(&now, 1).unwrap();
        assert_eq!(sets(rib.policies()), sets(&fresh));
        for direction in [Direction::Import, Direction::Export] {
            assert_eq!(rib.policies().assignment(direction), fresh.assignment(direction));
        }
    }
}
