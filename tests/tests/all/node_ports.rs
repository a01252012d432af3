//! Node ports: clients outside and pods dial them, at the uplink's edge and at a veth, on the hostile host.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use router_tests::cluster::ClusterOptions;
use router_tests::enter::Place;
use router_tests::probe::{Probe, ProbeCall};
use router_tests::sandbox::Serving;
use router_tests::serve::{Listen, Transport};
use router_tests::topology::hostile::{self, Chain};
use router_tests::topology::{NODE, REMOTE, REMOTE_PODS, ROUTER};

use super::world::{BOTH, World, four, hold, native, put_remote_node, slow};

/// The node ports, of a local pod, of a process of the node, of a pod of another node.
const WEB: u16 = 30_080;
const OWN: u16 = 30_081;
const FAR: u16 = 30_082;
/// Enough to fill a window many times; more than a packet holds.
const MUCH: [(Transport, usize); 2] = [(Transport::Tcp, 2 << 20), (Transport::Udp, 4_000)];

/// A client pod and the three Services.
fn start(options: ClusterOptions) -> World {
    let mut world = World::start("nodeports", options);
    put_remote_node(&world.cluster);
    world.serve("web", &["web"]);
    world.backing.push(world.cluster.back_by_node("own").unwrap());
    world.backing.push(world.cluster.back_by_remote("far").unwrap());
    for (service, port) in [("web", WEB), ("own", OWN), ("far", FAR)] {
        world.cluster.open_node_port(service, port).unwrap();
        answers(&world, port);
    }
    world
}

fn at(port: u16) -> String {
    format!("{NODE}:{port}")
}

fn router(world: &World) -> Place {
    world.cluster.topology.router.clone()
}

/// Waits until a node port answers outside.
fn answers(world: &World, port: u16) {
    world
        .cluster
        .wait(&format!("node port {port} to answer"), Duration::from_secs(10), |_| {
            let router = router(world);
            let probe = Probe::new(&router);
            Ok(probe.tcp(&at(port))?.ok && probe.udp(&at(port))?.ok)
        })
        .unwrap();
}

/// Who dials, and how a backend on this node, and one elsewhere, sees it.
fn clients(world: &World) -> Vec<(&'static str, Place, String)> {
    let mut clients = vec![("the router", router(world), ROUTER.to_string())];
    if world.cluster.topology.options.default_route {
        clients.push(("a host behind it", world.cluster.topology.remote.clone(), REMOTE.to_string()));
    }
    clients
}

#[test]
fn clients_outside_and_pods_reach_every_kind_of_backend_and_are_seen_as_the_contract_says() {
    for (set_up, options) in four() {
        let world = start(options);
        let mut rows: Vec<(&str, Place, u16, &str, String)> = Vec::new();
        for (who, place, address) in clients(&world) {
            rows.push((who, place.clone(), WEB, "web", address));
            rows.push((who, place.clone(), OWN, "on-node", "169.254.255.1".to_owned()));
            rows.push((who, place, FAR, "remote", NODE.to_string()));
        }
        let pod = world.cluster.pod_address("client").unwrap().to_string();
        for (port, backend) in [(WEB, "web"), (OWN, "on-node"), (FAR, "remote")] {
            rows.push(("a pod", world.pod("client"), port, backend, pod.clone()));
        }
        for (who, place, port, backend, source) in rows {
            for transport in BOTH {
                let results =
                    Probe::new(&place).call(&ProbeCall::new(transport, at(port)).count(20)).unwrap();
                for result in results {
                    let seen = result.seen().map(|seen| seen.ip().to_string());
                    assert_eq!(
                        (result.backend(), seen.as_deref()),
                        (Some(backend), Some(source.as_str())),
                        "{set_up}: {who} -> {port}/{transport}: {result:?}\n{}",
                        world.cluster.agent_log()
                    );
                }
                let (_, size) = MUCH[usize::from(transport == Transport::Udp)];
                let result = Probe::new(&place).bulk(transport, size, &at(port)).unwrap();
                assert!(result.ok, "{set_up}: {who} -> {port}/{transport}, {size} bytes: {result:?}");
            }
        }
        harmless(set_up, &world);
    }
}

/// Nobody received a wrong checksum, and connection tracking called nothing invalid.
fn harmless(set_up: &str, world: &World) {
    assert_eq!(world.cluster.topology.checksum_errors(&[]).unwrap(), 0, "{set_up}: InCsumErrors");
    for chain in [Chain::Forward, Chain::Input] {
        let drops = hostile::drops(&world.cluster.topology.node, chain).unwrap();
        assert_eq!(drops.invalid, 0, "{set_up}: {chain:?}: ct state invalid");
    }
}

#[test]
fn a_flow_from_outside_outlives_changes_of_its_service_and_a_port_without_backends_refuses() {
    for (set_up, options) in [("fast", native()), ("slow", slow(native()))] {
        let world = start(options);
        let place = router(&world);
        let mut held: Vec<_> = [WEB, OWN, FAR]
            .into_iter()
            .flat_map(|port| BOTH.map(|transport| (port, transport)))
            .map(|(port, transport)| (port, transport, hold(&place, transport, &at(port), 0)))
            .collect();
        world.cluster.run_pods("web", &["more"]).unwrap();
        world.cluster.put_service("other", None, 8080).unwrap();
        for (port, transport, flow) in &mut held {
            let result = flow.ask("still here").unwrap();
            assert!(result.ok, "{set_up}: {port}/{transport}: {result:?}");
        }
        world.cluster.remove(router_tests::apiserver::Kind::EndpointSlice, "far-by-hand");
        let refused = |cluster: &router_tests::cluster::Cluster| {
            let _ = cluster;
            let result = Probe::new(&place).tcp(&at(FAR))?;
            Ok(result.error.as_deref() == Some("refused"))
        };
        world.cluster.wait("the port to refuse", Duration::from_secs(5), refused).unwrap();
        for (who, place) in [("outside", router(&world)), ("a pod", world.pod("client"))] {
            for transport in BOTH {
                let begin = Instant::now();
                let result = Probe::new(&place).call(&ProbeCall::new(transport, at(FAR))).unwrap().remove(0);
                assert_eq!(
                    result.error.as_deref(),
                    Some("refused"),
                    "{set_up}: {who}/{transport}: {result:?}"
                );
                assert!(begin.elapsed() < Duration::from_secs(1), "{set_up}: {who}/{transport} waited");
            }
        }
        harmless(set_up, &world);
    }
}

/// Node ports are numbers that anybody may use for a port of his own.
#[test]
fn a_process_and_a_pod_that_use_a_node_ports_number_work_beside_it() {
    for (set_up, options) in four() {
        let world = start(options);
        let listens = [Transport::Tcp, Transport::Udp].map(|protocol| Listen { port: 7000, protocol });
        let _router = Serving::start(&world.cluster.topology.router, "router", &listens).unwrap();
        let own = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, WEB);
        let far = format!("{}:8080", REMOTE_PODS[0]);
        for transport in BOTH {
            for (who, place, to, backend) in [
                ("a process of the node", world.cluster.node(), format!("{ROUTER}:7000"), "router"),
                ("a pod", world.pod("client"), far.clone(), "remote"),
                ("a pod", world.pod("client"), world.dial("web"), "web"),
                ("a pod", world.pod("client"), at(FAR), "remote"),
                ("outside", router(&world), at(WEB), "web"),
            ] {
                let call = ProbeCall::new(transport, &to).from(own);
                let result = Probe::new(&place).call(&call).unwrap().remove(0);
                assert_eq!(
                    result.backend(),
                    Some(backend),
                    "{set_up}: {who} -> {to}/{transport}: {result:?}"
                );
            }
        }
        harmless(set_up, &world);
    }
}

/// What leaves by a narrower uplink than it came in by: nobody's stack sees it, so we answer.
#[test]
fn what_is_too_big_to_leave_again_is_answered_with_what_would_fit() {
    let world = start(native());
    let topology = &world.cluster.topology;
    let node = topology.node.pid();
    topology
        .router
        .ip(&format!(
            "link add n1 mtu 1400 type veth peer name eth1 mtu 1400 netns {node}\n\
             addr add 192.168.99.1/24 dev n1\nlink set n1 up\n"
        ))
        .unwrap();
    topology
        .node
        .ip("addr add 192.168.99.2/24 dev eth1\nlink set eth1 up\nroute replace 10.244.9.0/24 via 192.168.99.1\n")
        .unwrap();
    world
        .cluster
        .wait("flows to leave by the new uplink", Duration::from_secs(5), |_| {
            Ok(Probe::new(&router(&world)).df(1400, &at(FAR), 1)?.iter().all(|result| result.ok))
        })
        .unwrap();
    let results = Probe::new(&router(&world)).df(1500, &at(FAR), 2).unwrap();
    assert!(
        results.iter().any(|result| result.error.as_deref() == Some("frag-needed (mtu 1400)")),
        "{results:?}"
    );
}
