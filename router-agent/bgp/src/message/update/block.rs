//! The attribute block: one pass that judges each attribute by RFC 7606 §7 and keeps what is good.

use std::net::{IpAddr, Ipv4Addr};

use super::value::{Confederations, as_path, family_code, ipv6_next_hop, is_next_hop, word};
use super::{Context, Disposition, Fault};
use crate::family::{Family, Prefix};
use crate::message::attribute::{AsPath, Origin, RawAttribute, flag, kind};
use crate::message::nlri;
use crate::message::notification::{ErrorCode, Notification, error};
use crate::message::wire::{Reader, rows};

/// What one block said, so far as it could be understood.
#[derive(Default)]
pub(super) struct Block {
    pub origin: Option<Origin>,
    pub as_path: Option<AsPath>,
    pub next_hop: Option<Ipv4Addr>,
    pub med: Option<u32>,
    pub local_pref: Option<u32>,
    pub communities: Box<[u32]>,
    pub originator_id: Option<Ipv4Addr>,
    pub cluster_list: Box<[Ipv4Addr]>,
    pub others: Vec<RawAttribute>,
    pub as4_path: Option<AsPath>,
    pub as4_aggregator: Option<[u8; 8]>,
    pub reach: Option<Reach>,
    pub unreach: Option<Unreach>,
    pub faults: Vec<Fault>,
    seen: Seen,
}

/// `MP_REACH_NLRI`, whatever its family.
pub(super) struct Reach {
    pub routes: Option<(Family, IpAddr, Vec<Prefix>)>,
}

/// `MP_UNREACH_NLRI`, whatever its family.
pub(super) struct Unreach {
    pub routes: Option<(Family, Vec<Prefix>)>,
}

/// The types that the block holds.
#[derive(Default)]
struct Seen([u64; 4]);

impl Seen {
    /// False if it was there already.
    fn insert(&mut self, kind: u8) -> bool {
        let bit = 1 << (kind % 64);
        let Some(word) = self.0.get_mut(usize::from(kind / 64)) else { return false };
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    fn contains(&self, kind: u8) -> bool {
        self.0.get(usize::from(kind / 64)).is_some_and(|word| word & (1 << (kind % 64)) != 0)
    }

    fn any_but(&self, kind: u8) -> bool {
        self.0.iter().zip(0u8..).any(|(word, index)| {
            let ignored = if index == kind / 64 { 1 << (kind % 64) } else { 0 };
            word & !ignored != 0
        })
    }
}

/// An attribute as it stands in the block.
struct Raw<'a> {
    flags: u8,
    kind: u8,
    value: &'a [u8],
}

/// What is wrong with an attribute.
enum Wrong {
    Discard(ErrorCode, &'static str),
    Withdraw(ErrorCode, &'static str),
    Reset(ErrorCode),
}

use Wrong::{Discard, Reset, Withdraw};

impl Block {
    /// Err resets the session. `has_nlri`: the message announces IPv4 routes behind the block.
    pub(super) fn decode(field: &[u8], has_nlri: bool, context: &Context) -> Result<Self, Notification> {
        let mut block = Self::default();
        let mut reader = Reader(field);
        while !reader.is_empty() {
            let Some(raw) = block.next_attribute(&mut reader)? else { break };
            if !block.seen.insert(raw.kind) {
                // RFC 7606 §3 g.
                if matches!(raw.kind, kind::MP_REACH_NLRI | kind::MP_UNREACH_NLRI) {
                    return Err(Notification::new(error::MALFORMED_ATTRIBUTE_LIST, &[]));
                }
                let text = "attribute appears twice";
                block.fault(Disposition::Discard, Some(raw.kind), error::MALFORMED_ATTRIBUTE_LIST, text);
                continue;
            }
            match block.absorb(&raw, has_nlri, context) {
                Ok(()) => {}
                Err(Discard(error, text)) => block.fault(Disposition::Discard, Some(raw.kind), error, text),
                Err(Withdraw(error, text)) => block.fault(Disposition::Withdraw, Some(raw.kind), error, text),
                Err(Reset(error)) => return Err(Notification::new(error, &quote(&raw))),
            }
        }
        block.complete(has_nlri)?;
        Ok(block)
    }

    pub(super) fn is_withdraw(&self) -> bool {
        self.faults.iter().any(|fault| fault.disposition == Disposition::Withdraw)
    }

    /// Whether the block is nothing but an `MP_UNREACH_NLRI`, or empty.
    pub(super) fn only_unreach(&self) -> bool {
        !self.seen.any_but(kind::MP_UNREACH_NLRI)
    }

    pub(super) fn fault(
        &mut self,
        disposition: Disposition,
        attribute: Option<u8>,
        error: ErrorCode,
        text: &'static str,
    ) {
        self.faults.push(Fault { disposition, attribute, subcode: error.1, text });
    }

    /// `None` where an attribute runs out of the block: what follows cannot be found (RFC 7606 §4).
    fn next_attribute<'a>(&mut self, reader: &mut Reader<'a>) -> Result<Option<Raw<'a>>, Notification> {
        let header = reader.array::<2>().and_then(|[flags, kind]| {
            let len = match flags & flag::EXTENDED_LENGTH {
                0 => reader.u8().map(usize::from),
                _ => reader.u16().map(usize::from),
            };
            Some((flags, kind, len?))
        });
        let Some((flags, kind, len)) = header else {
            self.seen.insert(0);
            self.fault(Disposition::Withdraw, None, error::ATTRIBUTE_LENGTH, "attribute header is cut off");
            return Ok(None);
        };
        if let Some(value) = reader.take(len) {
            return Ok(Some(Raw { flags, kind, value }));
        }
        // Routes that cannot be read cannot be withdrawn either (RFC 7606 §3 j).
        if matches!(kind, kind::MP_REACH_NLRI | kind::MP_UNREACH_NLRI) {
            return Err(Notification::new(error::OPTIONAL_ATTRIBUTE, &[]));
        }
        self.seen.insert(kind);
        self.fault(
            Disposition::Withdraw,
            Some(kind),
            error::ATTRIBUTE_LENGTH,
            "attribute overruns its block",
        );
        Ok(None)
    }

    fn absorb(&mut self, raw: &Raw<'_>, has_nlri: bool, context: &Context) -> Result<(), Wrong> {
        let value = raw.value;
        match raw.kind {
            kind::LOCAL_PREF | kind::ORIGINATOR_ID | kind::CLUSTER_LIST if !context.internal => {
                return Err(Discard(error::MALFORMED_ATTRIBUTE_LIST, "not for an external peer to send"));
            }
            kind::AS4_PATH | kind::AS4_AGGREGATOR if context.four_octet => {
                return Err(Discard(
                    error::MALFORMED_ATTRIBUTE_LIST,
                    "AS4 attribute between four-octet speakers",
                ));
            }
            _ => {}
        }
        if let Some(expected) = expected_flags(raw.kind) {
            if raw.flags & (flag::OPTIONAL | flag::TRANSITIVE) != expected {
                // The routes of MP attributes are still wanted, to withdraw them.
                self.routes(raw, context)?;
                return Err(wrong_flags(raw.kind));
            }
        } else if raw.flags & flag::OPTIONAL == 0 {
            return Err(Reset(error::UNRECOGNIZED_WELL_KNOWN));
        }
        let length = |text| Withdraw(error::ATTRIBUTE_LENGTH, text);
        match raw.kind {
            kind::ORIGIN => self.origin = Some(origin(value)?),
            kind::AS_PATH => {
                let path = as_path(value, context.four_octet, Confederations::Malformed);
                self.as_path = Some(path.map_err(|text| Withdraw(error::MALFORMED_AS_PATH, text))?);
            }
            kind::NEXT_HOP => {
                let octets = <[u8; 4]>::try_from(value).map_err(|_| length("next hop is not four octets"))?;
                let next_hop = Ipv4Addr::from(octets);
                // Without IPv4 routes it says nothing, so what it says cannot be wrong (RFC 4760 §3).
                if has_nlri && !is_next_hop(next_hop.into(), context) {
                    return Err(Withdraw(error::INVALID_NEXT_HOP, "next hop is no host of a neighbour"));
                }
                self.next_hop = Some(next_hop);
            }
            kind::MULTI_EXIT_DISC => self.med = Some(word(value).ok_or(length("MED is not four octets"))?),
            kind::LOCAL_PREF => {
                self.local_pref = Some(word(value).ok_or(length("LOCAL_PREF is not four octets"))?);
            }
            kind::ATOMIC_AGGREGATE if !value.is_empty() => {
                return Err(Discard(error::ATTRIBUTE_LENGTH, "ATOMIC_AGGREGATE has a value"));
            }
            kind::AGGREGATOR => self.aggregator(raw, context)?,
            kind::COMMUNITIES => {
                let words = rows(value).ok_or(length("communities are not a row of four octets"))?;
                self.communities = words.map(u32::from_be_bytes).collect();
            }
            kind::ORIGINATOR_ID => {
                self.originator_id = Some(word(value).ok_or(length("originator is not four octets"))?.into());
            }
            kind::CLUSTER_LIST => {
                let ids = rows::<4>(value).ok_or(length("cluster list is not a row of four octets"))?;
                self.cluster_list = ids.map(Ipv4Addr::from).collect();
            }
            kind::MP_REACH_NLRI | kind::MP_UNREACH_NLRI => self.routes(raw, context)?,
            kind::EXTENDED_COMMUNITIES if rows::<8>(value).is_none() => {
                return Err(length("extended communities are not a row of eight octets"));
            }
            kind::LARGE_COMMUNITIES if rows::<12>(value).is_none() => {
                return Err(length("large communities are not a row of twelve octets"));
            }
            kind::AS4_PATH => {
                let path = as_path(value, true, Confederations::Skipped);
                self.as4_path = Some(path.map_err(|text| Discard(error::MALFORMED_AS_PATH, text))?);
            }
            kind::AS4_AGGREGATOR => {
                let aggregator =
                    <[u8; 8]>::try_from(value).ok().filter(|[a, b, c, d, ..]| [a, b, c, d] != [&0; 4]);
                self.as4_aggregator =
                    Some(aggregator.ok_or(Discard(error::ATTRIBUTE_LENGTH, "AS4_AGGREGATOR is malformed"))?);
            }
            _ => self.keep(raw, value),
        }
        Ok(())
    }

    fn keep(&mut self, raw: &Raw<'_>, value: &[u8]) {
        let flags = raw.flags & (flag::OPTIONAL | flag::TRANSITIVE | flag::PARTIAL);
        self.others.push(RawAttribute { flags, kind: raw.kind, value: value.into() });
    }

    fn aggregator(&mut self, raw: &Raw<'_>, context: &Context) -> Result<(), Wrong> {
        let mut reader = Reader(raw.value);
        let asn = if context.four_octet { reader.u32() } else { reader.u16().map(u32::from) };
        let Some((asn, address)) = asn.zip(reader.array::<4>()).filter(|_| reader.is_empty()) else {
            return Err(Discard(error::ATTRIBUTE_LENGTH, "AGGREGATOR has a wrong length"));
        };
        if asn == 0 {
            return Err(Discard(error::OPTIONAL_ATTRIBUTE, "AGGREGATOR names AS 0"));
        }
        self.keep(raw, &[asn.to_be_bytes(), address].concat());
        Ok(())
    }

    /// `MP_REACH_NLRI` and `MP_UNREACH_NLRI`; nothing of any other type.
    fn routes(&mut self, raw: &Raw<'_>, context: &Context) -> Result<(), Wrong> {
        match raw.kind {
            kind::MP_REACH_NLRI => self.reach(raw.value, context),
            kind::MP_UNREACH_NLRI => self.unreach(raw.value, context),
            _ => Ok(()),
        }
    }

    /// What cannot be parsed resets the session: its routes are unknown (RFC 7606 §5.3, §7.11).
    fn reach(&mut self, value: &[u8], context: &Context) -> Result<(), Wrong> {
        let unreadable = || Reset(error::OPTIONAL_ATTRIBUTE);
        let mut reader = Reader(value);
        let code = family_code(&mut reader).ok_or_else(unreadable)?;
        let len = usize::from(reader.u8().ok_or_else(unreadable)?);
        let next_hop = reader.take(len).ok_or_else(unreadable)?;
        reader.u8().ok_or_else(unreadable)?;
        let Some(family) = code.known().filter(|family| context.families.contains(*family)) else {
            self.reach = Some(Reach { routes: None });
            return Err(Discard(error::OPTIONAL_ATTRIBUTE, "family is not of this session"));
        };
        let next_hop = match (family, next_hop.len()) {
            (Family::Ipv4Unicast, 4) => <[u8; 4]>::try_from(next_hop).ok().map(IpAddr::from),
            (Family::Ipv4Unicast, 16 | 32) if context.extended_next_hop => ipv6_next_hop(next_hop),
            (Family::Ipv6Unicast, 16 | 32) => ipv6_next_hop(next_hop),
            _ => None,
        };
        let next_hop = next_hop.ok_or_else(unreadable)?;
        let prefixes = nlri::decode(family, reader.0).ok_or_else(unreadable)?;
        self.reach = Some(Reach { routes: Some((family, next_hop, prefixes)) });
        if !is_next_hop(next_hop, context) {
            return Err(Withdraw(error::INVALID_NEXT_HOP, "next hop is no host of a neighbour"));
        }
        Ok(())
    }

    fn unreach(&mut self, value: &[u8], context: &Context) -> Result<(), Wrong> {
        let mut reader = Reader(value);
        let code = family_code(&mut reader).ok_or(Reset(error::OPTIONAL_ATTRIBUTE))?;
        let Some(family) = code.known().filter(|family| context.families.contains(*family)) else {
            self.unreach = Some(Unreach { routes: None });
            return Err(Discard(error::OPTIONAL_ATTRIBUTE, "family is not of this session"));
        };
        let prefixes = nlri::decode(family, reader.0).ok_or(Reset(error::OPTIONAL_ATTRIBUTE))?;
        self.unreach = Some(Unreach { routes: Some((family, prefixes)) });
        Ok(())
    }

    /// What must be there, and whether the errors can be survived.
    fn complete(&mut self, has_nlri: bool) -> Result<(), Notification> {
        let reaches = has_nlri || self.reach.is_some();
        if reaches {
            let mandatory = [(kind::ORIGIN, true), (kind::AS_PATH, true), (kind::NEXT_HOP, has_nlri)];
            for (kind, needed) in mandatory {
                if needed && !self.seen.contains(kind) {
                    let text = "well-known attribute is missing";
                    self.fault(Disposition::Withdraw, Some(kind), error::MISSING_WELL_KNOWN, text);
                }
            }
            return Ok(());
        }
        // RFC 7606 §5.2: attributes without routes, and wrong: the routes may be what could not be found.
        let worst = self.faults.iter().find(|fault| fault.disposition == Disposition::Withdraw);
        match worst {
            Some(fault) if !self.only_unreach() => Err(Notification::new((3, fault.subcode), &[])),
            _ => Ok(()),
        }
    }
}

/// The attribute in full, as NOTIFICATION data (RFC 4271 §6.3).
fn quote(raw: &Raw<'_>) -> Vec<u8> {
    let [high, low] = u16::try_from(raw.value.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut data = vec![raw.flags, raw.kind];
    if raw.flags & flag::EXTENDED_LENGTH != 0 {
        data.push(high);
    }
    data.push(low);
    data.extend_from_slice(raw.value);
    data
}

const fn expected_flags(kind: u8) -> Option<u8> {
    const WELL_KNOWN: u8 = flag::TRANSITIVE;
    const TRANSITIVE: u8 = flag::OPTIONAL | flag::TRANSITIVE;
    const LOCAL: u8 = flag::OPTIONAL;
    Some(match kind {
        kind::ORIGIN | kind::AS_PATH | kind::NEXT_HOP | kind::LOCAL_PREF | kind::ATOMIC_AGGREGATE => {
            WELL_KNOWN
        }
        kind::MULTI_EXIT_DISC
        | kind::ORIGINATOR_ID
        | kind::CLUSTER_LIST
        | kind::MP_REACH_NLRI
        | kind::MP_UNREACH_NLRI => LOCAL,
        kind::AGGREGATOR
        | kind::COMMUNITIES
        | kind::EXTENDED_COMMUNITIES
        | kind::AS4_PATH
        | kind::AS4_AGGREGATOR
        | kind::LARGE_COMMUNITIES => TRANSITIVE,
        _ => return None,
    })
}

/// RFC 7606 §3 c, except where a malformed attribute is only dropped (§3 f, RFC 6793 §6).
const fn wrong_flags(kind: u8) -> Wrong {
    let text = "attribute flags are not the type's";
    match kind {
        kind::ATOMIC_AGGREGATE | kind::AGGREGATOR | kind::AS4_PATH | kind::AS4_AGGREGATOR => {
            Discard(error::ATTRIBUTE_FLAGS, text)
        }
        _ => Withdraw(error::ATTRIBUTE_FLAGS, text),
    }
}

fn origin(value: &[u8]) -> Result<Origin, Wrong> {
    match value {
        [0] => Ok(Origin::Igp),
        [1] => Ok(Origin::Egp),
        [2] => Ok(Origin::Incomplete),
        [_] => Err(Withdraw(error::INVALID_ORIGIN, "origin is undefined")),
        _ => Err(Withdraw(error::ATTRIBUTE_LENGTH, "origin is not one octet")),
    }
}
