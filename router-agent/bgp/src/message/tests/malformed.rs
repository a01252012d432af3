//! The malformed-message table: a stream, and what it may cost. RFC 4271 §6, 5492, 6286, 6793, 7313, 7606, 7607,
//! 8092, 9072.

use super::{external, hex, internal, two_octet};
use crate::message::header::{Frame, Kind, message};
use crate::message::notification::Notification;
use crate::message::open::Open;
use crate::message::refresh::Refresh;
use crate::message::update::{self, Context, Disposition};

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Nothing to complain of.
    Fine,
    /// The attribute or prefix went, the routes stayed.
    Discard,
    /// The routes went.
    Withdraw,
    /// The session went, with that code and subcode.
    Reset(u8, u8),
    /// More octets are awaited.
    Incomplete,
}

use Outcome::{Discard, Fine, Incomplete, Reset, Withdraw};

enum Bytes {
    /// A whole stream.
    Raw(&'static str),
    Open(&'static str),
    /// Attributes, in front of `NLRI`.
    Attributes(&'static [&'static str]),
    /// Attributes, and no NLRI.
    Bare(&'static [&'static str]),
    /// The three fields of an UPDATE, lengths included.
    Body(&'static str),
}

use Bytes::{Attributes, Bare, Body, Open as OpenBody, Raw};

const MARKER: &str = "ffffffff ffffffff ffffffff ffffffff";
const NLRI: &str = "18 0a0100";
const O: &str = "40 01 01 00";
const P: &str = "40 02 06 02 01 0000fde9";
const N: &str = "40 03 04 c0000202";
const REACH: &str = "80 0e 1e 0002 01 10 20010db8000000000000000000000001 00 40 20010db800000001";

/// A name, the session, the bytes, what comes of them.
type Row = (&'static str, fn() -> Context, Bytes, Outcome);

#[rustfmt::skip]
const TABLE: &[Row] = &[
    // The header.
    ("keepalive", external, Raw("ffffffff ffffffff ffffffff ffffffff 0013 04"), Fine),
    ("marker not all ones", external, Raw("ffffffff ffffffff ffffffff fffffffe 0013 04"), Reset(1, 1)),
    ("marker zero, header not complete", external, Raw("00"), Reset(1, 1)),
    ("header cut off", external, Raw("ffffffff ffffffff ffffffff ffffffff 0013"), Incomplete),
    ("length 18", external, Raw("ffffffff ffffffff ffffffff ffffffff 0012 04"), Reset(1, 2)),
    ("length 0", external, Raw("ffffffff ffffffff ffffffff ffffffff 0000 02"), Reset(1, 2)),
    ("length 4097", external, Raw("ffffffff ffffffff ffffffff ffffffff 1001 02"), Reset(1, 2)),
    ("keepalive of 20", external, Raw("ffffffff ffffffff ffffffff ffffffff 0014 04 00"), Reset(1, 2)),
    ("open of 28", external, Raw("ffffffff ffffffff ffffffff ffffffff 001c 01"), Reset(1, 2)),
    ("update of 22", external, Raw("ffffffff ffffffff ffffffff ffffffff 0016 02"), Reset(1, 2)),
    ("notification of 20", external, Raw("ffffffff ffffffff ffffffff ffffffff 0014 03"), Reset(1, 2)),
    ("refresh of 22", external, Raw("ffffffff ffffffff ffffffff ffffffff 0016 05"), Reset(1, 2)),
    ("refresh of 24", external, Raw("ffffffff ffffffff ffffffff ffffffff 0018 05 0001 00 01 00"), Reset(7, 1)),
    ("refresh begin of 24", external, Raw("ffffffff ffffffff ffffffff ffffffff 0018 05 0001 01 01 00"), Reset(7, 1)),
    ("refresh subtype unknown", external, Raw("ffffffff ffffffff ffffffff ffffffff 0017 05 0001 07 01"), Fine),
    ("type 0", external, Raw("ffffffff ffffffff ffffffff ffffffff 0013 00"), Reset(1, 3)),
    ("type 6", external, Raw("ffffffff ffffffff ffffffff ffffffff 0013 06"), Reset(1, 3)),
    ("type 255", external, Raw("ffffffff ffffffff ffffffff ffffffff 0013 ff"), Reset(1, 3)),
    // OPEN.
    ("open without parameters", external, OpenBody("04 fde9 005a c0000202 00"), Fine),
    ("version 3", external, OpenBody("03 fde9 005a c0000202 00"), Reset(2, 1)),
    ("version 5", external, OpenBody("05 fde9 005a c0000202 00"), Reset(2, 1)),
    ("AS 0", external, OpenBody("04 0000 005a c0000202 00"), Reset(2, 2)),
    ("four-octet AS 0", external, OpenBody("04 5ba0 005a c0000202 08 02 06 41 04 00000000"), Reset(2, 2)),
    ("hold time 1", external, OpenBody("04 fde9 0001 c0000202 00"), Reset(2, 6)),
    ("hold time 2", external, OpenBody("04 fde9 0002 c0000202 00"), Reset(2, 6)),
    ("hold time 0", external, OpenBody("04 fde9 0000 c0000202 00"), Fine),
    ("hold time 3", external, OpenBody("04 fde9 0003 c0000202 00"), Fine),
    ("router id 0", external, OpenBody("04 fde9 005a 00000000 00"), Reset(2, 3)),
    ("parameter authentication", external, OpenBody("04 fde9 005a c0000202 03 01 01 00"), Reset(2, 4)),
    ("parameter unknown", external, OpenBody("04 fde9 005a c0000202 02 63 00"), Reset(2, 4)),
    ("parameters longer than the message", external, OpenBody("04 fde9 005a c0000202 08 02 02 02 00"), Reset(2, 0)),
    ("parameters shorter than the message", external, OpenBody("04 fde9 005a c0000202 00 02 02 02 00"), Reset(2, 0)),
    ("ends in a parameter's length", external, OpenBody("04 fde9 005a c0000202 01 02"), Reset(2, 0)),
    ("parameter overruns", external, OpenBody("04 fde9 005a c0000202 04 02 04 02 00"), Reset(2, 0)),
    ("capability overruns", external, OpenBody("04 fde9 005a c0000202 04 02 02 01 04"), Reset(2, 0)),
    ("capability AS of three octets", external, OpenBody("04 fde9 005a c0000202 07 02 05 41 03 00fde9"), Reset(2, 0)),
    ("multiprotocol of three octets", external, OpenBody("04 fde9 005a c0000202 07 02 05 01 03 000100"), Reset(2, 0)),
    ("graceful restart of five octets", external, OpenBody("04 fde9 005a c0000202 09 02 07 40 05 0078000101"), Reset(2, 0)),
    ("host name overruns itself", external, OpenBody("04 fde9 005a c0000202 06 02 04 49 02 0961"), Fine),
    ("capability unknown", external, OpenBody("04 fde9 005a c0000202 05 02 03 c8 01 07"), Fine),
    ("capabilities in one parameter each", external, OpenBody("04 fde9 005a c0000202 08 02 02 02 00 02 02 46 00"), Fine),
    ("extended parameters", external, OpenBody("04 fde9 005a c0000202 ff ff 0005 02 0002 0200"), Fine),
    ("extended parameters, short length", external, OpenBody("04 fde9 005a c0000202 01 ff 0005 02 0002 0200"), Fine),
    ("extended parameters overrun", external, OpenBody("04 fde9 005a c0000202 ff ff 0009 02 0002 0200"), Reset(2, 0)),
    ("extended parameter overruns", external, OpenBody("04 fde9 005a c0000202 ff ff 0005 02 0009 0200"), Reset(2, 0)),
    ("extended parameters end in their length", external, OpenBody("04 fde9 005a c0000202 ff ff 00"), Reset(2, 0)),
    // The fields of UPDATE.
    ("good route", external, Attributes(&[O, P, N]), Fine),
    ("end of RIB", external, Body("0000 0000"), Fine),
    ("withdrawn routes overrun", external, Body("0005 00 00"), Reset(3, 1)),
    ("attributes overrun", external, Body("0000 0005 40 01 01"), Reset(3, 1)),
    ("attributes' length cut off", external, Body("0001 00 00"), Reset(3, 1)),
    ("withdrawn /33", external, Body("0006 21 0a01000000 0000"), Reset(3, 10)),
    ("withdrawn prefix cut off", external, Body("0003 18 0a01 0000"), Reset(3, 10)),
    ("announced /33", external, Body("0000 0014 40010100 4002060201 0000fde9 400304c0000202 21 0a01000000"), Reset(3, 10)),
    ("announced prefix cut off", external, Body("0000 0014 40010100 4002060201 0000fde9 400304c0000202 18 0a01"), Reset(3, 10)),
    ("announced multicast prefix", external, Body("0000 0014 40010100 4002060201 0000fde9 400304c0000202 18 0a0100 08 e0"), Discard),
    // The block.
    ("last attribute overruns", external, Attributes(&[O, P, N, "80 04 05 00000001"]), Withdraw),
    ("attribute header cut off", external, Attributes(&[O, P, N, "80 04"]), Withdraw),
    ("extended length cut off", external, Attributes(&[O, P, N, "90 04 00"]), Withdraw),
    ("attribute overruns, no routes", external, Bare(&[O, "40 02 09 02 01 0000fde9"]), Reset(3, 5)),
    ("bad ORIGIN, no routes", external, Bare(&["40 01 01 09"]), Reset(3, 6)),
    ("bad AGGREGATOR, no routes", external, Bare(&["c0 07 01 00"]), Discard),
    ("ORIGIN twice", external, Attributes(&[O, P, N, "40 01 01 02"]), Discard),
    ("unknown twice", external, Attributes(&[O, P, N, "c0 63 01 01", "c0 63 01 02"]), Discard),
    ("MP_REACH twice", external, Bare(&[O, P, REACH, REACH]), Reset(3, 1)),
    ("MP_UNREACH twice", external, Bare(&["80 0f 03 0002 01", "80 0f 03 0002 01"]), Reset(3, 1)),
    ("ORIGIN missing", external, Attributes(&[P, N]), Withdraw),
    ("AS_PATH missing", external, Attributes(&[O, N]), Withdraw),
    ("NEXT_HOP missing", external, Attributes(&[O, P]), Withdraw),
    ("all missing", external, Attributes(&[]), Withdraw),
    ("LOCAL_PREF missing", internal, Attributes(&[O, P, N]), Fine),
    // ORIGIN, AS_PATH, NEXT_HOP.
    ("ORIGIN undefined", external, Attributes(&["40 01 01 03", P, N]), Withdraw),
    ("ORIGIN of two octets", external, Attributes(&["40 01 02 0000", P, N]), Withdraw),
    ("ORIGIN empty", external, Attributes(&["40 01 00", P, N]), Withdraw),
    ("ORIGIN optional", external, Attributes(&["c0 01 01 00", P, N]), Withdraw),
    ("ORIGIN not transitive", external, Attributes(&["00 01 01 00", P, N]), Withdraw),
    ("ORIGIN of extended length", external, Attributes(&["50 01 0001 00", P, N]), Fine),
    ("AS_PATH empty", internal, Attributes(&[O, "40 02 00", N]), Fine),
    ("segment empty", external, Attributes(&[O, "40 02 02 02 00", N]), Withdraw),
    ("segment overruns", external, Attributes(&[O, "40 02 06 02 02 0000fde9", N]), Withdraw),
    ("segment header cut off", external, Attributes(&[O, "40 02 07 02 01 0000fde9 02", N]), Withdraw),
    ("segment of kind 0", external, Attributes(&[O, "40 02 06 00 01 0000fde9", N]), Withdraw),
    ("segment of kind 5", external, Attributes(&[O, "40 02 06 05 01 0000fde9", N]), Withdraw),
    ("confederation segment", external, Attributes(&[O, "40 02 06 03 01 0000fde9", N]), Withdraw),
    ("AS 0 in the path", external, Attributes(&[O, "40 02 0a 02 02 0000fde9 00000000", N]), Withdraw),
    ("AS_PATH optional", external, Attributes(&[O, "c0 02 06 02 01 0000fde9", N]), Withdraw),
    ("two octets an AS", external, Attributes(&[O, "40 02 04 02 01 fde9", N]), Withdraw),
    ("NEXT_HOP of three octets", external, Attributes(&[O, P, "40 03 03 c00002"]), Withdraw),
    ("NEXT_HOP of sixteen octets", external, Attributes(&[O, P, "40 03 10 20010db8000000000000000000000001"]), Withdraw),
    ("NEXT_HOP 0.0.0.0", external, Attributes(&[O, P, "40 03 04 00000000"]), Withdraw),
    ("NEXT_HOP 127.0.0.1", external, Attributes(&[O, P, "40 03 04 7f000001"]), Withdraw),
    ("NEXT_HOP 224.0.0.1", external, Attributes(&[O, P, "40 03 04 e0000001"]), Withdraw),
    ("NEXT_HOP 255.255.255.255", external, Attributes(&[O, P, "40 03 04 ffffffff"]), Withdraw),
    ("NEXT_HOP is ours", external, Attributes(&[O, P, "40 03 04 c0000201"]), Withdraw),
    ("NEXT_HOP optional", external, Attributes(&[O, P, "c0 03 04 c0000202"]), Withdraw),
    // The others.
    ("MED of three octets", external, Attributes(&[O, P, N, "80 04 03 000001"]), Withdraw),
    ("MED well-known", external, Attributes(&[O, P, N, "40 04 04 00000001"]), Withdraw),
    ("LOCAL_PREF of three octets", internal, Attributes(&[O, P, N, "40 05 03 000001"]), Withdraw),
    ("LOCAL_PREF from outside", external, Attributes(&[O, P, N, "40 05 04 00000001"]), Discard),
    ("LOCAL_PREF of three octets from outside", external, Attributes(&[O, P, N, "40 05 03 000001"]), Discard),
    ("ATOMIC_AGGREGATE with a value", external, Attributes(&[O, P, N, "40 06 01 00"]), Discard),
    ("ATOMIC_AGGREGATE", external, Attributes(&[O, P, N, "40 06 00"]), Fine),
    ("AGGREGATOR of six octets", external, Attributes(&[O, P, N, "c0 07 06 fde9 c0000202"]), Discard),
    ("AGGREGATOR of eight octets from a two-octet peer", two_octet, Attributes(&[O, "40 02 04 02 01 fde9", N, "c0 07 08 0000fde9 c0000202"]), Discard),
    ("AGGREGATOR AS 0", external, Attributes(&[O, P, N, "c0 07 08 00000000 c0000202"]), Discard),
    ("AGGREGATOR not transitive", external, Attributes(&[O, P, N, "80 07 08 0000fde9 c0000202"]), Discard),
    ("COMMUNITIES of five octets", external, Attributes(&[O, P, N, "c0 08 05 fde9000101"]), Withdraw),
    ("COMMUNITIES empty", external, Attributes(&[O, P, N, "c0 08 00"]), Withdraw),
    ("COMMUNITIES not transitive", external, Attributes(&[O, P, N, "80 08 04 fde90001"]), Withdraw),
    ("ORIGINATOR_ID of five octets", internal, Attributes(&[O, P, N, "80 09 05 c000020200"]), Withdraw),
    ("ORIGINATOR_ID from outside", external, Attributes(&[O, P, N, "80 09 04 c0000202"]), Discard),
    ("CLUSTER_LIST of five octets", internal, Attributes(&[O, P, N, "80 0a 05 c000020200"]), Withdraw),
    ("CLUSTER_LIST empty", internal, Attributes(&[O, P, N, "80 0a 00"]), Withdraw),
    ("CLUSTER_LIST from outside", external, Attributes(&[O, P, N, "80 0a 04 c0000202"]), Discard),
    ("extended communities of seven octets", external, Attributes(&[O, P, N, "c0 10 07 00020000000000"]), Withdraw),
    ("extended communities empty", external, Attributes(&[O, P, N, "c0 10 00"]), Withdraw),
    ("large communities of eleven octets", external, Attributes(&[O, P, N, "c0 20 0b 0000fde900000001000000"]), Withdraw),
    ("large communities empty", external, Attributes(&[O, P, N, "c0 20 00"]), Withdraw),
    ("AS4_PATH from a four-octet peer", external, Attributes(&[O, P, N, "c0 11 06 02 01 0000fde9"]), Discard),
    ("AS4_PATH overruns", two_octet, Attributes(&[O, "40 02 04 02 01 5ba0", N, "c0 11 06 02 02 0000fde9"]), Discard),
    ("AS4_PATH with AS 0", two_octet, Attributes(&[O, "40 02 04 02 01 5ba0", N, "c0 11 06 02 01 00000000"]), Discard),
    ("AS4_AGGREGATOR of six octets", two_octet, Attributes(&[O, "40 02 04 02 01 fde9", N, "c0 12 06 000100000001"]), Discard),
    ("unknown well-known", external, Attributes(&[O, P, N, "40 63 01 00"]), Reset(3, 2)),
    ("unknown optional", external, Attributes(&[O, P, N, "80 63 01 00"]), Fine),
    ("unknown optional transitive", external, Attributes(&[O, P, N, "c0 63 01 00"]), Fine),
    // Multiprotocol.
    ("good IPv6 route", external, Bare(&[O, P, REACH]), Fine),
    ("IPv6 route with a bad NEXT_HOP beside it", external, Bare(&[O, P, "40 03 04 00000000", REACH]), Fine),
    ("MP_REACH next hop of five octets", external, Bare(&[O, P, "80 0e 13 0002 01 05 2001000000 00 40 20010db800000001"]), Reset(3, 9)),
    ("MP_REACH next hop overruns", external, Bare(&[O, P, "80 0e 06 0002 01 20 2001"]), Reset(3, 9)),
    ("MP_REACH prefix cut off", external, Bare(&[O, P, "80 0e 17 0002 01 10 20010db8000000000000000000000001 00 40 20"]), Reset(3, 9)),
    ("MP_REACH /129", external, Bare(&[O, P, "80 0e 16 0002 01 10 20010db8000000000000000000000001 00 81"]), Reset(3, 9)),
    ("MP_REACH overruns the block", external, Bare(&[O, P, "80 0e 40 0002 01 10"]), Reset(3, 9)),
    ("MP_REACH of two octets", external, Bare(&[O, P, "80 0e 02 0002"]), Reset(3, 9)),
    ("MP_REACH transitive", external, Bare(&[O, P, "c0 0e 1e 0002 01 10 20010db8000000000000000000000001 00 40 20010db800000001"]), Withdraw),
    ("MP_REACH next hop ::", external, Bare(&[O, P, "80 0e 1e 0002 01 10 00000000000000000000000000000000 00 40 20010db800000001"]), Withdraw),
    ("MP_REACH next hop multicast", external, Bare(&[O, P, "80 0e 1e 0002 01 10 ff020000000000000000000000000001 00 40 20010db800000001"]), Withdraw),
    ("MP_REACH of a family not agreed on", external, Bare(&[O, P, "80 0e 09 0019 41 04 c0000202 00"]), Discard),
    ("MP_REACH without ORIGIN", external, Bare(&[P, REACH]), Withdraw),
    ("MP_UNREACH of two octets", external, Bare(&["80 0f 02 0002"]), Reset(3, 9)),
    ("MP_UNREACH prefix cut off", external, Bare(&["80 0f 05 0002 01 40 20"]), Reset(3, 9)),
    ("MP_UNREACH of a family not agreed on", external, Bare(&["80 0f 03 0019 41"]), Discard),
];

fn bytes(row: &Bytes) -> Vec<u8> {
    let update = |attributes: &[&str], nlri: &str| {
        let attributes = hex(&attributes.concat());
        message(Kind::Update, |out| {
            out.extend_from_slice(&[0, 0]);
            out.extend_from_slice(&u16::try_from(attributes.len()).unwrap().to_be_bytes());
            out.extend_from_slice(&attributes);
            out.extend_from_slice(&hex(nlri));
        })
    };
    match row {
        Raw(stream) => hex(stream),
        OpenBody(body) => message(Kind::Open, |out| out.extend(hex(body))),
        Attributes(attributes) => update(attributes, NLRI),
        Bare(attributes) => update(attributes, ""),
        Body(body) => message(Kind::Update, |out| out.extend(hex(body))),
    }
}

fn outcome(stream: &[u8], context: &Context) -> Outcome {
    let reset = |notification: Notification| Reset(notification.code, notification.subcode);
    let frame = match Frame::next(stream, false) {
        Ok(Some(frame)) => frame,
        Ok(None) => return Incomplete,
        Err(notification) => return reset(notification),
    };
    let result = match frame.kind {
        Kind::Open => Open::decode(frame.body()).map(|_| Fine),
        Kind::RouteRefresh => Refresh::decode(&frame).map(|_| Fine),
        Kind::Update => update::decode(frame.body(), context).map(|update| {
            let worst = update.faults.iter().map(|fault| fault.disposition).max();
            let told = !update.announced.is_empty() || update.end_of_rib.is_some();
            match worst {
                None => {
                    assert!(told, "{update:?}");
                    Fine
                }
                Some(Disposition::Discard) => Discard,
                Some(Disposition::Withdraw) => {
                    assert!(update.announced.is_empty() && !update.withdrawn.is_empty(), "{update:?}");
                    Withdraw
                }
            }
        }),
        Kind::KeepAlive | Kind::Notification => Ok(Fine),
    };
    result.unwrap_or_else(reset)
}

#[test]
fn every_row_costs_what_it_should() {
    assert_eq!(hex(MARKER), [0xff; 16]);
    let wrong: Vec<String> = TABLE
        .iter()
        .filter_map(|(name, context, row, want)| {
            let have = outcome(&bytes(row), &context());
            (have != *want).then(|| format!("{name}: {have:?}, not {want:?}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_discarded_leaves_the_routes() {
    for (name, context, row, _) in TABLE.iter().filter(|(_, _, _, want)| *want == Discard) {
        let message = bytes(row);
        let frame = Frame::next(&message, false).unwrap().unwrap();
        let update = update::decode(frame.body(), &context()).unwrap();
        let announced = !matches!(row, Bare(_));
        assert_eq!(!update.announced.is_empty(), announced, "{name}: {update:?}");
        assert_eq!(update.withdrawn, [], "{name}");
    }
}

#[test]
fn every_message_cut_short_is_awaited_or_refused() {
    for (name, _, row, _) in TABLE {
        let stream = bytes(row);
        for cut in 0..stream.len() {
            if let Ok(Some(frame)) = Frame::next(&stream[..cut], false) {
                panic!("{name}: {frame:?} out of {cut} octets");
            }
        }
    }
}
