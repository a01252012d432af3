//! A speaker that tells the same to everyone.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, mpsc as blocking};
use std::time::Duration;

use router_bgp::asn::Asn;
use router_bgp::family::{Families, Family, Prefix};
use router_bgp::message::attribute::{AsPath, Attributes, Origin, RawAttribute};
use router_bgp::message::capability::{Capability, GracefulRestart};
use router_bgp::message::update::Context;
use router_bgp::policy::{
    Actions, Assignment, Direction, Policies, Policy, PrefixRange, PrefixSet, Statement, Verdict,
};
use router_bgp::rib::{Counts, Lookup};
use router_bgp::session::{ConnectionId, DownReason, Messages, Session, State, Statistics};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::bgp::view::{
    Ask, DestinationView, GlobalView, GracefulRestartView, PathChange, PathView, PeerFamilyView, PeerView,
    Refusal, SourceView, SummaryView, Table, Verb, Watch, WatchEvent,
};

const PATIENCE: Duration = Duration::from_secs(20);

type Act = (Option<IpAddr>, Verb);
type Watcher = (Watch, mpsc::Sender<WatchEvent>);

/// The task, and what of it comes out.
pub(super) struct Script {
    task: JoinHandle<()>,
    acts: blocking::Receiver<Act>,
    watchers: blocking::Receiver<Watcher>,
}

impl Script {
    pub(super) fn start(runtime: &Runtime, inbox: mpsc::Receiver<Ask>) -> Self {
        let (act, acts) = blocking::channel();
        let (watcher, watchers) = blocking::channel();
        Self { task: runtime.spawn(answer(inbox, act, watcher)), acts, watchers }
    }

    pub(super) fn act(&self) -> Option<Act> {
        self.acts.try_recv().ok()
    }

    pub(super) fn watcher(&mut self) -> Watcher {
        self.watchers.recv_timeout(PATIENCE).expect("a watcher comes")
    }

    /// Ends the task, and waits until it has.
    pub(super) fn stop(&mut self) {
        self.task.abort();
        while !self.task.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

async fn answer(
    mut inbox: mpsc::Receiver<Ask>,
    acts: blocking::Sender<Act>,
    watchers: blocking::Sender<Watcher>,
) {
    while let Some(ask) = inbox.recv().await {
        match ask {
            Ask::Global(reply) => drop(reply.send(global())),
            Ask::Peers(address, reply) => {
                let found = peers().into_iter().filter(|peer| address.is_none_or(|it| it == peer.address));
                drop(reply.send(found.collect()));
            }
            Ask::Paths(table, lookup, reply) => {
                drop(reply.send(table_of(table).map(|all| find(&all, lookup))));
            }
            Ask::Summary(table, family, reply) => drop(reply.send(table_of(table).map(|all| {
                let all = find(&all, Lookup::All(family));
                let paths = all.iter().map(|it| it.paths.len() as u64).sum();
                SummaryView { destinations: all.len() as u64, paths, accepted: paths }
            }))),
            Ask::Policies(reply) => drop(reply.send(Arc::new(policies()))),
            Ask::Act(address, verb, reply) => {
                let known = address.is_none_or(|it| peers().iter().any(|peer| peer.address == it));
                let outcome = match address {
                    Some(address) if !known => Err(Refusal::UnknownPeer(address)),
                    _ => {
                        let _ = acts.send((address, verb));
                        Ok(())
                    }
                };
                let _ = reply.send(outcome);
            }
            Ask::Watch(watch, events) => drop(watchers.send((watch, events))),
        }
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn global() -> GlobalView {
    GlobalView {
        asn: Asn(64512),
        router_id: "192.0.2.1".parse().unwrap(),
        listen_port: 179,
        listen_addresses: vec![address("0.0.0.0"), address("::")],
    }
}

/// One that is up, and one that never was.
pub(super) fn peers() -> Vec<PeerView> {
    let down = PeerView {
        address: address("192.0.2.77"),
        description: "node b".into(),
        local_asn: Asn(64512),
        peer_asn: Asn(64512),
        hold_time: 90,
        connect_retry: Duration::from_mins(2),
        enabled: true,
        state: State::Active,
        session: None,
        local_address: None,
        local_port: None,
        peer_port: None,
        up_at: None,
        down_at: None,
        last_down: None,
        statistics: Statistics::default(),
        queued: 0,
        families: vec![PeerFamilyView {
            family: Family::Ipv4Unicast,
            counts: Counts::default(),
            end_of_rib_received: false,
            end_of_rib_sent: false,
        }],
        graceful_restart: None,
    };
    let sent = Messages { open: 1, update: 2, notification: 0, keepalive: 13, refresh: 0 };
    let up = PeerView {
        address: address("192.0.2.2"),
        description: "router a".into(),
        peer_asn: Asn(65001),
        state: State::Established,
        session: Some(session()),
        local_address: Some(address("192.0.2.1")),
        local_port: Some(41000),
        peer_port: Some(179),
        up_at: Some(Duration::from_secs(963)),
        down_at: Some(Duration::from_secs(950)),
        last_down: Some(DownReason::HoldTimerExpired),
        statistics: Statistics { received: Messages { keepalive: 12, ..sent }, sent, flops: 1 },
        families: vec![PeerFamilyView {
            family: Family::Ipv4Unicast,
            counts: Counts { received: 3, accepted: 3, advertised: 1 },
            end_of_rib_received: true,
            end_of_rib_sent: true,
        }],
        graceful_restart: Some(GracefulRestartView {
            restart_time: Duration::from_secs(90),
            deferral_time: Duration::from_mins(6),
            peer_restarting: false,
            local_restarting: false,
        }),
        ..down.clone()
    };
    vec![up, down]
}

/// With every capability that there is, on one side at least.
fn session() -> Session {
    let (v4, v6) = (Family::Ipv4Unicast.code(), Family::Ipv6Unicast.code());
    let graceful = |restarting, families| GracefulRestart {
        restarting,
        notification: restarting,
        restart_time: 90,
        families: Box::from_iter(families),
    };
    let local = [
        Capability::Multiprotocol(v4),
        Capability::RouteRefresh,
        Capability::ExtendedNextHop(Box::new([(v4, 2)])),
        Capability::ExtendedMessage,
        Capability::GracefulRestart(graceful(false, vec![(v4, false)])),
        Capability::FourOctetAs(Asn(64512)),
        Capability::EnhancedRefresh,
        Capability::Fqdn { host: "node-a".into(), domain: "".into() },
    ];
    let remote = [
        Capability::Multiprotocol(v4),
        Capability::Multiprotocol(v6),
        Capability::RouteRefresh,
        Capability::GracefulRestart(graceful(true, vec![(v4, true)])),
        Capability::FourOctetAs(Asn(65001)),
        Capability::AddPath(Box::new([(v4, 3)])),
        Capability::SoftwareVersion("bird 2".into()),
        Capability::Unknown { code: 200, value: Box::new([1, 2]) },
    ];
    Session {
        connection: ConnectionId(1),
        outgoing: true,
        peer_asn: Asn(65001),
        router_id: "192.0.2.2".parse().unwrap(),
        hold_time: Duration::from_secs(90),
        keepalive_interval: Duration::from_secs(30),
        context: Context {
            four_octet: true,
            internal: false,
            families: Families::from_iter([Family::Ipv4Unicast]),
            extended_next_hop: false,
            max_len: 4096,
            local: Some(address("192.0.2.1")),
        },
        route_refresh: true,
        graceful_restart: Some(graceful(true, vec![(v4, true)])),
        local_capabilities: Box::new(local),
        remote_capabilities: Box::new(remote),
    }
}

fn table_of(table: Table) -> Result<Vec<DestinationView>, Refusal> {
    let destination = |text, paths| DestinationView { prefix: prefix(text), paths };
    match table {
        Table::Global => Ok(vec![
            destination("10.1.0.0/16", vec![path(&rich(), true)]),
            destination(
                "10.1.0.0/24",
                vec![path(&rich(), true), PathView { best: false, stale: true, ..path(&plain(), true) }],
            ),
            destination("10.244.0.0/24", vec![own("192.0.2.1")]),
            destination("2001:db8:1::/64", vec![own("2001:db8::1")]),
        ]),
        Table::AdjIn(it) if it == address("192.0.2.2") => Ok(vec![
            destination("10.1.0.0/24", vec![path(&rich(), false)]),
            destination("10.3.0.0/24", vec![PathView { filtered: true, ..path(&plain(), false) }]),
        ]),
        Table::AdjOut(it) if it == address("192.0.2.2") => {
            let mut sent = Attributes::originated(address("192.0.2.1"));
            sent.as_path = AsPath::sequence([Asn(64512)]);
            sent.communities = Box::new([0xffff_ff01]);
            Ok(vec![destination("10.244.0.0/24", vec![path(&sent, false)])])
        }
        Table::AdjIn(it) | Table::AdjOut(it) if peers().iter().any(|peer| peer.address == it) => {
            Ok(Vec::new())
        }
        Table::AdjIn(it) | Table::AdjOut(it) => Err(Refusal::UnknownPeer(it)),
    }
}

fn find(all: &[DestinationView], lookup: Lookup) -> Vec<DestinationView> {
    let inside = |outer: &Prefix, inner: &Prefix| outer.contains(inner);
    let found = |it: &&DestinationView| match lookup {
        Lookup::All(family) => Family::of(&it.prefix) == family,
        Lookup::Exact(prefix) => it.prefix == prefix,
        Lookup::LongestMatch(prefix) | Lookup::Shorter(prefix) => inside(&it.prefix, &prefix),
        Lookup::Longer(prefix) => inside(&prefix, &it.prefix),
    };
    let found: Vec<DestinationView> = all.iter().filter(found).cloned().collect();
    match lookup {
        Lookup::LongestMatch(_) => {
            found.into_iter().max_by_key(|it| it.prefix.prefix_len()).into_iter().collect()
        }
        _ => found,
    }
}

/// An attribute of every kind.
fn rich() -> Attributes {
    Attributes {
        med: Some(10),
        communities: Box::new([0xfde9_0001, 0xffff_ff01]),
        others: Box::new([
            RawAttribute { flags: 0xc0, kind: 16, value: Box::new([0, 2, 0xfd, 0xe9, 0, 0, 0, 7]) },
            RawAttribute {
                flags: 0xc0,
                kind: 32,
                value: Box::new([0, 0, 0xfd, 0xe9, 0, 0, 0, 1, 0, 0, 0, 2]),
            },
            RawAttribute { flags: 0xc0, kind: 99, value: Box::new([1, 2, 3]) },
        ]),
        ..plain()
    }
}

fn plain() -> Attributes {
    Attributes {
        origin: Origin::Igp,
        as_path: AsPath::sequence([Asn(65001), Asn(4_200_000_001)]),
        ..Attributes::originated(address("192.0.2.2"))
    }
}

fn path(attributes: &Attributes, best: bool) -> PathView {
    PathView {
        attributes: Some(Arc::new(attributes.clone())),
        source: Some(SourceView {
            address: address("192.0.2.2"),
            asn: Asn(65001),
            router_id: "192.0.2.2".parse().unwrap(),
            external: true,
        }),
        learned_at: Duration::from_secs(998),
        best,
        stale: false,
        filtered: false,
    }
}

fn own(next_hop: &str) -> PathView {
    PathView { source: None, ..path(&Attributes::originated(address(next_hop)), true) }
}

pub(super) fn change(withdrawn: bool) -> PathChange {
    PathChange { prefix: prefix("10.3.0.0/24"), path: path(&plain(), !withdrawn), withdrawn }
}

fn policies() -> Policies {
    let range = |text, max| PrefixRange { max, ..PrefixRange::exact(prefix(text)) };
    let sets = BTreeMap::from([
        ("podcidrset".to_owned(), PrefixSet::from_iter([range("10.244.0.0/24", 24)])),
        ("vips".to_owned(), PrefixSet::from_iter([range("10.96.0.0/12", 32), range("10.200.0.1/32", 32)])),
    ]);
    let neighbors = BTreeMap::from([
        ("externalpeerset".to_owned(), vec![prefix("192.0.2.2/32")]),
        ("allpeerset".to_owned(), vec![prefix("192.0.2.2/32"), prefix("192.0.2.77/32")]),
    ]);
    let statement = |name: &str, prefixes: Option<&str>, neighbors: &str, actions| Statement {
        name: name.into(),
        prefixes: prefixes.map(ToOwned::to_owned),
        neighbors: Some(neighbors.into()),
        actions,
    };
    let pods = Actions {
        next_hop_self: true,
        prepend: Some((Asn(64512), 2)),
        add_communities: vec![0xffff_ff01],
        ..Actions::only(Verdict::Accept)
    };
    let export = Policy {
        name: "kube_router_export".into(),
        statements: vec![
            statement("pods", Some("podcidrset"), "externalpeerset", pods),
            statement("nothing-else", None, "externalpeerset", Actions::only(Verdict::Reject)),
        ],
    };
    let import = Policy {
        name: "kube_router_import".into(),
        statements: vec![statement("vips", Some("vips"), "allpeerset", Actions::only(Verdict::Reject))],
    };
    let policies = Policies::new(
        sets,
        neighbors,
        Assignment { policies: vec![import], default: Verdict::Accept },
        Assignment { policies: vec![export], default: Verdict::Reject },
    )
    .expect("every set is there");
    assert_eq!(policies.assignment(Direction::Import).default, Verdict::Accept);
    policies
}
