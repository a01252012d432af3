//! Random clusters: events of a small world, in which things collide often.

use std::net::IpAddr;

use proptest::prelude::*;

use crate::cluster::{Cluster, Event};
use crate::model::Key;
use crate::model::link::LinkEvent;
use crate::model::node::Node;
use crate::model::service::{Endpoint, Protocol, Service, ServicePort, Slice, SlicePort};
use crate::plan::Family;

/// A family whose addresses a test can make from a number.
pub(super) trait Numbered: Family {
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
pub(super) enum Step {
    Service {
        name: u8,
        created: i64,
        vips: Vec<u8>,
        ports: Vec<(u8, bool)>,
    },
    ServiceGone(u8),
    Slice {
        name: u8,
        service: u8,
        ports: Vec<(u8, bool)>,
        hosts: Vec<(u8, bool)>,
    },
    SliceGone(u8),
    Own(Vec<u8>),
    Veth {
        ifindex: u32,
        hosts: Vec<u8>,
        no_fast: bool,
    },
    Unbound(u32),
    Uplink(u32),
    UplinkGone(u32),
    /// This node's object with this address, or none.
    Node(Option<u8>),
}

pub(super) fn ports() -> impl Strategy<Value = Vec<(u8, bool)>> {
    prop::collection::vec((1u8..4, any::<bool>()), 0..3)
}

pub(super) fn step() -> impl Strategy<Value = Step> {
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
        1 => prop::option::weighted(0.8, 1u8..3).prop_map(Step::Node),
    ]
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 0..40)
}

pub(super) fn is_node<A: Numbered>(address: IpAddr) -> bool {
    (1..3).any(|host| A::numbered(77, host) == address)
}

pub(super) fn protocol(udp: bool) -> Protocol {
    if udp { Protocol::Udp } else { Protocol::Tcp }
}

/// A service port is named after what its endpoints listen on, so that ports collide where names differ.
pub(super) fn event<A: Numbered>(step: Step) -> Event {
    let key = |number: u8| Key::new("n", format!("s{number}"));
    let pods = |hosts: Vec<u8>| hosts.into_iter().map(|host| A::numbered(1, host)).collect::<Vec<_>>();
    match step {
        Step::Service { name, created, vips, ports } => {
            let port = |(number, udp): (u8, bool)| ServicePort {
                name: format!("p{number}"),
                protocol: protocol(udp),
                port: u16::from(number % 2) + 80,
                node_port: (number > 1).then_some(30_000 + u16::from(number % 2)),
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
        Step::Node(Some(host)) => Event::Node(
            "n".into(),
            Node { addresses: vec![A::numbered(77, host)], pod_cidrs: vec![A::pod_range().parse().unwrap()] },
        ),
        Step::Node(None) => Event::NodeGone("n".into()),
    }
}

pub(super) fn cluster<A: Numbered>(steps: &[Step]) -> Cluster {
    let mut cluster = Cluster::new("n", []);
    cluster.absorb(event::<A>(Step::Node(Some(1))));
    for step in steps {
        cluster.absorb(event::<A>(step.clone()));
    }
    cluster
}
