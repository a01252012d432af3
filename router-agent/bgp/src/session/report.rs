//! What the driver is told, and the words for it: GoBGP's, because users grep for them.

use std::fmt;

use super::connection::ConnectionId;
use super::negotiate::Session;
use crate::family::{Families, Family};
use crate::message::notification::Notification;
use crate::message::update::Update;

/// What the driver is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Open a connection; answer with `Connected` or `ConnectFailed`. One at a time.
    Connect,
    /// Give up the attempt.
    Abort,
    Send(ConnectionId, Vec<u8>),
    /// Write what is left, then close; of this connection nothing more is wanted.
    Close(ConnectionId),
    Up(Box<Session>),
    /// The routes of these families are kept, as stale; those of the others go.
    Down(DownReason, Families),
    /// What is still stale in these families goes.
    Sweep(Families),
    Update(Update),
    /// The peer wants the family's routes again.
    Refresh(Family),
    /// For the log: what was said when a connection ended, whether or not a session had been up.
    Notification {
        received: bool,
        notification: Notification,
    },
}

/// Of the neighbour, over all its connections (RFC 4271 §8.2.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum State {
    /// Administratively down, or waiting after an error.
    Idle,
    /// Dialling.
    Connect,
    /// Waiting to dial, or to be dialled.
    Active,
    OpenSent,
    OpenConfirm,
    Established,
}

impl fmt::Display for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Idle => "BGP_FSM_IDLE",
            Self::Connect => "BGP_FSM_CONNECT",
            Self::Active => "BGP_FSM_ACTIVE",
            Self::OpenSent => "BGP_FSM_OPENSENT",
            Self::OpenConfirm => "BGP_FSM_OPENCONFIRM",
            Self::Established => "BGP_FSM_ESTABLISHED",
        })
    }
}

/// Why a session ended.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum DownReason {
    AdminDown,
    /// The neighbour is no longer configured.
    Dying,
    /// The connection ended without a word.
    ReadFailed,
    /// The same, or another connection took its place, and the peer's routes are kept for it (RFC 4724 §4.2).
    GracefulRestart,
    HoldTimerExpired,
    NotificationSent(Notification),
    NotificationReceived(Notification),
}

impl fmt::Display for DownReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AdminDown => out.write_str("admin-down"),
            Self::Dying => out.write_str("dying"),
            Self::ReadFailed => out.write_str("read-failed"),
            Self::GracefulRestart => out.write_str("graceful-restart"),
            Self::HoldTimerExpired => out.write_str("hold-timer-expired"),
            Self::NotificationSent(notification) => write!(out, "notification-sent {notification}"),
            Self::NotificationReceived(notification) => write!(out, "notification-received {notification}"),
        }
    }
}

/// Messages of one direction, by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Messages {
    pub open: u64,
    pub update: u64,
    pub notification: u64,
    pub keepalive: u64,
    pub refresh: u64,
}

/// Since the neighbour was configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    pub received: Messages,
    /// UPDATEs are counted by whoever writes them.
    pub sent: Messages,
    /// Sessions that went down.
    pub flops: u32,
}
