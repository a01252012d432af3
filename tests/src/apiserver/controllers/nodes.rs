//! A pod CIDR for every node: the lowest free /24 of the range.

use std::collections::HashSet;

use ipnet::Ipv4Net;
use serde_json::json;

use super::super::kinds::Kind;
use super::super::store::{Store, key};

const PREFIX: u8 = 24;

pub(super) fn give_cidrs(store: &Store, range: Ipv4Net) {
    let nodes = store.list(Kind::Node);
    let taken = nodes.iter().filter_map(|node| node["spec"]["podCIDR"].as_str()?.parse().ok());
    let mut taken: HashSet<Ipv4Net> = taken.collect();
    let Ok(cidrs) = range.subnets(PREFIX) else { return };
    let mut free = cidrs.filter(|cidr| taken.insert(*cidr));
    for node in nodes.iter().filter(|node| node["spec"]["podCIDR"].is_null()) {
        let Some(cidr) = free.next() else { return };
        // The node may be gone again: then it needs none.
        store
            .edit(Kind::Node, &key(Kind::Node, node), false, |node| {
                let mut node = node.clone();
                node["spec"]["podCIDR"] = cidr.to_string().into();
                node["spec"]["podCIDRs"] = json!([cidr.to_string()]);
                Ok(node)
            })
            .ok();
    }
}
