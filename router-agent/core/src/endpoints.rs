//! Which endpoints a service port may use: the ready ones, and where there is none, those that are shutting down
//! but still serve (KEP-1669). The others get no new flow, and keep those they have for as long as they are listed;
//! of UDP, whose clients never reconnect, only while they serve. Endpoints that several slices list are one; order is
//! that of address and port, so that every node sees the same list.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::model::service::{Protocol, ServicePort, Slice};

/// The endpoints of one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Those that new flows go to.
    pub chosen: BTreeSet<SocketAddr>,
    /// Those that only keep the flows they have.
    pub draining: BTreeSet<SocketAddr>,
}

/// The endpoints of `port` in the slices of its service.
pub fn select<'a>(slices: impl Iterator<Item = &'a Slice>, port: &ServicePort) -> Endpoints {
    let (mut ready, mut leaving, mut listed) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for slice in slices {
        let ports = slice.ports.iter().filter(|own| own.name == port.name && own.protocol == port.protocol);
        for number in ports.map(|own| own.port) {
            for endpoint in &slice.endpoints {
                let socket = SocketAddr::new(endpoint.address, number);
                if endpoint.ready {
                    ready.insert(socket);
                } else if endpoint.serving && endpoint.terminating {
                    leaving.insert(socket);
                }
                if endpoint.serving || port.protocol == Protocol::Tcp {
                    listed.insert(socket);
                }
            }
        }
    }
    let chosen = if ready.is_empty() { leaving } else { ready };
    Endpoints { draining: &listed - &chosen, chosen }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Key;
    use crate::model::service::{Endpoint, Protocol, SlicePort};

    fn endpoint(last: u8, ready: bool, serving: bool, terminating: bool) -> Endpoint {
        Endpoint { address: [10, 1, 0, last].into(), ready, serving, terminating }
    }

    fn slice(ports: &[(&str, Protocol, u16)], endpoints: Vec<Endpoint>) -> Slice {
        let ports =
            ports.iter().map(|&(name, protocol, port)| SlicePort { name: name.into(), protocol, port });
        Slice { key: Key::new("d", "s-1"), service: Key::new("d", "s"), ports: ports.collect(), endpoints }
    }

    fn chosen(slices: &[Slice], name: &str, protocol: Protocol) -> Vec<String> {
        let port = ServicePort { name: name.into(), protocol, port: 80, node_port: None };
        select(slices.iter(), &port).chosen.iter().map(ToString::to_string).collect()
    }

    fn draining(slices: &[Slice], protocol: Protocol) -> Vec<String> {
        let port = ServicePort { name: String::new(), protocol, port: 80, node_port: None };
        select(slices.iter(), &port).draining.iter().map(ToString::to_string).collect()
    }

    const TCP: Protocol = Protocol::Tcp;

    #[test]
    fn ready_endpoints_are_preferred_and_sorted() {
        let endpoints = vec![
            endpoint(3, true, true, false),
            endpoint(1, false, true, true),
            endpoint(2, true, true, false),
        ];
        let slices = [slice(&[("", TCP, 8080)], endpoints)];
        assert_eq!(chosen(&slices, "", TCP), ["10.1.0.2:8080", "10.1.0.3:8080"]);
    }

    #[test]
    fn without_a_ready_one_those_that_leave_but_serve_are_used() {
        let endpoints = vec![
            endpoint(1, false, true, true),
            endpoint(2, false, false, true),
            endpoint(3, false, true, false),
        ];
        assert_eq!(chosen(&[slice(&[("", TCP, 8080)], endpoints)], "", TCP), ["10.1.0.1:8080"]);
    }

    #[test]
    fn a_ready_endpoint_in_another_slice_counts() {
        let leaving = slice(&[("", TCP, 8080)], vec![endpoint(1, false, true, true)]);
        let ready = slice(&[("", TCP, 8080)], vec![endpoint(2, true, true, false)]);
        assert_eq!(chosen(&[leaving, ready], "", TCP), ["10.1.0.2:8080"]);
    }

    #[test]
    fn an_endpoint_that_two_slices_list_is_one() {
        let one = slice(&[("", TCP, 8080)], vec![endpoint(1, true, true, false)]);
        assert_eq!(chosen(&[one.clone(), one], "", TCP), ["10.1.0.1:8080"]);
    }

    #[test]
    fn what_is_listed_but_not_chosen_keeps_its_flows() {
        let endpoints = vec![
            endpoint(1, true, true, false),
            endpoint(2, false, true, true),
            endpoint(3, false, false, true),
            endpoint(4, false, false, false),
        ];
        let tcp = slice(&[("", TCP, 8080)], endpoints.clone());
        assert_eq!(draining(&[tcp], TCP), ["10.1.0.2:8080", "10.1.0.3:8080", "10.1.0.4:8080"]);
        let udp = slice(&[("", Protocol::Udp, 53)], endpoints);
        assert_eq!(draining(&[udp], Protocol::Udp), ["10.1.0.2:53"]);
    }

    #[test]
    fn name_and_protocol_together_find_the_port() {
        let ports = [("dns", Protocol::Udp, 53), ("dns", TCP, 5353), ("web", TCP, 80)];
        let slices = [slice(&ports, vec![endpoint(1, true, true, false)])];
        assert_eq!(chosen(&slices, "dns", Protocol::Udp), ["10.1.0.1:53"]);
        assert_eq!(chosen(&slices, "dns", TCP), ["10.1.0.1:5353"]);
        assert_eq!(chosen(&slices, "", TCP), Vec::<String>::new());
    }
}
