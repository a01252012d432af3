//! The laws of planning, on random clusters, for both families.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use proptest::prelude::*;

use super::*;
use crate::cluster::Event;
use crate::model::Key;
use crate::model::link::LinkEvent;
use crate::model::node::Node;
use crate::model::service::{Endpoint, Service, ServicePort, Slice, SlicePort};
use crate::plan::order;

/// A family whose addresses a test can make from a number.
trait Numbered: Family {
    fn numbered(net: u8, host: u8) -> IpAddr;
    fn pod_range() -> &'static str;
}

impl Numbered for [u8; 4] {
    fn numbered(net: u8, host: u8) -> IpAddr {
        [10, net, 0, host].into()
    }

    fn pod_range() -> &'static str {
        "10.1.0.0/24"
    }
}

impl Numbered for [u8; 16] {
    fn numbered(net: u8, host: u8) -> IpAddr {
        [0xfd00, 0, 0, u16::from(net), 0, 0, 0, u16::from(host)].into()
    }

    fn pod_range() -> &'static str {
        "fd00:0:0:1::/64"
    }
}

/// An event of a small world, in which things collide often.
#[derive(Clone, Debug)]
enum Step {
    Service { name: u8, created: i64, vips: Vec<u8>, ports: Vec<(u8, bool)> },
    ServiceGone(u8),
    Slice { name: u8, service: u8, ports: Vec<(u8, bool)>, hosts: Vec<(u8, bool)> },
    SliceGone(u8),
    Own(Vec<u8>),
    Veth { ifindex: u32, hosts: Vec<u8>, no_fast: bool },
    Unbound(u32),
    Uplink(u32),
    UplinkGone(u32),
    Range(bool),
}

fn ports() -> impl Strategy<Value = Vec<(u8, bool)>> {
    prop::collection::vec((1u8..4, any::<bool>()), 0..3)
}

fn step() -> impl Strategy<Value = Step> {
    let vips = prop::collection::vec(1u8..4, 0..3);
    let hosts = prop::collection::vec((1u8..8, prop::bool::weighted(0.8)), 0..7);
    let some = || prop::collection::vec(1u8..8, 0..3);
    prop_oneof![
        4 => (0u8..4, 0i64..3, vips, ports()).prop_map(|(name, created, vips, ports)| {
            Step::Service { name, created, vips, ports }
        }),
        1 => (0u8..4).prop_map(Step::ServiceGone),
        6 => (0u8..6, 0u8..4, ports(), hosts).prop_map(|(name, service, ports, hosts)| {
            Step::Slice { name, service, ports, hosts }
        }),
        1 => (0u8..6).prop_map(Step::SliceGone),
        1 => some().prop_map(Step::Own),
        3 => (1u32..5, some(), any::<bool>()).prop_map(|(ifindex, hosts, no_fast)| {
            Step::Veth { ifindex, hosts, no_fast }
        }),
        1 => (1u32..5).prop_map(Step::Unbound),
        1 => (5u32..7).prop_map(Step::Uplink),
        1 => (5u32..7).prop_map(Step::UplinkGone),
        1 => prop::bool::weighted(0.8).prop_map(Step::Range),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 0..40)
}

fn protocol(udp: bool) -> Protocol {
    if udp { Protocol::Udp } else { Protocol::Tcp }
}

/// A service port is named after what its endpoints listen on, so that ports collide where names differ.
fn event<A: Numbered>(step: Step) -> Event {
    let key = |number: u8| Key::new("n", format!("s{number}"));
    let pods = |hosts: Vec<u8>| hosts.into_iter().map(|host| A::numbered(1, host)).collect::<Vec<_>>();
    match step {
        Step::Service { name, created, vips, ports } => {
            let port = |(number, udp): (u8, bool)| ServicePort {
                name: format!("p{number}"),
                protocol: protocol(udp),
                port: u16::from(number % 2) + 80,
            };
            let cluster_ips = vips.into_iter().map(|vip| A::numbered(96, vip)).collect();
            let ports = ports.into_iter().map(port).collect();
            Event::Service(Service { key: key(name), created, cluster_ips, ports })
        }
        Step::ServiceGone(name) => Event::ServiceGone(key(name)),
        Step::Slice { name, service, ports, hosts } => {
            let port = |(number, udp): (u8, bool)| SlicePort {
                name: format!("p{number}"),
                protocol: protocol(udp),
                port: 8080,
            };
            let endpoint = |(host, ready): (u8, bool)| Endpoint {
                address: A::numbered(1, host),
                ready,
                serving: true,
                terminating: !ready,
            };
            let (ports, endpoints) =
                (ports.into_iter().map(port).collect(), hosts.into_iter().map(endpoint).collect());
            Event::Slice(Slice { key: key(name), service: key(service), ports, endpoints })
        }
        Step::SliceGone(name) => Event::SliceGone(key(name)),
        Step::Own(hosts) => Event::Link(LinkEvent::NodeAddresses(pods(hosts).into_iter().collect())),
        Step::Veth { ifindex, hosts, no_fast } => {
            let mac = [2, 0, 0, 0, 0, u8::try_from(ifindex).unwrap()];
            let name = format!("veth{ifindex}");
            Event::Link(LinkEvent::Bound { ifindex, name, mac, addresses: pods(hosts), no_fast })
        }
        Step::Unbound(ifindex) => Event::Link(LinkEvent::Unbound { ifindex }),
        Step::Uplink(ifindex) => Event::Link(LinkEvent::Uplink { ifindex, name: format!("eth{ifindex}") }),
        Step::UplinkGone(ifindex) => Event::Link(LinkEvent::UplinkGone { ifindex }),
        Step::Range(true) => Event::Node(
            "n".into(),
            Node { addresses: vec![], pod_cidrs: vec![A::pod_range().parse().unwrap()] },
        ),
        Step::Range(false) => Event::NodeGone("n".into()),
    }
}

fn cluster<A: Numbered>(steps: &[Step]) -> Cluster {
    let mut cluster = Cluster::new("n", []);
    cluster.absorb(event::<A>(Step::Range(true)));
    for step in steps {
        cluster.absorb(event::<A>(step.clone()));
    }
    cluster
}

const NOW: Duration = Duration::ZERO;

fn plan_all<A: Family>(want: &Cluster, have: &mut Tables<A>) -> Vec<Group<Op<A>>> {
    let owners = EbpfPlane::owners(want, have);
    EbpfPlane::plan_all(want, have, &owners, NOW)
}

/// What a driver is to do, in order: puts wave by wave, then deletes in reverse.
fn sequence<A: Family>(groups: Vec<Group<Op<A>>>) -> Vec<Op<A>> {
    let waves = order::waves(groups);
    let puts = waves.iter().flatten().flat_map(|group| group.puts.clone());
    let dels = waves.iter().rev().flatten().flat_map(|group| group.dels.clone());
    puts.chain(dels).collect()
}

/// Said without the planner: what a client should find.
fn oracle<A: Family>(want: &Cluster) -> Realized {
    let vips = want.vips().map(|vip| ((vip, 0, 0), BTreeSet::new()));
    let frontends = want.frontends().map(|frontend| {
        let key = (frontend.address, frontend.port, frontend.protocol.number());
        (key, want.endpoints(frontend).unwrap().chosen)
    });
    vips.chain(frontends).filter(|((address, _, _), _)| A::from_ip(*address).is_some()).collect()
}

/// Tables that an earlier cluster left, cut off after `cut` of the writes towards a second one.
fn leftover<A: Numbered>(first: &[Step], second: &[Step], cut: usize) -> Tables<A> {
    let mut have = Tables::default();
    plan_all(&cluster::<A>(first), &mut have);
    let want = cluster::<A>(second);
    let groups = plan_all(&want, &mut have.clone());
    for op in sequence(groups).iter().take(cut) {
        EbpfPlane::apply(&mut have, op);
    }
    have
}

/// The pods and devices, which have no ids to differ in.
fn rest<A: Family>(have: &Tables<A>) -> (BTreeMap<PodKey<A>, Pod>, BTreeMap<u32, Device>) {
    (have.pods.clone(), have.devices.clone())
}

fn shuffled(owners: BTreeSet<Owner>, seed: u64) -> Vec<Owner> {
    let mut owners: Vec<Owner> = owners.into_iter().collect();
    owners.sort_by_key(|owner| {
        let mut hasher = DefaultHasher::new();
        (seed, owner.to_string()).hash(&mut hasher);
        hasher.finish()
    });
    owners
}

fn any_order_ends_where_the_full_plan_ends<A: Numbered>(have: &Tables<A>, want: &Cluster, seed: u64) {
    let mut full = have.clone();
    plan_all(want, &mut full);
    let mut single = have.clone();
    for owner in shuffled(EbpfPlane::owners(want, have), seed) {
        let group = EbpfPlane::plan(want, &single, &owner, NOW);
        group.puts.iter().chain(&group.dels).for_each(|op| EbpfPlane::apply(&mut single, op));
    }
    assert_eq!(realized(&single), realized(&full));
    assert_eq!(realized(&full).unwrap(), oracle::<A>(want));
    assert_eq!(rest(&single), rest(&full));
    assert_eq!(strays(&single), BTreeSet::new());
}

fn every_prefix_works<A: Numbered>(have: &Tables<A>, want: &Cluster) {
    let before = realized(have).unwrap();
    let after = oracle::<A>(want);
    let mut tables = have.clone();
    for op in sequence(plan_all(want, &mut have.clone())) {
        EbpfPlane::apply(&mut tables, &op);
        let now = realized(&tables).unwrap_or_else(|broken| panic!("after {op}: {broken}"));
        for (address, port, protocol) in now.keys() {
            assert!(
                now.contains_key(&(*address, 0, 0)),
                "after {op}: {address}:{port}/{protocol} has no VIP row"
            );
        }
        for (dialled, old) in &before {
            let Some(new) = after.get(dialled) else { continue };
            let backends = now.get(dialled).unwrap_or_else(|| panic!("after {op}: {dialled:?} is gone"));
            assert!(backends.is_superset(&(old & new)), "after {op}: {dialled:?} misses one that stays");
            assert!(backends.is_subset(&(old | new)), "after {op}: {dialled:?} has one that nobody wants");
        }
    }
    assert_eq!(realized(&tables).unwrap(), after);
}

fn planning_twice_is_empty<A: Numbered>(have: &mut Tables<A>, want: &Cluster) {
    plan_all(want, have);
    assert_eq!(plan_all(want, have), []);
}

/// The group of one owner fails after `done` of its ops; those that need it are not tried.
fn a_failing_owner_holds_back_only_those_that_need_it<A: Numbered>(
    have: &Tables<A>,
    want: &Cluster,
    seed: u64,
    done: usize,
) {
    let mut full = have.clone();
    let groups = plan_all(want, &mut full);
    let Some(failing) = shuffled(groups.iter().map(|group| group.owner.clone()).collect(), seed).pop() else {
        return;
    };
    let has_failed = |owner: &Owner| *owner == failing;
    let mut tables = have.clone();
    for group in groups.iter().filter(|group| !order::held_back(group, has_failed)) {
        let cut = if group.owner == failing { done } else { usize::MAX };
        for op in group.puts.iter().chain(&group.dels).take(cut) {
            EbpfPlane::apply(&mut tables, op);
        }
    }
    let now = realized(&tables).unwrap();
    let held = groups.iter().filter(|group| group.owner == failing || order::held_back(group, has_failed));
    let held: BTreeSet<&Owner> = held.map(|group| &group.owner).collect();
    for frontend in want.frontends().filter(|frontend| !held.contains(&Owner::Frontend(**frontend))) {
        let dialled = (frontend.address, frontend.port, frontend.protocol.number());
        assert_eq!(
            now.get(&dialled),
            want.endpoints(frontend).map(|all| all.chosen).as_ref(),
            "{frontend} with {failing} failing"
        );
    }
    plan_all(want, &mut tables);
    assert_eq!(realized(&tables).unwrap(), oracle::<A>(want), "once {failing} is tried again");
}

/// No event leaves a row wrong that its dirt does not name.
fn dirt_is_complete<A: Numbered>(steps: &[Step]) {
    let mut want = cluster::<A>(&[]);
    let mut have = Tables::<A>::default();
    for step in steps {
        let dirty = want.absorb(event::<A>(step.clone()));
        EbpfPlane::plan_all(&want, &mut have, &dirty, NOW);
        let missed = plan_all(&want, &mut have.clone());
        assert_eq!(missed, [], "after {step:?}, which dirtied {dirty:?}");
    }
}

/// Another agent that learns of the same cluster in another order finds nothing to do.
fn a_restart_changes_nothing<A: Numbered>(steps: &[Step], seed: u64) {
    let want = cluster::<A>(steps);
    let mut have = Tables::<A>::default();
    plan_all(&want, &mut have);
    have.resting.clear();
    let mut last: BTreeMap<String, (usize, &Step)> = BTreeMap::new();
    for (index, step) in steps.iter().enumerate() {
        let about = match step {
            Step::Service { name, .. } | Step::ServiceGone(name) => format!("service {name}"),
            Step::Slice { name, .. } | Step::SliceGone(name) => format!("slice {name}"),
            Step::Own(_) => "own".into(),
            Step::Veth { ifindex, .. } | Step::Unbound(ifindex) => format!("veth {ifindex}"),
            Step::Uplink(ifindex) | Step::UplinkGone(ifindex) => format!("uplink {ifindex}"),
            Step::Range(_) => "range".into(),
        };
        last.insert(about, (index, step));
    }
    let mut relearned: Vec<(usize, &Step)> = last.into_values().collect();
    relearned.sort_by_key(|(index, _)| {
        let mut hasher = DefaultHasher::new();
        (seed, index).hash(&mut hasher);
        hasher.finish()
    });
    let relearned: Vec<Step> = relearned.into_iter().map(|(_, step)| step.clone()).collect();
    assert_eq!(plan_all(&cluster::<A>(&relearned), &mut have), []);
}

fn resting_ids_are_not_given_again<A: Numbered>(first: &[Step], second: &[Step]) {
    let mut have = Tables::<A>::default();
    plan_all(&cluster::<A>(first), &mut have);
    plan_all(&cluster::<A>(&[]), &mut have);
    let used = have.resting.clone();
    plan_all(&cluster::<A>(second), &mut have);
    for (id, row) in &have.backends {
        assert!(
            !used.contains(id) && !used.contains(&row.service),
            "backend {id} of service {}",
            row.service
        );
    }
}

/// The lowest ids that are free.
fn ids_are_the_lowest_free<A: Numbered>(steps: &[Step]) {
    let mut have = Tables::<A>::default();
    plan_all(&cluster::<A>(steps), &mut have);
    let ids: Vec<u32> = have.backends.keys().copied().collect();
    assert_eq!(ids, (1..).take(ids.len()).collect::<Vec<_>>());
    let services: BTreeSet<u32> =
        have.frontends.values().map(|row| row.service).filter(|id| *id != 0).collect();
    assert_eq!(services, (1..).take(services.len()).collect::<BTreeSet<_>>());
}

macro_rules! laws {
    ($family:ident, $address:ty) => {
        mod $family {
            use super::*;

            proptest! {
                #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

                #[test]
                fn owners_in_any_order_end_where_the_full_plan_ends(
                    first in steps(), second in steps(), third in steps(), cut in 0usize..40, seed: u64,
                ) {
                    let have = leftover::<$address>(&first, &second, cut);
                    any_order_ends_where_the_full_plan_ends(&have, &cluster::<$address>(&third), seed);
                }

                #[test]
                fn every_prefix_of_a_plan_works(
                    first in steps(), second in steps(), third in steps(), cut in 0usize..40,
                ) {
                    let have = leftover::<$address>(&first, &second, cut);
                    super::every_prefix_works(&have, &cluster::<$address>(&third));
                }

                #[test]
                fn planning_twice_is_empty(
                    first in steps(), second in steps(), third in steps(), cut in 0usize..40,
                ) {
                    let mut have = leftover::<$address>(&first, &second, cut);
                    super::planning_twice_is_empty(&mut have, &cluster::<$address>(&third));
                }

                #[test]
                fn a_failing_owner_holds_back_only_those_that_need_it(
                    first in steps(), second in steps(), seed: u64, done in 0usize..6,
                ) {
                    let have = leftover::<$address>(&first, &first, 0);
                    let want = cluster::<$address>(&second);
                    super::a_failing_owner_holds_back_only_those_that_need_it(&have, &want, seed, done);
                }

                #[test]
                fn every_event_dirties_all_that_it_changes(steps in steps()) {
                    dirt_is_complete::<$address>(&steps);
                }

                #[test]
                fn a_restart_changes_no_row(steps in steps(), seed: u64) {
                    super::a_restart_changes_nothing::<$address>(&steps, seed);
                }

                #[test]
                fn resting_ids_are_not_given_again(first in steps(), second in steps()) {
                    super::resting_ids_are_not_given_again::<$address>(&first, &second);
                }

                #[test]
                fn ids_are_the_lowest_free(steps in steps()) {
                    super::ids_are_the_lowest_free::<$address>(&steps);
                }
            }
        }
    };
}

laws!(v4, [u8; 4]);
laws!(v6, [u8; 16]);

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
