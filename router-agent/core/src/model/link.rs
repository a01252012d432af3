//! What the kernel reports.
use std::collections::BTreeSet;
use std::net::IpAddr;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    Bound { ifindex: u32, name: String, mac: [u8; 6], addresses: Vec<IpAddr>, no_fast: bool },
    Unbound { ifindex: u32 },
    Uplink { ifindex: u32, name: String },
    UplinkGone { ifindex: u32 },
    NodeAddresses(BTreeSet<IpAddr>),
    Bridge { ifindex: u32, mac: [u8; 6] },
    BridgeGone,
}
