//! The contract on source addresses: as whom a backend sees each client.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::topology::three::Site;

/// As whom others appear to a backend on the network of the node that balances: by way of `kube-svc`.
pub(super) const NODE_SELF: Ipv4Addr = Ipv4Addr::new(169, 254, 255, 1);

/// A client, to the node that balances its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// A pod of this node.
    Pod(Ipv4Addr),
    /// A process of this node.
    Process,
    /// Whoever comes in by the uplink: a pod or a process of another node, or somebody outside.
    Abroad(Ipv4Addr),
}

/// What the backend sees of a client that dials `vip` (or a node port) and is balanced on the node `entry`.
pub(super) fn expected(entry: &Site, who: Who, vip: Ipv4Addr, backend: Ipv4Addr) -> Ipv4Addr {
    match who {
        Who::Pod(own) if own == backend => vip,
        Who::Pod(own) => own,
        Who::Process | Who::Abroad(_) if backend == entry.address => NODE_SELF,
        Who::Abroad(own) if is_pod_of(entry, backend) => own,
        Who::Process | Who::Abroad(_) => entry.address,
    }
}

fn is_pod_of(site: &Site, address: Ipv4Addr) -> bool {
    site.pod_cidr.parse::<Ipv4Net>().is_ok_and(|range| range.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::REMOTE;
    use crate::topology::three::SITES;

    #[test]
    fn each_client_is_seen_as_the_contract_says() {
        let [node1, _, node3] = &SITES;
        let pod = |node: u8, host: u8| Ipv4Addr::new(10, 244, node, host);
        let vip = Ipv4Addr::new(10, 96, 0, 16);
        for (who, backend, seen) in [
            (Who::Pod(pod(1, 5)), pod(1, 5), vip),
            (Who::Pod(pod(1, 5)), pod(1, 6), pod(1, 5)),
            (Who::Pod(pod(1, 5)), node1.address, pod(1, 5)),
            (Who::Pod(pod(1, 5)), node3.address, pod(1, 5)),
            (Who::Process, pod(1, 6), node1.address),
            (Who::Process, pod(3, 6), node1.address),
            (Who::Process, node1.address, NODE_SELF),
            (Who::Process, node3.address, node1.address),
            (Who::Abroad(REMOTE), pod(1, 6), REMOTE),
            (Who::Abroad(REMOTE), pod(3, 6), node1.address),
            (Who::Abroad(REMOTE), node3.address, node1.address),
            (Who::Abroad(REMOTE), node1.address, NODE_SELF),
            (Who::Abroad(pod(3, 5)), pod(3, 6), node1.address),
        ] {
            assert_eq!(expected(node1, who, vip, backend), seen, "{who:?} to {backend}");
        }
    }
}
