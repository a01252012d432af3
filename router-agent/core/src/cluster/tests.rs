//! Who has what, and what is said about it.

use super::*;
use crate::model::service::{Endpoint, Protocol, ServicePort, SlicePort};
use crate::problem::Change;

fn service(name: &str, created: i64, vip: u8, port: u16) -> Event {
    let ports = vec![ServicePort { name: String::new(), protocol: Protocol::Tcp, port, node_port: None }];
    Event::Service(Service {
        key: Key::new("d", name),
        created,
        cluster_ips: vec![[10, 96, 0, vip].into()],
        ports,
    })
}

fn slice(name: &str, service: &str, hosts: &[u8]) -> Event {
    let endpoint = |host: &u8| Endpoint {
        address: [10, 1, 0, *host].into(),
        ready: true,
        serving: true,
        terminating: false,
    };
    let ports = vec![SlicePort { name: String::new(), protocol: Protocol::Tcp, port: 8080 }];
    let endpoints = hosts.iter().map(endpoint).collect();
    Event::Slice(Slice { key: Key::new("d", name), service: Key::new("d", service), ports, endpoints })
}

fn frontend(vip: u8, port: u16) -> Frontend {
    Frontend { address: [10, 96, 0, vip].into(), port, protocol: Protocol::Tcp }
}

fn cluster(events: impl IntoIterator<Item = Event>) -> Cluster {
    let mut cluster = Cluster::new("n", []);
    for event in events {
        cluster.absorb(event);
    }
    cluster
}

fn wrong(cluster: &Cluster) -> Vec<String> {
    cluster.problems().iter().map(ToString::to_string).collect()
}

fn holder(cluster: &Cluster) -> Option<&str> {
    cluster.service_of(&frontend(1, 80)).map(|key| key.name.as_str())
}

#[test]
fn of_two_services_on_one_frontend_the_older_has_it_in_whatever_order_they_come() {
    for order in [[0, 1], [1, 0]] {
        let both = [service("young", 9, 1, 80), service("old", 5, 1, 80)];
        let cluster = cluster(order.map(|index: usize| both[index].clone()));
        assert_eq!(holder(&cluster), Some("old"));
        let expected = "service d/young: FrontendTaken: 10.96.0.1:80/TCP (port \"\") belongs to service d/old, created \
                        before it; change the address or port of one of the two; until then d/old keeps it";
        assert_eq!(wrong(&cluster), [expected]);
    }
}

#[test]
fn of_two_of_one_age_the_first_by_name_has_it() {
    let cluster = cluster([service("b", 5, 1, 80), service("a", 5, 1, 80)]);
    assert_eq!(holder(&cluster), Some("a"));
}

#[test]
fn when_the_older_lets_go_the_younger_has_it_and_the_problem_is_gone() {
    for last in [Event::ServiceGone(Key::new("d", "old")), service("old", 5, 1, 81)] {
        let mut cluster =
            cluster([service("old", 5, 1, 80), service("young", 9, 1, 80), slice("s", "young", &[1])]);
        cluster.problems_mut().take_changes();
        let dirty = cluster.absorb(last);
        assert!(dirty.contains(&Owner::Frontend(frontend(1, 80))), "{dirty:?}");
        assert_eq!(holder(&cluster), Some("young"));
        assert_eq!(cluster.endpoints(&frontend(1, 80)).map(|all| all.chosen.len()), Some(1));
        assert!(matches!(cluster.problems_mut().take_changes()[..], [Change::Cleared(_)]));
    }
}

#[test]
fn one_vip_may_carry_ports_of_two_services() {
    let cluster = cluster([service("a", 5, 1, 80), service("b", 9, 1, 81)]);
    assert_eq!(wrong(&cluster), Vec::<String>::new());
    assert_eq!(cluster.services_on([10, 96, 0, 1].into()).count(), 2);
}

#[test]
fn keys_that_joined_by_dashes_would_be_one_are_two() {
    let mut first = cluster([]);
    for (namespace, name, vip) in [("a-b", "c", 1), ("a", "b-c", 2)] {
        let Event::Service(mut service) = service("x", 0, vip, 80) else {
            unreachable!("it makes a service")
        };
        service.key = Key::new(namespace, name);
        first.absorb(Event::Service(service));
    }
    assert_eq!(first.service_of(&frontend(1, 80)), Some(&Key::new("a-b", "c")));
    assert_eq!(first.service_of(&frontend(2, 80)), Some(&Key::new("a", "b-c")));
}

#[test]
fn a_slice_that_changes_its_service_dirties_both() {
    let mut cluster = cluster([service("a", 0, 1, 80), service("b", 0, 2, 80), slice("s", "a", &[1])]);
    let dirty = cluster.absorb(slice("s", "b", &[1]));
    assert_eq!(dirty, BTreeSet::from([Owner::Frontend(frontend(1, 80)), Owner::Frontend(frontend(2, 80))]));
    assert_eq!(cluster.endpoints(&frontend(1, 80)), Some(Endpoints::default()));
}

#[test]
fn the_same_service_again_dirties_nothing() {
    let mut cluster = cluster([service("a", 0, 1, 80)]);
    assert_eq!(cluster.absorb(service("a", 0, 1, 80)), BTreeSet::new());
}

#[test]
fn a_kind_is_listed_once_and_for_all() {
    let mut cluster = Cluster::new("n", [Kind::Services, Kind::Links]);
    cluster.absorb(Event::Listed(Kind::Links));
    assert_eq!(cluster.unlisted(), &BTreeSet::from([Kind::Services]));
    cluster.absorb(Event::Listed(Kind::Services));
    cluster.absorb(Event::Listed(Kind::Services));
    assert!(cluster.unlisted().is_empty());
}

fn node() -> Event {
    let cidr = "10.1.0.0/24".parse().unwrap();
    Event::Node("n".into(), Node { addresses: vec![[192, 0, 2, 1].into()], pod_cidrs: vec![cidr] })
}

fn bound(ifindex: u32, addresses: &[IpAddr]) -> Event {
    let name = format!("veth{ifindex}");
    let (mac, addresses) = ([2, 0, 0, 0, 0, 1], addresses.to_vec());
    Event::Link(LinkEvent::Bound { ifindex, name, mac, addresses, no_fast: false })
}

fn pod(name: &str, addresses: &[IpAddr]) -> Event {
    let addresses = addresses.to_vec();
    Event::Pod(Pod { key: Key::new("d", name), addresses, host_network: false, ended: false })
}

const FIVE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 0, 5));
const SIX: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 0, 6));

#[test]
fn a_pod_that_takes_its_neighbours_address_is_named_and_gets_nothing() {
    let mut cluster = cluster([
        node(),
        pod("victim", &[FIVE]),
        pod("thief", &[SIX]),
        bound(3, &[SIX]),
        bound(2, &[FIVE]),
        bound(3, &[SIX, FIVE]),
    ]);
    assert_eq!(cluster.claimants(FIVE), [2, 3]);
    let expected = "link veth3: AddressTaken: pod d/thief has 10.1.0.5, which pod d/victim (veth2) had first; take the \
                    address off the pod, or delete the pod; until then it is not delivered there";
    assert_eq!(wrong(&cluster), [expected]);
    cluster.absorb(bound(3, &[SIX]));
    assert_eq!(wrong(&cluster), Vec::<String>::new());
}

#[test]
fn a_veth_that_the_api_knows_no_pod_of_is_named_after_five_seconds() {
    let seconds = Duration::from_secs;
    let expected = "link veth2: UnknownPod: it has 10.1.0.5, and the API knows no pod of this node with that; take down \
                    what made it, or let it be: it is served as a pod is";
    let mut cluster = cluster([node(), bound(2, &[FIVE])]);
    assert_eq!(cluster.find_strangers(seconds(10)), Some(seconds(15)));
    assert_eq!(wrong(&cluster), Vec::<String>::new());
    assert_eq!(cluster.find_strangers(seconds(14)), Some(seconds(15)));
    assert_eq!(cluster.find_strangers(seconds(15)), None);
    assert_eq!(wrong(&cluster), [expected]);
    // It stays one while another's pod comes to be.
    cluster.absorb(pod("new", &[]));
    cluster.absorb(bound(3, &[SIX]));
    assert_eq!(cluster.find_strangers(seconds(20)), Some(seconds(25)));
    assert_eq!(cluster.find_strangers(seconds(25)), None);
    assert_eq!(wrong(&cluster), [expected], "the pod may be veth3's");
    cluster.absorb(pod("new", &[SIX]));
    cluster.find_strangers(seconds(26));
    assert_eq!(wrong(&cluster), [expected]);
    cluster.absorb(pod("late", &[FIVE]));
    assert_eq!(cluster.find_strangers(seconds(27)), None);
    assert_eq!(wrong(&cluster), Vec::<String>::new());
}

#[test]
fn nobody_is_a_stranger_while_pods_cannot_be_followed() {
    let seconds = Duration::from_secs;
    let watch = Subject::Watch("pods");
    let deaf = Problem {
        subject: watch.clone(),
        reason: "Unauthorized",
        text: String::new(),
        remedy: String::new(),
    };
    let mut cluster = cluster([node(), bound(2, &[FIVE]), Event::Problems(watch.clone(), vec![deaf])]);
    cluster.find_strangers(seconds(10));
    assert_eq!(
        cluster.find_strangers(seconds(60)),
        Some(seconds(65)),
        "it is asked again when nothing changes"
    );
    assert_eq!(wrong(&cluster).len(), 1, "{:?}", wrong(&cluster));
    cluster.absorb(Event::Problems(watch, Vec::new()));
    assert_eq!(cluster.find_strangers(seconds(65)), None);
    assert!(wrong(&cluster)[0].starts_with("link veth2: UnknownPod"), "{:?}", wrong(&cluster));
}

#[test]
fn an_address_outside_the_pod_ranges_is_no_claim() {
    let foreign = IpAddr::from([192, 0, 2, 7]);
    let mut cluster = cluster([bound(2, &[FIVE, foreign])]);
    assert_eq!(cluster.pod_addresses().count(), 0);
    let dirty = cluster.absorb(node());
    assert_eq!(dirty, BTreeSet::from([Owner::Pod(FIVE), Owner::Device(2)]));
    assert_eq!(cluster.pod_addresses().collect::<Vec<_>>(), [FIVE]);
}

#[test]
fn a_veth_has_the_name_of_the_pod_with_its_address_or_of_the_only_one_without() {
    let names = |cluster: &Cluster| cluster.host_view(&[]).pod_names.into_values().collect::<Vec<_>>();
    let mut cluster = cluster([node(), bound(2, &[FIVE]), pod("a", &[SIX])]);
    assert_eq!(names(&cluster), Vec::<String>::new());
    cluster.absorb(pod("b", &[]));
    assert_eq!(names(&cluster), ["d/b"]);
    cluster.absorb(pod("c", &[]));
    assert_eq!(names(&cluster), Vec::<String>::new());
    cluster.absorb(pod("c", &[FIVE]));
    assert_eq!(names(&cluster), ["d/c"]);
}

#[test]
fn a_pod_that_has_ended_lends_no_name() {
    let Event::Pod(ended) = pod("old", &[FIVE]) else { unreachable!("it makes a pod") };
    let cluster =
        cluster([node(), bound(2, &[FIVE]), Event::Pod(Pod { ended: true, ..ended }), pod("new", &[FIVE])]);
    assert_eq!(cluster.host_view(&[]).pod_names[&2], "d/new");
}

#[test]
fn the_host_routes_no_range_that_holds_its_own_address_or_its_pods() {
    let range = ["10.0.0.0/8".parse().unwrap()];
    let cluster = cluster([node(), service("a", 0, 1, 80), service("b", 0, 2, 80)]);
    let ranges: Vec<String> = cluster.host_view(&range).vip_ranges.iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["10.96.0.1/32", "10.96.0.2/32"]);
}

fn node_port(name: &str, created: i64, vip: u8, node_port: u16) -> Event {
    let Event::Service(mut with) = service(name, created, vip, 80) else { unreachable!() };
    with.ports[0].node_port = Some(node_port);
    Event::Service(with)
}

fn addressed(last: u8) -> Event {
    let addresses = vec![[192, 168, 77, last].into(), [172, 16, 0, last].into()];
    Event::Node("n".into(), Node { addresses, pod_cidrs: vec![] })
}

fn at_node(last: u8, port: u16) -> Frontend {
    Frontend { address: [192, 168, 77, last].into(), port, protocol: Protocol::Tcp }
}

#[test]
fn a_node_port_is_served_at_the_nodes_first_address_and_moves_with_it() {
    let mut cluster = cluster([node_port("web", 1, 1, 30_080), node_port("api", 2, 2, 30_090), addressed(2)]);
    let holder = |cluster: &Cluster, frontend| cluster.service_of(&frontend).map(|key| key.name.clone());
    assert_eq!(holder(&cluster, at_node(2, 30_080)).as_deref(), Some("web"));
    assert_eq!(cluster.host_view(&[]).node_ports, Some((30_080, 30_090)));
    assert!(!cluster.vips().any(|vip| vip == at_node(2, 0).address), "a node's address is no VIP");
    let touched = cluster.absorb(addressed(3));
    let both = [2, 3].map(|last| Owner::Frontend(at_node(last, 30_080)));
    assert!(both.iter().all(|owner| touched.contains(owner)), "{touched:?}");
    assert_eq!(holder(&cluster, at_node(2, 30_080)), None);
    assert_eq!(holder(&cluster, at_node(3, 30_080)).as_deref(), Some("web"));
    cluster.absorb(Event::ServiceGone(Key::new("d", "web")));
    cluster.absorb(Event::ServiceGone(Key::new("d", "api")));
    assert_eq!(cluster.host_view(&[]).node_ports, None);
}

#[test]
fn a_node_port_that_an_older_service_has_is_named_and_the_rest_of_the_service_works() {
    let cluster = cluster([addressed(2), node_port("old", 1, 1, 30_080), node_port("young", 2, 2, 30_080)]);
    let said = "service d/young: FrontendTaken: 192.168.77.2:30080/TCP (port \"\") belongs to service d/old";
    assert!(wrong(&cluster)[0].starts_with(said), "{:?}", wrong(&cluster));
    assert_eq!(cluster.service_of(&frontend(2, 80)).map(|key| key.name.as_str()), Some("young"));
}
