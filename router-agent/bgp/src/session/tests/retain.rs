//! The peer restarts: which of its routes are kept when the session is lost, and what makes them go.

use std::time::Duration;

use super::{INBOUND, LOCAL, config, open, outputs, seconds, words};
use crate::family::{Families, Family};
use crate::message::capability::{Capability, GracefulRestart};
use crate::message::header::keepalive;
use crate::message::notification::{Notification, error};
use crate::message::open::Open;
use crate::message::update::end_of_rib;
use crate::session::{ConnectionId, Input, Output, Peer, PeerConfig, RestartTerms, State};

const AGAIN: ConnectionId = ConnectionId(7);
const PATIENCE: Duration = Duration::from_mins(6);

fn both() -> Families {
    Families::from_iter(Family::ALL)
}

fn ours() -> PeerConfig {
    let terms = RestartTerms { restart_time: 90, restarting: false, patience: PATIENCE };
    PeerConfig { families: both(), graceful_restart: Some(terms), ..config() }
}

/// The neighbour's OPEN: both families, of which it names some in its capability, with their F bits. Its restart time is
/// twenty seconds.
fn offering(restarting: bool, families: &[(Family, bool)]) -> Open {
    let families = families.iter().map(|(family, forwarding)| (family.code(), *forwarding)).collect();
    let restart = GracefulRestart { restarting, restart_time: 20, families, notification: false };
    let mut offer = open(9);
    offer.capabilities.push(Capability::Multiprotocol(Family::Ipv6Unicast.code()));
    offer.capabilities.push(Capability::GracefulRestart(restart));
    offer
}

const V4: Family = Family::Ipv4Unicast;
const V6: Family = Family::Ipv6Unicast;

fn connect(peer: &mut Peer, connection: ConnectionId, offer: &Open, now: Duration) {
    peer.handle(Input::Connected { connection, outgoing: false, local: LOCAL }, now);
    peer.handle(Input::Received(connection, &offer.encode()), now);
    peer.handle(Input::Received(connection, &keepalive()), now);
}

/// Up since one second; the sessions before it and after it do not last as long as a collision may.
fn up(config: PeerConfig, offer: &Open) -> Peer {
    let mut peer = Peer::new(config);
    peer.handle(Input::Start, Duration::ZERO);
    connect(&mut peer, INBOUND, offer, seconds(1));
    assert_eq!(peer.state(), State::Established);
    outputs(&mut peer);
    peer
}

/// In words, with the families that are kept or go.
fn told(peer: &mut Peer) -> String {
    let names = |families: Families| {
        families.iter().map(|family| if family == V4 { "4" } else { "6" }).collect::<String>()
    };
    let word = |output: Output| match output {
        Output::Up(_) => Some("up".to_owned()),
        Output::Down(reason, kept) => Some(format!("{reason} keep[{}]", names(kept))),
        Output::Sweep(families) => Some(format!("sweep[{}]", names(families))),
        _ => None,
    };
    outputs(peer).into_iter().filter_map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn only_a_connection_that_ends_without_a_word_keeps_routes() {
    let full = offering(false, &[(V4, true), (V6, false)]);
    let notified = Notification::new(error::ADMIN_RESET, &[]).encode();
    let collided = Notification::new(error::COLLISION, &[]).encode();
    let end = |cause: &str, peer: &mut Peer| match cause {
        "closed" => peer.handle(Input::Closed(INBOUND), seconds(30)),
        "notification" => peer.handle(Input::Received(INBOUND, &notified), seconds(30)),
        "collision" => peer.handle(Input::Received(INBOUND, &collided), seconds(30)),
        "hold time" => peer.tick(seconds(40)),
        "garbage" => peer.handle(Input::Received(INBOUND, &[0; 19]), seconds(30)),
        "reset" => peer.handle(Input::Reset { communication: "" }, seconds(30)),
        "stop" => peer.handle(Input::Stop { communication: "" }, seconds(30)),
        "remove" => peer.handle(Input::Remove, seconds(30)),
        "another connection" => connect(peer, AGAIN, &full, seconds(30)),
        other => panic!("{other}"),
    };
    let rows = [
        ("closed", "graceful-restart keep[46]"),
        ("notification", "notification-received code 6(cease) subcode 4(administrative reset) keep[]"),
        ("collision", "graceful-restart keep[46]"),
        ("hold time", "hold-timer-expired keep[]"),
        ("garbage", "notification-sent code 1(header) subcode 1(connection not synchronized) keep[]"),
        ("reset", "notification-sent code 6(cease) subcode 4(administrative reset) keep[]"),
        ("stop", "admin-down keep[]"),
        ("remove", "dying keep[]"),
        ("another connection", "graceful-restart keep[46] sweep[6] up"),
    ];
    for (cause, expected) in rows {
        let mut peer = up(ours(), &full);
        end(cause, &mut peer);
        assert_eq!(told(&mut peer), expected, "{cause}");
        assert_eq!(peer.is_restarting(), expected.contains("keep[46]"), "{cause}");
    }
}

#[test]
fn what_is_kept_is_what_both_sides_named() {
    let plain = open(9);
    let off = PeerConfig { graceful_restart: None, ..ours() };
    let v4_alone = PeerConfig { families: Families::NONE.with(V4), ..ours() };
    let rows = [
        ("both families", ours(), offering(false, &[(V4, true), (V6, true)]), "graceful-restart keep[46]"),
        ("one of two", ours(), offering(false, &[(V6, true)]), "graceful-restart keep[6]"),
        ("none, which only helps", ours(), offering(false, &[]), "read-failed keep[]"),
        ("no capability", ours(), plain, "read-failed keep[]"),
        ("off here", off, offering(false, &[(V4, true)]), "read-failed keep[]"),
        ("not negotiated", v4_alone, offering(false, &[(V4, true), (V6, true)]), "graceful-restart keep[4]"),
    ];
    for (name, config, offer, expected) in rows {
        let mut peer = up(config, &offer);
        peer.handle(Input::Closed(INBOUND), seconds(30));
        assert_eq!(told(&mut peer), expected, "{name}");
    }
}

/// Away since thirty seconds, with the routes of both families kept until fifty.
fn away() -> Peer {
    let mut peer = up(ours(), &offering(false, &[(V4, true), (V6, true)]));
    peer.handle(Input::Closed(INBOUND), seconds(30));
    assert_eq!(told(&mut peer), "graceful-restart keep[46]");
    peer
}

/// What the peer names when it is back, with its F bits; and what comes of it, of End-of-RIB for IPv6, and for IPv4.
type Row = (&'static str, &'static [(Family, bool)], &'static str);

#[test]
fn what_is_kept_goes_by_the_bits_of_the_next_open_by_end_of_rib_and_by_time() {
    let back = |families: &[(Family, bool)]| offering(true, families);
    let rows: &[Row] = &[
        ("forwarding both", &[(V4, true), (V6, true)], "up | sweep[6] | sweep[4]"),
        ("forwarding one", &[(V4, true), (V6, false)], "sweep[6] up | | sweep[4]"),
        ("naming one", &[(V6, true)], "sweep[4] up | sweep[6] |"),
        ("forwarding none", &[(V4, false), (V6, false)], "sweep[46] up | |"),
        ("naming none", &[], "sweep[46] up | |"),
    ];
    for (name, families, expected) in rows {
        let mut peer = away();
        connect(&mut peer, AGAIN, &back(families), seconds(40));
        let first = told(&mut peer);
        peer.handle(Input::Received(AGAIN, &end_of_rib(V6)), seconds(41));
        let second = told(&mut peer);
        peer.handle(Input::Received(AGAIN, &end_of_rib(V4)), seconds(42));
        let third = told(&mut peer);
        let have = format!("{first} | {second} | {third}").replace("  ", " ");
        assert_eq!(have.trim_end(), *expected, "{name}");
        assert!(!peer.is_restarting(), "{name}");
    }
    let mut peer = away();
    connect(&mut peer, AGAIN, &open(9), seconds(40));
    assert_eq!(told(&mut peer), "sweep[46] up", "without the capability");
}

#[test]
fn a_peer_that_does_not_come_back_in_time_loses_its_routes() {
    let mut peer = away();
    while let Some(at) = peer.next_deadline().filter(|at| *at < seconds(50)) {
        peer.tick(at);
        assert_eq!(told(&mut peer), "");
    }
    assert_eq!(peer.next_deadline(), Some(seconds(50)));
    peer.tick(seconds(50));
    assert_eq!(told(&mut peer), "sweep[46]");
    // A session after that is like a first one.
    connect(&mut peer, AGAIN, &offering(true, &[(V4, true)]), seconds(60));
    peer.handle(Input::Received(AGAIN, &end_of_rib(V4)), seconds(61));
    assert_eq!(told(&mut peer), "up");
}

#[test]
fn a_peer_that_is_back_has_our_patience_for_its_table() {
    let mut peer = away();
    connect(&mut peer, AGAIN, &offering(true, &[(V4, true), (V6, true)]), seconds(40));
    assert_eq!(told(&mut peer), "up");
    for second in 41..400 {
        peer.handle(Input::Received(AGAIN, &keepalive()), seconds(second));
        peer.tick(seconds(second));
        assert_eq!(told(&mut peer), "", "{second}");
    }
    peer.tick(seconds(40) + PATIENCE);
    assert_eq!(told(&mut peer), "sweep[46]");
    assert_eq!(peer.state(), State::Established);
}

#[test]
fn a_second_loss_begins_anew_and_a_word_ends_it() {
    let full = offering(true, &[(V4, true), (V6, true)]);
    let mut peer = away();
    connect(&mut peer, AGAIN, &full, seconds(40));
    peer.handle(Input::Received(AGAIN, &end_of_rib(V4)), seconds(41));
    peer.handle(Input::Closed(AGAIN), seconds(45));
    assert_eq!(told(&mut peer), "up sweep[4] sweep[6] graceful-restart keep[46]");
    peer.tick(seconds(64));
    assert_eq!(told(&mut peer), "");
    connect(&mut peer, ConnectionId(8), &full, seconds(64));
    peer.handle(Input::Reset { communication: "" }, seconds(64));
    let reset = "notification-sent code 6(cease) subcode 4(administrative reset)";
    assert_eq!(told(&mut peer), format!("up {reset} keep[]"));
    assert!(!peer.is_restarting());
}

/// Two that dial each other may both give up a connection before they agree on one.
#[test]
fn a_session_that_does_not_last_is_none() {
    let full = offering(true, &[(V4, true), (V6, true)]);
    let mut peer = away();
    for (at, connection) in [(31, ConnectionId(10)), (35, ConnectionId(11)), (39, ConnectionId(12))] {
        connect(&mut peer, connection, &full, seconds(at));
        peer.handle(Input::Closed(connection), seconds(at + 1));
        assert_eq!(told(&mut peer), "up graceful-restart keep[46]");
    }
    peer.tick(seconds(50));
    assert_eq!(told(&mut peer), "sweep[46]", "twenty seconds after the first loss");
}

#[test]
fn stopping_or_removing_an_absent_peer_lets_its_routes_go() {
    for input in [Input::Stop { communication: "" }, Input::Remove] {
        let mut peer = away();
        peer.handle(input, seconds(31));
        assert_eq!(told(&mut peer), "sweep[46]");
        assert_eq!(peer.next_deadline(), None);
    }
}

#[test]
fn a_second_connection_that_says_nothing_disturbs_nobody() {
    let mut peer = up(ours(), &offering(false, &[(V4, true)]));
    // Too early to be of a peer that has restarted: the two have met.
    peer.handle(Input::Connected { connection: AGAIN, outgoing: false, local: LOCAL }, seconds(5));
    assert_eq!(words(&mut peer), "6/7 close");
    for (second, said) in [(7, "open"), (8, "6/7 close open")] {
        let connection = ConnectionId(second);
        peer.handle(Input::Connected { connection, outgoing: false, local: LOCAL }, seconds(second));
        assert_eq!((words(&mut peer), peer.state()), (said.to_owned(), State::Established));
    }
    peer.handle(Input::Received(ConnectionId(8), &[0; 19]), seconds(9));
    assert_eq!((words(&mut peer), peer.state()), ("1/1 close".to_owned(), State::Established));
}

#[test]
fn an_absent_peer_is_dialled_often() {
    let mut peer = away();
    let mut last = seconds(30);
    while let Some(at) = peer.next_deadline().filter(|at| *at < seconds(50)) {
        peer.tick(at);
        if words(&mut peer).contains("connect") {
            assert!(at <= last + seconds(6), "{last:?} {at:?}");
            last = at;
            peer.handle(Input::ConnectFailed, at);
        }
    }
    assert!(last > seconds(44), "{last:?}");
}

#[test]
fn the_open_says_that_we_have_restarted_until_that_is_over() {
    let terms = RestartTerms { restart_time: 90, restarting: true, patience: PATIENCE };
    let mut peer = Peer::new(PeerConfig { graceful_restart: Some(terms), ..ours() });
    peer.handle(Input::Start, Duration::ZERO);
    let said = |peer: &Peer| {
        let capabilities = peer.config().open().capabilities;
        capabilities.into_iter().find_map(|capability| match capability {
            Capability::GracefulRestart(restart) => Some(restart),
            _ => None,
        })
    };
    let families = [(V4.code(), true), (V6.code(), true)].into();
    let expected = GracefulRestart { restarting: true, notification: false, restart_time: 90, families };
    assert_eq!(said(&peer), Some(expected.clone()));
    peer.handle(Input::Restarted, seconds(1));
    assert_eq!(said(&peer), Some(GracefulRestart { restarting: false, ..expected }));
}
