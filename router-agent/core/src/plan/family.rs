//! An address as a map row holds it, and as the model does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use router_common::abi::Address;

/// One address family: what turns the model's addresses into a plane's.
pub trait Family: Address {
    /// The address, if it is of this family.
    fn from_ip(address: IpAddr) -> Option<Self>;
    /// The same address in the model's form.
    fn ip(self) -> IpAddr;
}

impl Family for [u8; 4] {
    fn from_ip(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Some(address.octets()),
            IpAddr::V6(_) => None,
        }
    }

    fn ip(self) -> IpAddr {
        Ipv4Addr::from(self).into()
    }
}

impl Family for [u8; 16] {
    fn from_ip(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address.octets()),
        }
    }

    fn ip(self) -> IpAddr {
        Ipv6Addr::from(self).into()
    }
}
