//! Flows that meet each other: one port towards several destinations, first packets at once, many at a time.

use std::time::Duration;

use router_tests::probe::Probe;

use super::world::{BOTH, World, four, hold, native};

/// The port that the clients here come from.
const PORT: u16 = 41_000;

/// One client port through two VIPs and directly, in every order: each is answered from where it was dialled (the
/// client's socket is connected and takes nothing else), and goes on when another has ended.
#[test]
fn one_port_through_two_vips_and_directly_to_one_backend_is_three_flows() {
    for (set_up, options) in four() {
        let world = World::start("port", options);
        world.serve("web", &["web"]);
        world.cluster.put_service("also", Some("web"), 8080).unwrap();
        world.answers("also");
        let direct = format!("{}:8080", world.cluster.pod_address("web").unwrap());
        let (first, second) = (world.dial("web"), world.dial("also"));
        let orders = [[&direct, &first, &second], [&first, &direct, &second], [&first, &second, &direct]];
        let mut port = PORT;
        for (who, place) in world.clients() {
            for transport in BOTH {
                for order in orders {
                    let what = format!("{set_up}: {who} {transport} {order:?}");
                    port += 1;
                    let mut flows = order.map(|to| Some(hold(&place, transport, to, port)));
                    for ends in 0..flows.len() {
                        for _ in 0..2 {
                            for flow in flows.iter_mut().flatten() {
                                let result = flow.ask("hello").unwrap();
                                assert_eq!(result.backend(), Some("web"), "{what}: {result:?}");
                            }
                        }
                        flows[ends] = None;
                    }
                }
            }
        }
        assert_eq!(world.cluster.topology.checksum_errors(&[]).unwrap(), 0, "{set_up}: InCsumErrors");
    }
}

#[test]
fn first_packets_that_two_cpus_send_at_once_go_to_one_backend() {
    for (set_up, options) in four() {
        let world = World::start("race", options);
        world.serve("web", &["web-0", "web-1"]);
        for (who, place) in world.clients() {
            let summary = Probe::new(&place).race(&world.dial("web"), 2_000).unwrap();
            assert_eq!(summary.ok, 2_000, "{set_up}: {who}: {summary:?}");
            assert_eq!(summary.backends.len(), 2, "{set_up}: {who}: {summary:?}");
        }
    }
}

/// Where rows are, as `bpftool` shows them by name: two halves a flow, of which an unanswered one may be pushed out
/// and a confirmed one may not.
#[test]
fn a_flow_is_in_the_table_that_evicts_until_its_client_answers_a_reply() {
    let world = World::start("rows", native());
    world.serve("web", &["web"]);
    let client = world.pod("client");
    let to = world.dial("web");
    let mut held = BOTH.map(|transport| hold(&client, transport, &to, PORT));
    let rows = |map: &str, protocol: u64| {
        let own = world.rows(map).into_iter().filter(|row| {
            row["value"]["client_port"] == u64::from(PORT) && row["key"]["protocol"] == protocol
        });
        own.count()
    };
    let (tcp, udp) = (6, 17);
    for flow in &mut held {
        assert!(flow.ask("hello").unwrap().ok);
    }
    assert_eq!((rows("FLOWS_NEW4", tcp), rows("FLOWS4", tcp)), (0, 2), "TCP, asked once");
    assert_eq!((rows("FLOWS_NEW4", udp), rows("FLOWS4", udp)), (2, 0), "UDP, asked once");
    std::thread::sleep(Duration::from_millis(2_100));
    for flow in &mut held {
        assert!(flow.ask("hello").unwrap().ok);
    }
    assert_eq!((rows("FLOWS_NEW4", udp), rows("FLOWS4", udp)), (0, 2), "UDP, asked again after two seconds");
}

/// 10,000 idle TCP connections and 10,000 UDP flows that were answered after two seconds and are one-way since then;
/// 400,000 more are begun, three times as many as the table of new flows holds.
#[test]
fn confirmed_flows_survive_any_number_of_new_ones() {
    let world = World::start("crowd", native());
    world.serve("web", &["web-0", "web-1"]);
    world.cluster.run_pods("sink", &["sink"]).unwrap();
    flood_service(&world);
    let client = world.pod("client");
    let probe = Probe::new(&client);
    let vip = world.dial("web");
    let mut crowds = BOTH.map(|transport| (transport, probe.crowd(transport, &vip, 10_000).unwrap()));
    let mut ask = |line: &str| {
        for (transport, crowd) in &mut crowds {
            let summary = crowd.ask(line).unwrap();
            assert_eq!((summary.ok, summary.failed), (10_000, 0), "{transport} {line}: {summary:?}");
        }
    };
    ask("first");
    std::thread::sleep(Duration::from_secs(2));
    ask("second");
    ask("third");
    ask("silent");
    let before = received(&world, "sink");
    let flood = format!("{}:1000", world.cluster.vip("flood").unwrap());
    for transport in BOTH {
        let summary = probe.flood("eth0", transport, &flood, 200_000).unwrap();
        assert_eq!(summary.ok, 200_000, "{transport}: {summary:?}");
    }
    world
        .cluster
        .wait("the new flows to reach their backend", Duration::from_secs(20), |_| {
            Ok(received(&world, "sink") - before >= 400_000)
        })
        .unwrap();
    ask("silent");
    ask("last");
}

/// Four ports of each protocol, each to a port of the sink where nobody listens.
fn flood_service(world: &World) {
    use router_tests::apiserver::Kind;
    use serde_json::json;
    let ports: Vec<_> = (0..4)
        .flat_map(|number| {
            ["TCP", "UDP"].map(|protocol| {
                json!({"name": format!("{}{number}", protocol.to_lowercase()), "protocol": protocol,
                    "port": 1000 + number, "targetPort": 2000 + number})
            })
        })
        .collect();
    world
        .cluster
        .put(
            Kind::Service,
            json!({"metadata": {"name": "flood", "namespace": "default"},
                "spec": {"selector": {"app": "sink"}, "ports": ports}}),
        )
        .unwrap();
    let to = format!("{}:1003", world.cluster.vip("flood").unwrap());
    world
        .cluster
        .wait("the flood's service to lead to its backend", Duration::from_secs(10), |_| {
            let before = received(world, "sink");
            let _ = Probe::new(&world.pod("client")).udp(&to)?;
            Ok(received(world, "sink") > before)
        })
        .unwrap();
}

/// Packets that a pod's link has received.
fn received(world: &World, pod: &str) -> u64 {
    let output =
        world.pod(pod).command("cat").arg("/sys/class/net/eth0/statistics/rx_packets").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}
