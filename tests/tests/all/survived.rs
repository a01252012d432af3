//! A data plane that outlives its agent: killed under load, with a bpffs and with the mounts that kubespray leaves.

use std::thread;
use std::time::{Duration, Instant};

use router_tests::enter::Place;
use router_tests::probe::{Probe, Summary};
use router_tests::serve::Transport;
use router_tests::topology::NODE;

use router_tests::cluster::{AgentOptions, ClusterOptions};

use super::world::{BOTH, World, native, plain};

const NODE_PORT: u16 = 30_080;
/// Many, since all of the node's flows to one have 16,384 source ports, and a UDP flow holds its own for half a minute.
const PODS: [&str; 4] = ["web-0", "web-1", "web-2", "web-3"];
/// How long the load lasts; the agent is down in the middle half of it.
const LOAD: Duration = Duration::from_secs(12);

/// Connections without a pause from a pod, from the node and from outside, all to the same pods, while the agent is
/// killed, stays away and starts again.
#[test]
fn a_killed_agent_and_its_successor_cost_no_connection_under_load() {
    for (set_up, options) in [("tcx, pinned", native()), ("clsact, no bpffs", plain())] {
        let mut world = World::start("survived", options);
        world.serve("web", &PODS);
        world.cluster.open_node_port("web", NODE_PORT).unwrap();
        let (vip, port) = (world.dial("web"), format!("{NODE}:{NODE_PORT}"));
        let outside: Place = world.cluster.topology.router.clone();
        world
            .cluster
            .wait("the node port to answer", Duration::from_secs(10), |_| {
                Ok(Probe::new(&outside).tcp(&port)?.ok && Probe::new(&outside).udp(&port)?.ok)
            })
            .unwrap();
        let clients = [
            ("a pod", world.pod("client"), &vip),
            ("the node", world.cluster.node(), &vip),
            ("outside", outside, &port),
        ];
        let flows = world.map_id("FLOWS4");
        let results: Vec<(&str, Transport, Summary)> = thread::scope(|scope| {
            let loads: Vec<_> = clients
                .iter()
                .flat_map(|client| BOTH.map(|transport| (client, transport)))
                .map(|((who, place, to), transport)| {
                    let call =
                        move || Probe::new(place).many(transport, to, 1_000_000, 2, Some(LOAD)).unwrap();
                    (*who, transport, scope.spawn(call))
                })
                .collect();
            thread::sleep(LOAD / 4);
            world.cluster.kill_agent();
            thread::sleep(LOAD / 2);
            let begin = Instant::now();
            world.cluster.start_agent().unwrap();
            assert!(begin.elapsed() < LOAD / 4, "{set_up}: the load was over before the agent was back");
            loads.into_iter().map(|(who, transport, load)| (who, transport, load.join().unwrap())).collect()
        });
        for (who, transport, summary) in results {
            assert_eq!(
                (summary.failed, summary.backends.len()),
                (0, PODS.len()),
                "{set_up}: {who}/{transport}: {summary:?}\n{}",
                world.cluster.agent_log()
            );
            assert!(summary.ok > 200, "{set_up}: {who}/{transport}: {summary:?}");
        }
        assert_eq!(world.map_id("FLOWS4"), flows, "{set_up}: the successor made maps of its own");
    }
}

/// Somebody deletes a Service's row by hand: it comes back with the next look at all tables, and the log says which.
#[test]
fn a_row_that_somebody_deletes_comes_back_and_is_named() {
    let agent = AgentOptions { more: vec!["--ipvs-sync-period=2s".to_owned()], ..AgentOptions::default() };
    let world = World::start("damaged", ClusterOptions { agent, ..native() });
    world.serve("web", &["web"]);
    let vip: std::net::Ipv4Addr = world.cluster.vip("web").unwrap().parse().unwrap();
    let [port, tcp] = [80_u16.to_ne_bytes(), [6, 0]];
    let key: Vec<String> =
        vip.octets().iter().chain(&port).chain(&tcp).map(|byte| format!("{byte:#04x}")).collect();
    let has_row =
        || world.rows("FRONTENDS4").iter().any(|row| row["key"]["port"] == 80 && row["key"]["protocol"] == 6);
    assert!(has_row());
    let id = world.map_id("FRONTENDS4").to_string();
    let mut words = vec!["bpftool", "map", "delete", "id", &id, "key"];
    words.extend(key.iter().map(String::as_str));
    world.cluster.topology.node.run(&words).unwrap();
    world.cluster.wait("the row to be back", Duration::from_secs(10), |_| Ok(has_row())).unwrap();
    world.logged(&["rows were not as they should be and are written anew"]);
    world.answers("web");
}
