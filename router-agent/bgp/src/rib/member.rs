//! One peer in an update group: how far it has read, and what it is to be sent beside the log.

use std::net::IpAddr;
use std::sync::Arc;

use super::adj_out::{Entry, Epoch};
use super::log::Place;
use super::{PeerId, Source};
use crate::family::Prefix;
use crate::message::attribute::Attributes;

/// Where the group stands: the end of its log, and its last epoch.
#[derive(Clone, Copy)]
pub(super) struct Now {
    pub(super) end: Place,
    pub(super) epoch: Epoch,
}

pub(super) struct Member {
    pub(super) address: IpAddr,
    /// The next record to read.
    pub(super) place: Place,
    /// The first epoch of which it may not have seen everything.
    pub(super) since: Epoch,
    /// Comes before the log, and after the backlog.
    pub(super) walk: Option<Walk>,
    /// Prefixes to be told again, or withdrawn, whatever stands there now.
    pub(super) backlog: Vec<Prefix>,
    /// How many live entries it is not told of.
    pub(super) excepted: usize,
}

/// A pass over Adj-RIB-Out.
pub(super) struct Walk {
    /// Where it stands; `None` before the first step.
    pub(super) after: Option<Prefix>,
    /// Send what has changed since this epoch.
    pub(super) announce_since: Epoch,
    /// Withdraw what has gone since this epoch: what went earlier it has seen go, or never heard of.
    pub(super) withdraw_since: Epoch,
    pub(super) end_of_rib: bool,
    /// Where the group stood when the walk began, and thus where the log takes over.
    pub(super) began: Now,
}

impl Walk {
    fn over_changes(since: Epoch, now: Now) -> Self {
        Self { after: None, announce_since: since, withdraw_since: since, end_of_rib: false, began: now }
    }
}

impl Member {
    /// A peer that has been told nothing.
    pub(super) fn new(address: IpAddr, now: Now) -> Self {
        let mut member = Self::with_backlog(address, Vec::new(), now);
        member.send_all(true, now);
        member
    }

    /// A peer that has been told the same as the group's other peers, but for the backlog.
    pub(super) fn with_backlog(address: IpAddr, backlog: Vec<Prefix>, now: Now) -> Self {
        Self { address, place: now.end, since: now.epoch + 1, walk: None, backlog, excepted: 0 }
    }

    pub(super) fn send_all(&mut self, end_of_rib: bool, now: Now) {
        let withdraw_since = self.needs();
        self.walk = Some(Walk { after: None, announce_since: 0, withdraw_since, end_of_rib, began: now });
    }

    /// What it sees of an entry.
    pub(super) fn sees<'a>(&self, peer: PeerId, entry: &'a Entry) -> Option<&'a Arc<Attributes>> {
        let attributes = entry.attributes.as_ref()?;
        (entry.source != Source::Peer(peer) && attributes.next_hop != self.address).then_some(attributes)
    }

    pub(super) fn is_current(&self, end: Place) -> bool {
        self.backlog.is_empty() && self.walk.is_none() && self.place == end
    }

    pub(super) fn owes_end_of_rib(&self) -> bool {
        self.walk.as_ref().is_some_and(|walk| walk.end_of_rib)
    }

    /// The oldest epoch whose withdrawals it still needs to find.
    pub(super) fn needs(&self) -> Epoch {
        self.walk.as_ref().map_or(self.since, |walk| walk.withdraw_since)
    }

    /// The oldest record it is still to read.
    pub(super) fn needs_from(&self, end: Place) -> Place {
        match &self.walk {
            None => self.place,
            Some(Walk { after: None, .. }) => end,
            Some(walk) => walk.began.end,
        }
    }

    /// The log begins later now. While it walks, the end of the walk will tell.
    pub(super) fn fall_behind(&mut self, first: Place, now: Now) {
        if self.walk.is_none() && self.place < first {
            self.walk = Some(Walk::over_changes(self.since, now));
        }
    }

    /// The walk is over: back to the log, if that still reaches back to when the walk began.
    pub(super) fn follow(&mut self, began: Now, first: Place, now: Now) {
        self.walk = None;
        self.place = began.end;
        self.since = began.epoch + 1;
        self.fall_behind(first, now);
    }
}
