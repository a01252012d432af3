use router_common::abi::{FlowKey, key_kind};

use super::*;
use crate::sys::bpf::{OBJECT, load};

const CLIENT: V4 = [10, 244, 0, 2];
const VIP: V4 = [10, 96, 0, 1];
const BACKEND: V4 = [10, 244, 0, 3];

fn flow(flags: u16, seen: u16, last_seen: Duration) -> Flow<V4> {
    let mut flow = Flow::<V4>::new_zeroed_for_tests();
    flow.client = CLIENT;
    flow.client_port = 40_000;
    flow.frontend = VIP;
    flow.frontend_port = 80;
    flow.source = CLIENT;
    flow.source_port = 40_000;
    flow.backend = BACKEND;
    flow.backend_port = 8080;
    flow.service = 7;
    flow.backend_id = 9;
    flow.flags = flags;
    flow.seen = seen;
    flow.packets = 10;
    flow.bytes = 1000;
    flow.last_seen = u64::try_from(last_seen.as_nanos()).unwrap();
    flow
}

trait Zeroed {
    fn new_zeroed_for_tests() -> Self;
}

impl Zeroed for Flow<V4> {
    fn new_zeroed_for_tests() -> Self {
        Self::read_from_bytes(&[0; size_of::<Self>()]).unwrap()
    }
}

#[test]
fn a_flow_lives_as_long_as_its_state_says_and_the_margin() {
    let timeouts = Timeouts::default();
    let rows: [(&str, u8, u16, u64); 9] = [
        ("confirmed TCP", protocol::TCP, seen::CONFIRMED, 900),
        ("a handshake under way", protocol::TCP, seen::REQUEST, 60),
        ("one side closed", protocol::TCP, seen::CONFIRMED | seen::FIN_REQUEST, 120),
        ("the other side closed", protocol::TCP, seen::CONFIRMED | seen::FIN_REPLY, 120),
        ("both closed", protocol::TCP, seen::CONFIRMED | seen::FIN_REQUEST | seen::FIN_REPLY, 10),
        ("reset", protocol::TCP, seen::CONFIRMED | seen::RESET, 10),
        ("confirmed UDP", protocol::UDP, seen::CONFIRMED, 300),
        ("unanswered UDP", protocol::UDP, seen::REQUEST, 30),
        ("echo", protocol::ICMP, seen::REQUEST, 30),
    ];
    for (what, protocol, seen, seconds) in rows {
        let start = Duration::from_secs(10_000);
        let half = flow(flow_flags::CLIENT, seen, start);
        let at = |seconds| expired(protocol, &half, None, start + Duration::from_secs(seconds), &timeouts);
        assert!(!at(seconds + 5), "{what} dies before its margin is over");
        assert!(at(seconds + 6), "{what} lives too long");
    }
}

#[test]
fn a_half_lives_as_long_as_the_other_has_packets_and_closes_with_it() {
    let timeouts = Timeouts::default();
    let (old, now) = (Duration::from_secs(1000), Duration::from_secs(2000));
    let half = flow(flow_flags::CLIENT, seen::CONFIRMED, old);
    let busy = flow(flow_flags::SERVER, seen::CONFIRMED, now);
    assert!(expired(protocol::TCP, &half, None, now, &timeouts));
    assert!(!expired(protocol::TCP, &half, Some(&busy), now, &timeouts));
    let half = flow(flow_flags::CLIENT, seen::CONFIRMED | seen::FIN_REQUEST, old);
    let closed = flow(flow_flags::SERVER, seen::FIN_REPLY, old);
    let soon = old + Duration::from_secs(20);
    assert!(!expired(protocol::TCP, &half, None, soon, &timeouts));
    assert!(expired(protocol::TCP, &half, Some(&closed), soon, &timeouts));
}

#[test]
fn the_halves_lead_to_each_other_and_an_untranslated_flow_has_one() {
    let half = flow(flow_flags::CLIENT | flow_flags::DISPLACED, 0, Duration::ZERO);
    let client = client_key(&half, protocol::TCP);
    assert_eq!(client.kind, key_kind::DISPLACED);
    let server = twin_key(&client, &half).unwrap();
    assert_eq!(server, server_key(&half, protocol::TCP));
    let other = flow(flow_flags::SERVER | flow_flags::DISPLACED, 0, Duration::ZERO);
    assert_eq!(twin_key(&server, &other), Some(client));
    let whole = flow(flow_flags::CLIENT | flow_flags::SERVER, 0, Duration::ZERO);
    assert_eq!(twin_key(&server, &whole), None);
}

fn sweeper() -> Sweeper {
    let mut ebpf = load(OBJECT, None).unwrap();
    Sweeper::take(&mut ebpf, Timeouts::default(), Resting::default()).unwrap()
}

fn put(map: &mut Rows, key: FlowKey<V4>, flow: Flow<V4>) {
    let failures = map.put(&[(Row::new(key), Row::new(flow))]);
    assert!(failures.is_empty(), "{failures:?}");
}

fn sweep(sweeper: &mut Sweeper) -> Swept {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(sweeper.sweep()).unwrap().clone()
}

/// Long enough ago, whenever the machine was started, for a row that says so to be dead.
const LONG_AGO: Duration = Duration::from_nanos(1);

fn with_timeouts_of_a_second(mut sweeper: Sweeper) -> Sweeper {
    let second = Duration::from_secs(1);
    sweeper.timeouts = Timeouts {
        tcp: second,
        tcp_closing: second,
        tcp_closed: second,
        tcp_new: second,
        udp: second,
        other: second,
    };
    sweeper
}

#[test]
fn a_sweep_deletes_dead_pairs_keeps_live_ones_and_names_what_they_hold() {
    let mut sweeper = with_timeouts_of_a_second(sweeper());
    let now = monotonic().unwrap();
    let (client, server) = (flow_flags::CLIENT, flow_flags::SERVER);
    let key = |half: &Flow<V4>| {
        if half.flags & client != 0 {
            client_key(half, protocol::TCP)
        } else {
            server_key(half, protocol::TCP)
        }
    };
    // A pair of which one half is idle lives.
    for (flags, last) in [(client, LONG_AGO), (server, now)] {
        let half = flow(flags, seen::CONFIRMED, last);
        put(&mut sweeper.confirmed, key(&half), half);
    }
    // A pair of another client is dead: one half confirmed, the other left behind in the LRU.
    for flags in [client, server] {
        let mut half = flow(flags, seen::CONFIRMED, LONG_AGO);
        (half.client_port, half.source_port) = (50_000, 50_000);
        (half.service, half.backend_id) = (8, 11);
        let map = if flags == client { &mut sweeper.confirmed } else { &mut sweeper.fresh };
        put(map, key(&half), half);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let survey = runtime.block_on(sweeper.survey()).unwrap().clone();
    assert_eq!((survey.live, survey.deleted), (4, 0));
    assert_eq!(sweeper.resting.ids(), BTreeSet::from([7, 8, 9, 11]));
    sweeper.last = Swept::default();
    let first = sweep(&mut sweeper);
    assert_eq!(sweeper.resting.ids(), BTreeSet::from([7, 9]));
    assert_eq!((first.sweeps, first.live, first.deleted), (1, 2, 2));
    assert_eq!(first.backends, BTreeSet::from([9]));
    assert_eq!(first.services, BTreeSet::from([7]));
    let traffic = Traffic { packets: 10, bytes: 1000 };
    let usage = Usage { connections: 1, from_clients: traffic, to_clients: traffic };
    assert_eq!(first.usage, BTreeMap::from([(7, usage), (8, usage)]));
    let second = sweep(&mut sweeper);
    assert_eq!((second.sweeps, second.live, second.deleted), (2, 2, 0));
    assert_eq!(second.usage, first.usage, "what deleted flows carried was forgotten");
}

#[test]
fn a_sweep_reaches_every_flow_of_a_large_map() {
    let mut sweeper = with_timeouts_of_a_second(sweeper());
    let rows: Vec<_> = (0..20_000u16)
        .map(|port| {
            let mut half = flow(flow_flags::CLIENT | flow_flags::SERVER, seen::CONFIRMED, LONG_AGO);
            half.source_port = port;
            (Row::new(server_key(&half, protocol::TCP)), Row::new(half))
        })
        .collect();
    let failures = sweeper.confirmed.put(&rows);
    assert!(failures.is_empty(), "{} rows failed, first {:?}", failures.len(), failures.first());
    let swept = sweep(&mut sweeper);
    assert_eq!((swept.live, swept.deleted), (0, 20_000));
    assert_eq!(sweeper.confirmed.all().unwrap(), []);
}

fn event(ifindex: u32, reason: DropReason) -> Event<V4> {
    Event {
        time: 0,
        ifindex,
        reason: reason as u32,
        source: CLIENT,
        destination: VIP,
        source_port: 40_000,
        destination_port: 80,
        protocol: protocol::TCP,
        pad: [0; 3],
    }
}

#[test]
fn a_drop_is_told_at_once_and_its_repetitions_together_ten_seconds_later() {
    let mut tally = Tally::default();
    let at = Duration::from_secs;
    tally.add(event(7, DropReason::SpoofedSource), at(100));
    let first = tally.due(at(100));
    assert_eq!(
        first.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["dropped 1 (spoofed-source), the latest tcp 10.244.0.2:40000 -> 10.96.0.1:80"]
    );
    for _ in 0..1000 {
        tally.add(event(7, DropReason::SpoofedSource), at(101));
    }
    tally.add(event(7, DropReason::SpoofedArp), at(101));
    tally.add(event(8, DropReason::SpoofedSource), at(101));
    let others: Vec<_> =
        tally.due(at(101)).iter().map(|line| (line.event.ifindex, line.event.reason)).collect();
    assert_eq!(others, [(7, DropReason::SpoofedArp as u32), (8, DropReason::SpoofedSource as u32)]);
    assert_eq!(tally.next(), Some(at(110)));
    assert_eq!(tally.due(at(109)), []);
    let late = tally.due(at(110));
    assert_eq!((late.len(), late[0].count), (1, 1000));
    assert_eq!(tally.due(at(200)), []);
    assert!(tally.pending.is_empty(), "silent pairs are remembered");
}

#[test]
fn a_flood_of_different_devices_does_not_grow_the_memory_without_bound() {
    let mut tally = Tally::default();
    for ifindex in 0..10_000 {
        tally.add(event(ifindex, DropReason::SpoofedSource), Duration::from_secs(1));
    }
    assert_eq!(tally.pending.len(), REMEMBERED);
}
