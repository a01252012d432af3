//! Plans of small changes, op by op.

use super::steps::{Step, cluster, event};
use super::*;

/// A service with one VIP and one port, and these endpoints.
fn world(hosts: &[u8]) -> Cluster {
    let hosts = hosts.iter().map(|host| (*host, true)).collect();
    cluster::<[u8; 4]>(&[
        Step::Service { name: 0, created: 0, vips: vec![1], ports: vec![(1, false)] },
        Step::Slice { name: 0, service: 0, ports: vec![(1, false)], hosts },
    ])
}

fn texts(groups: Vec<Group<Op<[u8; 4]>>>) -> Vec<String> {
    sequence(groups).iter().map(ToString::to_string).collect()
}

#[test]
fn a_service_without_endpoints_has_its_frontend() {
    let ops = texts(plan_all(&world(&[]), &mut Tables::default()));
    let expected = [
        "put frontend 10.96.0.1:0/0: service 0, 0 backends",
        "put frontend 10.96.0.1:81/6: service 1, 0 backends",
    ];
    assert_eq!(ops, expected);
}

#[test]
fn an_endpoint_is_appended() {
    let mut have = Tables::default();
    plan_all(&world(&[1, 2]), &mut have);
    let expected = [
        "put backend 3: 10.1.0.3:8080 of service 1, flags 0",
        "put slot 2 of service 1: backend 3",
        "put frontend 10.96.0.1:81/6: service 1, 3 backends",
    ];
    assert_eq!(texts(plan_all(&world(&[1, 2, 3]), &mut have)), expected);
}

#[test]
fn the_last_takes_the_place_of_one_that_leaves() {
    let mut have = Tables::default();
    plan_all(&world(&[1, 2, 3]), &mut have);
    let expected = [
        "put slot 0 of service 1: backend 3",
        "put frontend 10.96.0.1:81/6: service 1, 2 backends",
        "delete slot 2 of service 1",
        "delete backend 1",
    ];
    assert_eq!(texts(plan_all(&world(&[2, 3]), &mut have)), expected);
    assert!(have.resting.contains(&1));
}

#[test]
fn a_newcomer_takes_the_place_of_one_that_leaves() {
    let mut have = Tables::default();
    plan_all(&world(&[1, 2]), &mut have);
    let expected = [
        "put backend 3: 10.1.0.7:8080 of service 1, flags 0",
        "put slot 0 of service 1: backend 3",
        "delete backend 1",
    ];
    assert_eq!(texts(plan_all(&world(&[2, 7]), &mut have)), expected);
}

#[test]
fn rows_that_lead_nowhere_are_mended() {
    let mut have = Tables::<[u8; 4]>::default();
    plan_all(&world(&[1, 2]), &mut have);
    have.slots.remove(&SlotKey { service: 1, index: 0 });
    have.backends.remove(&2);
    assert!(realized(&have).is_err());
    plan_all(&world(&[1, 2]), &mut have);
    assert_eq!(realized(&have).unwrap(), oracle::<[u8; 4]>(&world(&[1, 2])));
    assert_eq!(strays(&have), BTreeSet::new());
}

#[test]
fn a_backend_at_an_address_of_this_node_is_marked() {
    let mut want = world(&[1]);
    let mut have = Tables::<[u8; 4]>::default();
    plan_all(&want, &mut have);
    let dirty = want.absorb(event::<[u8; 4]>(Step::Own(vec![1])));
    let groups = EbpfPlane::plan_all(&want, &mut have, &dirty, NOW);
    assert_eq!(texts(groups), ["put backend 1: 10.1.0.1:8080 of service 1, flags 1"]);
}

#[test]
fn devices_that_are_the_drivers_stay() {
    let mut have = Tables::<[u8; 4]>::default();
    have.devices.insert(9, Device { kind: device_kind::SERVICE_FAR, flags: 0 });
    have.devices.insert(10, Device { kind: device_kind::UPLINK, flags: 0 });
    assert_eq!(texts(plan_all(&world(&[]), &mut have)).pop().as_deref(), Some("delete device 10"));
    assert_eq!(have.devices.keys().collect::<Vec<_>>(), [&9]);
}

#[test]
fn the_first_pod_to_have_an_address_keeps_it_and_the_second_is_bound_all_the_same() {
    let veth = |ifindex| Step::Veth { ifindex, hosts: vec![5], no_fast: false };
    let want = cluster::<[u8; 4]>(&[veth(2), veth(1)]);
    let mut have = Tables::<[u8; 4]>::default();
    plan_all(&want, &mut have);
    assert_eq!(have.pods[&PodKey { address: [10, 1, 0, 5] }].ifindex, 2);
    assert_eq!(have.devices[&1], Device { kind: device_kind::POD, flags: device_flags::BOUND });
}
