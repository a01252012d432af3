//! One TCP connection to the peer, from OPEN to its end.

use std::net::IpAddr;
use std::time::Duration;

use super::negotiate::Session;

/// The driver's name for a connection; never used twice for one peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Phase {
    /// Our OPEN is out, the peer's is awaited.
    OpenSent,
    /// Both OPENs are good, the KEEPALIVE is awaited.
    OpenConfirm,
    Established,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub id: ConnectionId,
    pub outgoing: bool,
    pub local: IpAddr,
    pub phase: Phase,
    /// The beginning of a message whose end has not arrived.
    pub buffer: Vec<u8>,
    /// What the OPENs agreed on; from `OpenConfirm` on.
    pub session: Option<Box<Session>>,
    /// When a silent peer is given up.
    pub hold: Option<Duration>,
    /// When we speak next.
    pub keepalive: Option<Duration>,
    /// When a peer that reads nothing is given up (RFC 9687).
    pub send_hold: Option<Duration>,
}

impl Connection {
    pub(super) fn new(id: ConnectionId, outgoing: bool, local: IpAddr, hold: Duration) -> Self {
        Self {
            id,
            outgoing,
            local,
            phase: Phase::OpenSent,
            buffer: Vec::new(),
            session: None,
            hold: Some(hold),
            keepalive: None,
            send_hold: None,
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        [self.hold, self.keepalive, self.send_hold].into_iter().flatten().min()
    }

    /// The peer was heard. Without a hold time an established session is never given up, one that is only opening
    /// still is.
    pub(super) fn heard(&mut self, now: Duration) {
        let hold_time = self.session.as_ref().map_or(Duration::ZERO, |session| session.hold_time);
        if !hold_time.is_zero() {
            self.hold = Some(now + hold_time);
        } else if self.phase == Phase::Established {
            self.hold = None;
        }
    }

    /// Messages of over 4096 octets only once both have said that they can (RFC 8654).
    pub(super) fn extended(&self) -> bool {
        let max_len = self.session.as_ref().map(|session| session.context.max_len);
        max_len.is_some_and(|max_len| max_len > crate::message::header::MAX_LEN)
    }
}
