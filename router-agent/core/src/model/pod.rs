//! A pod of this node, as the API has it. It lends its name to what the kernel reports: which veth is whose is
//! learned from the kernel alone.

use std::net::IpAddr;

use super::Key;

/// A pod that was scheduled here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub key: Key,
    /// Empty until the runtime has made its network.
    pub addresses: Vec<IpAddr>,
    /// It lives in the host's network namespace and has no veth.
    pub host_network: bool,
    /// It has ended; its addresses may be another pod's already.
    pub ended: bool,
}
