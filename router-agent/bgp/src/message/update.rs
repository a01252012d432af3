//! UPDATE (RFC 4271 §4.3, RFC 4760) as it reaches the RIB: errors already handled as RFC 7606 says.

mod as4;
mod block;
mod decode;
mod encode;
mod value;

pub use decode::decode;
pub use encode::{EncodeError, announce, end_of_rib, withdraw};

use std::net::IpAddr;

use super::attribute::Attributes;
use crate::family::{Families, Family, Prefix};

/// Apply `withdrawn` first: a prefix that is in both was announced (RFC 4271 §4.3).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Update {
    /// Mostly one; a message that carries both families, or two next hops, has two.
    pub announced: Vec<Announcement>,
    /// Also what an error turned from an announcement into a withdrawal.
    pub withdrawn: Vec<Prefix>,
    pub end_of_rib: Option<Family>,
    /// What was wrong and has been dealt with; for a log and a counter.
    pub faults: Vec<Fault>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Announcement {
    pub family: Family,
    pub attributes: Attributes,
    pub prefixes: Vec<Prefix>,
}

/// An error that the session survived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    pub disposition: Disposition,
    /// The attribute's type code; `None` where the whole block is at fault, or a prefix.
    pub attribute: Option<u8>,
    /// Of the UPDATE error (RFC 4271 §4.5) that a session reset would have named.
    pub subcode: u8,
    pub text: &'static str,
}

/// What an error costs, weakest first; the strongest in a message decides (RFC 7606 §3 h). A session reset is no
/// `Fault` but the decoder's error.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Disposition {
    /// The attribute, the prefix or the family was dropped, the rest stands.
    Discard,
    /// Every prefix of the message was treated as withdrawn.
    Withdraw,
}

/// What a session agreed on, as far as the bytes of an UPDATE depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Context {
    /// AS numbers have four octets (RFC 6793).
    pub four_octet: bool,
    /// The peer is in our AS.
    pub internal: bool,
    pub families: Families,
    /// IPv4 routes may have an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
    /// What a message may be long: [`MAX_LEN`](super::header::MAX_LEN), or with RFC 8654
    /// [`EXTENDED_MAX_LEN`](super::header::EXTENDED_MAX_LEN).
    pub max_len: usize,
    /// Our end of the connection, which no peer may name as next hop (RFC 4271 §6.3).
    pub local: Option<IpAddr>,
}
