//! Messages octet for octet, and what their fields come to.

use std::net::{IpAddr, Ipv4Addr};

use super::{external, hex, internal, two_octet};
use crate::asn::Asn;
use crate::family::{Family, FamilyCode, Prefix};
use crate::message::attribute::{AsPath, Attributes, Origin, RawAttribute, Segment, SegmentKind, kind};
use crate::message::capability::{Capability, GracefulRestart};
use crate::message::header::{Frame, HEADER_LEN, MAX_LEN, keepalive};
use crate::message::notification::{Notification, error};
use crate::message::open::Open;
use crate::message::refresh::Refresh;
use crate::message::update::{self, Context, EncodeError, Update, announce, end_of_rib, withdraw};

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn decode(message: &[u8], context: &Context) -> Update {
    update::decode(Frame::next(message, true).unwrap().unwrap().body(), context).unwrap()
}

fn next_hop() -> IpAddr {
    Ipv4Addr::new(192, 0, 2, 2).into()
}

#[test]
fn an_announcement_octet_for_octet() {
    let attributes = Attributes {
        as_path: AsPath::sequence([Asn(65001)]),
        med: Some(10),
        communities: Box::new([0xfde9_0001]),
        ..Attributes::originated(next_hop())
    };
    let messages = announce(
        &attributes,
        Family::Ipv4Unicast,
        &[prefix("10.1.0.0/24"), prefix("0.0.0.0/0")],
        &external(),
    );
    let want = "ffffffffffffffffffffffffffffffff 003e 02 0000 0022
        40 01 01 00  40 02 06 02 01 0000fde9  40 03 04 c0000202  80 04 04 0000000a  c0 08 04 fde90001
        18 0a0100 00";
    assert_eq!(messages.unwrap(), [hex(want)]);
}

#[test]
fn multiprotocol_attributes_come_first() {
    let attributes = Attributes::originated("2001:db8::1".parse().unwrap());
    let messages =
        announce(&attributes, Family::Ipv6Unicast, &[prefix("2001:db8:1::/48")], &external()).unwrap();
    let want = "ffffffffffffffffffffffffffffffff 003e 02 0000 0027
        90 0e 001c 0002 01 10 20010db8000000000000000000000001 00 30 20010db80001
        40 01 01 00  40 02 00";
    assert_eq!(messages, [hex(want)]);
    let update = decode(&messages[0], &external());
    assert_eq!(update.announced[0].attributes, attributes);
    assert_eq!(update.announced[0].prefixes, [prefix("2001:db8:1::/48")]);
}

#[test]
fn withdrawals_and_the_end_of_the_rib() {
    let context = external();
    for (family, prefix) in
        [(Family::Ipv4Unicast, prefix("10.1.0.0/24")), (Family::Ipv6Unicast, prefix("2001:db8::/32"))]
    {
        let update = decode(&withdraw(family, &[prefix], &context)[0], &context);
        assert_eq!(update, Update { withdrawn: vec![prefix], ..Update::default() });
        let update = decode(&end_of_rib(family), &context);
        assert_eq!(update, Update { end_of_rib: Some(family), ..Update::default() });
    }
    assert_eq!(end_of_rib(Family::Ipv4Unicast).len(), 23);
    // Attributes without routes end nothing.
    let message = hex("ffffffffffffffffffffffffffffffff 001b 02 0000 0004 40010100");
    assert_eq!(decode(&message, &context).end_of_rib, None);
}

#[test]
fn many_prefixes_fill_messages_to_the_limit() {
    let prefixes: Vec<Prefix> = (0..2500u32)
        .map(|index| format!("10.{}.{}.0/24", index / 256, index % 256).parse().unwrap())
        .collect();
    let attributes = Attributes::originated(next_hop());
    let messages = announce(&attributes, Family::Ipv4Unicast, &prefixes, &external()).unwrap();
    assert_eq!(messages.len(), 3);
    assert!(messages.iter().all(|message| message.len() <= MAX_LEN));
    let back: Vec<Prefix> = messages
        .iter()
        .flat_map(|message| decode(message, &external()).announced.remove(0).prefixes)
        .collect();
    assert_eq!(back, prefixes);
    assert_eq!(withdraw(Family::Ipv4Unicast, &prefixes, &external()).len(), 3);
    assert_eq!(announce(&attributes, Family::Ipv4Unicast, &[], &external()), Ok(vec![]));
}

#[test]
fn what_cannot_be_said_is_an_error() {
    let v6 = Attributes::originated("2001:db8::1".parse().unwrap());
    let plain = Context { extended_next_hop: false, ..external() };
    let routes = [prefix("10.1.0.0/24")];
    let refused = announce(&v6, Family::Ipv4Unicast, &routes, &plain);
    assert_eq!(refused, Err(EncodeError::NextHop { family: Family::Ipv4Unicast, next_hop: v6.next_hop }));
    assert!(announce(&v6, Family::Ipv4Unicast, &routes, &external()).is_ok());
    let v4 = Attributes::originated(next_hop());
    assert!(announce(&v4, Family::Ipv6Unicast, &[prefix("2001:db8::/32")], &external()).is_err());
    let long = Attributes { communities: vec![1; 1100].into(), ..v4 };
    assert!(matches!(
        announce(&long, Family::Ipv4Unicast, &routes, &external()),
        Err(EncodeError::TooLong { .. })
    ));
}

#[test]
fn an_unknown_attribute_goes_on_only_if_transitive_and_marked_partial() {
    let others = |flags: [u8; 2]| {
        [(99, flags[0]), (100, flags[1])].map(|(kind, flags)| RawAttribute {
            flags,
            kind,
            value: Box::new([7]),
        })
    };
    let attributes =
        Attributes { others: Box::new(others([0xc0, 0x80])), ..Attributes::originated(next_hop()) };
    let messages = announce(&attributes, Family::Ipv4Unicast, &[prefix("10.1.0.0/24")], &external()).unwrap();
    let update = decode(&messages[0], &external());
    assert_eq!(*update.announced[0].attributes.others, others([0xe0, 0x80])[..1]);
}

#[test]
fn the_first_of_two_attributes_counts() {
    let message = hex("ffffffffffffffffffffffffffffffff 0033 02 0000 0018
        40 01 01 00 40 02 06 02 01 0000fde9 40 03 04 c0000202 40 01 01 02 18 0a0100");
    assert_eq!(decode(&message, &external()).announced[0].attributes.origin, Origin::Igp);
}

#[test]
fn what_an_external_peer_may_not_send_is_not_there() {
    let attributes = Attributes {
        as_path: AsPath::sequence([Asn(65001)]),
        local_pref: Some(200),
        originator_id: Some(Ipv4Addr::new(10, 0, 0, 9)),
        cluster_list: Box::new([Ipv4Addr::new(10, 0, 0, 8)]),
        ..Attributes::originated(next_hop())
    };
    let message = announce(&attributes, Family::Ipv4Unicast, &[prefix("10.1.0.0/24")], &internal()).unwrap();
    assert_eq!(decode(&message[0], &internal()).announced[0].attributes, attributes);
    let outside = decode(&message[0], &external()).announced.remove(0).attributes;
    let bare =
        Attributes { local_pref: None, originator_id: None, cluster_list: Box::default(), ..attributes };
    assert_eq!(outside, bare);
}

#[test]
fn a_four_octet_path_survives_a_two_octet_peer() {
    let aggregator =
        RawAttribute { flags: 0xc0, kind: kind::AGGREGATOR, value: hex("00010001 c0000209").into() };
    let attributes = Attributes {
        as_path: AsPath(Box::new([
            Segment { kind: SegmentKind::Sequence, asns: Box::new([Asn(65001), Asn(4_200_000_001)]) },
            Segment { kind: SegmentKind::Set, asns: Box::new([Asn(7), Asn(4_200_000_002)]) },
        ])),
        others: Box::new([aggregator]),
        ..Attributes::originated(next_hop())
    };
    let routes = [prefix("10.1.0.0/24")];
    let message = announce(&attributes, Family::Ipv4Unicast, &routes, &two_octet()).unwrap().remove(0);
    assert_eq!(decode(&message, &two_octet()).announced[0].attributes, attributes);
}

/// RFC 6793 §4.2.3.
#[test]
fn as4_path_gives_way_where_it_is_not_believed() {
    let path = |as_path: &str, as4_path: &str, rest: &str| {
        let attributes = [hex("40010100 400304c0000202"), hex(as_path), hex(as4_path), hex(rest)].concat();
        let body =
            [&hex("0000 00")[..], &[u8::try_from(attributes.len()).unwrap()], &attributes, &hex("180a0100")];
        let update = update::decode(&body.concat(), &two_octet()).unwrap();
        assert_eq!(update.faults, []);
        update.announced[0].attributes.as_path.clone()
    };
    let trans = Asn::TRANS;
    let long = Asn(4_200_000_001);
    // One hop was added by a speaker that knew only two octets.
    let joined = path("4002060202 0064 5ba0", "c011060201 fa56ea01", "");
    assert_eq!(joined, AsPath::sequence([Asn(100), long]));
    // Longer than the path itself.
    let kept = path("4002040201 5ba0", "c0110a0202 fa56ea01 fa56ea01", "");
    assert_eq!(kept, AsPath::sequence([trans]));
    // Aggregated since, by a speaker that did not know it.
    let aggregated =
        path("4002040201 5ba0", "c011060201 fa56ea01", "c00706 0064 c0000202 c01208 fa56ea01 c0000202");
    assert_eq!(aggregated, AsPath::sequence([trans]));
    // Confederation segments are skipped.
    let skipped = path("4002040201 5ba0", "c0110c0301 00000064 0201 fa56ea01", "");
    assert_eq!(skipped, AsPath::sequence([long]));
}

#[test]
fn a_path_counts_a_set_once_and_grows_at_the_front() {
    let set = Segment { kind: SegmentKind::Set, asns: Box::new([Asn(1), Asn(2)]) };
    let path = AsPath(Box::new([set.clone()]));
    assert_eq!((path.hops(), path.first(), path.contains(Asn(2))), (1, None, true));
    let longer = path.prepended(Asn(9), 2).prepended(Asn(8), 1);
    assert_eq!((longer.hops(), longer.first()), (4, Some(Asn(8))));
    assert_eq!(longer.0[1], set);
    assert_eq!(path.prepended(Asn(9), 0), path);
}

#[test]
fn an_open_of_every_capability_comes_back() {
    let open = Open {
        asn: Asn(4_200_000_001),
        hold_time: 90,
        router_id: Ipv4Addr::new(192, 0, 2, 1),
        capabilities: vec![
            Capability::Multiprotocol(Family::Ipv4Unicast.code()),
            Capability::RouteRefresh,
            Capability::ExtendedNextHop(Box::new([(Family::Ipv4Unicast.code(), 2)])),
            Capability::ExtendedMessage,
            Capability::GracefulRestart(GracefulRestart {
                restarting: true,
                notification: true,
                restart_time: 120,
                families: Box::new([(Family::Ipv4Unicast.code(), true), (Family::Ipv6Unicast.code(), false)]),
            }),
            Capability::FourOctetAs(Asn(4_200_000_001)),
            Capability::AddPath(Box::new([(FamilyCode { afi: 1, safi: 1 }, 3)])),
            Capability::EnhancedRefresh,
            Capability::Fqdn { host: "node-1".into(), domain: "example".into() },
            Capability::SoftwareVersion("kube-router/2".into()),
            Capability::Unknown { code: 200, value: Box::new([1, 2, 3]) },
        ],
    };
    let message = open.encode();
    let frame = Frame::next(&message, false).unwrap().unwrap();
    assert_eq!(frame.body()[1..3], [0x5b, 0xa0]);
    assert_eq!(Open::decode(frame.body()), Ok(open.clone()));

    // Too many for one octet of length: RFC 9072.
    let many = Open {
        capabilities: (0..9)
            .map(|code| Capability::Unknown { code: 200 + code, value: Box::new([0; 100]) })
            .collect(),
        asn: Asn(65001),
        ..open
    };
    let message = many.encode();
    assert_eq!(Open::decode(Frame::next(&message, false).unwrap().unwrap().body()), Ok(many));
}

#[test]
fn a_notification_says_what_gobgp_says() {
    let shutdown = Notification::with_communication(error::ADMIN_SHUTDOWN, "maint window 7");
    assert_eq!(shutdown.to_string(), "code 6(cease) subcode 2(administrative shutdown)");
    assert_eq!(shutdown.communication().as_deref(), Some("maint window 7"));
    let message = shutdown.encode();
    let frame = Frame::next(&message, false).unwrap().unwrap();
    assert_eq!(Notification::decode(frame.body()), Some(shutdown));

    let text = |code, subcode| Notification::new((code, subcode), &[]).to_string();
    assert_eq!(text(6, 4), "code 6(cease) subcode 4(administrative reset)");
    assert_eq!(text(4, 0), "code 4(hold timer expired) subcode 0(undefined)");
    assert_eq!(text(3, 11), "code 3(update) subcode 11(sub malformed as path)");
    assert_eq!(text(5, 3), "code 5(fsm) subcode 3(receive unexpected message in established state)");
    assert_eq!(text(77, 200), "code 77(undefined) subcode 200(undefined)");
}

#[test]
fn a_shutdown_communication_fits_and_is_clean() {
    let long = Notification::with_communication(error::ADMIN_RESET, &"ä".repeat(200));
    assert_eq!(long.data.len(), 255);
    assert_eq!(long.communication().unwrap().chars().count(), 127);
    let notification = |data: &[u8]| Notification::new(error::ADMIN_SHUTDOWN, data).communication();
    assert_eq!(notification(b"\x05a\nb\x1bc").as_deref(), Some("abc"));
    assert_eq!(notification(b"\x09abc"), None);
    assert_eq!(notification(b"\x02\xff\xfe"), None);
    assert_eq!(notification(b""), None);
    assert!(Notification::with_communication(error::ADMIN_RESET, "").data.is_empty());
}

#[test]
fn a_refresh_and_a_keepalive_octet_for_octet() {
    let refresh = Refresh::request(Family::Ipv6Unicast.code());
    let message = refresh.encode();
    assert_eq!(message, hex("ffffffffffffffffffffffffffffffff 0017 05 0002 00 01"));
    assert_eq!(Refresh::decode(&Frame::next(&message, false).unwrap().unwrap()), Ok(refresh));
    assert_eq!(keepalive(), hex("ffffffffffffffffffffffffffffffff 0013 04"));
    assert_eq!(keepalive().len(), HEADER_LEN);
}

#[test]
fn long_messages_only_where_they_were_agreed_on() {
    let mut stream = hex("ffffffffffffffffffffffffffffffff 2000 02");
    assert!(Frame::next(&stream, false).is_err());
    assert_eq!(Frame::next(&stream, true), Ok(None));
    stream.resize(0x2000, 0);
    assert_eq!(Frame::next(&stream, true).unwrap().unwrap().bytes.len(), 0x2000);
    let open = hex("ffffffffffffffffffffffffffffffff 2000 01");
    assert!(Frame::next(&open, true).is_err());
}
