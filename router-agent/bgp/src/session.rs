//! The neighbour as a state machine (RFC 4271 §8), both connections of a collision included. It owns no socket and
//! no clock: inputs and the time come in, outputs are polled.
//!
//! Deviations from the RFC's letter, each for a reason: the first dial is at once; an inbound connection is welcome
//! even while we wait after an error, since damping our own dialling is what the wait is for; a second inbound
//! connection replaces one that is not yet established, since the peer has given that one up.
//!
//! Graceful restart is read and offered (`PeerConfig::capabilities`, `Session::graceful_restart`), but changes
//! nothing here.

mod backoff;
mod connection;
mod negotiate;
mod report;

pub use connection::ConnectionId;
pub use negotiate::{PeerConfig, Session};
pub use report::{DownReason, Messages, Output, State, Statistics};

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use backoff::Backoff;
use connection::{Connection, Phase};

use crate::collision;
use crate::family::Family;
use crate::message::header::{Frame, Kind, keepalive};
use crate::message::notification::{ErrorCode, Notification, error};
use crate::message::open::Open;
use crate::message::refresh::{Refresh, RefreshKind};
use crate::message::update;

/// Until the peer's OPEN says otherwise (RFC 4271 §8.2.2: "a large value").
const OPEN_HOLD_TIME: Duration = Duration::from_mins(4);
/// Spreads the dials of an agent with many neighbours, and of two agents that start together.
const FIRST_DIAL_WITHIN: Duration = Duration::from_millis(250);
/// A session that lasted as long was a success, after which the waits are short again.
const STABLE_AFTER: Duration = Duration::from_secs(30);
/// RFC 9687 §4: the larger of this and twice the hold time.
const SEND_HOLD_TIME: Duration = Duration::from_mins(8);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input<'a> {
    Start,
    /// Down until `Start`, with a word for the peer's operator.
    Stop {
        communication: &'a str,
    },
    /// The neighbour is being removed from the configuration.
    Remove,
    /// Down and up again.
    Reset {
        communication: &'a str,
    },
    /// Either our dial succeeded, or the peer dialled us. `local` is our address on the connection.
    Connected {
        connection: ConnectionId,
        outgoing: bool,
        local: IpAddr,
    },
    ConnectFailed,
    /// The connection ended, or broke.
    Closed(ConnectionId),
    Received(ConnectionId, &'a [u8]),
    /// The peer does not read: nothing could be written.
    SendBlocked(ConnectionId),
    /// Something could.
    SendProgress(ConnectionId),
    /// Ask the peer for the family's routes again.
    RequestRefresh(Family),
}

/// One configured neighbour.
#[derive(Debug)]
pub struct Peer {
    config: PeerConfig,
    enabled: bool,
    dial: Dial,
    /// At most one of each direction.
    connections: Vec<Connection>,
    outputs: VecDeque<Output>,
    backoff: Backoff,
    /// When the session went up, or down; `None` before the first.
    changed: Option<Duration>,
    statistics: Statistics,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dial {
    /// Down, or there is a connection.
    Off,
    /// `idle`: after an error, to be damped.
    Waiting { at: Duration, idle: bool },
    /// `Connect` is with the driver; it is given up and repeated at `until`.
    Dialing { until: Duration },
}

impl Peer {
    /// Administratively down.
    pub fn new(config: PeerConfig) -> Self {
        let backoff = Backoff::new(config.connect_retry, config.seed);
        Self {
            config,
            enabled: false,
            dial: Dial::Off,
            connections: Vec::new(),
            outputs: VecDeque::new(),
            backoff,
            changed: None,
            statistics: Statistics::default(),
        }
    }

    pub fn handle(&mut self, input: Input<'_>, now: Duration) {
        match input {
            Input::Start if !self.enabled => {
                self.enabled = true;
                self.backoff.reset();
                let at = now + self.backoff.within(FIRST_DIAL_WITHIN);
                self.dial = Dial::Waiting { at, idle: false };
                self.tick(now);
            }
            Input::Stop { communication } => {
                let notification = Notification::with_communication(error::ADMIN_SHUTDOWN, communication);
                self.stop(&notification, &DownReason::AdminDown, now);
            }
            Input::Remove => {
                self.stop(&Notification::new(error::PEER_DECONFIGURED, &[]), &DownReason::Dying, now);
            }
            Input::Reset { communication } => {
                let notification = Notification::with_communication(error::ADMIN_RESET, communication);
                self.end_all(&notification, &DownReason::NotificationSent(notification.clone()), now);
            }
            Input::Connected { connection, outgoing, local } => {
                self.connected(connection, outgoing, local, now);
            }
            Input::ConnectFailed if matches!(self.dial, Dial::Dialing { .. }) => {
                self.dial = Dial::Off;
                self.retry(false, now);
            }
            Input::Start | Input::ConnectFailed => {}
            Input::Closed(id) => {
                if let Some(connection) = self.remove(id) {
                    let idle = connection.phase == Phase::Established;
                    self.ended(&connection, DownReason::ReadFailed, now);
                    self.retry(idle, now);
                }
            }
            Input::Received(id, bytes) => self.received(id, bytes, now),
            Input::SendBlocked(id) => {
                if let Some(connection) = self.connection(id) {
                    let hold_time =
                        connection.session.as_ref().map_or(OPEN_HOLD_TIME, |session| session.hold_time);
                    if !hold_time.is_zero() {
                        connection.send_hold.get_or_insert(now + SEND_HOLD_TIME.max(2 * hold_time));
                    }
                }
            }
            Input::SendProgress(id) => {
                if let Some(connection) = self.connection(id) {
                    connection.send_hold = None;
                }
            }
            Input::RequestRefresh(family) => self.request_refresh(family),
        }
    }

    /// Does what is due. Late is as good as in time, early does nothing.
    pub fn tick(&mut self, now: Duration) {
        match self.dial {
            Dial::Waiting { at, .. } if at <= now => self.dial(now),
            Dial::Dialing { until } if until <= now => {
                self.outputs.push_back(Output::Abort);
                self.dial(now);
            }
            _ => {}
        }
        let ids: Vec<ConnectionId> = self.connections.iter().map(|connection| connection.id).collect();
        for id in ids {
            self.tick_connection(id, now);
        }
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub fn next_deadline(&self) -> Option<Duration> {
        let dial = match self.dial {
            Dial::Off => None,
            Dial::Waiting { at, .. } => Some(at),
            Dial::Dialing { until } => Some(until),
        };
        self.connections.iter().filter_map(Connection::next_deadline).chain(dial).min()
    }

    pub fn state(&self) -> State {
        match self.connections.iter().map(|connection| connection.phase).max() {
            Some(Phase::Established) => State::Established,
            Some(Phase::OpenConfirm) => State::OpenConfirm,
            Some(Phase::OpenSent) => State::OpenSent,
            None => match self.dial {
                Dial::Off | Dial::Waiting { idle: true, .. } => State::Idle,
                Dial::Waiting { idle: false, .. } => State::Active,
                Dial::Dialing { .. } => State::Connect,
            },
        }
    }

    pub const fn is_enabled(&self) -> bool {
        self.enabled
    }

    pub const fn config(&self) -> &PeerConfig {
        &self.config
    }

    /// The established session.
    pub fn session(&self) -> Option<&Session> {
        let established =
            self.connections.iter().find(|connection| connection.phase == Phase::Established)?;
        established.session.as_deref()
    }

    /// When the session went up, or last went down; `None` if it has never been up.
    pub const fn changed(&self) -> Option<Duration> {
        self.changed
    }

    pub const fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    // Connections come.

    fn dial(&mut self, now: Duration) {
        // One that the peer opened meanwhile will do.
        if !self.connections.is_empty() {
            self.dial = Dial::Off;
            return;
        }
        let until = now + self.backoff.jittered(self.config.connect_retry);
        self.dial = Dial::Dialing { until };
        self.outputs.push_back(Output::Connect);
    }

    fn connected(&mut self, id: ConnectionId, outgoing: bool, local: IpAddr, now: Duration) {
        let expected = !outgoing || matches!(self.dial, Dial::Dialing { .. });
        if !self.enabled || !expected {
            self.outputs.push_back(Output::Close(id));
            return;
        }
        if outgoing || matches!(self.dial, Dial::Waiting { .. }) {
            self.dial = Dial::Off;
        }
        if self.connections.iter().any(|connection| connection.phase == Phase::Established) {
            self.send_notification(id, &Notification::new(error::COLLISION, &[]));
            self.outputs.push_back(Output::Close(id));
            return;
        }
        if let Some(old) = self.connections.iter().find(|connection| connection.outgoing == outgoing) {
            self.lose(old.id, now);
        }
        self.connections.push(Connection::new(id, outgoing, local, now + OPEN_HOLD_TIME));
        self.statistics.sent.open += 1;
        self.outputs.push_back(Output::Send(id, self.config.open().encode()));
    }

    // Messages come.

    fn received(&mut self, id: ConnectionId, bytes: &[u8], now: Duration) {
        let Some(connection) = self.connection(id) else { return };
        let mut stream = std::mem::take(&mut connection.buffer);
        stream.extend_from_slice(bytes);
        let mut rest = stream.as_slice();
        while let Some(connection) = self.connection(id) {
            match Frame::next(rest, connection.extended()) {
                Ok(Some(frame)) => {
                    rest = rest.get(frame.bytes.len()..).unwrap_or_default();
                    if let Err(notification) = self.message(id, &frame, now) {
                        self.fail(id, notification, now);
                    }
                }
                Ok(None) => {
                    connection.buffer = rest.to_vec();
                    break;
                }
                Err(notification) => self.fail(id, notification, now),
            }
        }
    }

    /// Every state against every message. Err ends the connection.
    fn message(&mut self, id: ConnectionId, frame: &Frame<'_>, now: Duration) -> Result<(), Notification> {
        let received = &mut self.statistics.received;
        *match frame.kind {
            Kind::Open => &mut received.open,
            Kind::Update => &mut received.update,
            Kind::Notification => &mut received.notification,
            Kind::KeepAlive => &mut received.keepalive,
            Kind::RouteRefresh => &mut received.refresh,
        } += 1;
        let Some(connection) = self.connection(id) else { return Ok(()) };
        match (connection.phase, frame.kind) {
            (_, Kind::Notification) => {
                if let Some(notification) = Notification::decode(frame.body()) {
                    self.notified(id, notification, now);
                }
            }
            (Phase::OpenSent, Kind::Open) => self.opened(id, Open::decode(frame.body())?, now)?,
            (Phase::OpenConfirm, Kind::KeepAlive) => self.establish(id, now),
            (Phase::Established, Kind::KeepAlive) => connection.heard(now),
            (Phase::Established, Kind::Update) => {
                connection.heard(now);
                if let Some(session) = &connection.session {
                    let update = update::decode(frame.body(), &session.context)?;
                    self.outputs.push_back(Output::Update(update));
                }
            }
            (Phase::Established, Kind::RouteRefresh) => {
                connection.heard(now);
                let Refresh { family, subtype } = Refresh::decode(frame)?;
                let families = connection.session.as_ref().map(|session| session.context.families);
                let wanted =
                    family.known().filter(|family| families.is_some_and(|all| all.contains(*family)));
                if let (Some(family), RefreshKind::Request) = (wanted, subtype) {
                    self.outputs.push_back(Output::Refresh(family));
                }
            }
            (phase, Kind::Open | Kind::Update | Kind::KeepAlive | Kind::RouteRefresh) => {
                return Err(Notification::new(unexpected(phase), &[]));
            }
        }
        Ok(())
    }

    fn opened(&mut self, id: ConnectionId, open: Open, now: Duration) -> Result<(), Notification> {
        self.config.check(&open)?;
        let local = (self.config.router_id, self.config.local_asn);
        let keeps_outgoing = collision::keeps_outgoing(local, (open.router_id, open.asn));
        let Some(connection) = self.connections.iter().find(|connection| connection.id == id) else {
            return Ok(());
        };
        let other = self.connections.iter().find(|other| other.id != id && other.phase >= Phase::OpenConfirm);
        if let Some(other) = other {
            if connection.outgoing != keeps_outgoing {
                return Err(Notification::new(error::COLLISION, &[]));
            }
            self.lose(other.id, now);
        }
        let keepalive_in = |backoff: &mut Backoff, session: &Session| {
            (!session.hold_time.is_zero()).then(|| now + backoff.jittered(session.keepalive_interval))
        };
        if let Some(connection) = self.connections.iter_mut().find(|connection| connection.id == id) {
            let session = Session::new(&self.config, connection.local, id, connection.outgoing, open);
            connection.keepalive = keepalive_in(&mut self.backoff, &session);
            connection.session = Some(Box::new(session));
            connection.phase = Phase::OpenConfirm;
            connection.heard(now);
        }
        self.send_keepalive(id);
        Ok(())
    }

    fn establish(&mut self, id: ConnectionId, now: Duration) {
        let others: Vec<ConnectionId> =
            self.connections.iter().map(|other| other.id).filter(|other| *other != id).collect();
        for other in others {
            self.lose(other, now);
        }
        if matches!(self.dial, Dial::Dialing { .. }) {
            self.outputs.push_back(Output::Abort);
        }
        self.dial = Dial::Off;
        self.changed = Some(now);
        let Some(connection) = self.connection(id) else { return };
        connection.phase = Phase::Established;
        connection.heard(now);
        if let Some(session) = connection.session.clone() {
            self.outputs.push_back(Output::Up(session));
        }
    }

    fn notified(&mut self, id: ConnectionId, notification: Notification, now: Duration) {
        let Some(connection) = self.remove(id) else { return };
        self.outputs.push_back(Output::Notification { received: true, notification: notification.clone() });
        self.outputs.push_back(Output::Close(id));
        self.ended(&connection, DownReason::NotificationReceived(notification), now);
        self.retry(true, now);
    }

    // Time passes.

    fn tick_connection(&mut self, id: ConnectionId, now: Duration) {
        let due = |deadline: Option<Duration>| deadline.is_some_and(|deadline| deadline <= now);
        let Some(connection) = self.connections.iter_mut().find(|connection| connection.id == id) else {
            return;
        };
        if due(connection.hold) {
            self.fail(id, Notification::new(error::HOLD_TIMER_EXPIRED, &[]), now);
        } else if due(connection.send_hold) {
            self.fail(id, Notification::new(error::SEND_HOLD_TIMER_EXPIRED, &[]), now);
        } else if due(connection.keepalive) {
            let interval = connection.session.as_ref().map(|session| session.keepalive_interval);
            connection.keepalive = interval.map(|interval| now + self.backoff.jittered(interval));
            self.send_keepalive(id);
        }
    }

    fn send_keepalive(&mut self, id: ConnectionId) {
        self.statistics.sent.keepalive += 1;
        self.outputs.push_back(Output::Send(id, keepalive()));
    }

    fn request_refresh(&mut self, family: Family) {
        let session = self.session().filter(|session| session.route_refresh);
        let Some(session) = session.filter(|session| session.context.families.contains(family)) else {
            return;
        };
        let send = Output::Send(session.connection, Refresh::request(family.code()).encode());
        self.statistics.sent.refresh += 1;
        self.outputs.push_back(send);
    }

    // Connections go.

    /// The peer erred, or was silent for too long.
    fn fail(&mut self, id: ConnectionId, notification: Notification, now: Duration) {
        let Some(connection) = self.remove(id) else { return };
        self.send_notification(id, &notification);
        self.outputs.push_back(Output::Close(id));
        let reason = match notification.error() {
            error::HOLD_TIMER_EXPIRED => DownReason::HoldTimerExpired,
            _ => DownReason::NotificationSent(notification),
        };
        self.ended(&connection, reason, now);
        self.retry(true, now);
    }

    /// The connection goes for the sake of another.
    fn lose(&mut self, id: ConnectionId, now: Duration) {
        let Some(connection) = self.remove(id) else { return };
        let notification = Notification::new(error::COLLISION, &[]);
        self.send_notification(id, &notification);
        self.outputs.push_back(Output::Close(id));
        self.ended(&connection, DownReason::NotificationSent(notification), now);
    }

    fn stop(&mut self, notification: &Notification, reason: &DownReason, now: Duration) {
        self.enabled = false;
        self.end_all(notification, reason, now);
        if matches!(self.dial, Dial::Dialing { .. }) {
            self.outputs.push_back(Output::Abort);
        }
        self.dial = Dial::Off;
    }

    fn end_all(&mut self, notification: &Notification, reason: &DownReason, now: Duration) {
        for connection in std::mem::take(&mut self.connections) {
            self.send_notification(connection.id, notification);
            self.outputs.push_back(Output::Close(connection.id));
            self.ended(&connection, reason.clone(), now);
            self.retry(true, now);
        }
    }

    /// Books of a connection that is no longer in the list.
    fn ended(&mut self, connection: &Connection, reason: DownReason, now: Duration) {
        if connection.phase != Phase::Established {
            return;
        }
        if self.changed.is_some_and(|up| now.saturating_sub(up) >= STABLE_AFTER) {
            self.backoff.reset();
        }
        self.changed = Some(now);
        self.statistics.flops += 1;
        self.outputs.push_back(Output::Down(reason));
    }

    /// Makes the next try due, unless there is something to wait for.
    fn retry(&mut self, idle: bool, now: Duration) {
        if self.enabled && self.connections.is_empty() && self.dial == Dial::Off {
            self.dial = Dial::Waiting { at: now + self.backoff.next(), idle };
        }
    }

    fn send_notification(&mut self, id: ConnectionId, notification: &Notification) {
        self.statistics.sent.notification += 1;
        self.outputs.push_back(Output::Send(id, notification.encode()));
        self.outputs.push_back(Output::Notification { received: false, notification: notification.clone() });
    }

    fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|connection| connection.id == id)
    }

    fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        let at = self.connections.iter().position(|connection| connection.id == id)?;
        Some(self.connections.remove(at))
    }
}

/// RFC 6608.
const fn unexpected(phase: Phase) -> ErrorCode {
    match phase {
        Phase::OpenSent => error::UNEXPECTED_IN_OPEN_SENT,
        Phase::OpenConfirm => error::UNEXPECTED_IN_OPEN_CONFIRM,
        Phase::Established => error::UNEXPECTED_IN_ESTABLISHED,
    }
}

#[cfg(test)]
mod tests;
