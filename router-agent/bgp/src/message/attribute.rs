//! Path attributes as values (RFC 4271 §5). What best path and policy read is decoded; the rest stays bytes,
//! because the admin API and re-advertisement want bytes.

use std::net::{IpAddr, Ipv4Addr};

use crate::asn::Asn;

/// The attributes of one announcement. They are interned by the RIB, so equality is by value and in full.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Attributes {
    pub origin: Origin,
    pub as_path: AsPath,
    /// Of a 32-octet IPv6 next hop, the global address.
    pub next_hop: IpAddr,
    pub med: Option<u32>,
    /// Never present on what an external peer sent; encoded when present.
    pub local_pref: Option<u32>,
    pub communities: Box<[u32]>,
    pub originator_id: Option<Ipv4Addr>,
    pub cluster_list: Box<[Ipv4Addr]>,
    /// `ATOMIC_AGGREGATE`, `AGGREGATOR` (always with a four-octet AS), extended and large communities, and what we
    /// do not know; ascending by `kind`, each at most once.
    pub others: Box<[RawAttribute]>,
}

impl Attributes {
    /// What a route of our own starts from.
    pub fn originated(next_hop: IpAddr) -> Self {
        Self {
            origin: Origin::Igp,
            as_path: AsPath::default(),
            next_hop,
            med: None,
            local_pref: None,
            communities: Box::default(),
            originator_id: None,
            cluster_list: Box::default(),
            others: Box::default(),
        }
    }
}

/// Ascending preference: a lower value wins (RFC 4271 §9.1.2.2 b).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Origin {
    Igp = 0,
    Egp = 1,
    Incomplete = 2,
}

/// Leftmost is the nearest AS. No segment is empty; the encoder splits one longer than 255.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct AsPath(pub Box<[Segment]>);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Segment {
    pub kind: SegmentKind,
    pub asns: Box<[Asn]>,
}

/// Confederation segments are absent: we are in none, so a peer that sends them errs (RFC 5065 §5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SegmentKind {
    Set = 1,
    Sequence = 2,
}

impl AsPath {
    pub fn sequence(asns: impl Into<Box<[Asn]>>) -> Self {
        let asns = asns.into();
        if asns.is_empty() {
            return Self::default();
        }
        Self(Box::new([Segment { kind: SegmentKind::Sequence, asns }]))
    }

    /// Hops as best path counts them: a set is one (RFC 4271 §9.1.2.2 a).
    pub fn hops(&self) -> usize {
        self.0
            .iter()
            .map(|segment| match segment.kind {
                SegmentKind::Set => 1,
                SegmentKind::Sequence => segment.asns.len(),
            })
            .sum()
    }

    /// The neighbouring AS that `MED`s are compared within: the first of a leading sequence.
    pub fn first(&self) -> Option<Asn> {
        match self.0.first() {
            Some(Segment { kind: SegmentKind::Sequence, asns }) => asns.first().copied(),
            _ => None,
        }
    }

    pub fn contains(&self, asn: Asn) -> bool {
        self.0.iter().any(|segment| segment.asns.contains(&asn))
    }

    /// The path as it leaves `asn`, which stands in front of it `times` times (RFC 4271 §5.1.2).
    #[must_use]
    pub fn prepended(&self, asn: Asn, times: usize) -> Self {
        let mut front = vec![asn; times];
        let rest = match self.0.split_first() {
            Some((Segment { kind: SegmentKind::Sequence, asns }, rest)) => {
                front.extend_from_slice(asns);
                rest
            }
            _ => &self.0,
        };
        let mut segments = Vec::with_capacity(rest.len() + 1);
        if !front.is_empty() {
            segments.push(Segment { kind: SegmentKind::Sequence, asns: front.into() });
        }
        segments.extend_from_slice(rest);
        Self(segments.into())
    }
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RawAttribute {
    /// Optional, transitive and partial as they came; the extended-length bit is the encoder's.
    pub flags: u8,
    pub kind: u8,
    pub value: Box<[u8]>,
}

impl RawAttribute {
    /// Whether this speaker knows what the attribute means.
    pub fn is_recognized(&self) -> bool {
        matches!(
            self.kind,
            kind::ATOMIC_AGGREGATE | kind::AGGREGATOR | kind::EXTENDED_COMMUNITIES | kind::LARGE_COMMUNITIES
        )
    }

    pub fn is_transitive(&self) -> bool {
        self.flags & flag::TRANSITIVE != 0
    }
}

/// Attribute flags (RFC 4271 §4.3).
pub mod flag {
    pub const OPTIONAL: u8 = 0x80;
    pub const TRANSITIVE: u8 = 0x40;
    pub const PARTIAL: u8 = 0x20;
    pub const EXTENDED_LENGTH: u8 = 0x10;
}

/// Attribute type codes.
pub mod kind {
    pub const ORIGIN: u8 = 1;
    pub const AS_PATH: u8 = 2;
    pub const NEXT_HOP: u8 = 3;
    pub const MULTI_EXIT_DISC: u8 = 4;
    pub const LOCAL_PREF: u8 = 5;
    pub const ATOMIC_AGGREGATE: u8 = 6;
    pub const AGGREGATOR: u8 = 7;
    pub const COMMUNITIES: u8 = 8;
    pub const ORIGINATOR_ID: u8 = 9;
    pub const CLUSTER_LIST: u8 = 10;
    pub const MP_REACH_NLRI: u8 = 14;
    pub const MP_UNREACH_NLRI: u8 = 15;
    pub const EXTENDED_COMMUNITIES: u8 = 16;
    pub const AS4_PATH: u8 = 17;
    pub const AS4_AGGREGATOR: u8 = 18;
    pub const LARGE_COMMUNITIES: u8 = 32;
}
