//! The neighbour as a state machine (RFC 4271 §8), both connections of a collision included. It owns no socket and
//! no clock: inputs and the time come in, outputs are polled.
//!
//! Deviations from the RFC's letter, each for a reason: the first dial is at once; an inbound connection is welcome
//! even while we wait after an error, since damping our own dialling is what the wait is for; a second inbound
//! connection replaces one that is not yet established, since the peer has given that one up.
//!
//! When the peer restarts (RFC 4724 §4.2), this says which of its routes are kept, and until when. When we do, it says so
//! in the OPEN; what is deferred then, `restart` says.

mod backoff;
mod connection;
mod negotiate;
mod receive;
mod report;
mod retain;

pub use connection::ConnectionId;
pub use negotiate::{PeerConfig, RestartTerms, Session};
pub use report::{DownReason, Messages, Output, State, Statistics};

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use backoff::Backoff;
use connection::{Connection, Phase};
use retain::Retained;

use crate::family::{Families, Family};
use crate::message::header::keepalive;
use crate::message::notification::{Notification, error};
use crate::message::refresh::Refresh;

/// Until the peer's OPEN says otherwise (RFC 4271 §8.2.2: "a large value").
const OPEN_HOLD_TIME: Duration = Duration::from_mins(4);
/// Spreads the dials of an agent with many neighbours, and of two agents that start together.
const FIRST_DIAL_WITHIN: Duration = Duration::from_millis(250);
/// A session that lasted as long was a success, after which the waits are short again.
const STABLE_AFTER: Duration = Duration::from_secs(30);
/// So long after a session is established, a connection beside it has collided with it, and either may be the one to go.
/// Later it is of a peer that has lost the other.
const COLLIDES_WITHIN: Duration = Duration::from_secs(5);
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
    /// Our own restart is over: sessions to come need not be told of it.
    Restarted,
}

/// One configured neighbour.
#[derive(Debug)]
pub struct Peer {
    config: PeerConfig,
    enabled: bool,
    dial: Dial,
    /// At most one of each direction, and beside an established one its successor.
    connections: Vec<Connection>,
    retained: Option<Retained>,
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
            retained: None,
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
                    self.lost(&connection, DownReason::ReadFailed, now);
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
            Input::Restarted => {
                if let Some(terms) = &mut self.config.graceful_restart {
                    terms.restarting = false;
                }
            }
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
        self.tick_retained(now);
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
        let retained = self.retained.map(|retained| retained.until);
        self.connections.iter().filter_map(Connection::next_deadline).chain(dial).chain(retained).min()
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

    /// Routes of an earlier session are kept for the peer: it is away, or has not told all of its table again.
    pub const fn is_restarting(&self) -> bool {
        self.retained.is_some()
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
        if self.session().is_some() && !self.may_have_restarted(now) {
            self.send_notification(id, &Notification::new(error::COLLISION, &[]));
            self.outputs.push_back(Output::Close(id));
            return;
        }
        let mut opening = self.connections.iter().filter(|old| old.phase != Phase::Established);
        if let Some(old) = opening.find(|old| old.outgoing == outgoing) {
            self.lose(old.id, now);
        }
        self.connections.push(Connection::new(id, outgoing, local, now + OPEN_HOLD_TIME));
        self.statistics.sent.open += 1;
        self.outputs.push_back(Output::Send(id, self.config.open().encode()));
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
        self.release();
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

    /// Books of a connection that is no longer in the list, and ended with a word.
    fn ended(&mut self, connection: &Connection, reason: DownReason, now: Duration) {
        if connection.phase == Phase::Established {
            self.retained = None;
            self.down(reason, Families::NONE, now);
        }
    }

    fn down(&mut self, reason: DownReason, kept: Families, now: Duration) {
        if self.changed.is_some_and(|up| now.saturating_sub(up) >= STABLE_AFTER) {
            self.backoff.reset();
        }
        self.changed = Some(now);
        self.statistics.flops += 1;
        self.outputs.push_back(Output::Down(reason, kept));
    }

    /// Makes the next try due, unless there is something to wait for.
    fn retry(&mut self, idle: bool, now: Duration) {
        if self.enabled && self.connections.is_empty() && self.dial == Dial::Off {
            let wait = self.backoff.next();
            let wait = if self.is_restarting() { wait.min(retain::REDIAL) } else { wait };
            self.dial = Dial::Waiting { at: now + wait, idle };
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

#[cfg(test)]
mod tests;
