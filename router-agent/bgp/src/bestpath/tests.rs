use super::*;
use crate::asn::Asn;
use crate::message::attribute::{AsPath, Origin, Segment, SegmentKind};

/// A path like any other: external, three hops, peer 192.0.2.9 with router id 9.9.9.9.
struct Sample {
    attributes: Attributes,
    origin: Provenance,
}

fn sample(change: impl FnOnce(&mut Attributes)) -> Sample {
    let mut attributes = Attributes {
        as_path: AsPath::sequence([Asn(65001), Asn(65002), Asn(65003)]),
        origin: Origin::Egp,
        med: Some(50),
        ..Attributes::originated(ip("192.0.2.9"))
    };
    change(&mut attributes);
    Sample { attributes, origin: peer(true, "9.9.9.9", "192.0.2.9") }
}

fn from(origin: Provenance, change: impl FnOnce(&mut Attributes)) -> Sample {
    Sample { origin, ..sample(change) }
}

fn peer(external: bool, router_id: &str, of: &str) -> Provenance {
    Provenance::Peer { external, router_id: router_id.parse().unwrap(), address: ip(of) }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn same(_: &mut Attributes) {}

/// Next hops in 10.0.0.0/8 are as far as their last octet says; in 203.0.113.0/24 none can be reached.
fn metric(next_hop: IpAddr) -> Option<u32> {
    let IpAddr::V4(next_hop) = next_hop else { return Some(0) };
    match next_hop.octets() {
        [10, _, _, metric] => Some(u32::from(metric)),
        [203, 0, 113, _] => None,
        _ => Some(100),
    }
}

fn choose(samples: &[&Sample]) -> Option<(usize, Rule)> {
    let candidates: Vec<_> = samples
        .iter()
        .map(|sample| Candidate { attributes: &sample.attributes, origin: sample.origin })
        .collect();
    best(&candidates, metric)
}

/// One row a rule: what wins, what loses by that rule although all rules after it would have it win.
#[test]
fn each_rule_decides_before_the_next() {
    let strong_later = peer(true, "1.1.1.1", "192.0.2.1");
    let set_then_one = AsPath(Box::new([
        Segment { kind: SegmentKind::Set, asns: Box::new([Asn(1), Asn(2), Asn(3), Asn(4)]) },
        Segment { kind: SegmentKind::Sequence, asns: Box::new([Asn(5)]) },
    ]));
    let rows = [
        (
            "a route of our own beats any preference",
            Rule::Local,
            from(Provenance::Local, same),
            from(strong_later, |it| it.local_pref = Some(900)),
        ),
        (
            "local preference beats a shorter path",
            Rule::LocalPref,
            sample(|it| it.local_pref = Some(101)),
            from(strong_later, |it| it.as_path = AsPath::default()),
        ),
        (
            "no local preference is 100",
            Rule::LocalPref,
            sample(same),
            from(strong_later, |it| it.local_pref = Some(99)),
        ),
        (
            "a shorter path beats a better origin",
            Rule::AsPathLength,
            sample(|it| it.as_path = AsPath::sequence([Asn(65001), Asn(65002)])),
            from(strong_later, |it| it.origin = Origin::Igp),
        ),
        (
            "a set in the path counts one",
            Rule::AsPathLength,
            sample(|it| it.as_path = set_then_one),
            from(strong_later, same),
        ),
        (
            "a better origin beats a lower MED",
            Rule::Origin,
            sample(|it| it.origin = Origin::Igp),
            from(strong_later, |it| it.med = Some(1)),
        ),
        (
            "a lower MED beats external",
            Rule::Med,
            from(peer(false, "9.9.9.9", "192.0.2.9"), |it| it.med = Some(49)),
            from(strong_later, same),
        ),
        (
            "no MED is the lowest",
            Rule::Med,
            from(peer(false, "9.9.9.9", "192.0.2.9"), |it| it.med = None),
            from(strong_later, |it| it.med = Some(1)),
        ),
        (
            "external beats a nearer next hop",
            Rule::External,
            sample(same),
            from(peer(false, "1.1.1.1", "192.0.2.1"), |it| it.next_hop = ip("10.0.0.1")),
        ),
        (
            "a nearer next hop beats a lower router id",
            Rule::NextHopMetric,
            sample(|it| it.next_hop = ip("10.0.0.1")),
            from(strong_later, |it| it.next_hop = ip("10.0.0.2")),
        ),
        (
            "a lower router id beats a shorter cluster list",
            Rule::RouterId,
            from(peer(true, "1.1.1.1", "192.0.2.9"), |it| it.cluster_list = Box::new([Ipv4Addr::LOCALHOST])),
            from(peer(true, "2.2.2.2", "192.0.2.1"), same),
        ),
        (
            "an originator stands for the router id",
            Rule::RouterId,
            sample(|it| it.originator_id = Some(Ipv4Addr::new(0, 0, 0, 1))),
            from(strong_later, same),
        ),
        (
            "a shorter cluster list beats a lower address",
            Rule::ClusterListLength,
            sample(|it| it.cluster_list = Box::new([Ipv4Addr::LOCALHOST])),
            from(peer(true, "9.9.9.9", "192.0.2.1"), |it| {
                it.cluster_list = Box::new([Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST]);
            }),
        ),
        (
            "the lower address decides the rest",
            Rule::PeerAddress,
            sample(same),
            from(peer(true, "9.9.9.9", "192.0.2.10"), same),
        ),
    ];
    for (row, rule, winner, loser) in &rows {
        assert_eq!(choose(&[winner, loser]), Some((0, *rule)), "{row}");
        assert_eq!(choose(&[loser, winner]), Some((1, *rule)), "{row}, the other way round");
    }
}

#[test]
fn a_path_whose_next_hop_cannot_be_reached_takes_no_part() {
    let gone = sample(|it| {
        it.local_pref = Some(900);
        it.next_hop = ip("203.0.113.1");
    });
    let plain = sample(same);
    assert_eq!(choose(&[&gone, &plain]), Some((1, Rule::Only)));
    assert_eq!(choose(&[&gone]), None);
    assert_eq!(choose(&[]), None);
}

#[test]
fn an_own_route_needs_no_next_hop() {
    let own = from(Provenance::Local, |it| it.next_hop = ip("203.0.113.1"));
    assert_eq!(choose(&[&own]), Some((0, Rule::Only)));
}

/// a beats b by MED, b beats c and c beats a by router id: no pairwise order gives the same answer each time.
#[test]
fn med_within_one_neighbor_does_not_depend_on_the_order() {
    let path = |asn| AsPath::sequence([Asn(asn), Asn(65100)]);
    let a = from(peer(true, "3.3.3.3", "192.0.2.3"), |it| (it.as_path, it.med) = (path(1), Some(1)));
    let b = from(peer(true, "1.1.1.1", "192.0.2.1"), |it| (it.as_path, it.med) = (path(1), Some(2)));
    let c = from(peer(true, "2.2.2.2", "192.0.2.2"), |it| (it.as_path, it.med) = (path(2), Some(9)));
    let all = [&a, &b, &c];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let chosen = choose(&order.map(|index| all[index])).map(|(at, rule)| (order[at], rule));
        assert_eq!(chosen, Some((2, Rule::RouterId)), "{order:?}");
    }
}
