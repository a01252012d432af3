//! This node, as the API has it.

use std::net::IpAddr;

use ipnet::IpNet;

/// This node's object.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Node {
    /// The addresses under which other nodes know it: internal ones first, then external ones.
    pub addresses: Vec<IpAddr>,
    /// The ranges its pods get their addresses from.
    pub pod_cidrs: Vec<IpNet>,
}
