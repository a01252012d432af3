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

impl Node {
    /// The address to be used in each family: the first of it.
    pub fn best_addresses(&self) -> Vec<IpAddr> {
        let first = |v4: bool| self.addresses.iter().find(|address| address.is_ipv4() == v4).copied();
        [first(true), first(false)].into_iter().flatten().collect()
    }
}
