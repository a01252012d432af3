//! Address families (RFC 4760): the two this speaker can carry, and any other as its two numbers.

use std::fmt;
use std::net::IpAddr;

/// A destination: address and length, host bits zero.
pub type Prefix = ipnet::IpNet;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    Ipv4Unicast,
    Ipv6Unicast,
}

impl Family {
    pub const ALL: [Self; 2] = [Self::Ipv4Unicast, Self::Ipv6Unicast];

    pub const fn of(prefix: &Prefix) -> Self {
        match prefix {
            Prefix::V4(_) => Self::Ipv4Unicast,
            Prefix::V6(_) => Self::Ipv6Unicast,
        }
    }

    pub const fn of_address(address: &IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4Unicast,
            IpAddr::V6(_) => Self::Ipv6Unicast,
        }
    }

    pub const fn code(self) -> FamilyCode {
        match self {
            Self::Ipv4Unicast => FamilyCode { afi: 1, safi: 1 },
            Self::Ipv6Unicast => FamilyCode { afi: 2, safi: 1 },
        }
    }

    /// The longest prefix of the family, in bits.
    pub const fn max_prefix_len(self) -> u8 {
        match self {
            Self::Ipv4Unicast => 32,
            Self::Ipv6Unicast => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Ipv4Unicast => "ipv4-unicast",
            Self::Ipv6Unicast => "ipv6-unicast",
        })
    }
}

/// AFI and SAFI as they stand on the wire; peers name families that we do not carry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FamilyCode {
    pub afi: u16,
    pub safi: u8,
}

impl FamilyCode {
    /// The family behind the numbers, if it is one that we carry.
    pub const fn known(self) -> Option<Family> {
        match (self.afi, self.safi) {
            (1, 1) => Some(Family::Ipv4Unicast),
            (2, 1) => Some(Family::Ipv6Unicast),
            _ => None,
        }
    }
}

impl From<Family> for FamilyCode {
    fn from(family: Family) -> Self {
        family.code()
    }
}

/// Which families a session carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Families(u8);

impl Families {
    pub const NONE: Self = Self(0);

    pub const fn contains(self, family: Family) -> bool {
        self.0 & Self::bit(family) != 0
    }

    #[must_use]
    pub const fn with(self, family: Family) -> Self {
        Self(self.0 | Self::bit(family))
    }

    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(move |family| self.contains(*family))
    }

    const fn bit(family: Family) -> u8 {
        match family {
            Family::Ipv4Unicast => 1,
            Family::Ipv6Unicast => 2,
        }
    }
}

impl FromIterator<Family> for Families {
    fn from_iter<I: IntoIterator<Item = Family>>(families: I) -> Self {
        families.into_iter().fold(Self::NONE, Self::with)
    }
}
