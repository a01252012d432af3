//! Each kind of wrong message, and the answer: RFC 4271 §6, as RFC 7606 revises it.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use router_bgp::message::header::keepalive;
use router_tests::peers::scripted::{Conversation, Heard, Scripted};
use router_tests::topology::NODE;

use super::{LIMIT, learned, start, wait};

const ASN: u32 = 65000;
const HOLD_TIME: u16 = 90;
const NEXT_HOP: [u8; 4] = [192, 168, 77, 1];

const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const NOTIFICATION: u8 = 3;
const KEEPALIVE: u8 = 4;
const REFRESH: u8 = 5;

/// Attribute flags: well-known, optional, optional and transitive.
const W: u8 = 0x40;
const O: u8 = 0x80;
const T: u8 = 0xc0;

/// What is sent, and when.
enum Sent {
    /// In place of the OPEN.
    First(Vec<u8>),
    /// After the OPEN, in place of the KEEPALIVE.
    Second(Vec<u8>),
    /// Once the session is up.
    Then(Vec<u8>),
    /// The same: the row's route anew, with these attributes.
    Route(Vec<u8>),
}

/// What becomes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    /// This NOTIFICATION, and the end.
    Ends(u8, u8),
    /// The end without a word.
    Closes,
    /// The session goes on without the route.
    Withdrawn,
    /// The session and the route go on.
    Stands,
}

use Answer::{Closes, Ends, Stands, Withdrawn};
use Sent::{First, Route, Second, Then};

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    framed([0xff; 16], u16::try_from(body.len() + 19).unwrap(), kind, body)
}

fn framed(marker: [u8; 16], length: u16, kind: u8, body: &[u8]) -> Vec<u8> {
    [&marker[..], &length.to_be_bytes(), &[kind], body].concat()
}

/// An OPEN's body with four-octet AS in it, and this in front of its end.
fn open(version: u8, asn: u16, hold_time: u16, id: [u8; 4], parameters: &[u8]) -> Vec<u8> {
    let four_octet = [&[2, 6, 65, 4][..], &u32::from(asn).to_be_bytes()].concat();
    let parameters = [&four_octet, parameters].concat();
    let length = u8::try_from(parameters.len()).unwrap();
    let fixed = [&[version][..], &asn.to_be_bytes(), &hold_time.to_be_bytes(), &id, &[length]].concat();
    frame(OPEN, &[fixed, parameters].concat())
}

fn good(asn: u16, hold_time: u16) -> Vec<u8> {
    open(4, asn, hold_time, NEXT_HOP, &[])
}

fn attribute(flags: u8, kind: u8, value: &[u8]) -> Vec<u8> {
    [&[flags, kind, u8::try_from(value.len()).unwrap()], value].concat()
}

fn origin() -> Vec<u8> {
    attribute(W, 1, &[0])
}

fn path(value: &[u8]) -> Vec<u8> {
    attribute(W, 2, value)
}

fn path_of(asns: &[u32]) -> Vec<u8> {
    let numbers: Vec<u8> = asns.iter().flat_map(|asn| asn.to_be_bytes()).collect();
    path(&[&[2, u8::try_from(asns.len()).unwrap()], &numbers[..]].concat())
}

fn next_hop(value: &[u8]) -> Vec<u8> {
    attribute(W, 3, value)
}

/// The three that must be there, and more.
fn with(more: &[u8]) -> Vec<u8> {
    [&origin(), &path_of(&[ASN]), &next_hop(&NEXT_HOP), more].concat()
}

fn update(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let length = |field: &[u8]| u16::try_from(field.len()).unwrap().to_be_bytes();
    frame(UPDATE, &[&length(withdrawn), withdrawn, &length(attributes), attributes, nlri].concat())
}

fn openings() -> Vec<(&'static str, Sent, Answer)> {
    let asn = u16::try_from(ASN).unwrap();
    let mut marker = [0xff; 16];
    marker[7] = 0;
    vec![
        ("a marker with a zero in it", First(framed(marker, 19, KEEPALIVE, &[])), Ends(1, 1)),
        ("a length of 18", First(framed([0xff; 16], 18, KEEPALIVE, &[])), Ends(1, 2)),
        ("a length of 4097", First(framed([0xff; 16], 4097, OPEN, &[])), Ends(1, 2)),
        ("an OPEN of 28 octets", First(frame(OPEN, &[4; 9])), Ends(1, 2)),
        ("type 0", First(frame(0, &[])), Ends(1, 3)),
        ("type 9", First(frame(9, &[])), Ends(1, 3)),
        ("version 3", First(open(3, asn, 90, NEXT_HOP, &[])), Ends(2, 1)),
        ("another AS", First(good(65099, 90)), Ends(2, 2)),
        ("AS 0", First(good(0, 90)), Ends(2, 2)),
        ("identifier 0.0.0.0", First(open(4, asn, 90, [0; 4], &[])), Ends(2, 3)),
        ("an unknown optional parameter", First(open(4, asn, 90, NEXT_HOP, &[7, 1, 0])), Ends(2, 4)),
        ("hold time 1", First(good(asn, 1)), Ends(2, 6)),
        ("hold time 2", First(good(asn, 2)), Ends(2, 6)),
        ("a capability that overruns", First(open(4, asn, 90, NEXT_HOP, &[2, 2, 200, 9])), Ends(2, 0)),
        ("a parameter that overruns", First(open(4, asn, 90, NEXT_HOP, &[2, 9, 200, 0])), Ends(2, 0)),
        ("a KEEPALIVE for an OPEN", First(keepalive()), Ends(5, 1)),
        ("an UPDATE for an OPEN", First(update(&[], &[], &[])), Ends(5, 1)),
        ("a NOTIFICATION for an OPEN", First(frame(NOTIFICATION, &[6, 5])), Closes),
        ("a second OPEN", Second(good(asn, 90)), Ends(5, 2)),
        ("an UPDATE for a KEEPALIVE", Second(update(&[], &[], &[])), Ends(5, 2)),
        ("an unknown capability", First(open(4, asn, 90, NEXT_HOP, &[2, 4, 200, 2, 1, 2])), Stands),
        ("hold time 0", First(good(asn, 0)), Stands),
    ]
}

fn messages() -> Vec<(&'static str, Sent, Answer)> {
    let asn = u16::try_from(ASN).unwrap();
    let reach = |afi| attribute(O, 14, &[&[0, afi, 1, 4][..], &NEXT_HOP, &[0, 24, 62, 0, 0]].concat());
    vec![
        ("an OPEN in a session", Then(good(asn, 90)), Ends(5, 3)),
        ("a marker of zeros in a session", Then(framed([0; 16], 19, KEEPALIVE, &[])), Ends(1, 1)),
        ("a KEEPALIVE of 20 octets", Then(frame(KEEPALIVE, &[0])), Ends(1, 2)),
        ("a length of 4097 in a session", Then(framed([0xff; 16], 4097, UPDATE, &[])), Ends(1, 2)),
        ("type 6 in a session", Then(frame(6, &[])), Ends(1, 3)),
        ("a NOTIFICATION of 20 octets", Then(frame(NOTIFICATION, &[6])), Ends(1, 2)),
        ("a NOTIFICATION", Then(frame(NOTIFICATION, &[6, 2])), Closes),
        ("withdrawn routes that overrun", Then(frame(UPDATE, &[0, 9, 0, 0])), Ends(3, 1)),
        ("attributes that overrun", Then(frame(UPDATE, &[0, 0, 0, 9, 0])), Ends(3, 1)),
        ("a withdrawn prefix of 33 bits", Then(update(&[33, 1, 1, 1, 1, 1], &[], &[])), Ends(3, 10)),
        ("a prefix of 33 bits", Then(update(&[], &with(&[]), &[33, 1, 1, 1, 1, 1])), Ends(3, 10)),
        ("a prefix that overruns", Then(update(&[], &with(&[]), &[24, 60])), Ends(3, 10)),
        ("two MP_REACH_NLRI", Route(with(&[reach(1), reach(1)].concat())), Ends(3, 1)),
        ("MP_REACH_NLRI cut off", Route(with(&attribute(O, 14, &[0, 1]))), Ends(3, 9)),
        ("a ROUTE-REFRESH of 24 octets", Then(frame(REFRESH, &[0, 1, 0, 1, 0])), Ends(7, 1)),
        ("a ROUTE-REFRESH for a family of others", Then(frame(REFRESH, &[0, 25, 0, 65])), Stands),
        ("a ROUTE-REFRESH of an unknown subtype", Then(frame(REFRESH, &[0, 1, 9, 1, 0])), Stands),
        ("a KEEPALIVE", Then(keepalive()), Stands),
    ]
}

fn routes() -> Vec<(&'static str, Sent, Answer)> {
    let hop = || next_hop(&NEXT_HOP);
    let good_path = || path_of(&[ASN]);
    let parts = |origin: Vec<u8>, path: Vec<u8>, hop: Vec<u8>| Route([origin, path, hop].concat());
    let hops_of = |value: &[u8]| parts(origin(), good_path(), next_hop(value));
    let path_with = |value: &[u8]| parts(origin(), path(value), hop());
    vec![
        ("ORIGIN 3", parts(attribute(W, 1, &[3]), good_path(), hop()), Withdrawn),
        ("ORIGIN of two octets", parts(attribute(W, 1, &[0, 0]), good_path(), hop()), Withdrawn),
        ("ORIGIN that is optional", parts(attribute(T, 1, &[0]), good_path(), hop()), Withdrawn),
        ("no ORIGIN", parts(vec![], good_path(), hop()), Withdrawn),
        ("a path segment that overruns", path_with(&[2, 2, 0, 0, 253, 232]), Withdrawn),
        ("a path segment of no length", path_with(&[2]), Withdrawn),
        ("an empty path segment", path_with(&[2, 0]), Withdrawn),
        ("a path segment of kind 9", path_with(&[9, 1, 0, 0, 253, 232]), Withdrawn),
        ("a confederation's path segment", path_with(&[3, 1, 0, 0, 253, 232]), Withdrawn),
        ("AS 0 in the path", parts(origin(), path_of(&[ASN, 0]), hop()), Withdrawn),
        ("our AS in the path", parts(origin(), path_of(&[ASN, 64512]), hop()), Withdrawn),
        ("no AS_PATH", parts(origin(), vec![], hop()), Withdrawn),
        ("NEXT_HOP of five octets", hops_of(&[192, 168, 77, 1, 0]), Withdrawn),
        ("NEXT_HOP 0.0.0.0", hops_of(&[0; 4]), Withdrawn),
        ("NEXT_HOP 127.0.0.1", hops_of(&[127, 0, 0, 1]), Withdrawn),
        ("NEXT_HOP 224.0.0.5", hops_of(&[224, 0, 0, 5]), Withdrawn),
        ("NEXT_HOP is ourselves", hops_of(&NODE.octets()), Withdrawn),
        ("no NEXT_HOP", parts(origin(), good_path(), vec![]), Withdrawn),
        ("MULTI_EXIT_DISC of three octets", Route(with(&attribute(O, 4, &[0; 3]))), Withdrawn),
        ("COMMUNITIES of five octets", Route(with(&attribute(T, 8, &[0; 5]))), Withdrawn),
        ("an attribute that overruns", Route(with(&[O, 4, 200, 0])), Withdrawn),
        ("a well-known attribute that nobody knows", Route(with(&attribute(W, 99, &[]))), Ends(3, 2)),
        ("an optional attribute that nobody knows", Route(with(&attribute(T, 99, &[1]))), Stands),
        ("ORIGIN twice", Route(with(&attribute(W, 1, &[1]))), Stands),
        ("AGGREGATOR of three octets", Route(with(&attribute(T, 7, &[0; 3]))), Stands),
        ("ATOMIC_AGGREGATE of one octet", Route(with(&attribute(W, 6, &[0]))), Stands),
        ("LOCAL_PREF from outside", Route(with(&attribute(W, 5, &[0; 4]))), Stands),
        ("AS4_PATH that is malformed", Route(with(&attribute(T, 17, &[9]))), Stands),
        (
            "a family that was not agreed on",
            {
                let reach = attribute(O, 14, &[0, 25, 65, 0, 0, 1, 2, 3]);
                Route(with(&reach))
            },
            Stands,
        ),
    ]
}

fn prefix(first: u8, row: usize) -> IpNet {
    let address = Ipv4Addr::new(first, 0, u8::try_from(row).unwrap(), 0);
    IpNet::V4(Ipv4Net::new(address, 24).unwrap())
}

/// As far as the point where the row's message is due, and with it if that is before the session is up.
fn begin(peer: &Scripted, sent: &Sent, answer: Answer, row: usize) -> Conversation {
    let mut conversation = peer.accept(LIMIT).unwrap();
    let open = peer.open(HOLD_TIME).encode();
    match sent {
        First(bytes) if answer == Stands => conversation.establish(bytes).unwrap(),
        First(bytes) => conversation.send(bytes).unwrap(),
        Second(bytes) => conversation.send(&[open, bytes.clone()].concat()).unwrap(),
        Then(_) | Route(_) => conversation.establish(&open).unwrap(),
    }
    if !is_early(sent) || answer == Stands {
        conversation.announce(&[prefix(60, row)]).unwrap();
    }
    conversation
}

const fn is_early(sent: &Sent) -> bool {
    matches!(sent, First(_) | Second(_))
}

/// A peer for each row, so that none waits for another one's penance.
#[test]
fn each_malformed_message_gets_the_answer_of_its_kind() {
    let rows: Vec<_> = [openings(), messages(), routes()].into_iter().flatten().collect();
    let address = |row: usize| Ipv4Addr::new(192, 168, 77, u8::try_from(row + 100).unwrap());
    let peers: Vec<_> = (0..rows.len()).map(|row| (address(row), ASN)).collect();
    let (world, peers) = start("malformed", &peers, &[]);
    let mut conversations: Vec<Conversation> = Vec::new();
    for (row, (peer, (_, sent, answer))) in peers.iter().zip(&rows).enumerate() {
        conversations.push(begin(peer, sent, *answer, row));
    }
    let lasts = |sent: &Sent, answer: Answer| !is_early(sent) || answer == Stands;
    let up = rows.iter().filter(|(_, sent, answer)| lasts(sent, *answer)).count();
    wait(&world, "a route of each session", || learned(&world).len() == up);

    for (row, (conversation, (_, sent, answer))) in conversations.iter_mut().zip(&rows).enumerate() {
        let bytes = match sent {
            Then(bytes) => bytes.clone(),
            Route(attributes) => update(&[], attributes, &[24, 60, 0, u8::try_from(row).unwrap()]),
            First(_) | Second(_) => Vec::new(),
        };
        conversation.send(&bytes).unwrap();
        if matches!(answer, Withdrawn | Stands) {
            conversation.announce(&[prefix(61, row)]).unwrap();
        }
    }
    let expected = || {
        rows.iter().enumerate().flat_map(|(row, (_, _, answer))| {
            let first = (*answer == Stands).then(|| prefix(60, row));
            let second = matches!(answer, Withdrawn | Stands).then(|| prefix(61, row));
            first.into_iter().chain(second)
        })
    };
    let mut wrong = Vec::new();
    for (conversation, (name, _, answer)) in conversations.iter_mut().zip(&rows) {
        let heard = match answer {
            Ends(..) | Closes => conversation.end(LIMIT).unwrap(),
            Withdrawn | Stands => conversation.end(Duration::from_millis(20)).unwrap(),
        };
        let wanted = match answer {
            Ends(code, subcode) => Heard::Notification(*code, *subcode),
            Closes => Heard::Closed,
            Withdrawn | Stands => Heard::Nothing,
        };
        if heard != wanted {
            wrong.push(format!("{name}: {heard:?}, not {wanted:?}"));
        } else if matches!(answer, Ends(..)) && conversation.end(LIMIT).unwrap() != Heard::Closed {
            wrong.push(format!("{name}: not closed"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let right = expected().collect();
    wait(&world, "the routes that are left", || learned(&world) == right);
}
