//! The stock clients against the API, in front of a speaker that tells what [`scripted`] says.

mod client;
mod scripted;

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use client::{Client, clients, mask};
use router_bgp::session::State;
use router_core::cluster::Event;
use router_core::problem::Subject;
use scripted::{Script, change, peers};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::bgp::view::{PeerView, Verb, Watch, WatchEvent};

/// What `gobgp` says to each of these is kept in a file for each version of it.
const COMMANDS: &[&str] = &[
    "global",
    "global -j",
    "neighbor",
    "neighbor -q",
    "neighbor 192.0.2.2",
    "neighbor 192.0.2.77",
    "neighbor 192.0.2.2 -j",
    "neighbor 192.0.2.99",
    "neighbor 192.0.2.2 adj-in",
    "neighbor 192.0.2.2 adj-in -j",
    "neighbor 192.0.2.2 adj-in summary",
    "neighbor 192.0.2.2 adj-out",
    "neighbor 192.0.2.2 accepted",
    "neighbor 192.0.2.2 local",
    "neighbor 192.0.2.2 policy",
    "neighbor 192.0.2.77 adj-in",
    "neighbor 192.0.2.99 adj-in",
    "neighbor 192.0.2.99 adj-in summary",
    "neighbor 192.0.2.99 local",
    "global rib",
    "global rib -a ipv6",
    "global rib summary",
    "global rib -j",
    "global rib 10.1.0.0/24",
    "global rib 10.1.0.5",
    "global rib 10.55.0.0/24",
    "global rib 10.1.0.0/16 longer-prefixes",
    "global rib 10.1.0.0/24 shorter-prefixes",
    "global rib 10.1.0.5 longer-prefixes",
    "policy",
    "policy kube_router_export",
    "policy -j",
    "policy statement",
    "policy statement pods",
    "policy prefix",
    "policy prefix podcidrset",
    "policy prefix nosuchset",
    "policy neighbor",
    "policy as-path",
    "global policy",
    "global policy import",
    "global policy -j",
    "global rib add 10.9.0.0/24",
    "global rib del 10.9.0.0/24",
    "neighbor add 192.0.2.9 as 65009",
    "neighbor del 192.0.2.2",
    "policy prefix add podcidrset 10.9.0.0/24",
    "log-level debug",
    "vrf",
];

#[test]
fn stock_clients_read_everything() {
    for client in clients() {
        let served = Served::start();
        let mut transcript = String::new();
        for command in COMMANDS {
            transcript += &served.say(&client, command);
        }
        client.expect("reads", &transcript);
    }
}

#[test]
fn verbs_reach_the_speaker() {
    let peer = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)));
    let soft = |inbound, outbound| Verb::SoftReset { inbound, outbound };
    let text = |text: &str| text.to_owned();
    let cases = [
        ("neighbor 192.0.2.2 softreset", peer, soft(true, true)),
        ("neighbor 192.0.2.2 softresetin", peer, soft(true, false)),
        ("neighbor 192.0.2.2 softresetout", peer, soft(false, true)),
        ("neighbor 192.0.2.2 reset", peer, Verb::Reset { communication: text("") }),
        ("neighbor 192.0.2.2 reset --reason tea", peer, Verb::Reset { communication: text("tea") }),
        ("neighbor 192.0.2.2 shutdown --reason tea", peer, Verb::Shutdown { communication: text("tea") }),
        ("neighbor 192.0.2.2 disable", peer, Verb::Disable { communication: text("") }),
        ("neighbor 192.0.2.2 enable", peer, Verb::Enable),
        ("neighbor all softreset", None, soft(true, true)),
    ];
    for client in clients() {
        let served = Served::start();
        for (command, address, verb) in &cases {
            let said = served.say(&client, command);
            assert!(said.ends_with("exit 0\n"), "{said}");
            assert_eq!(served.script.act(), Some((*address, verb.clone())), "{command}");
        }
        let unknown = served.say(&client, "neighbor 192.0.2.99 reset");
        assert!(unknown.contains("not found neighbor 192.0.2.99"), "{unknown}");
        assert!(unknown.ends_with("exit 1\n"), "{unknown}");
    }
}

#[test]
fn events_are_told_as_they_happen() {
    for client in clients() {
        let mut served = Served::start();
        let mut monitor = client.monitor(served.port, "monitor global rib");
        let events = served.watcher(BEST);
        served.run(async {
            // A withdrawal, and an event of nothing, of which nothing may be printed.
            for event in [vec![change(false)], Vec::new(), vec![change(true)]] {
                events.send(WatchEvent::Paths(event)).await.unwrap();
            }
        });
        let mut transcript = "$ gobgp monitor global rib\n".to_owned();
        transcript += &monitor.lines(2);
        drop(monitor);

        let mut monitor = client.monitor(served.port, "monitor neighbor 192.0.2.2");
        let events = served.watcher(Watch { peers: true, ..Watch::default() });
        served.run(async {
            for state in [State::Idle, State::Established] {
                let peer = Box::new(PeerView { state, ..peers().remove(0) });
                events.send(WatchEvent::Peer(peer)).await.unwrap();
            }
        });
        transcript += "$ gobgp monitor neighbor 192.0.2.2\n";
        transcript += &monitor.lines(2);
        drop(monitor);

        // What stands is told first, where it is asked for.
        let mut monitor = client.monitor(served.port, "monitor global rib --current");
        transcript += "$ gobgp monitor global rib --current\n";
        transcript += &monitor.lines(4);
        client.expect("events", &transcript);
    }
}

#[test]
fn a_watcher_that_falls_behind_is_told_so() {
    for client in clients() {
        let mut served = Served::start();
        let monitor = client.monitor(served.port, "monitor global rib");
        drop(served.watcher(BEST));
        let said = monitor.end();
        assert!(said.contains("events were not read in time"), "{said}");
    }
}

#[test]
fn a_speaker_that_has_gone_is_said_to_have() {
    for client in clients() {
        let mut served = Served::start();
        let monitor = client.monitor(served.port, "monitor global rib");
        let events = served.watcher(BEST);
        served.script.stop();
        drop(events);
        let said = monitor.end();
        assert!(said.contains("the BGP speaker has stopped"), "{said}");
        let said = served.say(&client, "global");
        assert!(said.contains("the BGP speaker has stopped") && said.ends_with("exit 1\n"), "{said}");
    }
}

#[test]
fn a_taken_port_is_a_problem_until_it_is_free() {
    let runtime = Runtime::new().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (asks, _asked) = mpsc::channel(1);
    let (events, mut told) = mpsc::channel(8);
    runtime.spawn(super::run(address, asks, Instant::now(), events));
    let mut next = || match runtime.block_on(told.recv()) {
        Some(Event::Problems(Subject::AdminApi(about), problems)) if about == address => problems,
        other => panic!("{other:?}"),
    };
    let problems = next();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].text.contains("in use"), "{}", problems[0]);
    drop(taken);
    // Another try may have come first.
    while !next().is_empty() {}
    std::net::TcpStream::connect(address).unwrap();
}

/// What a monitor of the global table wants.
const BEST: Watch = Watch { best: true, adj_in: false, peers: false };

/// A server on a port of loopback, and the speaker behind it.
struct Served {
    runtime: Runtime,
    port: u16,
    script: Script,
}

impl Served {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let (asks, inbox) = mpsc::channel(8);
        let port = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let started = Instant::now().checked_sub(Duration::from_secs(1_000)).unwrap();
            tokio::spawn(super::serve(listener, asks, started));
            port
        });
        let script = Script::start(&runtime, inbox);
        Self { runtime, port, script }
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// A command line, what it printed, and its exit code.
    fn say(&self, client: &Client, command: &str) -> String {
        let (text, code) = client.run(self.port, command);
        format!("$ gobgp {command}\n{}exit {code}\n", mask(&text))
    }

    /// The other end of the watcher that has just come, which wants this.
    fn watcher(&mut self, wanted: Watch) -> mpsc::Sender<WatchEvent> {
        let (watch, events) = self.script.watcher();
        assert_eq!(watch, wanted);
        events
    }
}
