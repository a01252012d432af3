//! The machine, input by input.

mod negotiation;
mod retain;
mod table;
mod timers;
mod wire;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::{ConnectionId, DownReason, Input, Output, Peer, PeerConfig, State};
use crate::asn::Asn;
use crate::family::{Families, Family};
use crate::message::capability::Capability;
use crate::message::header::keepalive;
use crate::message::notification::Notification;
use crate::message::open::Open;

pub(super) const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
pub(super) const INBOUND: ConnectionId = ConnectionId(1);
pub(super) const OUTBOUND: ConnectionId = ConnectionId(2);

pub(super) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// AS 65000 with router id .5, whose neighbour is AS 65001.
pub(super) fn config() -> PeerConfig {
    PeerConfig {
        local_asn: Asn(65000),
        peer_asn: Asn(65001),
        router_id: Ipv4Addr::new(192, 0, 2, 5),
        hold_time: 90,
        connect_retry: seconds(120),
        families: Families::NONE.with(Family::Ipv4Unicast),
        capabilities: vec![],
        graceful_restart: None,
        seed: 7,
    }
}

/// The neighbour's OPEN; its router id is above or below ours.
pub(super) fn open(last_octet: u8) -> Open {
    Open {
        asn: Asn(65001),
        hold_time: 30,
        router_id: Ipv4Addr::new(192, 0, 2, last_octet),
        capabilities: vec![
            Capability::Multiprotocol(Family::Ipv4Unicast.code()),
            Capability::RouteRefresh,
            Capability::FourOctetAs(Asn(65001)),
        ],
    }
}

pub(super) fn outputs(peer: &mut Peer) -> Vec<Output> {
    std::iter::from_fn(|| peer.poll_output()).collect()
}

/// Outputs in a word each.
pub(super) fn words(peer: &mut Peer) -> String {
    let word = |output: Output| match output {
        Output::Connect => Some("connect".to_owned()),
        Output::Abort => Some("abort".to_owned()),
        Output::Send(_, message) => Some(match message.get(18..) {
            Some([1, ..]) => "open".to_owned(),
            Some([3, code, subcode, ..]) => format!("{code}/{subcode}"),
            Some([4, ..]) => "keepalive".to_owned(),
            Some([5, ..]) => "ask".to_owned(),
            other => format!("{other:?}"),
        }),
        Output::Close(id) => Some(if id == OUTBOUND { "close-out" } else { "close" }.to_owned()),
        Output::Up(_) => Some("up".to_owned()),
        Output::Down(DownReason::NotificationSent(_), _) => Some("down-sent".to_owned()),
        Output::Down(DownReason::NotificationReceived(_), _) => Some("down-received".to_owned()),
        Output::Down(reason, _) => Some(format!("down-{reason}")),
        Output::Sweep(_) => Some("sweep".to_owned()),
        Output::Update(_) => Some("update".to_owned()),
        Output::Refresh(_) => Some("refresh".to_owned()),
        Output::Notification { .. } => None,
    };
    outputs(peer).into_iter().filter_map(word).collect::<Vec<String>>().join(" ")
}

/// One inbound connection, as far as `state`, at one second.
pub(super) fn peer_in(state: State) -> Peer {
    let mut peer = Peer::new(config());
    let now = seconds(1);
    if state == State::Idle {
        return peer;
    }
    peer.handle(Input::Start, Duration::ZERO);
    if state == State::Active {
        return peer;
    }
    if state == State::Connect {
        peer.tick(now);
        outputs(&mut peer);
        return peer;
    }
    peer.handle(Input::Connected { connection: INBOUND, outgoing: false, local: LOCAL }, now);
    if state >= State::OpenConfirm {
        peer.handle(Input::Received(INBOUND, &open(9).encode()), now);
    }
    if state == State::Established {
        peer.handle(Input::Received(INBOUND, &keepalive()), now);
    }
    outputs(&mut peer);
    assert_eq!(peer.state(), state);
    peer
}

/// What the peer last told.
pub(super) fn notifications(peer: &mut Peer) -> Vec<Notification> {
    let told = outputs(peer).into_iter().filter_map(|output| match output {
        Output::Notification { notification, .. } => Some(notification),
        _ => None,
    });
    told.collect()
}
