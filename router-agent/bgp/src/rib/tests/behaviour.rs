//! What peers see, one fact a test.

use super::*;
use crate::message::attribute::{RawAttribute, flag, kind};

const NODE: PeerId = PeerId(1);
const ROUTER: PeerId = PeerId(2);
const OTHER: PeerId = PeerId(3);

fn node() -> PeerFacts {
    facts("10.0.0.2", OWN)
}

fn router() -> PeerFacts {
    facts("172.16.0.1", Asn(65001))
}

fn other() -> PeerFacts {
    facts("172.16.0.2", Asn(65002))
}

/// A node, two routers, and everything allowed.
fn rib() -> Rib {
    let mut rib = Rib::new(config());
    rib.set_policies(open());
    rib.peer_up(NODE, node());
    rib.peer_up(ROUTER, router());
    rib.peer_up(OTHER, other());
    rib
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn only(heard: &Heard) -> (&Prefix, &Attributes) {
    assert_eq!(heard.routes.len(), 1, "{:?}", heard.routes);
    heard.routes.first_key_value().unwrap()
}

fn standing(rib: &Rib, id: PeerId) -> Vec<Standing> {
    rib.adj_in(id, Family::Ipv4Unicast).map(|route| route.standing).collect()
}

#[test]
fn an_own_route_goes_to_all() {
    let mut rib = rib();
    rib.originate(prefix("10.244.1.0/24"), attributes("10.0.0.1", &[]), at(0));
    let heard = hear(&mut rib, NODE, &node());
    let (_, route) = only(&heard);
    assert_eq!(*route, Attributes { local_pref: Some(100), ..attributes("10.0.0.1", &[]) });
    let heard = hear(&mut rib, ROUTER, &router());
    assert_eq!(*only(&heard).1, attributes("10.0.0.1", &[OWN.0]));
}

#[test]
fn an_own_route_without_next_hop_gets_the_sessions_address() {
    let mut rib = rib();
    rib.originate(prefix("10.244.1.0/24"), attributes("0.0.0.0", &[]), at(0));
    assert_eq!(only(&hear(&mut rib, NODE, &node())).1.next_hop, address("10.0.0.1"));
    assert_eq!(only(&hear(&mut rib, ROUTER, &router())).1.next_hop, address("10.0.0.1"));
}

#[test]
fn an_external_route_goes_on_with_what_may_pass() {
    let raw = |flags, kind, value: &[u8]| RawAttribute { flags, kind, value: value.into() };
    let transitive = flag::OPTIONAL | flag::TRANSITIVE;
    let route = Attributes {
        med: Some(7),
        communities: Box::new([0xfde9_0001]),
        others: Box::new([
            raw(
                transitive,
                kind::EXTENDED_COMMUNITIES,
                &[[0, 2, 0, 0, 0, 0, 0, 1], [0x40, 2, 0, 0, 0, 0, 0, 2]].concat(),
            ),
            raw(flag::OPTIONAL, 98, b"ends here"),
            raw(transitive, 99, b"unknown"),
        ]),
        ..attributes("172.16.0.1", &[65001])
    };
    let mut rib = rib();
    rib.update(ROUTER, announce(route.clone(), &["192.0.2.0/24"]), at(0)).unwrap();

    let heard = hear(&mut rib, NODE, &node());
    let (_, internal) = only(&heard);
    let both = route.others[0].clone();
    let partial = raw(transitive | flag::PARTIAL, 99, b"unknown");
    let others = Box::new([both, partial.clone()]);
    assert_eq!(*internal, Attributes { local_pref: Some(100), others, ..route.clone() });

    let heard = hear(&mut rib, OTHER, &other());
    let (_, external) = only(&heard);
    let first = raw(transitive, kind::EXTENDED_COMMUNITIES, &[0, 2, 0, 0, 0, 0, 0, 1]);
    let expected = Attributes {
        med: None,
        next_hop: address("10.0.0.1"),
        as_path: AsPath::sequence([OWN, Asn(65001)]),
        others: Box::new([first, partial]),
        ..route
    };
    assert_eq!(*external, expected);
    assert!(hear(&mut rib, ROUTER, &router()).routes.is_empty(), "back to where it came from");
}

#[test]
fn an_internal_route_goes_to_routers_only() {
    let mut rib = rib();
    let second = PeerId(9);
    rib.peer_up(second, facts("10.0.0.3", OWN));
    let route = Attributes { local_pref: Some(300), ..attributes("10.0.0.2", &[]) };
    rib.update(NODE, announce(route, &["10.244.2.0/24"]), at(0)).unwrap();
    assert!(hear(&mut rib, second, &facts("10.0.0.3", OWN)).routes.is_empty());
    assert_eq!(*only(&hear(&mut rib, ROUTER, &router())).1, attributes("10.0.0.1", &[OWN.0]));
}

#[test]
fn a_next_hop_on_a_shared_link_stays_unless_it_is_the_peer() {
    let mut rib = rib();
    let on_link =
        |of: &str| PeerFacts { shared_subnet: Some(prefix("10.0.0.0/24")), ..facts(of, Asn(65009)) };
    rib.peer_up(PeerId(8), on_link("10.0.0.8"));
    rib.peer_up(PeerId(9), on_link("10.0.0.9"));
    rib.update(ROUTER, announce(attributes("10.0.0.8", &[65001]), &["192.0.2.0/24"]), at(0)).unwrap();
    assert_eq!(only(&hear(&mut rib, PeerId(8), &on_link("10.0.0.8"))).1.next_hop, address("10.0.0.1"));
    assert_eq!(only(&hear(&mut rib, PeerId(9), &on_link("10.0.0.9"))).1.next_hop, address("10.0.0.8"));
}

#[test]
fn a_node_is_not_told_to_go_by_itself() {
    let mut rib = rib();
    rib.update(ROUTER, announce(attributes("10.0.0.2", &[65001]), &["192.0.2.0/24"]), at(0)).unwrap();
    assert!(hear(&mut rib, NODE, &node()).routes.is_empty());
    assert_eq!(hear(&mut rib, OTHER, &other()).routes.len(), 1);
    assert_eq!(rib.counts(NODE, Family::Ipv4Unicast).advertised, 0);
    assert_eq!(rib.counts(OTHER, Family::Ipv4Unicast).advertised, 1);
}

#[test]
fn communities_keep_a_route_back() {
    for (community, to_node, to_router) in
        [(0xffff_ff01, 1, 0), (0xffff_ff02, 0, 0), (0xffff_ff03, 1, 0), (0xffff_0000, 1, 1)]
    {
        let mut rib = rib();
        let route = Attributes { communities: Box::new([community]), ..attributes("172.16.0.1", &[65001]) };
        rib.update(ROUTER, announce(route, &["192.0.2.0/24"]), at(0)).unwrap();
        assert_eq!(hear(&mut rib, NODE, &node()).routes.len(), to_node, "{community:x} to a node");
        assert_eq!(hear(&mut rib, OTHER, &other()).routes.len(), to_router, "{community:x} to a router");
    }
}

/// A route that may not be used still takes the place of the one before (BGP.md §3.2: two speakers get that wrong).
#[test]
fn a_looping_route_ends_the_one_before() {
    let loops = [
        ("own AS", attributes("172.16.0.1", &[65001, OWN.0]), Standing::AsLoop),
        (
            "own originator",
            Attributes { originator_id: Some(ROUTER_ID), ..attributes("172.16.0.1", &[65001]) },
            Standing::ReflectionLoop,
        ),
        (
            "own cluster",
            Attributes { cluster_list: Box::new([ROUTER_ID]), ..attributes("172.16.0.1", &[65001]) },
            Standing::ReflectionLoop,
        ),
        ("own next hop", attributes("10.0.0.1", &[65001]), Standing::OwnNextHop),
    ];
    for (row, route, expected) in loops {
        let mut rib = rib();
        let mut heard = Heard::default();
        rib.update(ROUTER, announce(attributes("172.16.0.1", &[65001]), &["192.0.2.0/24"]), at(0)).unwrap();
        heard.drain(&mut rib, NODE, &node());
        assert_eq!(heard.routes.len(), 1, "{row}");
        rib.update(ROUTER, announce(route, &["192.0.2.0/24"]), at(1)).unwrap();
        heard.drain(&mut rib, NODE, &node());
        assert!(heard.routes.is_empty(), "{row}");
        assert_eq!(standing(&rib, ROUTER), [expected], "{row}");
        let counts = rib.counts(ROUTER, Family::Ipv4Unicast);
        assert_eq!((counts.received, counts.accepted), (1, 0), "{row}");
    }
}

#[test]
fn the_best_path_follows_the_session() {
    let mut rib = rib();
    let mut fib = BTreeMap::new();
    let long = attributes("172.16.0.2", &[65002, 65003]);
    rib.update(OTHER, announce(long, &["192.0.2.0/24"]), at(0)).unwrap();
    rib.update(ROUTER, announce(attributes("172.16.0.1", &[65001]), &["192.0.2.0/24"]), at(1)).unwrap();
    follow(&mut rib, &mut fib);
    assert_eq!(fib[&prefix("192.0.2.0/24")].0, Source::Peer(ROUTER));
    rib.peer_down(ROUTER, Retention::Drop);
    follow(&mut rib, &mut fib);
    assert_eq!(fib[&prefix("192.0.2.0/24")].0, Source::Peer(OTHER));
    rib.peer_down(OTHER, Retention::Drop);
    follow(&mut rib, &mut fib);
    assert!(fib.is_empty());
    assert_eq!(rib.poll_best(), None);
}

#[test]
fn a_repeated_announcement_changes_nothing() {
    let mut rib = rib();
    let update = || announce(attributes("172.16.0.1", &[65001]), &["192.0.2.0/24"]);
    rib.update(ROUTER, update(), at(1)).unwrap();
    let mut heard = hear(&mut rib, NODE, &node());
    assert!(rib.poll_best().is_some());
    rib.update(ROUTER, update(), at(2)).unwrap();
    assert_eq!(rib.poll_best(), None);
    let messages = heard.messages;
    heard.drain(&mut rib, NODE, &node());
    assert_eq!(heard.messages, messages);
    let (_, paths) = rib.loc_rib(Lookup::Exact(prefix("192.0.2.0/24"))).next().unwrap();
    assert_eq!(paths[0].learned_at, at(1), "the age of a route that did not change");
}

#[test]
fn changes_before_a_message_are_one() {
    let mut rib = rib();
    let mut heard = hear(&mut rib, NODE, &node());
    let messages = heard.messages;
    for flap in 0..100 {
        rib.update(ROUTER, announce(attributes("172.16.0.1", &[65001]), &["192.0.2.0/24"]), at(flap))
            .unwrap();
        rib.update(ROUTER, withdraw(&["192.0.2.0/24"]), at(flap)).unwrap();
    }
    heard.drain(&mut rib, NODE, &node());
    assert_eq!((heard.messages - messages, heard.needless), (0, 0));
}

#[test]
fn the_prefix_limit_stops_new_prefixes_only() {
    let mut rib = rib();
    rib.peer_up(ROUTER, PeerFacts { prefix_limit: Some(2), ..router() });
    let of = |path: &[u32]| attributes("172.16.0.1", path);
    rib.update(ROUTER, announce(of(&[65001]), &["192.0.2.0/24", "198.51.100.0/24"]), at(0)).unwrap();
    rib.update(ROUTER, announce(of(&[65001, 7]), &["192.0.2.0/24"]), at(1)).unwrap();
    let refused = rib.update(ROUTER, announce(of(&[65001]), &["203.0.113.0/24"]), at(2));
    assert_eq!(refused, Err(PrefixLimitExceeded { family: Family::Ipv4Unicast, limit: 2 }));
    assert_eq!(rib.counts(ROUTER, Family::Ipv4Unicast).received, 2);
}

#[test]
fn refresh_sends_all_again_without_end_of_rib() {
    let mut rib = rib();
    rib.originate(prefix("10.244.1.0/24"), attributes("10.0.0.1", &[]), at(0));
    let mut heard = hear(&mut rib, NODE, &node());
    assert_eq!(heard.ends_of_rib, [Family::Ipv4Unicast]);
    heard.routes.clear();
    rib.refresh(NODE, Family::Ipv4Unicast);
    heard.drain(&mut rib, NODE, &node());
    assert_eq!(heard.routes.len(), 1);
    assert_eq!(heard.ends_of_rib, [Family::Ipv4Unicast]);
}

#[test]
fn an_empty_table_ends_at_once() {
    let mut rib = rib();
    let heard = hear(&mut rib, ROUTER, &router());
    assert_eq!((heard.messages, heard.ends_of_rib.as_slice()), (1, &[Family::Ipv4Unicast][..]));
    assert!(!rib.has_messages(ROUTER));
}

#[test]
fn before_any_policy_nothing_is_given() {
    let mut rib = Rib::new(config());
    rib.peer_up(ROUTER, router());
    rib.originate(prefix("10.244.1.0/24"), attributes("10.0.0.1", &[]), at(0));
    assert!(hear(&mut rib, ROUTER, &router()).routes.is_empty());
}

#[test]
fn a_route_whose_next_hop_has_no_address_of_ours_is_withheld() {
    let mut rib = rib();
    let both = Families::from_iter(Family::ALL);
    let dual = PeerFacts { families: both, other_address: Some(address("2001:db8::1")), ..router() };
    let poor = PeerFacts { families: both, ..other() };
    rib.peer_up(ROUTER, dual);
    rib.peer_up(OTHER, poor.clone());
    rib.update(ROUTER, announce(attributes("2001:db8::9", &[65001]), &["2001:db8:9::/48"]), at(0)).unwrap();
    let heard = hear(&mut rib, OTHER, &poor);
    assert!(heard.routes.is_empty());
    assert_eq!(heard.ends_of_rib.len(), 2);
}

/// One that arrived from a peer with longer messages (RFC 8654 §4).
#[test]
fn attributes_that_fit_no_message_are_withheld() {
    let mut rib = rib();
    let route = Attributes { communities: (0..1500).collect(), ..attributes("172.16.0.1", &[65001]) };
    rib.update(ROUTER, announce(route, &["192.0.2.0/24"]), at(0)).unwrap();
    assert!(hear(&mut rib, OTHER, &other()).routes.is_empty());
    assert_eq!(rib.counts(OTHER, Family::Ipv4Unicast).advertised, 0);
}

#[test]
fn lookups_find_what_they_say() {
    let mut rib = rib();
    for of in ["10.0.0.0/8", "10.1.0.0/16", "10.1.0.0/24", "10.2.0.0/16", "192.0.2.0/24"] {
        rib.originate(prefix(of), attributes("10.0.0.1", &[]), at(0));
    }
    let find = |lookup| -> Vec<_> { rib.loc_rib(lookup).map(|(prefix, _)| prefix.to_string()).collect() };
    let of = prefix;
    assert_eq!(find(Lookup::Exact(of("10.1.0.0/16"))), ["10.1.0.0/16"]);
    assert!(find(Lookup::Exact(of("10.1.0.0/17"))).is_empty());
    assert_eq!(find(Lookup::LongestMatch(of("10.1.0.5/32"))), ["10.1.0.0/24"]);
    assert!(find(Lookup::LongestMatch(of("11.0.0.0/32"))).is_empty());
    assert_eq!(find(Lookup::Longer(of("10.1.0.0/16"))), ["10.1.0.0/16", "10.1.0.0/24"]);
    assert_eq!(find(Lookup::Shorter(of("10.1.0.0/24"))), ["10.0.0.0/8", "10.1.0.0/16", "10.1.0.0/24"]);
    assert_eq!(find(Lookup::All(Family::Ipv4Unicast)).len(), 5);
    assert!(find(Lookup::All(Family::Ipv6Unicast)).is_empty());
}

#[test]
fn the_admin_api_gets_attributes_as_bytes() {
    let route = Attributes { communities: (0..100).collect(), ..attributes("192.0.2.1", &[65001]) };
    let bytes = attribute_bytes(&route, &prefix("10.0.0.0/8"));
    let kinds: Vec<_> = bytes.iter().map(|it| it[1]).collect();
    assert_eq!(kinds, [kind::ORIGIN, kind::AS_PATH, kind::NEXT_HOP, kind::COMMUNITIES]);
    assert_eq!(bytes[1], [0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9]);
    assert_eq!(bytes[3].len(), 4 + 400);
    assert_eq!(nlri_bytes(&prefix("10.1.0.0/16")), [16, 10, 1]);
    let bytes = attribute_bytes(&attributes("2001:db8::1", &[]), &prefix("2001:db8::/32"));
    assert!(bytes.iter().any(|it| it[1] == kind::MP_REACH_NLRI));
}

#[test]
fn a_peer_that_restarts_moves_nobodys_routes_but_those_it_does_not_repeat() {
    let mut rib = rib();
    let repeated = attributes("172.16.0.1", &[65001]);
    rib.update(ROUTER, announce(repeated.clone(), &["192.0.2.0/25", "192.0.2.128/25"]), at(0)).unwrap();
    let worse = attributes("172.16.0.2", &[65002, 65003]);
    rib.update(OTHER, announce(worse, &["192.0.2.0/25", "192.0.2.128/25"]), at(0)).unwrap();
    hear(&mut rib, NODE, &node());
    while rib.poll_best().is_some() {}
    let v4 = Families::NONE.with(Family::Ipv4Unicast);
    rib.peer_down(ROUTER, Retention::Stale(v4));
    assert!(rib.loc_rib(Lookup::All(Family::Ipv4Unicast)).all(|(_, paths)| paths[0].stale));
    rib.peer_up(ROUTER, router());
    rib.update(ROUTER, announce(repeated, &["192.0.2.0/25"]), at(9)).unwrap();
    let received: Vec<_> = rib.adj_in(ROUTER, Family::Ipv4Unicast).collect();
    assert_eq!(
        received.iter().map(|it| (it.stale, it.learned_at)).collect::<Vec<_>>(),
        [(false, at(0)), (true, at(0))]
    );
    assert_eq!(rib.poll_best(), None, "the kernel is not told");
    assert_eq!(hear(&mut rib, NODE, &node()).messages, 0, "nor is another peer");
    assert_eq!(rib.sweep(ROUTER, v4), 1);
    let gone = rib.poll_best().unwrap();
    assert_eq!((gone.prefix, gone.best.unwrap().0), (prefix("192.0.2.128/25"), Source::Peer(OTHER)));
    assert_eq!(rib.poll_best(), None);
}

#[test]
fn a_peer_that_comes_back_as_somebody_else_has_no_stale_routes() {
    let mut rib = rib();
    rib.update(ROUTER, announce(attributes("172.16.0.1", &[65001]), &["192.0.2.0/24"]), at(0)).unwrap();
    rib.peer_down(ROUTER, Retention::Stale(Families::NONE.with(Family::Ipv4Unicast)));
    rib.peer_up(ROUTER, PeerFacts { router_id: Ipv4Addr::new(9, 9, 9, 9), ..router() });
    assert_eq!(rib.adj_in(ROUTER, Family::Ipv4Unicast).count(), 0);
}

#[test]
fn a_peer_has_been_told_all_when_it_has_been_handed_end_of_rib() {
    let mut rib = rib();
    rib.originate(prefix("10.244.1.0/24"), attributes("10.0.0.1", &[]), at(0));
    let told = |rib: &Rib| rib.has_told_all(NODE, Family::Ipv4Unicast);
    assert!(!told(&rib));
    let heard = hear(&mut rib, NODE, &node());
    assert!(told(&rib) && heard.ends_of_rib == [Family::Ipv4Unicast]);
    rib.originate(prefix("10.244.2.0/24"), attributes("10.0.0.1", &[]), at(0));
    assert!(told(&rib) && !rib.has_told_all(NODE, Family::Ipv6Unicast));
    rib.peer_down(NODE, Retention::Stale(Families::NONE));
    assert!(!told(&rib));
}
