//! UPDATE (RFC 4271 §4.3, RFC 4760) as it reaches the RIB: errors already handled as RFC 7606 says.

use super::attribute::Attributes;
use crate::family::{Family, Prefix};

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
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    pub disposition: Disposition,
    /// The attribute's type code; `None` where the whole block is at fault, or a prefix.
    pub attribute: Option<u8>,
    pub text: &'static str,
}

/// What an error costs, weakest first; the strongest in a message decides (RFC 7606 §3 h). A session reset is no
/// `Fault` but the decoder's error.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Disposition {
    /// The attribute (or one prefix) was dropped, the rest stands.
    Discard,
    /// Every prefix of the message was treated as withdrawn.
    Withdraw,
}
