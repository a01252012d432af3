//! Graceful restart with BIRD at the other end: the agent is away, or the router is, and nobody loses a packet or a route.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use router_tests::cluster::{AgentOptions, ClusterOptions};
use router_tests::node::Node;
use router_tests::peers::Bird;
use router_tests::probe::Probe;
use router_tests::tools::gobgps;
use router_tests::topology::{NODE, NODE_POD_CIDR, ROUTER};

use super::world::World;

const AWAY: Duration = Duration::from_secs(10);
const EXTERNAL: [&str; 3] =
    ["--peer-router-ips=192.168.77.1", "--peer-router-asns=65000", "--advertise-cluster-ip"];
const GRACEFUL: [&str; 2] = ["--bgp-graceful-restart=true", "--bgp-graceful-restart-time=60s"];
/// What the router knows.
const KEPT: &str = "203.0.113.0/24";
const DROPPED: &str = "198.51.100.0/24";

fn options(more: &[&str]) -> ClusterOptions {
    let more = more.iter().map(|flag| (*flag).to_owned()).collect();
    ClusterOptions { agent: AgentOptions { more, ..AgentOptions::default() }, ..ClusterOptions::default() }
}

/// A router of AS 65000 that does graceful restart, and forwards by what it learns.
fn configuration(networks: &[&str]) -> String {
    let networks = networks.join(" unreachable; route ");
    format!(
        "router id {ROUTER};\nlog stderr all;\n\
         protocol device {{ }}\n\
         protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}\n\
         protocol static {{ ipv4; route {networks} unreachable; }}\n\
         protocol bgp node {{\n  local {ROUTER} as 65000;\n  neighbor {NODE} as 64512;\n  connect delay time 1;\n  \
         connect retry time 1;\n  error wait time 1, 2;\n  graceful restart yes;\n  graceful restart time 60;\n  \
         ipv4 {{ import all; export all; }};\n}}\n"
    )
}

/// Instead of the route that the router has without BGP.
fn router(world: &World, folder: &Path) -> Bird {
    let host = &world.cluster.topology.router;
    host.ip(&format!("route del {NODE_POD_CIDR}\n")).unwrap();
    Bird::start(host, folder, &configuration(&[KEPT, DROPPED])).unwrap()
}

fn learned_by(node: &Node) -> String {
    node.run(&["ip", "route", "show", "proto", "17"]).unwrap()
}

fn wait(world: &World, what: &str, holds: impl Fn() -> bool) {
    world.cluster.wait(what, Duration::from_secs(20), |_| Ok(holds())).unwrap();
}

/// Ten pings a second, until it is stopped.
struct Pings {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<[usize; 2]>,
}

impl Pings {
    fn start(from: &Arc<Node>, to: Ipv4Addr) -> Self {
        let (from, stop) = (Arc::clone(from), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let [mut sent, mut lost] = [0; 2];
            while !stopped.load(Ordering::Relaxed) {
                sent += 1;
                lost += usize::from(!Probe::new(&from).ping(&to.to_string()).unwrap().ok);
                thread::sleep(Duration::from_millis(100));
            }
            [sent, lost]
        });
        Self { stop, thread }
    }

    /// How many there were, and how many had no answer.
    fn stop(self) -> [usize; 2] {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// For so long, five times a second.
fn always(what: &str, time: Duration, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while start.elapsed() < time {
        assert!(holds(), "{what}, {:?} on", start.elapsed());
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn an_agent_killed_for_ten_seconds_costs_no_route_and_no_packet() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::start("restart", options(&[&EXTERNAL[..], &GRACEFUL].concat()));
    let bird = router(&world, folder.path());
    world.serve("web", &["web-0"]);
    let vip = format!("{}/32", world.cluster.vip("web").unwrap());
    let has_all = || {
        let routes = bird.ask("show route protocol node").unwrap();
        routes.contains(NODE_POD_CIDR) && routes.contains(&vip)
    };
    let waits = || bird.ask("show protocols all node").unwrap().contains("graceful restart active");
    wait(&world, "the router to learn what the node announces", has_all);
    let node = Arc::clone(&world.cluster.topology.node);
    let learned = || learned_by(&node).contains(KEPT);
    wait(&world, "the node to learn what the router announces", learned);
    let router = Arc::clone(&world.cluster.topology.router);
    let forwards = || router.run(&["ip", "route", "show", NODE_POD_CIDR]).unwrap().contains("proto bird");
    wait(&world, "the router to forward by it", forwards);

    let pings = Pings::start(&router, world.cluster.pod_address("client").unwrap());
    world.cluster.kill_agent();
    wait(&world, "the router to notice", waits);
    always("nothing goes while the agent is away", AWAY, || has_all() && learned());
    world.cluster.start_agent().unwrap();
    let back = Instant::now();
    while waits() || !world.log().contains("sync finished") {
        assert!(has_all() && learned(), "while the agent comes back, {:?} on", back.elapsed());
        assert!(back.elapsed() < Duration::from_secs(30), "{}", world.log());
        thread::sleep(Duration::from_millis(200));
    }
    eprintln!("all is refreshed {:?} after the start", back.elapsed());
    always("nor afterwards", Duration::from_secs(2), || has_all() && learned());
    let [sent, lost] = pings.stop();
    eprintln!("{sent} pings, {lost} lost");
    assert!(sent > 30 && lost == 0, "{lost} of {sent} pings are lost");

    let (status, _) = world.cluster.terminate_agent().unwrap();
    assert!(status.success());
    wait(&world, "the router to take SIGTERM for a restart too", waits);
    assert!(has_all());
}

#[test]
fn a_router_killed_for_ten_seconds_keeps_its_routes_but_those_it_does_not_announce_again() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start("away", options(&[&EXTERNAL[..], &GRACEFUL].concat()));
    let bird = router(&world, folder.path());
    let has = |network: &str| learned_by(&world.cluster.topology.node).contains(network);
    wait(&world, "the node to learn both networks", || has(KEPT) && has(DROPPED));
    drop(bird);
    let line = world.logged(&["peer graceful restart", "Key=192.168.77.1"]);
    assert!(line.ends_with("State=BGP_FSM_ESTABLISHED Topic=Peer"), "{line}");
    let down = world.logged(&["msg=\"Peer Down\"", "Key=192.168.77.1"]);
    assert!(down.contains("Reason=graceful-restart"), "{down}");
    let asked = |words: &str| {
        let gobgps = gobgps().unwrap().into_iter().map(|gobgp| gobgp.to_str().unwrap().to_owned());
        let answer = |gobgp: String| {
            let words: Vec<&str> = std::iter::once(gobgp.as_str()).chain(words.split_whitespace()).collect();
            world.cluster.topology.node.run(&words).unwrap()
        };
        gobgps.map(answer).collect::<Vec<_>>()
    };
    for answer in asked("global rib") {
        let stale = answer.lines().filter(|line| line.starts_with("S*>")).count();
        assert_eq!(stale, 2, "{answer}");
    }
    always("both networks stay while the router is away", AWAY, || has(KEPT) && has(DROPPED));
    let host = &world.cluster.topology.router;
    let _bird = Bird::recover(host, folder.path(), &configuration(&[KEPT])).unwrap();
    let back = Instant::now();
    while has(DROPPED) {
        assert!(has(KEPT), "{:?} on", back.elapsed());
        assert!(back.elapsed() < Duration::from_secs(30), "{}", world.log());
        thread::sleep(Duration::from_millis(100));
    }
    always("what is announced again stays", Duration::from_secs(2), || has(KEPT));
    world.logged(&["BGP peer 192.168.77.1", "1 routes that it did not announce again are gone"]);
    for answer in asked("neighbor 192.168.77.1") {
        assert!(answer.contains("graceful-restart:\tadvertised and received"), "{answer}");
    }
}

#[test]
fn without_graceful_restart_sigterm_is_said_to_the_peers() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::start("sigterm", options(&EXTERNAL));
    let bird = router(&world, folder.path());
    let has = || bird.ask("show route protocol node").unwrap().contains(NODE_POD_CIDR);
    wait(&world, "the router to learn the pod range", has);
    let (status, took) = world.cluster.terminate_agent().unwrap();
    assert!(status.success());
    eprintln!("left after {took:?}");
    wait(&world, "the router to be told", || {
        bird.ask("show protocols all node").unwrap().contains("Received: Administrative shutdown")
    });
    assert!(!has());
}
