//! What two OPENs agree on, and who is refused.

use std::time::Duration;

use super::{INBOUND, OUTBOUND, config, notifications, open, outputs, peer_in, seconds, words};
use crate::asn::Asn;
use crate::family::{Families, Family};
use crate::message::capability::{Capability, GracefulRestart};
use crate::message::header::{EXTENDED_MAX_LEN, MAX_LEN, keepalive};
use crate::message::notification::error;
use crate::message::open::Open;
use crate::session::{Input, Peer, PeerConfig, Session, State};

fn session(config: PeerConfig, theirs: &Open) -> Session {
    let mut peer = Peer::new(config);
    peer.handle(Input::Start, Duration::ZERO);
    peer.handle(Input::Connected { connection: INBOUND, outgoing: false, local: super::LOCAL }, seconds(1));
    peer.handle(Input::Received(INBOUND, &theirs.encode()), seconds(1));
    peer.handle(Input::Received(INBOUND, &keepalive()), seconds(1));
    peer.session().unwrap().clone()
}

#[test]
fn the_lower_hold_time_counts() {
    let agreed = session(config(), &open(9));
    assert_eq!((agreed.hold_time, agreed.keepalive_interval), (seconds(30), seconds(10)));
    assert_eq!(session(config(), &Open { hold_time: 240, ..open(9) }).hold_time, seconds(90));
    assert_eq!(session(config(), &Open { hold_time: 0, ..open(9) }).hold_time, Duration::ZERO);
}

#[test]
fn families_are_those_of_both() {
    let v4 = Families::NONE.with(Family::Ipv4Unicast);
    let both = v4.with(Family::Ipv6Unicast);
    let dual = PeerConfig { families: both, ..config() };
    assert_eq!(session(dual.clone(), &open(9)).context.families, v4);
    // Without any multiprotocol capability IPv4 is meant.
    let silent = session(dual.clone(), &Open { capabilities: vec![], ..open(9) });
    assert_eq!(silent.context.families, v4);
    assert!(!silent.context.four_octet && !silent.route_refresh);
    let v6 = Open { capabilities: vec![Capability::Multiprotocol(Family::Ipv6Unicast.code())], ..open(9) };
    assert_eq!(session(dual, &v6).context.families, Families::NONE.with(Family::Ipv6Unicast));
}

#[test]
fn capabilities_count_only_if_both_have_them() {
    let next_hop = Capability::ExtendedNextHop(Box::new([(Family::Ipv4Unicast.code(), 2)]));
    let restart = GracefulRestart { restart_time: 120, ..GracefulRestart::default() };
    let mut theirs = open(9);
    theirs.capabilities.extend([
        Capability::ExtendedMessage,
        next_hop.clone(),
        Capability::GracefulRestart(restart.clone()),
    ]);
    let plain = session(config(), &theirs);
    assert!(plain.context.four_octet && !plain.context.extended_next_hop && !plain.context.internal);
    assert_eq!((plain.context.max_len, plain.graceful_restart), (EXTENDED_MAX_LEN, Some(restart)));
    let offering = session(PeerConfig { capabilities: vec![next_hop], ..config() }, &theirs);
    assert!(offering.context.extended_next_hop);
    assert_eq!(session(config(), &open(9)).context.max_len, MAX_LEN);
}

fn refusal(config: PeerConfig, theirs: &Open) -> Option<(u8, u8)> {
    let mut peer = Peer::new(config);
    peer.handle(Input::Start, Duration::ZERO);
    peer.handle(Input::Connected { connection: INBOUND, outgoing: false, local: super::LOCAL }, seconds(1));
    peer.handle(Input::Received(INBOUND, &theirs.encode()), seconds(1));
    notifications(&mut peer).first().map(super::Notification::error)
}

#[test]
fn a_stranger_is_refused() {
    let internal = PeerConfig { peer_asn: Asn(65000), ..config() };
    let ours = |last| Open { asn: Asn(65000), ..open(last) };
    let named = |asn| Open { capabilities: vec![], asn, ..open(9) };
    assert_eq!(refusal(config(), &open(9)), None);
    assert_eq!(refusal(config(), &named(Asn(65002))), Some(error::BAD_PEER_AS));
    assert_eq!(refusal(config(), &named(Asn(65001))), None);
    assert_eq!(refusal(internal.clone(), &Open { capabilities: vec![], ..ours(9) }), None);
    assert_eq!(refusal(internal, &Open { capabilities: vec![], ..ours(5) }), Some(error::BAD_ROUTER_ID));
    // Only within an AS are router ids unique (RFC 6286).
    assert_eq!(refusal(config(), &open(5)), None);
    assert_eq!(refusal(config(), &Open { hold_time: 2, ..open(9) }), Some(error::UNACCEPTABLE_HOLD_TIME));
}

/// Both connections have sent their OPEN; the peer's come in that order.
fn collision(their_id: u8, first: super::ConnectionId, second: super::ConnectionId) -> String {
    let mut peer = peer_in(State::Connect);
    let local = super::LOCAL;
    peer.handle(Input::Connected { connection: OUTBOUND, outgoing: true, local }, seconds(1));
    peer.handle(Input::Connected { connection: INBOUND, outgoing: false, local }, seconds(1));
    peer.handle(Input::Received(first, &open(their_id).encode()), seconds(1));
    outputs(&mut peer);
    peer.handle(Input::Received(second, &open(their_id).encode()), seconds(1));
    let said = words(&mut peer);
    for id in [first, second] {
        peer.handle(Input::Received(id, &keepalive()), seconds(1));
    }
    assert_eq!(peer.state(), State::Established);
    format!("{said}, {} stays", if peer.session().unwrap().outgoing { "out" } else { "in" })
}

#[test]
fn of_two_connections_the_one_that_the_higher_router_id_opened_stays() {
    assert_eq!(collision(9, INBOUND, OUTBOUND), "6/7 close-out, in stays");
    assert_eq!(collision(9, OUTBOUND, INBOUND), "6/7 close-out keepalive, in stays");
    assert_eq!(collision(2, INBOUND, OUTBOUND), "6/7 close keepalive, out stays");
    assert_eq!(collision(2, OUTBOUND, INBOUND), "6/7 close, out stays");
    // Equal ids: AS 65001 is higher than ours.
    assert_eq!(collision(5, INBOUND, OUTBOUND), "6/7 close-out, in stays");
}
