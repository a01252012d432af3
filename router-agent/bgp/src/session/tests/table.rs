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
    ("start", ["Active", "Active", "Connect", "OpenSent", "OpenConfirm", "Established"]),
    ("stop", ["Idle", "Idle", "Idle abort", "Idle 6/2 close", "Idle 6/2 close", "Idle 6/2 close down-admin-down"]),
    ("remove", ["Idle", "Idle", "Idle abort", "Idle 6/3 close", "Idle 6/3 close", "Idle 6/3 close down-dying"]),
    ("reset", ["Idle", "Active", "Connect", "Idle 6/4 close", "Idle 6/4 close", "Idle 6/4 close down-sent"]),
    ("connected, inbound", ["Idle close", "OpenSent open", "OpenSent open", "OpenSent 6/7 close open", "OpenSent 6/7 close open", "Established 6/7 close"]),
    ("connected, outbound", ["Idle close-out", "Active close-out", "OpenSent open", "OpenSent close-out", "OpenConfirm close-out", "Established close-out"]),
    ("connect failed", ["Idle", "Active", "Active", "OpenSent", "OpenConfirm", "Established"]),
    ("closed", ["Idle", "Active", "Connect", "Active", "Active", "Idle down-read-failed"]),
    ("open", ["Idle", "Active", "Connect", "OpenConfirm keepalive", "Idle 5/2 close", "Idle 5/3 close down-sent"]),
    ("keepalive", ["Idle", "Active", "Connect", "Idle 5/1 close", "Established up", "Established"]),
    ("update", ["Idle", "Active", "Connect", "Idle 5/1 close", "Idle 5/2 close", "Established update"]),
    ("refresh", ["Idle", "Active", "Connect", "Idle 5/1 close", "Idle 5/2 close", "Established refresh"]),
    ("refresh of another family", ["Idle", "Active", "Connect", "Idle 5/1 close", "Idle 5/2 close", "Established"]),
    ("notification", ["Idle", "Active", "Connect", "Idle close", "Idle close", "Idle close down-received"]),
    ("bad marker", ["Idle", "Active", "Connect", "Idle 1/1 close", "Idle 1/1 close", "Idle 1/1 close down-sent"]),
    ("bad type", ["Idle", "Active", "Connect", "Idle 1/3 close", "Idle 1/3 close", "Idle 1/3 close down-sent"]),
    ("half a message", ["Idle", "Active", "Connect", "OpenSent", "OpenConfirm", "Established"]),
    ("ask for routes", ["Idle", "Active", "Connect", "OpenSent", "OpenConfirm", "Established ask"]),
    ("blocked", ["Idle", "Active", "Connect", "OpenSent", "OpenConfirm", "Established"]),
    ("progress", ["Idle", "Active", "Connect", "OpenSent", "OpenConfirm", "Established"]),
    ("ten minutes", ["Idle", "Connect connect", "Connect abort connect", "Idle 4/0 close", "Idle 4/0 close", "Idle 4/0 close down-hold-timer-expired"]),
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
