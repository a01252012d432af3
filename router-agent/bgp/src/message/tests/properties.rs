//! Any bytes give a value or an error, and what was understood is said in the same words again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use proptest::collection::vec;
use proptest::prelude::*;

use super::{external, internal, two_octet};
use crate::asn::Asn;
use crate::family::{Family, Prefix};
use crate::message::attribute::{AsPath, Attributes, Origin, RawAttribute, Segment, SegmentKind, kind};
use crate::message::header::{Frame, Kind, message};
use crate::message::notification::Notification;
use crate::message::open::Open;
use crate::message::refresh::Refresh;
use crate::message::update::{self, Announcement, Context, announce, withdraw};

pub(super) fn ipv4_prefix() -> impl Strategy<Value = Prefix> {
    (0u32..0x60ff_ffff, 8u8..=32).prop_map(|(address, len)| {
        Ipv4Net::new(Ipv4Addr::from(address | 0x0100_0000), len).unwrap().trunc().into()
    })
}

pub(super) fn ipv6_prefix() -> impl Strategy<Value = Prefix> {
    (any::<u128>(), 3u8..=128).prop_map(|(address, len)| {
        Ipv6Net::new(Ipv6Addr::from(address >> 3 | 1 << 125), len).unwrap().trunc().into()
    })
}

fn asns() -> impl Strategy<Value = Box<[Asn]>> {
    vec((1u32..).prop_map(Asn), 1..6).prop_map(Vec::into_boxed_slice)
}

/// As they come out of a decoder: no two sequences side by side, other attributes ascending.
pub(super) fn attributes() -> impl Strategy<Value = Attributes> {
    let segments = vec(asns(), 0..3).prop_map(|asns| {
        let kinds = [SegmentKind::Sequence, SegmentKind::Set].into_iter().cycle();
        kinds.zip(asns).map(|(kind, asns)| Segment { kind, asns }).collect()
    });
    let origin = prop_oneof![Just(Origin::Igp), Just(Origin::Egp), Just(Origin::Incomplete)];
    let large = vec(any::<u8>(), 12..13);
    let unknown = vec(any::<u8>(), 0..300);
    (
        origin,
        segments,
        0x0100_0000u32..0x7f00_0000,
        any::<Option<u32>>(),
        any::<Option<u32>>(),
        vec(any::<u32>(), 0..80),
        any::<Option<u32>>(),
        vec(any::<u32>(), 0..4),
        (any::<bool>(), 1u32.., proptest::option::of(large), proptest::option::of(unknown)),
    )
        .prop_map(
            |(origin, segments, next_hop, med, local_pref, communities, originator, clusters, others)| {
                let (atomic, aggregator, large, unknown) = others;
                let raw = |flags, kind, value: Vec<u8>| RawAttribute { flags, kind, value: value.into() };
                let aggregator = [aggregator.to_be_bytes(), [192, 0, 2, 9]].concat();
                let others = [
                    atomic.then(|| raw(0x40, kind::ATOMIC_AGGREGATE, vec![])),
                    atomic.then(|| raw(0xc0, kind::AGGREGATOR, aggregator)),
                    large.map(|value| raw(0xc0, kind::LARGE_COMMUNITIES, value)),
                    unknown.map(|value| raw(0xe0, 99, value)),
                ];
                Attributes {
                    origin,
                    as_path: AsPath(segments),
                    next_hop: Ipv4Addr::from(next_hop).into(),
                    med,
                    local_pref,
                    communities: communities.into(),
                    originator_id: originator.map(Ipv4Addr::from),
                    cluster_list: clusters.into_iter().map(Ipv4Addr::from).collect(),
                    others: others.into_iter().flatten().collect(),
                }
            },
        )
}

fn decode_any(stream: &[u8], context: &Context) {
    let Ok(Some(frame)) = Frame::next(stream, true) else { return };
    match frame.kind {
        Kind::Open => {
            if let Ok(open) = Open::decode(frame.body()) {
                // What was accepted is understood again after it was said again.
                let message = open.encode();
                let again = Open::decode(Frame::next(&message, false).unwrap().unwrap().body());
                assert_eq!(again.as_ref(), Ok(&open));
            }
        }
        Kind::Update => {
            if let Ok(update) = update::decode(frame.body(), context) {
                let routes = update.announced.iter().map(|announcement| announcement.prefixes.len());
                let count = routes.sum::<usize>() + update.withdrawn.len() + update.faults.len();
                assert!(count <= stream.len(), "an octet is at most one route or fault");
                let others = update.announced.iter().flat_map(|announcement| &announcement.attributes.others);
                let kept: usize = others.map(|other| other.value.len()).sum();
                assert!(kept <= 2 * stream.len(), "kept once for each family");
            }
        }
        Kind::Notification => {
            let notification = Notification::decode(frame.body()).unwrap();
            let _ = (notification.to_string(), notification.communication());
        }
        Kind::RouteRefresh => {
            let _ = Refresh::decode(&frame);
        }
        Kind::KeepAlive => {}
    }
}

fn context() -> impl Strategy<Value = Context> {
    prop_oneof![Just(external()), Just(internal()), Just(two_octet())]
}

proptest! {
    #[test]
    fn any_octets_are_survived(stream in vec(any::<u8>(), 0..300), context in context()) {
        decode_any(&stream, &context);
    }

    #[test]
    fn any_body_is_survived(code in 1u8..=5, body in vec(any::<u8>(), 0..300), context in context()) {
        let kind = [Kind::Open, Kind::Update, Kind::Notification, Kind::KeepAlive, Kind::RouteRefresh];
        decode_any(&message(kind[usize::from(code) - 1], |out| out.extend_from_slice(&body)), &context);
    }

    /// Deeper than random bodies come: a good message with some octets changed.
    #[test]
    fn a_mutated_update_is_survived(
        attributes in attributes(),
        prefixes in vec(ipv4_prefix(), 1..20),
        changes in vec((23usize..500, any::<u8>()), 1..6),
        context in context(),
    ) {
        let mut stream = announce(&attributes, Family::Ipv4Unicast, &prefixes, &internal()).unwrap().remove(0);
        for (at, value) in changes {
            let len = stream.len();
            if let Some(octet) = stream.get_mut(at % len) {
                *octet = value;
            }
        }
        decode_any(&stream, &context);
    }

    #[test]
    fn an_announcement_comes_back(
        attributes in attributes(),
        prefixes in vec(ipv4_prefix(), 1..300),
        four_octet in any::<bool>(),
    ) {
        let context = Context { four_octet, ..internal() };
        let messages = announce(&attributes, Family::Ipv4Unicast, &prefixes, &context).unwrap();
        let mut back = Vec::new();
        for message in &messages {
            let update = update::decode(Frame::next(message, false).unwrap().unwrap().body(), &context).unwrap();
            prop_assert_eq!(&update.faults, &[]);
            let [Announcement { family, attributes: decoded, prefixes }] = &update.announced[..] else {
                panic!("{update:?}");
            };
            prop_assert_eq!(decoded, &attributes);
            // The same octets again.
            prop_assert_eq!(&announce(decoded, *family, prefixes, &context).unwrap()[..], std::slice::from_ref(message));
            back.extend_from_slice(prefixes);
        }
        prop_assert_eq!(back, prefixes);
    }

    #[test]
    fn an_ipv6_announcement_comes_back(
        attributes in attributes(),
        next_hop in any::<u128>(),
        prefixes in vec(ipv6_prefix(), 1..300),
    ) {
        let next_hop = IpAddr::V6(Ipv6Addr::from(next_hop >> 3 | 1 << 125));
        let attributes = Attributes { next_hop, ..attributes };
        let mut back = Vec::new();
        for message in announce(&attributes, Family::Ipv6Unicast, &prefixes, &internal()).unwrap() {
            let frame = Frame::next(&message, false).unwrap().unwrap();
            let update = update::decode(frame.body(), &internal()).unwrap();
            prop_assert_eq!(&update.announced[0].attributes, &attributes);
            back.extend_from_slice(&update.announced[0].prefixes);
        }
        prop_assert_eq!(back, prefixes);
    }

    #[test]
    fn a_withdrawal_comes_back(prefixes in vec(ipv6_prefix(), 1..500)) {
        let mut back = Vec::new();
        for message in withdraw(Family::Ipv6Unicast, &prefixes, &external()) {
            let frame = Frame::next(&message, false).unwrap().unwrap();
            back.extend(update::decode(frame.body(), &external()).unwrap().withdrawn);
        }
        prop_assert_eq!(back, prefixes);
    }
}
