//! What becomes of endpoints that get no new flow.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use router_common::abi::SlotKey;

use super::super::{EbpfPlane, Tables};
use crate::cluster::{Cluster, Event};
use crate::model::Key;
use crate::model::service::{Endpoint, Protocol, Service, ServicePort, Slice, SlicePort};
use crate::plan::Plane as _;

/// Last octet of an endpoint, and whether it is ready; one that is not is shutting down, and serves.
type Hosts<'a> = &'a [(u8, bool)];

fn slice(hosts: Hosts) -> Event {
    let endpoint = |&(host, ready): &(u8, bool)| Endpoint {
        address: [10, 1, 0, host].into(),
        ready,
        serving: true,
        terminating: !ready,
    };
    let ports = vec![SlicePort { name: String::new(), protocol: Protocol::Tcp, port: 8080 }];
    let endpoints = hosts.iter().map(endpoint).collect();
    Event::Slice(Slice { key: Key::new("d", "s-1"), service: Key::new("d", "s"), ports, endpoints })
}

fn service() -> Event {
    let ports = vec![ServicePort { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port: None }];
    let cluster_ips = vec![[10, 96, 0, 1].into()];
    Event::Service(Service { key: Key::new("d", "s"), created: 0, cluster_ips, ports })
}

/// Tables after these states of the one slice, one by one.
fn after(states: &[Hosts]) -> Tables<[u8; 4]> {
    let mut cluster = Cluster::new("n", []);
    cluster.absorb(service());
    let mut tables = Tables::default();
    for hosts in states {
        cluster.absorb(slice(hosts));
        let owners = EbpfPlane::owners(&cluster, &tables);
        EbpfPlane::plan_all(&cluster, &mut tables, &owners, Duration::ZERO);
        assert_eq!(EbpfPlane::plan_all(&cluster, &mut tables.clone(), &owners, Duration::ZERO), []);
    }
    tables
}

fn ids(tables: &Tables<[u8; 4]>) -> BTreeMap<SocketAddr, u32> {
    tables.backends.iter().map(|(id, row)| (SocketAddr::from((row.address, row.port)), *id)).collect()
}

fn count(tables: &Tables<[u8; 4]>) -> u32 {
    tables.frontends.values().map(|row| row.count).max().unwrap()
}

/// The last octets of what sits in the slots, in their order.
fn seats(tables: &Tables<[u8; 4]>) -> Vec<u8> {
    let seat = |(key, slot): (&SlotKey, &router_common::abi::Slot)| {
        assert!(key.index < 10);
        tables.backends[&slot.backend].address[3]
    };
    tables.slots.iter().map(seat).collect()
}

const ALL: Hosts = &[(1, true), (2, true), (3, true)];
const LEAVING: Hosts = &[(1, false), (2, true), (3, true)];

#[test]
fn one_that_leaves_keeps_its_row_past_the_count_for_as_long_as_it_is_listed() {
    let (before, now) = (after(&[ALL]), after(&[ALL, LEAVING]));
    assert_eq!(ids(&now), ids(&before));
    assert_eq!((count(&now), seats(&now)), (2, vec![3, 2, 1]));
    let gone = after(&[ALL, LEAVING, &[(2, true), (3, true)]]);
    assert_eq!((count(&gone), seats(&gone), gone.backends.len()), (2, vec![3, 2], 2));
}

#[test]
fn one_that_comes_back_and_one_that_is_new_go_before_those_that_leave() {
    let back = after(&[ALL, LEAVING, ALL]);
    assert_eq!((count(&back), ids(&back)), (3, ids(&after(&[ALL]))));
    let joined = after(&[ALL, LEAVING, &[(1, false), (2, true), (3, true), (4, true)]]);
    assert_eq!((count(&joined), seats(&joined)), (3, vec![3, 2, 4, 1]));
    assert_eq!(
        ids(&joined)[&"10.1.0.1:8080".parse().unwrap()],
        ids(&after(&[ALL]))[&"10.1.0.1:8080".parse().unwrap()]
    );
}

#[test]
fn one_that_nobody_was_ever_sent_to_gets_no_row() {
    let tables = after(&[LEAVING]);
    assert_eq!((count(&tables), tables.backends.len(), seats(&tables)), (2, 2, vec![2, 3]));
}
