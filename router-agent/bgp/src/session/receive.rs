//! What the peer says, and what it means in each state (RFC 4271 §8.2.2).

use std::time::Duration;

use super::connection::{ConnectionId, Phase};
use super::negotiate::Session;
use super::report::{DownReason, Output};
use super::{Dial, Peer};
use crate::collision;
use crate::message::header::{Frame, Kind};
use crate::message::notification::{ErrorCode, Notification, error};
use crate::message::open::Open;
use crate::message::refresh::{Refresh, RefreshKind};
use crate::message::update;

impl Peer {
    pub(super) fn received(&mut self, id: ConnectionId, bytes: &[u8], now: Duration) {
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
                    let end_of_rib = update.end_of_rib;
                    self.outputs.push_back(Output::Update(update));
                    if let Some(family) = end_of_rib {
                        self.told_all(family);
                    }
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
        if let Some(other) = other.filter(|other| other.phase == Phase::Established) {
            self.succeed(other.id, now);
        } else if let Some(other) = other {
            if connection.outgoing != keeps_outgoing {
                return Err(Notification::new(error::COLLISION, &[]));
            }
            self.lose(other.id, now);
        }
        if let Some(connection) = self.connections.iter_mut().find(|connection| connection.id == id) {
            let session = Session::new(&self.config, connection.local, id, connection.outgoing, open);
            let interval = self.backoff.jittered(session.keepalive_interval);
            connection.keepalive = (!session.hold_time.is_zero()).then(|| now + interval);
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
            self.came_back(&session, now);
            self.outputs.push_back(Output::Up(session));
        }
    }

    fn notified(&mut self, id: ConnectionId, notification: Notification, now: Duration) {
        let Some(connection) = self.remove(id) else { return };
        self.outputs.push_back(Output::Notification { received: true, notification: notification.clone() });
        self.outputs.push_back(Output::Close(id));
        let collided = notification.error() == error::COLLISION;
        let reason = DownReason::NotificationReceived(notification);
        if collided {
            self.lost(&connection, reason, now);
        } else {
            self.ended(&connection, reason, now);
        }
        self.retry(true, now);
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
