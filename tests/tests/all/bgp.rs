//! The speaker with real neighbours: a router outside the cluster, and another node.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use router_tests::apiserver::Kind;
use router_tests::cluster::{AgentOptions, ClusterOptions};
use router_tests::node::Node;
use router_tests::peers::Bird;
use router_tests::tools::gobgps;
use router_tests::topology::{NODE, NODE_POD_CIDR, REMOTE, ROUTER};

use super::world::{World, put_remote_node};

fn options(more: &[&str]) -> ClusterOptions {
    let more = more.iter().map(|flag| (*flag).to_owned()).collect();
    ClusterOptions { agent: AgentOptions { more, ..AgentOptions::default() }, ..ClusterOptions::default() }
}

/// A router of AS 65000 that knows a network of its own.
pub(super) fn router(host: &Arc<Node>, folder: &Path) -> Bird {
    let configuration = format!(
        "router id {ROUTER};\n\
         protocol device {{ }}\n\
         protocol static {{ ipv4; route 203.0.113.0/24 unreachable; route 0.0.0.0/0 unreachable; }}\n\
         protocol bgp node {{\n  local {ROUTER} as 65000;\n  neighbor {NODE} as 64512;\n  connect delay time 1;\n  \
         connect retry time 1;\n  error wait time 1, 2;\n  ipv4 {{ import all; export all; }};\n}}\n"
    );
    Bird::start(host, folder, &configuration).unwrap()
}

/// The other node's speaker.
fn other_node(host: &Arc<Node>, folder: &Path) -> Bird {
    let configuration = format!(
        "router id {REMOTE};\n\
         protocol device {{ }}\n\
         protocol static {{ ipv4; route 10.244.9.0/24 unreachable; }}\n\
         protocol bgp node {{\n  local {REMOTE} as 64512;\n  neighbor {NODE} as 64512;\n  connect delay time 1;\n  \
         connect retry time 1;\n  error wait time 1, 2;\n  ipv4 {{ import all; export all; }};\n}}\n"
    );
    Bird::start(host, folder, &configuration).unwrap()
}

pub(super) const EXTERNAL: [&str; 2] = ["--peer-router-ips=192.168.77.1", "--peer-router-asns=65000"];

fn wait(world: &World, what: &str, holds: impl Fn() -> bool) {
    world.cluster.wait(what, Duration::from_secs(20), |_| Ok(holds())).unwrap();
}

#[test]
fn a_router_outside_learns_pod_ranges_and_vips_and_loses_them_with_their_service() {
    let folder = tempfile::tempdir().unwrap();
    let flags = [&EXTERNAL[..], &["--advertise-cluster-ip"]].concat();
    let world = World::start("bgp", options(&flags));
    let bird = router(&world.cluster.topology.router, folder.path());
    world.serve("web", &["web-0"]);
    let vip = world.cluster.vip("web").unwrap();
    let has =
        |prefix: &str| bird.ask(&format!("show route {prefix} protocol node")).unwrap().contains(prefix);
    wait(&world, "the router to learn the pod range", || has(NODE_POD_CIDR));
    wait(&world, "the router to learn the VIP", || has(&format!("{vip}/32")));
    let routes = bird.ask("show route all protocol node").unwrap();
    assert!(routes.contains("BGP.as_path: 64512"), "{routes}");
    assert!(routes.contains(&format!("BGP.next_hop: {NODE}")), "{routes}");
    assert!(!routes.contains("203.0.113.0/24"), "nothing comes back to whom it is from: {routes}");
    let line = world.logged(&["level=info msg=\"Peer Up\"", "Key=192.168.77.1"]);
    assert!(line.ends_with("Key=192.168.77.1 State=BGP_FSM_OPENCONFIRM Topic=Peer"), "{line}");
    world.cluster.remove(Kind::Service, "web");
    wait(&world, "the VIP to be withdrawn", || !has(&format!("{vip}/32")));
    assert!(has(NODE_POD_CIDR));
    drop(bird);
    let down = world.logged(&["msg=\"Peer Down\"", "Key=192.168.77.1"]);
    assert!(down.contains("State=BGP_FSM_ESTABLISHED Topic=Peer"), "{down}");
    let again = router(&world.cluster.topology.router, folder.path());
    wait(&world, "the session to come back", || {
        again.ask("show route protocol node").unwrap().contains(NODE_POD_CIDR)
    });
}

/// Another node, once it has learned of this one.
fn joined(world: &World, folder: &Path) -> Bird {
    put_remote_node(&world.cluster);
    let bird = other_node(&world.cluster.topology.remote, folder);
    wait(world, "the other node to learn the pod range", || {
        bird.ask("show route protocol node").unwrap().contains(NODE_POD_CIDR)
    });
    bird
}

/// Octets that are no BGP, to each of our dials.
#[test]
fn a_peer_that_sends_garbage_is_named_once_and_disturbs_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start("garbage", options(&EXTERNAL));
    let bird = joined(&world, folder.path());
    let serve = "while true; do head -c 5000 /dev/urandom | busybox nc -l -p 179 >/dev/null; echo; done";
    // It ends with the host.
    let mut garbage = world.cluster.topology.router.command("sh");
    let mut garbage = garbage.args(["-c", serve]).stdout(Stdio::piped()).spawn().unwrap();
    let served = BufReader::new(garbage.stdout.take().unwrap());
    assert_eq!(served.lines().take(3).count(), 3, "three connections");
    let said = world.logged(&["BGP peer 192.168.77.1", "SessionEnded"]);
    assert!(said.contains("sent code 1(header)"), "{said}");
    let log = world.cluster.agent_log();
    assert_eq!(log.lines().filter(|line| line.contains("SessionEnded")).count(), 1, "{log}");
    assert!(!log.contains("Peer Down"), "{log}");
    assert!(bird.ask("show protocols node").unwrap().contains("Established"));
    garbage.kill().unwrap();
    garbage.wait().unwrap();
}

#[test]
fn other_nodes_are_neighbours_that_hear_of_pod_ranges_alone() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start("mesh", options(&["--advertise-cluster-ip"]));
    world.serve("web", &["web-0"]);
    let bird = joined(&world, folder.path());
    let routes = bird.ask("show route all protocol node").unwrap();
    assert!(routes.contains("BGP.local_pref: 100") && !routes.contains("/32"), "{routes}");
    world.cluster.server().store().remove(Kind::Node, "", "node9").unwrap();
    world.logged(&["Delete a peer configuration", &REMOTE.to_string()]);
    wait(&world, "the session to end with its Node", || {
        !bird.ask("show protocols node").unwrap().contains("Established")
    });
}

/// Stock clients, the oldest and the newest, in the agent's own host.
#[test]
fn both_generations_of_gobgp_are_answered_by_the_agent() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start("gobgp", options(&EXTERNAL));
    let bird = joined(&world, folder.path());
    let outside = router(&world.cluster.topology.router, folder.path());
    wait(&world, "the router to learn the pod range", || {
        outside.ask("show route protocol node").unwrap().contains(NODE_POD_CIDR)
    });
    for gobgp in gobgps().unwrap() {
        let gobgp = gobgp.to_str().unwrap();
        let ask = |words: &str| {
            let words: Vec<&str> = std::iter::once(gobgp).chain(words.split_whitespace()).collect();
            world.cluster.topology.node.run(&words).unwrap()
        };
        let neighbors = ask("neighbor");
        for line in ["192.168.77.1 65000", "192.168.88.2 64512"] {
            let found = neighbors.lines().find(|text| text.starts_with(line));
            assert!(found.is_some_and(|text| text.contains("Establ")), "{gobgp}: {neighbors}");
        }
        assert!(ask("global").contains("64512"), "{gobgp}");
        let received = ask("neighbor 192.168.77.1 adj-in");
        assert!(received.contains("203.0.113.0/24") && received.contains("0.0.0.0/0"), "{gobgp}: {received}");
        let sent = ask("neighbor 192.168.77.1 adj-out");
        assert!(sent.contains(NODE_POD_CIDR) && !sent.contains("10.244.9.0/24"), "{gobgp}: {sent}");
        let chosen = ask("global rib");
        assert!(chosen.contains("10.244.9.0/24") && !chosen.contains("0.0.0.0/0"), "{gobgp}: {chosen}");
        assert!(ask("policy").contains("podcidrdefinedsetexternalpeerset"), "{gobgp}");
        assert!(ask("global rib -j").contains("203.0.113.0/24"), "{gobgp}");
        let around = ask("neighbor 192.168.77.1 adj-in 203.0.113.7");
        assert!(around.contains("203.0.113.0/24") && !around.contains("0.0.0.0/0"), "{gobgp}: {around}");
        let mut monitor = world.cluster.topology.node.command(gobgp);
        let mut monitor = monitor.args(["monitor", "adj-in"]).stdout(Stdio::piped()).spawn().unwrap();
        let seen = BufReader::new(monitor.stdout.take().unwrap()).lines();
        // It says nothing before the first event, so the peer is asked again until it has heard one.
        let heard = thread::spawn(move || {
            seen.map_while(Result::ok).find(|line| line.contains("203.0.113.0/24")).unwrap_or_default()
        });
        wait(&world, "the monitor to hear of a route", || {
            ask("neighbor 192.168.77.1 softresetin");
            heard.is_finished()
        });
        monitor.kill().unwrap();
        monitor.wait().unwrap();
        let heard = heard.join().unwrap();
        assert!(heard.contains("[ROUTE] 203.0.113.0/24 via 192.168.77.1"), "{gobgp}: {heard:?}");
        ask("neighbor 192.168.77.1 reset");
        wait(&world, "the session to come back, and its routes", || {
            ask("neighbor 192.168.77.1").contains("ESTABLISHED")
                && ask("global rib").contains("203.0.113.0/24")
        });
    }
    assert!(bird.ask("show protocols node").unwrap().contains("Established"));
}

/// Learned routes are in the kernel as long as their peer is, and come back if somebody takes them out.
#[test]
fn what_a_router_announces_is_a_route_of_the_kernel_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start("fib", options(&EXTERNAL));
    let _other = joined(&world, folder.path());
    let node = &world.cluster.topology.node;
    node.ip("route add 198.51.100.0/24 via 192.168.77.1 proto 17\n").unwrap();
    let bird = router(&world.cluster.topology.router, folder.path());
    let learned = || node.run(&["ip", "route", "show", "proto", "17"]).unwrap();
    let route = "203.0.113.0/24 via 192.168.77.1 dev eth0";
    wait(&world, "the route to be learned", || learned().contains(route));
    // The other node's next hop is in no subnet of ours, and there is no tunnel.
    let chosen = |prefix: &str| learned().contains(prefix);
    assert!(!chosen("10.244.9.0/24") && !chosen("default"), "{}", learned());
    wait(&world, "what stood before and nobody named to go", || !chosen("198.51.100.0/24"));
    node.run(&["ip", "route", "flush", "proto", "17"]).unwrap();
    let flushed = Instant::now();
    wait(&world, "the route to come back", || learned().contains(route));
    eprintln!("back {:?} after the flush", flushed.elapsed());
    drop(bird);
    wait(&world, "the route to go with its peer", || !chosen("203.0.113.0/24"));
}
