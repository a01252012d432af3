//! Two machines and a wire between them that delays, cuts connections, loses dials and lets both ends dial at once.
//! Whatever it did: once it is well again, both machines agree on one session.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use proptest::prelude::*;

use super::{LOCAL, config, seconds};
use crate::asn::Asn;
use crate::session::{ConnectionId, Input, Output, Peer, PeerConfig, RestartTerms, State};

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 32) % end
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What is under way to a side.
#[derive(Clone)]
enum Event {
    Connected { id: ConnectionId, outgoing: bool, dial: u64 },
    ConnectFailed { dial: u64 },
    Bytes(ConnectionId, Vec<u8>),
    Closed(ConnectionId),
}

struct Side {
    peer: Peer,
    /// The dial that the machine waits for.
    dial: Option<u64>,
    /// In each direction a connection keeps its order.
    arrives: BTreeMap<ConnectionId, Duration>,
    up: Option<ConnectionId>,
    ups: u32,
}

struct World {
    sides: [Side; 2],
    /// By time, then by order of sending.
    events: BTreeMap<(Duration, u64), (usize, Event)>,
    serial: u64,
    random: Random,
    faulty: bool,
    /// What everything takes at least, in milliseconds.
    latency: u64,
    now: Duration,
}

impl World {
    /// Internal or external, with or without graceful restart.
    fn new(seed: u64, internal: bool, graceful: bool) -> Self {
        let terms = RestartTerms { restart_time: 20, restarting: false, patience: seconds(30) };
        let mut random = Random(seed);
        let asns = if internal { [Asn(65000), Asn(65000)] } else { [Asn(65000), Asn(65001)] };
        let mut side = |index: usize| {
            let mut peer = Peer::new(PeerConfig {
                local_asn: asns[index],
                peer_asn: asns[1 - index],
                router_id: Ipv4Addr::new(192, 0, 2, [1, 2][index]),
                hold_time: 9,
                connect_retry: seconds(20),
                graceful_restart: graceful.then_some(terms),
                seed: random.below(u64::MAX),
                ..config()
            });
            peer.handle(Input::Start, Duration::ZERO);
            Side { peer, dial: None, arrives: BTreeMap::new(), up: None, ups: 0 }
        };
        let sides = [side(0), side(1)];
        Self {
            sides,
            events: BTreeMap::new(),
            serial: 0,
            random,
            faulty: true,
            latency: 1,
            now: Duration::ZERO,
        }
    }

    fn delay(&mut self) -> Duration {
        let worst = if self.faulty { 2000 } else { 20 };
        Duration::from_millis(self.latency + self.random.below(worst))
    }

    fn put(&mut self, at: Duration, side: usize, event: Event) {
        self.serial += 1;
        self.events.insert((at, self.serial), (side, event));
    }

    /// In order, after everything else under way on the connection.
    fn carry(&mut self, id: ConnectionId, to: usize, event: Event) {
        let at = (self.now + self.delay()).max(self.sides[to].arrives.get(&id).copied().unwrap_or_default());
        self.sides[to].arrives.insert(id, at);
        self.put(at, to, event);
    }

    fn dial(&mut self, from: usize) {
        self.serial += 1;
        let dial = self.serial;
        self.sides[from].dial = Some(dial);
        let at = self.now + self.delay();
        if self.faulty && self.random.chance(30) {
            // Half of the lost dials are lost without a word.
            if self.random.chance(50) {
                self.put(at, from, Event::ConnectFailed { dial });
            }
            return;
        }
        let id = ConnectionId(dial);
        self.carry(id, from, Event::Connected { id, outgoing: true, dial });
        self.carry(id, 1 - from, Event::Connected { id, outgoing: false, dial });
        // Cut, and one end hears of it much later or never.
        if self.faulty && self.random.chance(50) {
            let cut = at + Duration::from_millis(self.random.below(15_000));
            self.put(cut, from, Event::Closed(id));
            if self.random.chance(50) {
                let heard = cut + self.delay();
                self.put(heard, 1 - from, Event::Closed(id));
            }
        }
    }

    fn drain(&mut self, index: usize) {
        while let Some(output) = self.sides[index].peer.poll_output() {
            match output {
                Output::Connect => self.dial(index),
                Output::Abort => self.sides[index].dial = None,
                Output::Send(id, bytes) => self.carry(id, 1 - index, Event::Bytes(id, bytes)),
                Output::Close(id) => self.carry(id, 1 - index, Event::Closed(id)),
                Output::Up(session) => {
                    let side = &mut self.sides[index];
                    assert_eq!(side.up.replace(session.connection), None, "up twice");
                    side.ups += 1;
                }
                Output::Down(..) => assert!(self.sides[index].up.take().is_some(), "down without up"),
                Output::Sweep(_) | Output::Update(_) | Output::Refresh(_) | Output::Notification { .. } => {}
            }
        }
    }

    fn deliver(&mut self, index: usize, event: Event) {
        let now = self.now;
        let side = &mut self.sides[index];
        match event {
            Event::Connected { outgoing: true, dial, id } if side.dial != Some(dial) => {
                // Given up meanwhile: the other end sees it close.
                self.carry(id, 1 - index, Event::Closed(id));
            }
            Event::Connected { id, outgoing, .. } => {
                if outgoing {
                    side.dial = None;
                }
                side.peer.handle(Input::Connected { connection: id, outgoing, local: LOCAL }, now);
            }
            Event::ConnectFailed { dial } if side.dial == Some(dial) => {
                side.dial = None;
                side.peer.handle(Input::ConnectFailed, now);
            }
            Event::ConnectFailed { .. } => {}
            Event::Bytes(id, bytes) => side.peer.handle(Input::Received(id, &bytes), now),
            Event::Closed(id) => side.peer.handle(Input::Closed(id), now),
        }
        self.drain(index);
    }

    fn run(&mut self, end: Duration) {
        for index in [0, 1] {
            self.drain(index);
        }
        loop {
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let ticks = [0, 1].map(|index| self.sides[index].peer.next_deadline());
            let Some(at) = ticks.into_iter().flatten().chain(event).min().filter(|at| *at <= end) else {
                break;
            };
            self.now = at.max(self.now);
            if event.is_some_and(|event| event <= self.now) {
                if let Some((_, (index, event))) = self.events.pop_first() {
                    self.deliver(index, event);
                }
            } else {
                for index in [0, 1] {
                    self.sides[index].peer.tick(self.now);
                    self.drain(index);
                }
            }
        }
        self.now = end;
    }

    fn assert_one_session(&self) {
        for side in &self.sides {
            assert_eq!(side.peer.state(), State::Established);
            assert_eq!(side.up, side.peer.session().map(|session| session.connection));
        }
        assert_eq!(self.sides[0].up, self.sides[1].up);
        assert!(
            self.sides[0].peer.session().unwrap().outgoing != self.sides[1].peer.session().unwrap().outgoing
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn two_machines_agree_once_the_wire_is_well(seed in any::<u64>(), internal in any::<bool>(), graceful in any::<bool>()) {
        let mut world = World::new(seed, internal, graceful);
        world.run(seconds(120));
        world.faulty = false;
        // The longest wait for a dial, a hold time, and some tries.
        world.run(seconds(240));
        world.assert_one_session();
        // And there it stays.
        let ups = world.sides.each_ref().map(|side| side.ups);
        world.run(seconds(600));
        world.assert_one_session();
        prop_assert_eq!(ups, world.sides.each_ref().map(|side| side.ups));
    }

    /// Every message takes longer than the dials are apart, so both connections always meet.
    #[test]
    fn a_collision_is_over_within_seconds(seed in any::<u64>(), internal in any::<bool>(), graceful in any::<bool>()) {
        let mut world = World::new(seed, internal, graceful);
        world.faulty = false;
        world.latency = 300;
        world.run(Duration::from_millis(550));
        prop_assert!(world.sides.iter().all(|side| side.dial.is_some() || side.peer.state() == State::OpenSent));
        world.run(seconds(10));
        world.assert_one_session();
        // Mostly at the first try.
        prop_assert!(world.sides.iter().all(|side| side.ups <= 2));
    }

    #[test]
    fn stopped_is_stopped_and_started_again_is_up(seed in any::<u64>()) {
        let mut world = World::new(seed, false, false);
        world.faulty = false;
        world.run(seconds(10));
        let now = world.now;
        world.sides[0].peer.handle(Input::Stop { communication: "maintenance" }, now);
        world.run(seconds(100));
        prop_assert_eq!(world.sides[0].peer.state(), State::Idle);
        prop_assert!(world.sides.iter().all(|side| side.up.is_none()));
        let now = world.now;
        world.sides[0].peer.handle(Input::Start, now);
        world.run(seconds(130));
        world.assert_one_session();
    }
}
