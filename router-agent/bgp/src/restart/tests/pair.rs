//! Two whole speakers but for the sockets, of which one or both are killed and come back: a route that was announced and is
//! announced again never leaves the other's kernel, and in the end each kernel has what is announced.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::*;
use crate::asn::Asn;
use crate::family::{Families, Family, Prefix};
use crate::message::attribute::Attributes;
use crate::policy::{Assignment, Policies, Verdict};
use crate::rib::{Limits, PeerFacts, PeerId, Retention, Rib, RibConfig, Source};
use crate::session::{ConnectionId, Input, Output, Peer, PeerConfig, RestartTerms};

const V4: Families = Families::NONE.with(Family::Ipv4Unicast);
const AS: Asn = Asn(64512);
const THE_OTHER: PeerId = PeerId(1);
const STEP: Duration = Duration::from_millis(100);
const RESTART_TIME: u16 = 60;

type Routes = BTreeSet<Prefix>;

fn address(side: usize) -> Ipv4Addr {
    [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)][side]
}

/// The routes of a side whose bit is set.
fn routes(side: usize, bits: u8) -> Routes {
    let route = |bit: u8| format!("10.{side}.{bit}.0/24").parse().unwrap();
    (0..4).filter(|bit| bits & 1 << bit != 0).map(route).collect()
}

/// What dies with the agent.
struct Speaker {
    peer: Peer,
    rib: Rib,
    restart: Restart,
    whole: bool,
}

impl Speaker {
    fn start(side: usize, announced: &Routes, now: Duration) -> Self {
        let patience = Duration::from_secs(RESTART_TIME.into());
        let terms = RestartTerms { restart_time: RESTART_TIME, restarting: true, patience };
        let mut peer = Peer::new(PeerConfig {
            local_asn: AS,
            peer_asn: AS,
            router_id: address(side),
            hold_time: 90,
            connect_retry: Duration::from_mins(2),
            families: V4,
            capabilities: Vec::new(),
            graceful_restart: Some(terms),
            seed: now.as_secs() ^ side as u64,
        });
        peer.handle(Input::Start, now);
        let config = RibConfig { asn: AS, router_id: address(side), limits: Limits::default() };
        let mut rib = Rib::new(config);
        let all = || Assignment { policies: Vec::new(), default: Verdict::Accept };
        rib.set_policies(Policies::new(BTreeMap::new(), BTreeMap::new(), all(), all()).unwrap());
        for prefix in announced {
            rib.originate(*prefix, Attributes::originated(address(side).into()), now);
        }
        Self { peer, rib, restart: Restart::graceful(now, patience), whole: false }
    }

    fn facts(&self, side: usize) -> PeerFacts {
        let session = self.peer.session().unwrap();
        PeerFacts {
            address: address(1 - side).into(),
            asn: AS,
            router_id: session.router_id,
            families: session.context.families,
            four_octet: true,
            extended_messages: false,
            local_address: address(side).into(),
            other_address: None,
            extended_next_hop: false,
            shared_subnet: None,
            prefix_limit: None,
        }
    }

    fn progress(&self) -> Progress {
        match self.peer.session() {
            None => Absent,
            Some(_) if self.whole => Whole,
            Some(session) => {
                Telling { awaited: session.graceful_restart.as_ref().is_some_and(|it| !it.restarting) }
            }
        }
    }
}

struct World {
    sides: [Option<Speaker>; 2],
    /// What each forwards by, alive or not.
    kernels: [Routes; 2],
    connections: u64,
    now: Duration,
}

impl World {
    fn new(announced: [&Routes; 2]) -> Self {
        let start = |side: usize| Some(Speaker::start(side, announced[side], Duration::ZERO));
        let sides = [start(0), start(1)];
        Self { sides, kernels: [Routes::new(), Routes::new()], connections: 0, now: Duration::ZERO }
    }

    fn hand(&mut self, side: usize, input: Input<'_>) {
        if let Some(speaker) = &mut self.sides[side] {
            speaker.peer.handle(input, self.now);
        }
    }

    /// Its sockets close with it.
    fn kill(&mut self, side: usize) {
        self.sides[side] = None;
        for connection in 0..=self.connections {
            self.hand(1 - side, Input::Closed(ConnectionId(connection)));
        }
    }

    fn dial(&mut self, from: usize) {
        if self.sides[1 - from].is_none() {
            self.hand(from, Input::ConnectFailed);
            return;
        }
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        for (side, outgoing) in [(from, true), (1 - from, false)] {
            let local = IpAddr::V4(address(side));
            self.hand(side, Input::Connected { connection, outgoing, local });
        }
    }

    /// Carries out what the machine of a side wants; whether it wanted anything.
    fn drain(&mut self, side: usize) -> bool {
        let mut wanted = false;
        while let Some(output) = self.sides[side].as_mut().and_then(|speaker| speaker.peer.poll_output()) {
            wanted = true;
            let now = self.now;
            let Some(speaker) = &mut self.sides[side] else { return wanted };
            match output {
                Output::Connect => self.dial(side),
                Output::Send(id, bytes) => self.hand(1 - side, Input::Received(id, &bytes)),
                Output::Close(id) => self.hand(1 - side, Input::Closed(id)),
                Output::Up(_) => {
                    speaker.whole = false;
                    speaker.rib.peer_up(THE_OTHER, speaker.facts(side));
                }
                Output::Down(_, kept) => speaker.rib.peer_down(THE_OTHER, Retention::Stale(kept)),
                Output::Sweep(families) => drop(speaker.rib.sweep(THE_OTHER, families)),
                Output::Update(update) => {
                    speaker.whole |= update.end_of_rib.is_some();
                    speaker.rib.update(THE_OTHER, update, now).unwrap();
                }
                Output::Abort | Output::Refresh(_) | Output::Notification { .. } => {}
            }
        }
        wanted
    }

    /// What the task of the speaker does beside the machine.
    fn pass_on(&mut self, side: usize) -> bool {
        let now = self.now;
        let (kernel, Some(speaker)) = (&mut self.kernels[side], &mut self.sides[side]) else { return false };
        while let Some(change) = speaker.rib.poll_best() {
            match change.best {
                Some((Source::Local, _)) => {}
                Some(_) => drop(kernel.insert(change.prefix)),
                None => drop(kernel.remove(&change.prefix)),
            }
        }
        let progress = speaker.progress();
        while let Some(milestone) = speaker.restart.next(true, std::iter::once(progress), now) {
            match milestone {
                Milestone::Announce => speaker.peer.handle(Input::Restarted, now),
                Milestone::Sweep => {
                    let told: Routes = speaker
                        .rib
                        .adj_in(THE_OTHER, Family::Ipv4Unicast)
                        .map(|route| route.prefix)
                        .collect();
                    kernel.retain(|prefix| told.contains(prefix));
                }
            }
        }
        let Some(session) = speaker.peer.session().filter(|_| !speaker.restart.is_deferring()) else {
            return false;
        };
        let id = session.connection;
        let messages = speaker.rib.next_messages(THE_OTHER, usize::MAX);
        for message in &messages {
            self.hand(1 - side, Input::Received(id, message));
        }
        !messages.is_empty()
    }

    fn run(&mut self, time: Duration, check: impl Fn(&Self)) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            for speaker in self.sides.iter_mut().flatten() {
                speaker.peer.tick(self.now);
            }
            while [0, 1].map(|side| self.drain(side) | self.pass_on(side)).contains(&true) {}
            check(self);
        }
    }
}

fn bits() -> impl Strategy<Value = [u8; 2]> {
    [0..16u8, 0..16u8]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_announced_again_never_goes_and_the_rest_does(
        before in bits(),
        after in bits(),
        dies in prop_oneof![Just([true, false]), Just([false, true]), Just([true, true])],
        away in [1..50u64, 1..50u64],
    ) {
        let [old, new] = [before, after].map(|bits| [routes(0, bits[0]), routes(1, bits[1])]);
        let mut world = World::new([&old[0], &old[1]]);
        world.run(Duration::from_secs(20), |_| {});
        prop_assert_eq!(&world.kernels, &[old[1].clone(), old[0].clone()], "at first");

        // Whoever lives announces what it did.
        let announced = [0, 1].map(|side| if dies[side] { &new[side] } else { &old[side] });
        let stay = |world: &World| {
            for side in [0, 1] {
                let lasting = old[1 - side].intersection(announced[1 - side]);
                let lost: Vec<_> = lasting.filter(|prefix| !world.kernels[side].contains(prefix)).collect();
                assert!(lost.is_empty(), "{side} at {:?} has lost {lost:?}", world.now);
            }
        };
        let dead: Vec<usize> = [0, 1].into_iter().filter(|side| dies[*side]).collect();
        for side in &dead {
            world.kill(*side);
        }
        let mut births: Vec<(u64, usize)> = dead.iter().map(|side| (away[*side], *side)).collect();
        births.sort_unstable();
        let killed = world.now;
        for (after, side) in births {
            world.run((killed + Duration::from_secs(after)).saturating_sub(world.now), stay);
            world.sides[side] = Some(Speaker::start(side, announced[side], world.now));
        }
        world.run(Duration::from_secs(70), stay);
        prop_assert_eq!(&world.kernels, &[announced[1].clone(), announced[0].clone()], "in the end");
        prop_assert!(world.sides.iter().flatten().all(|it| !it.restart.is_deferring() && !it.peer.is_restarting()));
    }
}
