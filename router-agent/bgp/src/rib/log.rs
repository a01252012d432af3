//! The encoded messages of an update group, once for all of its peers. Each peer reads at its own pace; what no peer needs
//! goes, and what makes the log too long goes too: whoever has not read that by then walks Adj-RIB-Out instead.

use std::collections::VecDeque;
use std::sync::Arc;

use super::PeerId;
use super::adj_out::Epoch;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Audience {
    /// All but those that must not be told: the peer a route came from, and the one that is its next hop.
    AllBut([Option<PeerId>; 2]),
    Only(PeerId),
}

impl Audience {
    pub(super) fn includes(self, peer: PeerId) -> bool {
        match self {
            Self::AllBut(excepted) => !excepted.contains(&Some(peer)),
            Self::Only(one) => one == peer,
        }
    }
}

pub(super) struct Record {
    pub(super) bytes: Arc<[u8]>,
    pub(super) audience: Audience,
    pub(super) epoch: Epoch,
}

/// The place of a record since the group began.
pub(super) type Place = u64;

#[derive(Default)]
pub(super) struct Log {
    records: VecDeque<Record>,
    first: Place,
    bytes: usize,
}

impl Log {
    pub(super) fn push(&mut self, record: Record) {
        self.bytes += record.bytes.len();
        self.records.push_back(record);
    }

    /// The oldest place that can still be read.
    pub(super) fn first(&self) -> Place {
        self.first
    }

    /// The place of the next record to come.
    pub(super) fn end(&self) -> Place {
        self.first + self.records.len() as u64
    }

    pub(super) fn get(&self, place: Place) -> Option<&Record> {
        let index = usize::try_from(place.checked_sub(self.first)?).ok()?;
        self.records.get(index)
    }

    pub(super) fn drop_before(&mut self, place: Place) {
        while self.first < place {
            let Some(record) = self.records.pop_front() else { break };
            self.bytes -= record.bytes.len();
            self.first += 1;
        }
    }

    /// Drops the older half if there is too much; whether it did.
    pub(super) fn shorten(&mut self, most: usize) -> bool {
        if self.bytes <= most {
            return false;
        }
        while self.bytes > most / 2 {
            self.drop_before(self.first + 1);
        }
        true
    }
}
