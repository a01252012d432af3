//! Adj-RIB-Out (RFC 4271 §3.2) of one update group: what its peers have been told, or will have been once they have read
//! the log and finished their walks.
//!
//! Each entry carries the epoch of its last change. A peer that missed changes since an epoch is brought up to date from
//! here: entries that changed since are sent again, and prefixes taken away since then are remembered as graves until
//! nobody needs them.

use std::collections::VecDeque;
use std::sync::Arc;

use prefix_trie::joint::JointPrefixMap;

use super::Source;
use crate::family::Prefix;
use crate::message::attribute::Attributes;

/// Counts the flushes of a group, from 1.
pub(super) type Epoch = u64;

pub(super) struct Entry {
    /// As exported. `None` is a grave: it was withdrawn.
    pub(super) attributes: Option<Arc<Attributes>>,
    pub(super) source: Source,
    pub(super) changed: Epoch,
}

/// A live entry, as it was.
#[derive(Clone)]
pub(super) struct Told {
    pub(super) attributes: Arc<Attributes>,
    pub(super) source: Source,
}

#[derive(Default)]
pub(super) struct AdjRibOut {
    entries: JointPrefixMap<Prefix, Entry>,
    live: usize,
    /// In the order they were dug; a prefix that was announced again since lies here in vain.
    graves: VecDeque<(Epoch, Prefix)>,
}

impl AdjRibOut {
    pub(super) fn announce(&mut self, prefix: Prefix, told: Told, epoch: Epoch) {
        let Told { attributes, source } = told;
        let entry = Entry { attributes: Some(attributes), source, changed: epoch };
        let old = self.entries.insert(prefix, entry);
        if old.is_none_or(|old| old.attributes.is_none()) {
            self.live += 1;
        }
    }

    pub(super) fn withdraw(&mut self, prefix: Prefix, epoch: Epoch) {
        if let Some(entry) = self.entries.get_mut(&prefix)
            && entry.attributes.take().is_some()
        {
            entry.changed = epoch;
            self.live -= 1;
            self.graves.push_back((epoch, prefix));
        }
    }

    pub(super) fn told(&self, prefix: &Prefix) -> Option<Told> {
        let entry = self.entries.get(prefix)?;
        Some(Told { attributes: Arc::clone(entry.attributes.as_ref()?), source: entry.source })
    }

    pub(super) fn get(&self, prefix: &Prefix) -> Option<&Entry> {
        self.entries.get(prefix)
    }

    pub(super) fn live(&self) -> usize {
        self.live
    }

    pub(super) fn graves(&self) -> usize {
        self.graves.len()
    }

    /// Graves and live ones, in the order of the prefixes, from after `prefix`.
    pub(super) fn after(&self, prefix: Option<&Prefix>) -> impl Iterator<Item = (Prefix, &Entry)> {
        match prefix {
            Some(prefix) => self.entries.iter_from(prefix, false),
            None => self.entries.iter(),
        }
    }

    /// Forgets what was withdrawn before `epoch`.
    pub(super) fn forget(&mut self, epoch: Epoch) {
        while let Some((dug, prefix)) = self.graves.pop_front_if(|(dug, _)| *dug < epoch) {
            if self.entries.get(&prefix).is_some_and(|it| it.attributes.is_none() && it.changed == dug) {
                self.entries.remove(&prefix);
            }
        }
    }
}
