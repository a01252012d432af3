//! Everything we know, owned by one task and changed in place.
//!
//! [`Cluster::absorb`] takes one event and returns the owners it dirtied: the only place that fans out, so the
//! only place to test for missed dirt. Planning reads the rest through the methods here.

mod pods;
mod services;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::endpoints::Endpoints;
use crate::model::Key;
use crate::model::link::LinkEvent;
use crate::model::node::Node;
use crate::model::pod::Pod;
use crate::model::service::{Frontend, Service, Slice};
use crate::plan::Owner;
use crate::plan::routes::vip_ranges;
use crate::problem::{Finder, Problem, Problems, Subject};

use self::pods::Pods;
use self::services::Services;

/// A kind of thing that is followed. Nothing is planned before all that are followed have listed once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Services,
    EndpointSlices,
    Node,
    Pods,
    Links,
}

/// A change, translated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Service(Service),
    /// It is gone, or no longer one that we balance.
    ServiceGone(Key),
    Slice(Slice),
    SliceGone(Key),
    /// A node's object, by its name.
    Node(String, Node),
    NodeGone(String),
    /// A pod of this node.
    Pod(Pod),
    PodGone(Key),
    Link(LinkEvent),
    /// All that there is of this kind has been told.
    Listed(Kind),
    /// All that is wrong with reading this object now; nothing if it is right, or gone.
    Problems(Subject, Vec<Problem>),
}

impl Event {
    /// The kind that it tells of, if it is not about what is wrong.
    pub const fn kind(&self) -> Option<Kind> {
        match self {
            Self::Service(_) | Self::ServiceGone(_) => Some(Kind::Services),
            Self::Slice(_) | Self::SliceGone(_) => Some(Kind::EndpointSlices),
            Self::Node(..) | Self::NodeGone(_) => Some(Kind::Node),
            Self::Pod(_) | Self::PodGone(_) => Some(Kind::Pods),
            Self::Link(_) => Some(Kind::Links),
            Self::Listed(kind) => Some(*kind),
            Self::Problems(..) => None,
        }
    }
}

/// What the host's own network needs to know of the cluster: which routes, which names.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct HostView {
    /// Prefixes that lead to `kube-svc`.
    pub vip_ranges: BTreeSet<IpNet>,
    /// The addresses of this node, the one to be used first in each family first.
    pub node_addresses: Vec<IpAddr>,
    /// Where its pods get their addresses from.
    pub pod_cidrs: Vec<IpNet>,
    /// The lowest and the highest node port of any service, if there is one.
    pub node_ports: Option<(u16, u16)>,
    /// `namespace/name` of the pod behind each veth, by the index of the host end.
    pub pod_names: BTreeMap<u32, String>,
}

/// What a BGP speaker needs to know of the cluster: whom to talk to, what to announce.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RoutingView {
    pub node: Node,
    /// All others, by name.
    pub others: BTreeMap<String, Node>,
    /// The VIPs that can be dialled here.
    pub vips: BTreeSet<IpAddr>,
    /// Everything has been programmed once: those are all of them.
    pub settled: bool,
}

/// The cluster as this node sees it.
#[derive(Debug)]
pub struct Cluster {
    /// Name of this node.
    own: String,
    unlisted: BTreeSet<Kind>,
    services: Services,
    pods: Pods,
    node: Option<Node>,
    others: BTreeMap<String, Node>,
    uplinks: BTreeMap<u32, String>,
    node_addresses: BTreeSet<IpAddr>,
    problems: Problems,
}

impl Cluster {
    /// A cluster of which nothing is known yet, as the node `own` will see it; `followed` is what will be told.
    pub fn new(own: &str, followed: impl IntoIterator<Item = Kind>) -> Self {
        Self {
            own: own.to_owned(),
            unlisted: followed.into_iter().collect(),
            services: Services::default(),
            pods: Pods::default(),
            node: None,
            others: BTreeMap::new(),
            uplinks: BTreeMap::new(),
            node_addresses: BTreeSet::new(),
            problems: Problems::default(),
        }
    }

    /// Takes a change in, and says whose rows it may have changed.
    pub fn absorb(&mut self, event: Event) -> BTreeSet<Owner> {
        match event {
            Event::Service(service) => {
                self.services.set(service.key.clone(), Some(service), &mut self.problems)
            }
            Event::ServiceGone(key) => self.services.set(key, None, &mut self.problems),
            Event::Slice(slice) => self.services.set_slice(slice.key.clone(), Some(slice)),
            Event::SliceGone(key) => self.services.set_slice(key, None),
            Event::Node(name, node) => self.set_node(name, Some(node)),
            Event::NodeGone(name) => self.set_node(name, None),
            Event::Pod(pod) => self.pods.set_pod(pod.key.clone(), Some(pod), &mut self.problems),
            Event::PodGone(key) => self.pods.set_pod(key, None, &mut self.problems),
            Event::Link(event) => self.absorb_link(event),
            Event::Listed(kind) => {
                self.unlisted.remove(&kind);
                BTreeSet::new()
            }
            Event::Problems(subject, found) => {
                self.problems.set(Finder::Translate, &subject, found);
                BTreeSet::new()
            }
        }
    }

    /// Kinds that have not listed yet. While there is one, nothing may be planned.
    pub fn unlisted(&self) -> &BTreeSet<Kind> {
        &self.unlisted
    }

    /// Everything that is wrong.
    pub fn problems(&self) -> &Problems {
        &self.problems
    }

    /// The same, for those who find something wrong, or tell of it.
    pub fn problems_mut(&mut self) -> &mut Problems {
        &mut self.problems
    }

    /// This node's object.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// Every frontend of a service.
    pub fn frontends(&self) -> impl Iterator<Item = &Frontend> {
        self.services.frontends()
    }

    /// The endpoints behind `frontend`, if a service has it.
    pub fn endpoints(&self, frontend: &Frontend) -> Option<Endpoints> {
        self.services.endpoints(frontend)
    }

    /// The service that has `frontend`: of several that claim it, the one created first.
    pub fn service_of(&self, frontend: &Frontend) -> Option<&Key> {
        self.services.winner(frontend)
    }

    /// Every VIP.
    pub fn vips(&self) -> impl Iterator<Item = IpAddr> {
        self.services.vips()
    }

    /// The services that have `address` as a VIP, in the order of their names.
    pub fn services_on(&self, address: IpAddr) -> impl Iterator<Item = &Key> {
        self.services.on_vip(address)
    }

    /// Whether `address` is one of this host's own.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.node_addresses.contains(&address)
    }

    /// Every address of our pod ranges that the kernel reports of a pod.
    pub fn pod_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.pods.addresses()
    }

    /// The veths whose pods have `address`, by index of the host end, the first to have had it first.
    pub fn claimants(&self, address: IpAddr) -> &[u32] {
        self.pods.claimants(address)
    }

    /// The pod's end of the veth with this index.
    pub fn veth(&self, ifindex: u32) -> Option<&Veth> {
        self.pods.veth(ifindex)
    }

    /// Every veth of a pod.
    pub fn veths(&self) -> impl Iterator<Item = (u32, &Veth)> {
        self.pods.veths()
    }

    /// The name of the uplink with this index.
    pub fn uplink(&self, ifindex: u32) -> Option<&str> {
        self.uplinks.get(&ifindex).map(String::as_str)
    }

    /// The index of every uplink.
    pub fn uplinks(&self) -> impl Iterator<Item = u32> {
        self.uplinks.keys().copied()
    }

    /// Finds the veths that have had a pod's address for some seconds while the API knows no pod of that address.
    /// `now` counts from anywhere. Says when to ask again, if nothing changes until then.
    pub fn find_strangers(&mut self, now: Duration) -> Option<Duration> {
        self.pods.find_strangers(now, &mut self.problems)
    }

    /// What the host's network is to be, with VIPs in `cluster_ip_ranges` routed as those.
    pub fn host_view(&self, cluster_ip_ranges: &[IpNet]) -> HostView {
        let node = self.node.clone().unwrap_or_default();
        let own = node.addresses.iter().chain(&self.node_addresses);
        let held: Vec<IpNet> =
            own.map(|address| IpNet::from(*address)).chain(node.pod_cidrs.clone()).collect();
        let vips = self.vips().collect();
        let names =
            self.veths().filter_map(|(ifindex, _)| Some((ifindex, self.pods.name(ifindex)?.to_string())));
        HostView {
            vip_ranges: vip_ranges(&vips, cluster_ip_ranges, &held),
            pod_names: names.collect(),
            node_ports: self.services.node_ports(),
            node_addresses: node.addresses,
            pod_cidrs: node.pod_cidrs,
        }
    }

    /// What the speaker is to know, if this node is known, with the VIPs for which `can_dial` holds.
    pub fn routing_view(&self, can_dial: impl Fn(&IpAddr) -> bool, settled: bool) -> Option<RoutingView> {
        let vips = self.vips().filter(can_dial).collect();
        Some(RoutingView { node: self.node.clone()?, others: self.others.clone(), vips, settled })
    }

    fn set_node(&mut self, name: String, node: Option<Node>) -> BTreeSet<Owner> {
        if name != self.own {
            match node {
                Some(node) => drop(self.others.insert(name, node)),
                None => drop(self.others.remove(&name)),
            }
            return BTreeSet::new();
        }
        let (addresses, cidrs) =
            node.as_ref().map(|node| (node.best_addresses(), node.pod_cidrs.clone())).unwrap_or_default();
        self.node = node;
        let mut touched = self.services.set_nodes(addresses, &mut self.problems);
        touched.extend(self.pods.set_cidrs(cidrs, &mut self.problems));
        touched
    }

    fn absorb_link(&mut self, event: LinkEvent) -> BTreeSet<Owner> {
        match event {
            LinkEvent::Bound { ifindex, name, mac, addresses, no_fast } => {
                let veth = Veth { name, mac, addresses, no_fast };
                self.pods.set_veth(ifindex, Some(veth), &mut self.problems)
            }
            LinkEvent::Unbound { ifindex } => self.pods.set_veth(ifindex, None, &mut self.problems),
            LinkEvent::Uplink { ifindex, name } => {
                self.uplinks.insert(ifindex, name);
                BTreeSet::from([Owner::Device(ifindex)])
            }
            LinkEvent::UplinkGone { ifindex } => {
                self.uplinks.remove(&ifindex);
                BTreeSet::from([Owner::Device(ifindex)])
            }
            LinkEvent::NodeAddresses(addresses) => {
                let changed = self.node_addresses.symmetric_difference(&addresses).copied().collect();
                self.node_addresses = addresses;
                self.services.with_endpoints_at(&changed)
            }
            // The bridge is a row of the driver's own.
            LinkEvent::Bridge { .. } | LinkEvent::BridgeGone => BTreeSet::new(),
        }
    }
}

/// A pod's end of a veth, as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Veth {
    /// Name of the host end.
    pub name: String,
    pub mac: [u8; 6],
    pub addresses: Vec<IpAddr>,
    pub no_fast: bool,
}
