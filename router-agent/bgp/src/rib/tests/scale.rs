//! Many routes, many peers, peers that do not read: what is shared is shared, and what is bounded is bounded.

use super::*;

const SOURCE: PeerId = PeerId(1);
const SLOW: PeerId = PeerId(2);
const QUICK: PeerId = PeerId(3);

fn external(of: &str, asn: u32) -> PeerFacts {
    facts(of, Asn(asn))
}

fn slow() -> PeerFacts {
    external("172.16.0.2", 65002)
}

fn quick() -> PeerFacts {
    external("172.16.0.3", 65003)
}

fn rib(limits: Limits) -> Rib {
    let mut rib = Rib::new(RibConfig { limits, ..config() });
    rib.set_policies(open());
    rib.peer_up(SOURCE, external("172.16.0.1", 65001));
    rib.peer_up(SLOW, slow());
    rib.peer_up(QUICK, quick());
    rib
}

/// The `index`th of many /24.
fn many(index: u32) -> Prefix {
    Prefix::new(Ipv4Addr::from((10 << 24) + (index << 8)).into(), 24).unwrap()
}

fn send(rib: &mut Rib, path: &[u32], prefixes: impl Iterator<Item = u32>) {
    let prefixes = prefixes.map(many).collect();
    let attributes = attributes("172.16.0.1", path);
    let announcement = Announcement { family: Family::Ipv4Unicast, attributes, prefixes };
    rib.update(SOURCE, Update { announced: vec![announcement], ..Update::default() }, Duration::ZERO)
        .unwrap();
}

fn take(rib: &mut Rib, prefixes: impl Iterator<Item = u32>) {
    let withdrawn = prefixes.map(many).collect();
    rib.update(SOURCE, Update { withdrawn, ..Update::default() }, Duration::ZERO).unwrap();
}

#[test]
fn prefixes_of_equal_attributes_share_messages() {
    let mut rib = rib(Limits::default());
    let mut heard = hear(&mut rib, QUICK, &quick());
    send(&mut rib, &[65001], 0..5000);
    heard.drain(&mut rib, QUICK, &quick());
    assert_eq!(heard.routes.len(), 5000);
    assert!(heard.messages <= 1 + 5, "{} messages", heard.messages);
    take(&mut rib, 0..5000);
    heard.drain(&mut rib, QUICK, &quick());
    assert!(heard.routes.is_empty());
    assert!(heard.messages <= 1 + 5 + 5, "{} messages", heard.messages);
}

#[test]
fn peers_of_a_group_get_the_same_bytes() {
    let mut rib = rib(Limits::default());
    hear(&mut rib, QUICK, &quick());
    hear(&mut rib, SLOW, &slow());
    send(&mut rib, &[65001], 0..10);
    let (quick, slow) = (rib.next_messages(QUICK, 4096), rib.next_messages(SLOW, 4096));
    assert_eq!(quick.len(), 1);
    assert!(Arc::ptr_eq(&quick[0], &slow[0]));
}

#[test]
fn a_peer_that_fell_behind_catches_up_from_the_table() {
    let limits = Limits { log_bytes: 2000, walked: 100, ..Limits::default() };
    let mut rib = rib(limits);
    let mut heard = hear(&mut rib, SLOW, &slow());
    let mut other = hear(&mut rib, QUICK, &quick());
    send(&mut rib, &[65001], 0..1000);
    heard.drain(&mut rib, SLOW, &slow());
    // From here on the slow one does not read, and the quick one does; far more passes than the log holds.
    for round in 0..20 {
        send(&mut rib, &[65001, 1000 + round], round * 20..round * 20 + 20);
        take(&mut rib, 900 + round..901 + round);
        other.drain(&mut rib, QUICK, &quick());
    }
    assert!(rib.groups.iter().all(|group| group.kept().0 < 30), "the log is bounded");
    // Half way through its walk the table moves again.
    heard.listen(&rib.next_messages(SLOW, 1), &slow());
    send(&mut rib, &[65001, 7], 0..3);
    take(&mut rib, 3..6);
    let before = heard.messages;
    heard.drain(&mut rib, SLOW, &slow());
    other.drain(&mut rib, QUICK, &quick());
    assert_eq!(heard.routes, other.routes);
    assert_eq!(heard.routes.len(), 1000 - 20 - 3);
    assert!(heard.messages - before < 60, "only what changed: {}", heard.messages - before);
    hear(&mut rib, SOURCE, &external("172.16.0.1", 65001));
    rib.check_that_nothing_is_kept();
}

/// It has read one of the messages that were made together, and the log lost the other.
#[test]
fn a_peer_that_fell_behind_between_two_messages_of_a_kind_misses_none() {
    let mut rib = rib(Limits { log_bytes: 300, ..Limits::default() });
    let mut heard = hear(&mut rib, SLOW, &slow());
    let mut other = hear(&mut rib, QUICK, &quick());
    send(&mut rib, &[65001, 1], 0..1);
    send(&mut rib, &[65001, 2], 1..2);
    heard.listen(&rib.next_messages(SLOW, 1), &slow());
    assert_eq!(heard.routes.len(), 1);
    for index in 2..20 {
        send(&mut rib, &[65001, 3], index..=index);
        other.drain(&mut rib, QUICK, &quick());
    }
    heard.drain(&mut rib, SLOW, &slow());
    assert_eq!(heard.routes, other.routes);
    assert_eq!(heard.routes.len(), 20);
}

#[test]
fn a_peer_that_never_reads_is_cut_off_and_nobody_else() {
    let limits = Limits { log_bytes: 1000, graves: 100, ..Limits::default() };
    let mut rib = rib(limits);
    let mut heard = hear(&mut rib, QUICK, &quick());
    hear(&mut rib, SLOW, &slow());
    let mut cut_off = Vec::new();
    for round in 0..50 {
        send(&mut rib, &[65001], round * 10..round * 10 + 10);
        heard.drain(&mut rib, QUICK, &quick());
        take(&mut rib, round * 10..round * 10 + 10);
        heard.drain(&mut rib, QUICK, &quick());
        cut_off.extend(std::iter::from_fn(|| rib.poll_cut_off()));
    }
    // The source reads nothing either.
    cut_off.sort_unstable();
    assert_eq!(cut_off, [SOURCE, SLOW]);
    assert!(rib.next_messages(SLOW, 4096).is_empty() && !rib.has_messages(SLOW));
    rib.check_that_nothing_is_kept();
}

#[test]
fn without_readers_changes_do_not_pile_up() {
    let mut rib = rib(Limits { log_bytes: 1000, ..Limits::default() });
    for round in 0..20 {
        send(&mut rib, &[65001, round + 1], 0..2000);
    }
    assert!(rib.groups.iter().all(|group| group.kept().0 <= 1));
    assert_eq!(hear(&mut rib, QUICK, &quick()).routes.len(), 2000);
}

#[test]
fn attribute_sets_that_nobody_uses_go() {
    let mut rib = rib(Limits::default());
    for round in 0..10_000 {
        send(&mut rib, &[65001, round + 1], 0..1);
    }
    assert!(rib.interner.len() <= 2048, "{} sets", rib.interner.len());
}

/// A service that appears changes one prefix set; the other services are not looked at.
#[test]
fn a_changed_set_makes_one_message() {
    let mut rib = rib(Limits::default());
    let statement = Statement {
        name: "vips".to_owned(),
        prefixes: Some("vips".to_owned()),
        neighbors: None,
        actions: Actions::only(Verdict::Accept),
    };
    let sets = BTreeMap::from([("vips".to_owned(), PrefixSet::default())]);
    let export = Assignment {
        policies: vec![Policy { name: "export".to_owned(), statements: vec![statement] }],
        default: Verdict::Reject,
    };
    let import = Assignment { policies: Vec::new(), default: Verdict::Accept };
    rib.set_policies(Policies::new(sets, BTreeMap::new(), import, export).unwrap());
    for index in 0..1000 {
        rib.originate(many(index), attributes("10.0.0.1", &[]), Duration::ZERO);
    }
    let mut heard = hear(&mut rib, QUICK, &quick());
    assert_eq!((heard.routes.len(), heard.messages), (0, 1));
    rib.change_prefix_set("vips", &[PrefixRange::exact(many(5))], &[]);
    assert_eq!(rib.groups.iter().map(Group::noted).sum::<usize>(), rib.groups.len(), "one prefix a group");
    heard.drain(&mut rib, QUICK, &quick());
    assert_eq!((heard.routes.len(), heard.messages), (1, 2));
    rib.change_prefix_set("vips", &[], &[PrefixRange::exact(many(5))]);
    heard.drain(&mut rib, QUICK, &quick());
    assert_eq!((heard.routes.len(), heard.messages), (0, 3));
}

/// Two nodes that were told the same, and now only one is: it leaves the group, and hears only the difference.
#[test]
fn a_peer_that_changes_groups_hears_the_difference() {
    let policies = |prepend: bool| {
        let statement = Statement {
            name: "prepend".to_owned(),
            prefixes: Some("one".to_owned()),
            neighbors: Some("slow".to_owned()),
            actions: Actions { prepend: Some((OWN, 1)), ..Actions::only(Verdict::Accept) },
        };
        let sets = BTreeMap::from([("one".to_owned(), PrefixSet::from_iter([PrefixRange::exact(many(7))]))]);
        let slow = if prepend { vec![prefix("172.16.0.2/32")] } else { Vec::new() };
        let neighbors = BTreeMap::from([("slow".to_owned(), slow)]);
        let of = |statements| Assignment {
            policies: vec![Policy { name: "export".to_owned(), statements }],
            default: Verdict::Accept,
        };
        Policies::new(sets, neighbors, of(vec![]), of(vec![statement])).unwrap()
    };
    let mut rib = rib(Limits::default());
    rib.set_policies(policies(false));
    assert_eq!(rib.groups.len(), 1);
    send(&mut rib, &[65001], 0..100);
    let mut heard = hear(&mut rib, SLOW, &slow());
    let before = heard.messages;
    for (prepend, groups, hops) in [(true, 2, 3), (false, 1, 2)] {
        rib.set_policies(policies(prepend));
        assert_eq!(rib.groups.len(), groups);
        heard.drain(&mut rib, SLOW, &slow());
        assert_eq!(heard.routes[&many(7)].as_path.hops(), hops);
        assert_eq!(heard.routes.len(), 100);
    }
    assert_eq!(heard.messages, before + 2);
}
