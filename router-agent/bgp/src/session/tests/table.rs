//! Every state against every input: the state after it, and what came out.

use super::{INBOUND, LOCAL, OUTBOUND, open, outputs, peer_in, seconds, words};
use crate::family::Family;
use crate::message::header::keepalive;
use crate::message::notification::{Notification, error};
use crate::message::refresh::Refresh;
use crate::message::update::end_of_rib;
use crate::session::{Input, Peer, State};

const STATES: [State; 6] =
    [State::Idle, State::Active, State::Connect, State::OpenSent, State::OpenConfirm, State::Established];

/// The input's name, and for each of `STATES` the state after it with the outputs' words.
type Row = (&'static str, [&'static str; 6]);

#[rustfmt::skip]
const TABLE: &[Row] = &[
    ("start", ["","","","","",""]),
    ("stop", ["","","","","",""]),
    ("remove", ["","","","","",""]),
    ("reset", ["","","","","",""]),
    ("connected, inbound", ["","","","","",""]),
    ("connected, outbound", ["","","","","",""]),
    ("connect failed", ["","","","","",""]),
    ("closed", ["","","","","",""]),
    ("open", ["","","","","",""]),
    ("keepalive", ["","","","","",""]),
    ("update", ["","","","","",""]),
    ("refresh", ["","","","","",""]),
    ("refresh of another family", ["","","","","",""]),
    ("notification", ["","","","","",""]),
    ("bad marker", ["","","","","",""]),
    ("bad type", ["","","","","",""]),
    ("half a message", ["","","","","",""]),
    ("ask for routes", ["","","","","",""]),
    ("blocked", ["","","","","",""]),
    ("progress", ["","","","","",""]),
    ("ten minutes", ["","","","","",""]),
];

fn apply(name: &str, peer: &mut Peer) {
    let now = seconds(2);
    let receive = |peer: &mut Peer, bytes: &[u8]| peer.handle(Input::Received(INBOUND, bytes), now);
    match name {
        "start" => peer.handle(Input::Start, now),
        "stop" => peer.handle(Input::Stop { communication: "bye" }, now),
        "remove" => peer.handle(Input::Remove, now),
        "reset" => peer.handle(Input::Reset { communication: "" }, now),
        "connected, inbound" => {
            let connection = crate::session::ConnectionId(3);
            peer.handle(Input::Connected { connection, outgoing: false, local: LOCAL }, now);
        }
        "connected, outbound" => {
            peer.handle(Input::Connected { connection: OUTBOUND, outgoing: true, local: LOCAL }, now);
        }
        "connect failed" => peer.handle(Input::ConnectFailed, now),
        "closed" => peer.handle(Input::Closed(INBOUND), now),
        "open" => receive(peer, &open(9).encode()),
        "keepalive" => receive(peer, &keepalive()),
        "update" => receive(peer, &end_of_rib(Family::Ipv4Unicast)),
        "refresh" => receive(peer, &Refresh::request(Family::Ipv4Unicast.code()).encode()),
        "refresh of another family" => receive(peer, &Refresh::request(Family::Ipv6Unicast.code()).encode()),
        "notification" => receive(peer, &Notification::new(error::ADMIN_RESET, &[]).encode()),
        "bad marker" => receive(peer, &[0; 19]),
        "bad type" => receive(peer, &[&[0xff; 16][..], &[0, 19, 9]].concat()),
        "half a message" => receive(peer, &keepalive()[..10]),
        "ask for routes" => peer.handle(Input::RequestRefresh(Family::Ipv4Unicast), now),
        "blocked" => peer.handle(Input::SendBlocked(INBOUND), now),
        "progress" => peer.handle(Input::SendProgress(INBOUND), now),
        "ten minutes" => peer.tick(seconds(600)),
        other => panic!("{other}"),
    }
}

#[test]
fn every_state_against_every_input() {
    let mut wrong = Vec::new();
    for (name, want) in TABLE {
        let have = STATES.map(|state| {
            let mut peer = peer_in(state);
            outputs(&mut peer);
            apply(name, &mut peer);
            let state = peer.state();
            format!("{state:?} {}", words(&mut peer)).trim_end().to_owned()
        });
        if have != *want {
            wrong.push(format!("(\"{name}\", {have:?}),"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
