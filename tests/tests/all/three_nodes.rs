//! Three nodes in two subnets, whose routes to each other's pods come by BGP and by nothing else.

use std::fs;
use std::time::Duration;

use router_tests::cluster::{Cluster, ClusterOptions, log_file};
use router_tests::lab::{matrix, routing};
use router_tests::node::unique_prefix;
use router_tests::probe::Probe;
use router_tests::serve::Transport;
use router_tests::topology::three::SITES;
use router_tests::topology::{Shape, TopologyOptions};
use tempfile::TempDir;

use super::world::BOTH;

/// Three nodes, once every session is up and every route is there.
fn three(purpose: &str) -> (Cluster, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let topology = TopologyOptions { shape: Shape::ThreeNodes, ..TopologyOptions::default() };
    let options = ClusterOptions { topology, ..ClusterOptions::default() };
    let cluster = Cluster::start(&unique_prefix(purpose), folder.path(), options, |_, _| {}).unwrap();
    let limit = Duration::from_secs(30);
    let routed =
        cluster.wait("sessions and routes", limit, |it| Ok(routing::facts(it).iter().all(|fact| fact.ok)));
    assert!(routed.is_ok(), "{:#?}: {routed:?}", routing::facts(&cluster));
    (cluster, folder)
}

#[test]
fn pods_reach_each_other_as_themselves_in_one_subnet_and_across_by_routes_of_bgp_alone() {
    let (cluster, folder) = three("three");
    for site in &SITES {
        let log = fs::read_to_string(log_file(folder.path(), site.name)).unwrap();
        let others = SITES.iter().filter(|other| *other != site).map(|other| other.address);
        for peer in others.chain([site.router]) {
            assert!(log.contains(&format!("msg=\"Peer Up\" Key={peer} ")), "{} and {peer}: {log}", site.name);
        }
    }
    for site in &SITES {
        cluster.run_pods_on(site.name, "all", &[site.name]).unwrap();
    }
    for (client, server) in SITES.iter().flat_map(|one| SITES.iter().map(move |other| (one, other))) {
        let place = cluster.pod(client.name).unwrap();
        let own = cluster.pod_address(client.name).unwrap();
        let to = format!("{}:8080", cluster.pod_address(server.name).unwrap());
        for transport in BOTH {
            let size = if transport == Transport::Tcp { 64 << 10 } else { 1000 };
            let result = Probe::new(&place).bulk(transport, size, &to).unwrap();
            let who = format!("{} to {} by {transport}: {result:?}", client.name, server.name);
            assert_eq!(result.backend(), Some(server.name), "{who}");
            assert_eq!(result.seen().map(|seen| *seen.ip()), Some(own), "{who}");
        }
    }
    for (node, site) in cluster.topology.nodes().zip(&SITES) {
        let routes = node.run(&["ip", "route"]).unwrap();
        assert!(routes.starts_with(&format!("default via {}", site.router)), "{routes}");
    }
}

#[test]
fn every_path_of_the_matrix_carries_its_bytes_under_the_source_of_the_contract() {
    let (cluster, _folder) = three("matrix");
    matrix::deploy(&cluster).unwrap();
    matrix::wait_settled(&cluster).unwrap();
    let cells = matrix::run(&cluster).unwrap().cells;
    let by_port = cells.iter().filter(|cell| cell.is_by_node_port()).count();
    assert_eq!((by_port, cells.len()), (32, 56));
    let wrong: Vec<_> = cells.into_iter().filter(|cell| !cell.is_right()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}\n{}", cluster.agent_log());
}
