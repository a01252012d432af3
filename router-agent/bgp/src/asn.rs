//! Autonomous system numbers (RFC 6793): four octets everywhere; two only on the wire to a peer that knows no better.

use std::fmt;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Asn(pub u32);

impl Asn {
    /// What stands on a two-octet wire where a number does not fit (RFC 6793 §4.2.2).
    pub const TRANS: Self = Self(23456);

    /// Zero is reserved and never valid in a message (RFC 7607).
    pub const fn is_reserved(self) -> bool {
        self.0 == 0
    }

    /// The number as a two-octet field carries it.
    pub fn two_octet(self) -> u16 {
        u16::try_from(self.0).unwrap_or(23456)
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}
