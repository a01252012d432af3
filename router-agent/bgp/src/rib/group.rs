//! An update group: the peers that are told the same about one family, with one Adj-RIB-Out and one log of encoded
//! messages between them, so that memory is bounded by the log and not by peers times routes.
//!
//! Changes of Loc-RIB are only noted; the first peer that asks for messages has them exported, compared with what was
//! told before, packed and encoded, for all. So a burst coalesces while the sockets are busy.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::adj_out::{AdjRibOut, Epoch, Told};
use super::export::{Context, Exporter, GroupKey};
use super::loc::LocRib;
use super::log::{Audience, Log, Record};
use super::member::{Member, Now};
use super::pack::Changes;
use super::{Limits, PeerId, Source, wire};
use crate::family::Prefix;
use crate::message::attribute::Attributes;

pub(super) struct Group {
    pub(super) key: GroupKey,
    limits: Limits,
    told: AdjRibOut,
    log: Log,
    epoch: Epoch,
    noted: Vec<Prefix>,
    members: BTreeMap<PeerId, Member>,
    by_address: BTreeMap<IpAddr, PeerId>,
}

/// What a peer takes along to another group.
pub(super) struct Parting {
    address: IpAddr,
    /// What it has been told; `None` where that is not certain.
    told: BTreeMap<Prefix, Option<Arc<Attributes>>>,
    /// Its first walk is not over.
    end_of_rib: bool,
}

/// The members that are not told of an entry.
type Excepted = [Option<PeerId>; 2];

impl Group {
    pub(super) fn new(key: GroupKey, limits: Limits) -> Self {
        Self {
            key,
            limits,
            told: AdjRibOut::default(),
            log: Log::default(),
            epoch: 0,
            noted: Vec::new(),
            members: BTreeMap::new(),
            by_address: BTreeMap::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn has(&self, peer: PeerId) -> bool {
        self.members.contains_key(&peer)
    }

    pub(super) fn members(&self) -> impl Iterator<Item = (PeerId, IpAddr)> {
        self.members.iter().map(|(peer, member)| (*peer, member.address))
    }

    /// The best path to the prefix may have changed.
    pub(super) fn note(&mut self, prefix: Prefix) {
        self.noted.push(prefix);
    }

    /// Whether it should be flushed although nobody asks for messages.
    pub(super) fn is_full(&self) -> bool {
        self.noted.len() >= self.limits.noted
    }

    /// A peer that has been told nothing yet. Flush first.
    pub(super) fn join(&mut self, peer: PeerId, address: IpAddr) {
        self.admit(peer, Member::new(address, self.now()));
    }

    /// A peer that comes from another group, where it was told something. Flush first.
    pub(super) fn join_from(&mut self, peer: PeerId, parting: Parting) {
        let Parting { address, told: before, end_of_rib } = parting;
        let mut member = Member::with_backlog(address, Vec::new(), self.now());
        let now: BTreeMap<Prefix, _> = self
            .told
            .after(None)
            .filter_map(|(prefix, entry)| Some((prefix, member.sees(peer, entry)?)))
            .collect();
        let is_same = |prefix: &Prefix, attributes: &Arc<Attributes>| matches!(before.get(prefix), Some(Some(before)) if Arc::ptr_eq(before, attributes));
        let gone = before.keys().filter(|prefix| !now.contains_key(prefix));
        let changed = now.iter().filter(|(prefix, attributes)| !is_same(prefix, attributes));
        member.backlog = gone.chain(changed.map(|(prefix, _)| prefix)).copied().collect();
        if end_of_rib {
            member.send_all(true, self.now());
        }
        self.admit(peer, member);
    }

    fn admit(&mut self, peer: PeerId, mut member: Member) {
        let live = self.told.after(None).filter(|(_, entry)| entry.attributes.is_some());
        member.excepted = live.filter(|(_, entry)| member.sees(peer, entry).is_none()).count();
        self.by_address.insert(member.address, peer);
        self.members.insert(peer, member);
    }

    pub(super) fn leave(&mut self, peer: PeerId) {
        if let Some(member) = self.members.remove(&peer) {
            self.by_address.remove(&member.address);
            self.tidy();
        }
    }

    /// The peer goes to another group.
    pub(super) fn part(&mut self, peer: PeerId) -> Option<Parting> {
        let member = self.members.get(&peer)?;
        let told = if member.is_current(self.log.end()) {
            let seen = self.adj_out(peer).map(|(prefix, attributes)| (prefix, Some(Arc::clone(attributes))));
            seen.collect()
        } else {
            let known = self.told.after(None).map(|(prefix, _)| prefix);
            known.chain(member.backlog.iter().copied()).map(|prefix| (prefix, None)).collect()
        };
        let parting = Parting { address: member.address, told, end_of_rib: member.owes_end_of_rib() };
        self.leave(peer);
        Some(parting)
    }

    /// Route refresh (RFC 2918 §4): all of it again.
    pub(super) fn refresh(&mut self, peer: PeerId) {
        let now = self.now();
        if let Some(member) = self.members.get_mut(&peer) {
            member.send_all(member.owes_end_of_rib(), now);
        }
    }

    pub(super) fn owes_end_of_rib(&self, peer: PeerId) -> bool {
        self.members.get(&peer).is_some_and(Member::owes_end_of_rib)
    }

    pub(super) fn advertised(&self, peer: PeerId) -> usize {
        self.members.get(&peer).map_or(0, |member| self.told.live() - member.excepted)
    }

    pub(super) fn adj_out(&self, peer: PeerId) -> impl Iterator<Item = (Prefix, &Arc<Attributes>)> {
        let member = self.members.get(&peer);
        self.told.after(None).filter_map(move |(prefix, entry)| Some((prefix, member?.sees(peer, entry)?)))
    }

    /// Whether there is, or may be, something to send to the peer.
    pub(super) fn has_messages(&self, peer: PeerId) -> bool {
        let member = self.members.get(&peer);
        member.is_some_and(|it| !self.noted.is_empty() || !it.is_current(self.log.end()))
    }

    /// Exports what was noted. Returns the peers that are too far behind to be caught up; they have left.
    pub(super) fn flush(&mut self, loc: &LocRib, context: &mut Context<'_>) -> Vec<PeerId> {
        if self.noted.is_empty() {
            return Vec::new();
        }
        self.epoch += 1;
        let mut noted = std::mem::take(&mut self.noted);
        noted.sort_unstable();
        noted.dedup();
        let key = self.key.clone();
        let mut exporter = Exporter::new(&key, context);
        let mut changes = Changes::default();
        for prefix in noted {
            let best = loc.get(&prefix).and_then(|destination| destination.best());
            let new = best.and_then(|path| {
                Some(Told { attributes: exporter.export(&prefix, path)?, source: path.source })
            });
            self.change(prefix, new, &mut changes);
        }
        for (bytes, audience) in changes.encode(&self.key) {
            self.log.push(Record { bytes, audience, epoch: self.epoch });
        }
        self.shorten()
    }

    fn change(&mut self, prefix: Prefix, new: Option<Told>, changes: &mut Changes) {
        let old = self.told.told(&prefix);
        let old_excepted = old.as_ref().map(|told| self.excepted(told));
        let Some(new) = new else {
            if let Some(old_excepted) = old_excepted {
                self.count(old_excepted, [None; 2]);
                changes.withdraw(prefix, Audience::AllBut(old_excepted));
                self.told.withdraw(prefix, self.epoch);
            }
            return;
        };
        if old.is_some_and(|old| Arc::ptr_eq(&old.attributes, &new.attributes) && old.source == new.source) {
            return;
        }
        let excepted = self.excepted(&new);
        self.count(old_excepted.unwrap_or_default(), excepted);
        // Whoever has the old route and may not have the new one.
        if let Some(old_excepted) = old_excepted {
            for peer in excepted.into_iter().flatten().filter(|peer| !old_excepted.contains(&Some(*peer))) {
                changes.withdraw(prefix, Audience::Only(peer));
            }
        }
        changes.announce(prefix, &new.attributes, Audience::AllBut(excepted));
        self.told.announce(prefix, new, self.epoch);
    }

    /// Whom the route came from, and who is its next hop (RFC 4271 §5.1.3).
    fn excepted(&self, told: &Told) -> Excepted {
        let source = match told.source {
            Source::Peer(peer) => Some(peer).filter(|peer| self.members.contains_key(peer)),
            Source::Local => None,
        };
        let next_hop = self.by_address.get(&told.attributes.next_hop).copied();
        [source, next_hop.filter(|peer| Some(*peer) != source)]
    }

    fn count(&mut self, old: Excepted, new: Excepted) {
        for peer in old.into_iter().flatten() {
            if let Some(member) = self.members.get_mut(&peer) {
                member.excepted -= 1;
            }
        }
        for peer in new.into_iter().flatten() {
            if let Some(member) = self.members.get_mut(&peer) {
                member.excepted += 1;
            }
        }
    }

    /// Bounds the log, and what is remembered of withdrawn prefixes.
    fn shorten(&mut self) -> Vec<PeerId> {
        if self.log.shorten(self.limits.log_bytes) {
            let (first, now) = (self.log.first(), self.now());
            self.members.values_mut().for_each(|member| member.fall_behind(first, now));
        }
        let mut cut_off = Vec::new();
        if self.has_too_many_graves() {
            self.tidy();
        }
        while self.has_too_many_graves()
            && let Some((peer, _)) = self.members.iter().min_by_key(|(_, member)| member.needs())
        {
            let peer = *peer;
            cut_off.push(peer);
            self.leave(peer);
        }
        cut_off
    }

    fn has_too_many_graves(&self) -> bool {
        self.told.graves() > self.limits.graves.max(self.told.live())
    }

    /// Lets go of what every member has seen.
    fn tidy(&mut self) {
        let now = self.now();
        let place = self.members.values().map(|member| member.needs_from(now.end)).min();
        self.log.drop_before(place.unwrap_or(now.end));
        let epoch = self.members.values().map(Member::needs).min();
        self.told.forget(epoch.unwrap_or(now.epoch + 1));
    }

    fn now(&self) -> Now {
        Now { end: self.log.end(), epoch: self.epoch }
    }

    /// Messages for the peer, in order, until they are `budget` bytes or more; returns their bytes. Flush first.
    pub(super) fn messages(&mut self, peer: PeerId, budget: usize, out: &mut Vec<Arc<[u8]>>) -> usize {
        let Some(mut member) = self.members.remove(&peer) else { return 0 };
        let now = self.now();
        let was_current = member.is_current(now.end);
        let mut taken = 0;
        while taken < budget && !member.is_current(now.end) {
            let before = out.len();
            if !member.backlog.is_empty() {
                self.resend(peer, &mut member, out);
            } else if member.walk.is_some() {
                self.walk(peer, &mut member, out);
            } else if let Some(record) = self.log.get(member.place) {
                member.place += 1;
                member.since = record.epoch;
                out.extend(record.audience.includes(peer).then(|| Arc::clone(&record.bytes)));
            }
            taken += out.iter().skip(before).map(|bytes| bytes.len()).sum::<usize>();
        }
        let is_current = member.is_current(now.end);
        if is_current {
            member.since = now.epoch + 1;
        }
        self.members.insert(peer, member);
        if is_current && !was_current {
            self.tidy();
        }
        taken
    }

    fn resend(&self, peer: PeerId, member: &mut Member, out: &mut Vec<Arc<[u8]>>) {
        let rest = member.backlog.len().saturating_sub(self.limits.walked);
        let mut changes = Changes::default();
        for prefix in member.backlog.split_off(rest) {
            match self.told.get(&prefix).and_then(|entry| member.sees(peer, entry)) {
                Some(attributes) => changes.announce(prefix, attributes, Audience::Only(peer)),
                None => changes.withdraw(prefix, Audience::Only(peer)),
            }
        }
        out.extend(changes.encode(&self.key).map(|(bytes, _)| bytes));
    }

    /// One step of a walk.
    fn walk(&self, peer: PeerId, member: &mut Member, out: &mut Vec<Arc<[u8]>>) {
        let Some(mut walk) = member.walk.take() else { return };
        if walk.after.is_none() {
            walk.began = self.now();
        }
        let mut changes = Changes::default();
        let (mut looked_at, mut last) = (0, None);
        for (prefix, entry) in self.told.after(walk.after.as_ref()).take(self.limits.walked) {
            looked_at += 1;
            last = Some(prefix);
            match member.sees(peer, entry) {
                Some(attributes) if entry.changed >= walk.announce_since => {
                    changes.announce(prefix, attributes, Audience::Only(peer));
                }
                // It may have been told what stood here before.
                None if entry.changed >= walk.withdraw_since => {
                    changes.withdraw(prefix, Audience::Only(peer));
                }
                _ => {}
            }
        }
        out.extend(changes.encode(&self.key).map(|(bytes, _)| bytes));
        if looked_at == self.limits.walked {
            walk.after = last;
            member.walk = Some(walk);
            return;
        }
        if walk.end_of_rib {
            out.push(wire::end_of_rib(&self.key));
        }
        member.follow(walk.began, self.log.first(), self.now());
    }

    /// Records in the log, and graves.
    #[cfg(test)]
    pub(super) fn kept(&self) -> (u64, usize) {
        (self.log.end() - self.log.first(), self.told.graves())
    }

    #[cfg(test)]
    pub(super) fn noted(&self) -> usize {
        self.noted.len()
    }
}
