//! Services and the endpoints behind them.

use std::fmt;
use std::net::IpAddr;

use router_common::abi;

use super::Key;

/// A protocol that we balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// Its IANA number, as it stands in map keys.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => abi::protocol::TCP,
            Self::Udp => abi::protocol::UDP,
        }
    }

    /// The protocol with this IANA number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            abi::protocol::TCP => Some(Self::Tcp),
            abi::protocol::UDP => Some(Self::Udp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// A Service that we balance: never headless, never an external name, never another proxy's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub key: Key,
    /// Seconds since 1970 of its creation: the older of two that claim one frontend wins.
    pub created: i64,
    /// Every ClusterIP, of either family.
    pub cluster_ips: Vec<IpAddr>,
    pub ports: Vec<ServicePort>,
}

/// One port of a Service. `name` and `protocol` together find its endpoints.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    /// Empty where the API has none.
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    /// On which it is served at each node's own address, if it is.
    pub node_port: Option<u16>,
}

/// An `EndpointSlice`: endpoints of one service, all on the same ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    pub key: Key,
    /// The service it belongs to.
    pub service: Key,
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<Endpoint>,
}

/// Where the endpoints of a slice serve a service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
}

/// One address in a slice. What the API leaves open is decided: unknown readiness is readiness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: IpAddr,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
}

/// What a client dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frontend {
    pub address: IpAddr,
    pub port: u16,
    pub protocol: Protocol,
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", std::net::SocketAddr::new(self.address, self.port), self.protocol)
    }
}
