//! A data plane that outlives its agent: killed under load, with a bpffs and with the mounts that kubespray leaves.

use std::thread;
use std::time::{Duration, Instant};

use router_tests::enter::Place;
use router_tests::probe::{Probe, Summary};
use router_tests::serve::Transport;
use router_tests::topology::NODE;

use super::world::{BOTH, World, native, plain};

const NODE_PORT: u16 = 30_080;
/// How long the load lasts; the agent is down in the middle half of it.
const LOAD: Duration = Duration::from_secs(12);

/// Connections without a pause from a pod, from the node and from outside, all to the same two pods, while the agent is
/// killed, stays away and starts again.
#[test]
fn a_killed_agent_and_its_successor_cost_no_connection_under_load() {
    for (set_up, options) in [("tcx, pinned", native()), ("clsact, no bpffs", plain())] {
        let mut world = World::start("survived", options);
        world.serve("web", &["web-0", "web-1"]);
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
                        move || Probe::new(place).many(transport, to, u64::MAX, 2, Some(LOAD)).unwrap();
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
                (0, 2),
                "{set_up}: {who}/{transport}: {summary:?}\n{}",
                world.cluster.agent_log()
            );
            assert!(summary.ok > 200, "{set_up}: {who}/{transport}: {summary:?}");
        }
        assert_eq!(world.map_id("FLOWS4"), flows, "{set_up}: the successor made maps of its own");
    }
}
