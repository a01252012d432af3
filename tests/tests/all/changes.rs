//! What changes while traffic flows: backends that go, and an agent that dies.

use std::time::{Duration, Instant};

use router_tests::apiserver::Kind;
use router_tests::enter::Place;
use router_tests::probe::{Held, Probe};
use router_tests::serve::Transport;
use serde_json::Value;

use super::world::{BOTH, World, clsact_with_pins, four, hold, native, plain};

/// A connection to a pod that is deleted is reset, so that its client does not wait; UDP and new connections go to
/// the pod that is left.
#[test]
fn a_connection_to_a_deleted_pod_is_reset_and_the_next_goes_elsewhere() {
    for (set_up, options) in four() {
        let world = World::start("gone", options);
        world.serve("web", &["web-0", "web-1"]);
        for (number, (who, place)) in (1_u16..).zip(world.clients()) {
            let to = world.dial("web");
            let doomed = format!("web-{}", number - 1);
            let mut held: Vec<_> = BOTH
                .iter()
                .map(|transport| {
                    // Round robin: among a few, one is the doomed pod's.
                    (0..8)
                        .find_map(|port| {
                            let mut flow = hold(&place, *transport, &to, 42_000 + 100 * number + port);
                            let answer = flow.ask("hello").unwrap();
                            (answer.backend() == Some(&doomed)).then_some((*transport, flow))
                        })
                        .unwrap()
                })
                .collect();
            world.cluster.remove(Kind::Pod, &doomed);
            let begin = Instant::now();
            world
                .cluster
                .wait("new connections to reach the other pod alone", Duration::from_secs(10), |_| {
                    let summary = Probe::new(&place).many(Transport::Tcp, &to, 20, 4, None)?;
                    Ok(summary.failed == 0 && !summary.backends.contains_key(&doomed))
                })
                .unwrap();
            for (transport, flow) in &mut held {
                let result = flow.ask("still there?").unwrap();
                let what = format!("{set_up}: {who} {transport} after {:?}: {result:?}", begin.elapsed());
                match transport {
                    // Its process ends in order and so do its sockets; whoever missed that is reset by us.
                    Transport::Tcp => assert!(
                        matches!(result.error.as_deref(), Some("reset" | "closed without an answer")),
                        "{what}"
                    ),
                    Transport::Udp => assert!(result.ok && result.backend() != Some(&doomed), "{what}"),
                }
            }
            // Another in its place, for the next client.
            world.cluster.run_pods("web", &[&format!("web-{}", number + 1)]).unwrap();
            let joined = format!("web-{}", number + 1);
            world
                .cluster
                .wait("the new pod to be dialled", Duration::from_secs(10), |_| {
                    let summary = Probe::new(&place).many(Transport::Tcp, &to, 8, 1, None)?;
                    Ok(summary.backends.contains_key(&joined))
                })
                .unwrap();
        }
    }
}

/// A flow that a client holds, and what it is called.
type Flow = (&'static str, Transport, Held);

/// A flow of each protocol from each client, all from one port.
fn held_by_all(world: &World, to: &str, port: u16) -> Vec<Flow> {
    let open = |(who, place)| BOTH.map(|transport| (who, transport, hold(&place, transport, to, port)));
    world.clients().into_iter().flat_map(open).collect()
}

fn all_reach(held: &mut [Flow], backend: &str, set_up: &str) {
    for (who, transport, flow) in held {
        let result = flow.ask("hello").unwrap();
        assert_eq!(result.backend(), Some(backend), "{set_up}: {who} {transport}: {result:?}");
    }
}

/// Waits until new connections of every client reach this backend alone.
fn new_ones_reach(world: &World, to: &str, backend: &str) {
    let alone = |place: &Place, transport: Transport| {
        let summary = Probe::new(place).many(transport, to, 4, 1, None).unwrap();
        summary.failed == 0 && summary.backends.keys().eq([backend])
    };
    let all = || {
        let clients = world.clients();
        clients.iter().all(|(_, place)| BOTH.iter().all(|transport| alone(place, *transport)))
    };
    world
        .cluster
        .wait("new connections to reach the other endpoint alone", Duration::from_secs(10), |_| Ok(all()))
        .unwrap();
}

/// A connection to a backend that has gone without a word, which only we can reset.
#[test]
fn a_connection_to_an_endpoint_that_left_is_reset_and_the_next_goes_elsewhere() {
    for (set_up, options) in four() {
        let world = World::start("left", options);
        world.serve("web", &["web-0", "web-1"]);
        let addresses = ["web-0", "web-1"].map(|pod| world.cluster.pod_address(pod).unwrap());
        world.cluster.put_service("by-hand", None, 8080).unwrap();
        world.cluster.put_slice("by-hand", &addresses[..1], None).unwrap();
        world.answers("by-hand");
        let to = world.dial("by-hand");
        let mut held = held_by_all(&world, &to, 44_000);
        all_reach(&mut held, "web-0", set_up);
        world.cluster.put_slice("by-hand", &addresses[1..], None).unwrap();
        new_ones_reach(&world, &to, "web-1");
        for (who, transport, flow) in &mut held {
            let result = flow.ask("still there?").unwrap();
            let what = format!("{set_up}: {who} {transport}: {result:?}");
            match transport {
                Transport::Tcp => assert_eq!(result.error.as_deref(), Some("reset"), "{what}"),
                Transport::Udp => assert_eq!(result.backend(), Some("web-1"), "{what}"),
            }
        }
    }
}

/// An endpoint that shuts down gets no new connection, and keeps those that it has until it is gone.
#[test]
fn a_connection_to_an_endpoint_that_shuts_down_goes_on() {
    for (set_up, options) in [("native", native()), ("plain", plain())] {
        let world = World::start("drain", options);
        world.serve("web", &["web-0", "web-1"]);
        let [leaving, staying] = ["web-0", "web-1"].map(|pod| world.cluster.pod_address(pod).unwrap());
        world.cluster.put_service("by-hand", None, 8080).unwrap();
        world.cluster.put_slice("by-hand", &[leaving], None).unwrap();
        world.answers("by-hand");
        let to = world.dial("by-hand");
        let mut held = held_by_all(&world, &to, 45_000);
        all_reach(&mut held, "web-0", set_up);
        world.cluster.put_endpoints("by-hand", &[(leaving, false), (staying, true)], None).unwrap();
        new_ones_reach(&world, &to, "web-1");
        all_reach(&mut held, "web-0", set_up);
    }
}

/// Endpoints leave their Service and come back while their pods go on. A connection to one that leaves is reset; no
/// other fails, and none has to wait.
#[test]
fn under_load_only_connections_to_an_endpoint_that_leaves_end() {
    for (set_up, options) in [("native", native()), ("plain", plain())] {
        let world = World::start("load", options);
        world.serve("web", &["web-0", "web-1", "web-2"]);
        let addresses = ["web-0", "web-1", "web-2"].map(|pod| world.cluster.pod_address(pod).unwrap());
        world.cluster.put_service("by-hand", None, 8080).unwrap();
        world.cluster.put_slice("by-hand", &addresses, None).unwrap();
        world.answers("by-hand");
        let to = world.dial("by-hand");
        let place = world.pod("client");
        let summary = std::thread::scope(|scope| {
            let load = scope.spawn(|| {
                Probe::new(&place).many(Transport::Tcp, &to, 50_000, 8, Some(Duration::from_secs(4))).unwrap()
            });
            let mut left = 0;
            while !load.is_finished() {
                left += 2;
                for count in [2, 1, 3] {
                    std::thread::sleep(Duration::from_millis(100));
                    world.cluster.put_slice("by-hand", &addresses[..count], None).unwrap();
                }
            }
            let summary = load.join().unwrap();
            assert!(
                summary.failed <= left * 8,
                "{set_up}: {left} left, of 8 connections at a time: {summary:?}"
            );
            summary
        });
        assert!(summary.errors.keys().all(|error| error == "reset"), "{set_up}: {summary:?}");
        assert!(summary.ok > 100 && summary.backends.len() == 3, "{set_up}: {summary:?}");
    }
}

/// Flows that last and flows that begin while nobody runs; and the next agent finds the tables as they should be.
#[test]
fn traffic_goes_on_without_the_agent_and_its_successor_changes_no_row() {
    for (set_up, options) in
        [("tcx", native()), ("clsact", clsact_with_pins()), ("clsact without a bpffs", plain())]
    {
        let mut world = World::start("killed", options);
        world.serve("web", &["web-0", "web-1"]);
        let to = world.dial("web");
        let clients = world.clients();
        let mut held: Vec<_> = clients
            .iter()
            .flat_map(|(who, place)| {
                BOTH.map(|transport| (who, transport, hold(place, transport, &to, 43_000)))
            })
            .collect();
        let mut go_on = |when: &str| {
            for (who, transport, flow) in &mut held {
                let result = flow.ask("hello").unwrap();
                assert!(result.ok, "{set_up}: {who} {transport} {when}: {result:?}");
            }
            for (who, place) in &clients {
                for transport in BOTH {
                    let summary = Probe::new(place).many(transport, &to, 40, 4, None).unwrap();
                    assert_eq!(
                        (summary.failed, summary.backends.len()),
                        (0, 2),
                        "{set_up}: {who} {transport} {when}: {summary:?}"
                    );
                }
            }
        };
        go_on("with the agent");
        let before = (world.map_id("FLOWS4"), tables(&world));
        world.cluster.kill_agent();
        go_on("without the agent");
        world.cluster.start_agent().unwrap();
        let deadline = Instant::now() + Duration::from_secs(3);
        while Instant::now() < deadline {
            go_on("with a new agent");
        }
        assert_eq!((world.map_id("FLOWS4"), tables(&world)), before, "{set_up}");
    }
}

/// What the agent writes, but for the lease.
fn tables(world: &World) -> Vec<(&'static str, Vec<Value>)> {
    ["FRONTENDS4", "SLOTS", "BACKENDS4", "PODS4", "DEVICES"].map(|map| (map, world.rows(map))).into()
}
