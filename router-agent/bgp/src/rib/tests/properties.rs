//! Any sequence of events, then: tables equal the model, and so does what peers heard.

use proptest::prelude::*;

use super::model::Model;
use super::*;

#[derive(Clone, Debug)]
enum Event {
    Up(u32),
    Down(u32),
    Lose(u32, Families),
    Sweep(u32, Family),
    Announce(u32, usize, Vec<usize>),
    Withdraw(u32, Vec<usize>),
    Originate(usize, usize),
    WithdrawOwn(usize),
    Policies(usize),
    ChangeSet(Vec<usize>, Vec<usize>),
    Unreachable(usize),
    Refresh(u32, Family),
    SoftResetIn(u32),
    Pull(u32, usize),
    PollBest,
}

const PREFIXES: [&str; 12] = [
    "0.0.0.0/0",
    "10.1.0.0/16",
    "10.1.1.0/24",
    "10.1.2.0/24",
    "10.1.2.128/25",
    "10.2.0.0/16",
    "10.96.0.1/32",
    "192.168.0.0/16",
    "2001:db8::/32",
    "2001:db8:1::/48",
    "2001:db8:2::/48",
    "::/0",
];

const PEERS: u32 = 6;

/// Two nodes, and four routers: one that knows only two octets, one on a link we share, one that is dual-stack but has no
/// IPv6 address of ours.
fn peer(id: u32) -> PeerFacts {
    let both = Families::from_iter(Family::ALL);
    let ours = Some(address("2001:db8::1"));
    match id {
        0 => PeerFacts { families: both, other_address: ours, ..facts("10.0.0.2", OWN) },
        1 => facts("10.0.0.3", OWN),
        2 => PeerFacts { families: both, other_address: ours, ..facts("172.16.0.1", Asn(65001)) },
        3 => PeerFacts { four_octet: false, ..facts("172.16.0.2", Asn(65002)) },
        4 => {
            PeerFacts { shared_subnet: Some(prefix("10.0.0.0/24")), ..facts("10.0.0.9", Asn(4_200_000_001)) }
        }
        _ => PeerFacts { families: both, ..facts("172.16.0.3", Asn(65001)) },
    }
}

/// The last has no next hop, which only a route of our own can lack.
const SETS: usize = 12;

fn attribute_set(index: usize, family: Family) -> Attributes {
    let v6 = family == Family::Ipv6Unicast;
    let next_hop = |v4: &str| address(if v6 { "2001:db8::99" } else { v4 });
    let base = Attributes { next_hop: next_hop("172.16.0.1"), ..attributes("172.16.0.1", &[65001]) };
    let path = |asns: &[u32]| AsPath::sequence(asns.iter().copied().map(Asn).collect::<Vec<_>>());
    match index {
        0 => base,
        1 => Attributes { as_path: path(&[65002, 4_200_000_001]), ..base },
        2 => Attributes { as_path: path(&[65001, OWN.0]), ..base },
        3 => Attributes { communities: Box::new([0xffff_ff01]), local_pref: Some(200), ..base },
        4 => Attributes { communities: Box::new([0xffff_ff02, 7]), ..base },
        5 => Attributes { next_hop: next_hop("10.0.0.3"), med: Some(10), ..base },
        6 => Attributes { next_hop: next_hop("10.0.0.9"), med: Some(5), ..base },
        7 => Attributes { originator_id: Some(ROUTER_ID), ..base },
        8 => Attributes {
            cluster_list: Box::new([Ipv4Addr::new(9, 9, 9, 9)]),
            as_path: AsPath::default(),
            ..base
        },
        9 => Attributes { next_hop: next_hop("10.0.0.1"), ..base },
        10 => Attributes { next_hop: next_hop("10.0.0.77"), as_path: path(&[65001, 65002]), ..base },
        _ => Attributes {
            next_hop: if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() },
            as_path: AsPath::default(),
            med: Some(3),
            ..base
        },
    }
}

fn policies(index: usize) -> Policies {
    let accept = Actions::only(Verdict::Accept);
    let reject = Actions::only(Verdict::Reject);
    let extras = Actions {
        next_hop_self: true,
        prepend: Some((OWN, 2)),
        add_communities: vec![7, 8],
        ..accept.clone()
    };
    let statement =
        |name: &str, prefixes: Option<&str>, neighbors: Option<&str>, actions: &Actions| Statement {
            name: name.to_owned(),
            prefixes: prefixes.map(str::to_owned),
            neighbors: neighbors.map(str::to_owned),
            actions: actions.clone(),
        };
    let sets: [(&str, &[&str]); 2] =
        [("pods", &["10.1.0.0/16"]), ("vips", &["10.96.0.1/32", "192.168.0.0/16"])];
    let sets = sets.map(|(name, of)| {
        (name.to_owned(), of.iter().map(|it| PrefixRange::or_longer(prefix(it))).collect::<PrefixSet>())
    });
    let neighbors = [("nodes", vec!["10.0.0.2/32", "10.0.0.3/32"]), ("routers", vec!["172.16.0.0/24"])];
    let neighbors = neighbors.map(|(name, of)| (name.to_owned(), of.into_iter().map(prefix).collect()));
    let (export, default) = match index {
        0 => (vec![], Verdict::Accept),
        1 => (
            vec![
                statement("a", Some("pods"), Some("nodes"), &accept),
                statement("b", Some("vips"), Some("routers"), &extras),
            ],
            Verdict::Reject,
        ),
        2 => (
            vec![
                statement("c", Some("pods"), Some("routers"), &reject),
                statement("b", Some("vips"), Some("routers"), &extras),
                statement("d", None, Some("nodes"), &extras),
            ],
            Verdict::Accept,
        ),
        _ => (vec![statement("e", Some("vips"), None, &accept)], Verdict::Reject),
    };
    let import = match index {
        1 => vec![statement("f", Some("vips"), Some("routers"), &reject)],
        2 => vec![statement("g", Some("pods"), None, &extras)],
        _ => vec![],
    };
    let assignment = |name: &str, statements, default| Assignment {
        policies: vec![Policy { name: name.to_owned(), statements }],
        default,
    };
    let import = assignment("import", import, Verdict::Accept);
    Policies::new(sets.into(), neighbors.into(), import, assignment("export", export, default)).unwrap()
}

fn event() -> impl Strategy<Value = Event> {
    let prefixes = || proptest::collection::vec(0..PREFIXES.len(), 1..5);
    let family = prop_oneof![Just(Family::Ipv4Unicast), Just(Family::Ipv6Unicast)];
    let both = Families::from_iter(Family::ALL);
    let kept = prop_oneof![Just(both), family.clone().prop_map(|family| Families::NONE.with(family))];
    prop_oneof![
        4 => (0..PEERS).prop_map(Event::Up),
        1 => (0..PEERS).prop_map(Event::Down),
        2 => (0..PEERS, kept).prop_map(|(id, families)| Event::Lose(id, families)),
        1 => (0..PEERS, family.clone()).prop_map(|(id, family)| Event::Sweep(id, family)),
        12 => (0..PEERS, 0..SETS - 1, prefixes()).prop_map(|(id, set, of)| Event::Announce(id, set, of)),
        5 => (0..PEERS, prefixes()).prop_map(|(id, of)| Event::Withdraw(id, of)),
        2 => (0..PREFIXES.len(), 0..SETS).prop_map(|(of, set)| Event::Originate(of, set)),
        1 => (0..PREFIXES.len()).prop_map(Event::WithdrawOwn),
        1 => (0..4usize).prop_map(Event::Policies),
        1 => (prefixes(), prefixes()).prop_map(|(add, remove)| Event::ChangeSet(add, remove)),
        1 => (0..SETS).prop_map(Event::Unreachable),
        1 => ((0..PEERS), family).prop_map(|(id, family)| Event::Refresh(id, family)),
        1 => (0..PEERS).prop_map(Event::SoftResetIn),
        6 => ((0..PEERS), prop_oneof![Just(1usize), Just(200), Just(4096)])
            .prop_map(|(id, budget)| Event::Pull(id, budget)),
        1 => Just(Event::PollBest),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    let tight = (60..400usize, 0..6usize, 1..6usize, 1..4usize)
        .prop_map(|(log_bytes, graves, noted, walked)| Limits { log_bytes, graves, noted, walked });
    prop_oneof![3 => tight, 1 => Just(Limits::default())]
}

/// The RIB, its model, and all that listen to it.
struct World {
    rib: Rib,
    model: Model,
    heard: BTreeMap<PeerId, Heard>,
    fib: BTreeMap<Prefix, (Source, Arc<Attributes>)>,
    now: Duration,
}

impl World {
    fn new(limits: Limits) -> Self {
        Self {
            rib: Rib::new(RibConfig { limits, ..config() }),
            model: Model::default(),
            heard: BTreeMap::new(),
            fib: BTreeMap::new(),
            now: Duration::ZERO,
        }
    }

    fn handle(&mut self, event: Event) {
        self.now += Duration::from_secs(1);
        let Self { rib, model, heard, fib, now } = self;
        match event {
            Event::Up(id) => {
                let id = PeerId(id);
                rib.peer_up(id, peer(id.0));
                model.up(id, peer(id.0));
                heard.insert(id, Heard::default());
            }
            Event::Down(id) => {
                rib.peer_down(PeerId(id), Retention::Drop);
                self.forget(PeerId(id));
            }
            Event::Lose(id, families) => {
                rib.peer_down(PeerId(id), Retention::Stale(families));
                model.lose(PeerId(id), families);
                heard.remove(&PeerId(id));
            }
            Event::Sweep(id, family) => {
                rib.sweep(PeerId(id), Families::NONE.with(family));
                model.sweep(PeerId(id), Families::NONE.with(family));
            }
            Event::Announce(id, set, of) => {
                let mut update = Update::default();
                for family in Family::ALL {
                    let prefixes: Vec<_> = of.iter().map(|at| prefix(PREFIXES[*at])).collect();
                    let prefixes = prefixes.into_iter().filter(|it| Family::of(it) == family).collect();
                    let attributes = attribute_set(set, family);
                    update.announced.push(Announcement { family, attributes, prefixes });
                }
                rib.update(PeerId(id), update.clone(), *now).unwrap();
                model.update(PeerId(id), update);
            }
            Event::Withdraw(id, of) => {
                let withdrawn = of.iter().map(|at| prefix(PREFIXES[*at])).collect();
                let update = Update { withdrawn, ..Update::default() };
                rib.update(PeerId(id), update.clone(), *now).unwrap();
                model.update(PeerId(id), update);
            }
            Event::Originate(of, set) => {
                let prefix = prefix(PREFIXES[of]);
                let route = attribute_set(set, Family::of(&prefix));
                rib.originate(prefix, route.clone(), *now);
                model.own.insert(prefix, route);
            }
            Event::WithdrawOwn(of) => {
                rib.withdraw(prefix(PREFIXES[of]));
                model.own.remove(&prefix(PREFIXES[of]));
            }
            Event::Policies(index) => {
                rib.set_policies(policies(index));
                model.policies = policies(index);
            }
            Event::ChangeSet(add, remove) => {
                let ranges = |of: &[usize]| -> Vec<_> {
                    of.iter().map(|at| PrefixRange::or_longer(prefix(PREFIXES[*at]))).collect()
                };
                let (add, remove) = (ranges(&add), ranges(&remove));
                rib.change_prefix_set("pods", &add, &remove);
                model.policies.change_prefix_set("pods", &add, &remove);
            }
            Event::Unreachable(set) => {
                let gone = attribute_set(set, Family::Ipv4Unicast).next_hop;
                rib.set_next_hop_metric(Box::new(move |it| if it == gone { None } else { Some(0) }));
                model.unreachable = Some(gone);
            }
            Event::Refresh(id, family) => rib.refresh(PeerId(id), family),
            Event::SoftResetIn(id) => rib.soft_reset_in(PeerId(id)),
            Event::Pull(id, budget) => {
                let messages = rib.next_messages(PeerId(id), budget);
                if let Some(heard) = heard.get_mut(&PeerId(id)) {
                    heard.listen(&messages, &peer(id));
                } else {
                    assert!(messages.is_empty(), "messages for a peer that is down");
                }
            }
            Event::PollBest => follow(rib, fib),
        }
        self.cut_off();
    }

    /// A session that the RIB gives up ends.
    fn cut_off(&mut self) {
        while let Some(id) = self.rib.poll_cut_off() {
            self.rib.peer_down(id, Retention::Drop);
            self.forget(id);
        }
    }

    fn forget(&mut self, id: PeerId) {
        self.model.drop(id);
        self.heard.remove(&id);
    }

    /// Everyone hears everything.
    fn settle(&mut self) {
        while let Some(id) = self.heard.keys().copied().find(|id| self.rib.has_messages(*id)) {
            self.heard.get_mut(&id).unwrap().listen(&self.rib.next_messages(id, 300), &peer(id.0));
            self.cut_off();
        }
        follow(&mut self.rib, &mut self.fib);
    }

    fn check_loc_rib(&self) {
        let loc_rib = self.model.loc_rib();
        let all = Family::ALL.into_iter().flat_map(|family| self.rib.loc_rib(Lookup::All(family)));
        let all: BTreeMap<Prefix, Vec<PathView>> = all.collect();
        assert_eq!(all.keys().collect::<Vec<_>>(), loc_rib.keys().collect::<Vec<_>>());
        for (prefix, views) in all {
            let (mut paths, best) = loc_rib[&prefix].clone();
            let mut have: Vec<_> =
                views.iter().map(|it| (it.source, Attributes::clone(&it.attributes))).collect();
            let have_best = have.first().filter(|_| views[0].best.is_some()).cloned();
            assert_eq!(have_best, best, "best path to {prefix}");
            assert!(views.iter().skip(1).all(|it| it.best.is_none()));
            have.sort_by_key(|(source, _)| *source);
            paths.sort_by_key(|(source, _)| *source);
            assert_eq!(have, paths, "paths to {prefix}");
            let followed = self.fib.get(&prefix).map(|(source, it)| (*source, Attributes::clone(it)));
            assert_eq!(followed, best, "followed best path to {prefix}");
        }
        assert!(self.fib.keys().all(|prefix| loc_rib.contains_key(prefix)), "a route without a path");
    }

    fn check_peers(&self) {
        for (id, heard) in &self.heard {
            let told = self.model.told(*id);
            let adj_out = Family::ALL.into_iter().flat_map(|family| self.rib.adj_out(*id, family));
            let adj_out: BTreeMap<_, _> =
                adj_out.map(|(prefix, it)| (prefix, Attributes::clone(it))).collect();
            assert_eq!(adj_out, told, "Adj-RIB-Out of {id:?}");
            assert_eq!(heard.routes, told, "what {id:?} heard");
            let facts = peer(id.0);
            let ends: BTreeSet<_> = heard.ends_of_rib.iter().copied().collect();
            assert_eq!(ends, facts.families.iter().collect(), "End-of-RIB to {id:?}");
            assert_eq!(ends.len(), heard.ends_of_rib.len(), "End-of-RIB twice to {id:?}");
            self.check_counts(*id, &told);
        }
    }

    fn check_counts(&self, id: PeerId, told: &BTreeMap<Prefix, Attributes>) {
        let sent = self.model.sent.get(&id).cloned().unwrap_or_default();
        for family in Family::ALL {
            let of_family = |prefix: &&Prefix| Family::of(prefix) == family;
            let accepted = sent.iter().filter(|(prefix, it)| self.model.accepted(id, prefix, it).is_some());
            let expected = Counts {
                received: sent.keys().filter(of_family).count(),
                accepted: accepted.map(|(prefix, _)| prefix).filter(of_family).count(),
                advertised: told.keys().filter(of_family).count(),
            };
            assert_eq!(self.rib.counts(id, family), expected, "{id:?} {family}");
            let received: Vec<_> = self.rib.adj_in(id, family).collect();
            assert_eq!(received.len(), expected.received);
            assert_eq!(received.iter().filter(|it| !it.is_filtered()).count(), expected.accepted);
            assert!(received.iter().all(|it| sent[&it.prefix] == *it.attributes));
            let stale = |it: &ReceivedView| self.model.stale.contains(&(id, it.prefix));
            assert!(received.iter().all(|it| it.stale == stale(it)), "what is stale of {id:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn after_any_events_the_tables_are_what_they_should_be(
        limits in limits(),
        events in proptest::collection::vec(event(), 1..80),
    ) {
        let mut world = World::new(limits);
        for event in events {
            world.handle(event);
        }
        world.settle();
        world.check_loc_rib();
        world.check_peers();
        world.rib.check_that_nothing_is_kept();
    }
}
