//! Peers that mean no good, beside one that does: it must not notice them.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net};
use router_bgp::family::Family;
use router_bgp::message::header::keepalive;
use router_bgp::message::notification::{Notification, error};
use router_bgp::message::refresh::Refresh;
use router_tests::cluster::{AgentOptions, ClusterOptions};
use router_tests::peers::scripted::{Behaved, Scripted};
use router_tests::tools::gobgps;
use router_tests::topology::{NODE_POD_CIDR, ROUTER};

use super::world::World;

mod malformed;

const CULPRIT: (Ipv4Addr, u32) = (ROUTER, 65000);
const WITNESS: (Ipv4Addr, u32) = (Ipv4Addr::new(192, 168, 77, 3), 65001);
const HOLD_TIME: u16 = 3;
const HOLD: Duration = Duration::from_secs(3);
/// For what has to come.
const LIMIT: Duration = Duration::from_secs(20);

/// A cluster whose agent has these peers, which all listen at the router before they are dialled: the node itself lets
/// nobody in.
fn start(purpose: &str, peers: &[(Ipv4Addr, u32)], more: &[&str]) -> (World, Vec<Scripted>) {
    let mut world = World::start(purpose, ClusterOptions::default());
    world.cluster.kill_agent();
    let router = &world.cluster.topology.router;
    let listen = |(address, asn): &(Ipv4Addr, u32)| {
        if *address != ROUTER {
            router.ip(&format!("addr add {address}/24 dev n0\n")).unwrap();
        }
        Scripted::listen(router, *address, *asn).unwrap()
    };
    let listening = peers.iter().map(listen).collect();
    let join = |words: Vec<String>| words.join(",");
    let mut flags: Vec<String> = more.iter().map(|flag| (*flag).to_owned()).collect();
    let addresses = join(peers.iter().map(|(address, _)| address.to_string()).collect());
    let asns = join(peers.iter().map(|(_, asn)| asn.to_string()).collect());
    flags.push(format!("--peer-router-ips={addresses}"));
    flags.push(format!("--peer-router-asns={asns}"));
    world.cluster.set_agent_options(AgentOptions { more: flags, ..AgentOptions::default() });
    world.cluster.start_agent().unwrap();
    (world, listening)
}

/// The same with one culprit and one witness, whose session is up.
fn pair(purpose: &str, more: &[&str]) -> (World, Scripted, Behaved) {
    let hold_time = format!("--bgp-holdtime={HOLD_TIME}s");
    let flags = [more, &[hold_time.as_str()]].concat();
    let (world, peers) = start(purpose, &[CULPRIT, WITNESS], &flags);
    let [culprit, witness] = <[Scripted; 2]>::try_from(peers).unwrap();
    let witness = witness.establish(HOLD_TIME, LIMIT).unwrap().behave(HOLD).unwrap();
    (world, culprit, witness)
}

fn wait(world: &World, what: &str, holds: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    world.cluster.wait(what, LIMIT, |_| Ok(holds())).unwrap();
    start.elapsed()
}

/// The same for what is costly to ask, and takes longer.
fn wait_rarely(world: &World, what: &str, holds: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    let holds = || {
        std::thread::sleep(Duration::from_millis(500));
        holds()
    };
    world.cluster.wait(what, 3 * LIMIT, |_| Ok(holds())).unwrap();
    start.elapsed()
}

/// What the witness has to say in the end.
fn assert_undisturbed(world: &World, witness: &Behaved) {
    let before = witness.seen().keepalives;
    wait(world, "the witness to be spoken to", || witness.seen().keepalives > before + 1);
    let seen = witness.seen();
    eprintln!("the witness waited {:?} at most", seen.longest_silence);
    assert_eq!(seen.ended, None);
    assert!(seen.longest_silence < HOLD, "{:?}", seen.longest_silence);
    assert!(seen.routes.contains(&NODE_POD_CIDR.parse().unwrap()), "{:?}", seen.routes);
    let log = world.log();
    let key = format!("Key={}", WITNESS.0);
    let ups = log.lines().filter(|line| line.contains("Peer Up") && line.contains(&key)).count();
    assert_eq!(ups, 1, "{log}");
}

/// Kilobytes that the agent has in memory.
fn resident(world: &World) -> u64 {
    let pid = world.cluster.agent().unwrap().pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Prefixes of learned routes in the kernel.
fn learned(world: &World) -> BTreeSet<IpNet> {
    let routes = world.cluster.topology.node.run(&["ip", "route", "show", "proto", "17"]).unwrap();
    let prefix = |line: &str| line.split(' ').next().and_then(|word| word.parse().ok());
    routes.lines().filter_map(prefix).collect()
}

/// Whether somebody on the node still has the connection whose end there is `end`, and what waits in it to be sent.
fn socket(world: &World, end: SocketAddr) -> Option<u64> {
    let table = world.cluster.topology.node.run(&["cat", "/proc/net/tcp"]).unwrap();
    let port = format!(":{:04X}", end.port());
    let row =
        table.lines().find(|row| row.split_whitespace().nth(1).is_some_and(|at| at.ends_with(&port)))?;
    let fields: Vec<&str> = row.split_whitespace().collect();
    let (queued, inode) = (fields.get(4)?.split(':').next()?, *fields.get(9)?);
    (inode != "0").then(|| u64::from_str_radix(queued, 16).unwrap())
}

/// It wants the table again and again, and reads nothing of it; then it is silent, and keeps the connection.
#[test]
fn a_peer_that_stops_reading_costs_a_bounded_queue_and_its_own_session() {
    const SERVICES: usize = 400;
    const ASKED: u32 = 3000;
    let (world, culprit, witness) = pair("deaf", &["--advertise-cluster-ip"]);
    // Small buffers in the kernel, so that little fills them.
    world.cluster.topology.node.write("/proc/sys/net/ipv4/tcp_wmem", "4096 16384 16384").unwrap();
    world.cluster.topology.router.write("/proc/sys/net/ipv4/tcp_rmem", "4096 16384 16384").unwrap();
    world.serve("web", &["web-0"]);
    for number in 0..SERVICES {
        world.cluster.put_service(&format!("web-{number}"), Some("web"), 8080).unwrap();
    }
    wait(&world, "the VIPs to be announced", || witness.seen().routes.len() > SERVICES);
    let mut deaf = culprit.establish(HOLD_TIME, LIMIT).unwrap();
    let end = deaf.remote().unwrap();
    let before = resident(&world);
    let refresh = Refresh::request(Family::Ipv4Unicast.code()).encode();
    for number in 0..ASKED {
        deaf.send(&refresh).unwrap();
        if number % 500 == 0 {
            deaf.send(&keepalive()).unwrap();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let after = resident(&world);
    eprintln!("{before} kB before, {after} kB after {ASKED} requests for {SERVICES} routes");
    assert!(socket(&world, end).is_some_and(|queued| queued > 0), "the kernel's buffers are full");
    // All that was asked for would be more than twice as much.
    assert!(after < before + 3000, "{before} kB, then {after} kB");
    let key = format!("Key={}", culprit.address);
    let down = world.logged(&["msg=\"Peer Down\"", &key]);
    assert!(down.contains("hold-timer-expired"), "{down}");
    // The connection still takes nothing, and what is left to say must not keep it.
    let kept = wait(&world, "the connection to be given up", || socket(&world, end).is_none());
    eprintln!("given up {kept:?} after the session's end");
    assert_undisturbed(&world, &witness);
    drop(deaf);
    // It may come back.
    let again = culprit.establish(HOLD_TIME, LIMIT).unwrap().behave(HOLD).unwrap();
    wait(&world, "the table to be sent again", || again.seen().routes.len() > SERVICES);
}

#[test]
fn a_peer_that_resets_every_second_is_dialled_ever_more_rarely() {
    let (world, culprit, witness) = pair("reset", &[]);
    let start = Instant::now();
    let mut dials = Vec::new();
    while start.elapsed() < Duration::from_secs(18) {
        let Ok(mut session) = culprit.establish(HOLD_TIME, Duration::from_secs(9)) else { break };
        dials.push(start.elapsed());
        std::thread::sleep(Duration::from_secs(1));
        match dials.len() % 3 {
            0 => session.send(&Notification::new(error::ADMIN_RESET, &[]).encode()).unwrap(),
            // Octets that are not read make it a reset.
            1 => {}
            _ => drop(session.end(Duration::from_millis(1))),
        }
    }
    eprintln!("dialled at {dials:?}");
    let waits: Vec<Duration> = dials.windows(2).map(|pair| pair[1].abs_diff(pair[0])).collect();
    assert!((3..=6).contains(&dials.len()), "{dials:?}");
    assert!(waits.is_sorted(), "{waits:?}");
    assert_undisturbed(&world, &witness);
    let log = world.log();
    let address = CULPRIT.0.to_string();
    let lines: Vec<&str> =
        log.lines().filter(|line| line.contains(&address) && line.contains("eer")).collect();
    eprintln!("{} lines of {} sessions", lines.len(), dials.len());
    assert!(lines.len() <= 4 * dials.len() + 4, "{lines:#?}");
}

#[test]
fn a_hundred_thousand_routes_are_taken_and_go_with_their_peer() {
    const ROUTES: u32 = 100_000;
    let (world, culprit, witness) = pair("many", &[]);
    let first = Ipv4Addr::new(20, 0, 0, 0).to_bits();
    let prefix = |number: u32| {
        IpNet::V4(Ipv4Net::new(Ipv4Addr::from_bits(first + (number << 8)), 24).expect("24 bits"))
    };
    let prefixes: Vec<IpNet> = (0..ROUTES).map(prefix).collect();
    let mut session = culprit.establish(HOLD_TIME, LIMIT).unwrap();
    let before = resident(&world);
    session.announce(&prefixes).unwrap();
    let session = session.behave(HOLD).unwrap();
    let gobgp = gobgps().unwrap();
    let counts = || {
        let neighbors = world.cluster.topology.node.run(&[gobgp[0].to_str().unwrap(), "neighbor"]).unwrap();
        let line =
            neighbors.lines().find(|line| line.starts_with(&culprit.address.to_string())).map(str::to_owned);
        let counts =
            line.as_deref().and_then(|line| line.split_once('|')).map(|(_, counts)| counts.to_owned());
        counts.unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let all = ROUTES.to_string();
    let taken =
        wait_rarely(&world, "all routes to be in Adj-RIB-In", || counts() == [all.clone(), all.clone()]);
    let known = taken
        + wait_rarely(&world, "all routes to reach the kernel", || learned(&world).len() == prefixes.len());
    let after = resident(&world);
    eprintln!("taken after {taken:?}, in the kernel after {known:?}; {before} kB before, {after} kB after");
    // Of each route some hundred octets in several tables.
    assert!(after < before + 150_000, "{before} kB, then {after} kB");
    assert_undisturbed(&world, &witness);
    assert_eq!(witness.seen().routes.len(), 1, "nothing of it goes to others");
    assert_eq!(session.seen().ended, None);
    drop(session);
    let gone = wait_rarely(&world, "the routes to go with their peer", || learned(&world).is_empty());
    eprintln!("gone {gone:?} after their peer");
    assert_undisturbed(&world, &witness);
}
