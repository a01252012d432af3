//! Services, their slices, and who has which frontend.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::endpoints::{self, Endpoints};
use crate::model::Key;
use crate::model::service::{Frontend, Protocol, Service, ServicePort, Slice};
use crate::plan::Owner;
use crate::problem::{Finder, Problem, Problems, Subject};

/// A service port that wants a frontend. Order is rank: the service created first wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    created: i64,
    service: Key,
    port: ServicePort,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Services {
    by_name: BTreeMap<Key, Service>,
    slices: BTreeMap<Key, BTreeMap<Key, Slice>>,
    slice_service: BTreeMap<Key, Key>,
    claims: BTreeMap<Frontend, BTreeSet<Claim>>,
    vips: BTreeMap<IpAddr, BTreeSet<Key>>,
    /// Where node ports are served: this node's address of each family.
    nodes: Vec<IpAddr>,
}

impl Services {
    /// Sets or removes a service.
    pub(super) fn set(
        &mut self,
        key: Key,
        service: Option<Service>,
        problems: &mut Problems,
    ) -> BTreeSet<Owner> {
        if self.by_name.get(&key) == service.as_ref() {
            return BTreeSet::new();
        }
        let mut touched = BTreeSet::new();
        let mut concerned = BTreeSet::from([key.clone()]);
        if let Some(old) = self.by_name.remove(&key) {
            self.unclaim(&old, &mut touched, &mut concerned);
        }
        if let Some(new) = service {
            self.claim(&new, &mut touched, &mut concerned);
            self.by_name.insert(key, new);
        }
        self.tell_conflicts(concerned, problems);
        touched
    }

    /// Serves node ports at `nodes`.
    pub(super) fn set_nodes(&mut self, nodes: Vec<IpAddr>, problems: &mut Problems) -> BTreeSet<Owner> {
        let mut touched = BTreeSet::new();
        if self.nodes == nodes {
            return touched;
        }
        let mut concerned = BTreeSet::new();
        let has_one = |service: &&Service| service.ports.iter().any(|port| port.node_port.is_some());
        let services: Vec<Service> = self.by_name.values().filter(has_one).cloned().collect();
        for service in &services {
            self.unclaim(service, &mut touched, &mut concerned);
        }
        self.nodes = nodes;
        for service in &services {
            self.claim(service, &mut touched, &mut concerned);
        }
        self.tell_conflicts(concerned, problems);
        touched
    }

    /// The lowest and the highest node port that is served.
    pub(super) fn node_ports(&self) -> Option<(u16, u16)> {
        let at = |address: IpAddr| {
            let end = |port, protocol| Frontend { address, port, protocol };
            self.claims.range(end(0, Protocol::Tcp)..=end(u16::MAX, Protocol::Udp))
        };
        let firsts = self.nodes.iter().filter_map(|address| at(*address).next());
        let lasts = self.nodes.iter().filter_map(|address| at(*address).next_back());
        let first = firsts.map(|(frontend, _)| frontend.port).min()?;
        Some((first, lasts.map(|(frontend, _)| frontend.port).max()?))
    }

    fn tell_conflicts(&self, concerned: BTreeSet<Key>, problems: &mut Problems) {
        for service in concerned {
            let subject = Subject::Service(service.clone());
            problems.set(Finder::Cluster, &subject, self.conflicts(&service));
        }
    }

    /// Sets or removes a slice.
    pub(super) fn set_slice(&mut self, key: Key, slice: Option<Slice>) -> BTreeSet<Owner> {
        let mut touched = BTreeSet::new();
        if let Some(service) = self.slice_service.remove(&key) {
            let left = self.slices.get_mut(&service).map(|slices| {
                slices.remove(&key);
                slices.is_empty()
            });
            if left == Some(true) {
                self.slices.remove(&service);
            }
            touched.extend(self.owners_of(&service));
        }
        if let Some(slice) = slice {
            let service = slice.service.clone();
            touched.extend(self.owners_of(&service));
            self.slice_service.insert(key.clone(), service.clone());
            self.slices.entry(service).or_default().insert(key, slice);
        }
        touched
    }

    /// The frontends of services that have an endpoint at one of `addresses`.
    pub(super) fn with_endpoints_at(&self, addresses: &BTreeSet<IpAddr>) -> BTreeSet<Owner> {
        let has_one =
            |slice: &Slice| slice.endpoints.iter().any(|endpoint| addresses.contains(&endpoint.address));
        let services = self.slices.iter().filter(|(_, slices)| slices.values().any(has_one));
        services.flat_map(|(service, _)| self.owners_of(service)).collect()
    }

    pub(super) fn frontends(&self) -> impl Iterator<Item = &Frontend> {
        self.claims.keys()
    }

    pub(super) fn endpoints(&self, frontend: &Frontend) -> Option<Endpoints> {
        let claim = self.claims.get(frontend)?.first()?;
        let slices = self.slices.get(&claim.service).into_iter().flat_map(BTreeMap::values);
        let mut endpoints = endpoints::select(slices, &claim.port);
        endpoints.chosen.retain(|endpoint| endpoint.is_ipv4() == frontend.address.is_ipv4());
        endpoints.draining.retain(|endpoint| endpoint.is_ipv4() == frontend.address.is_ipv4());
        Some(endpoints)
    }

    pub(super) fn winner(&self, frontend: &Frontend) -> Option<&Key> {
        Some(&self.claims.get(frontend)?.first()?.service)
    }

    pub(super) fn vips(&self) -> impl Iterator<Item = IpAddr> {
        self.vips.keys().copied()
    }

    pub(super) fn on_vip(&self, address: IpAddr) -> impl Iterator<Item = &Key> {
        self.vips.get(&address).into_iter().flatten()
    }

    fn claim(&mut self, service: &Service, touched: &mut BTreeSet<Owner>, concerned: &mut BTreeSet<Key>) {
        for address in &service.cluster_ips {
            self.vips.entry(*address).or_default().insert(service.key.clone());
            touched.insert(Owner::Vip(*address));
        }
        for (frontend, claim) in claims_of(service, &self.nodes) {
            let claims = self.claims.entry(frontend).or_default();
            claims.insert(claim);
            concerned.extend(claims.iter().map(|claim| claim.service.clone()));
            touched.insert(Owner::Frontend(frontend));
        }
    }

    fn unclaim(&mut self, service: &Service, touched: &mut BTreeSet<Owner>, concerned: &mut BTreeSet<Key>) {
        for address in &service.cluster_ips {
            remove_from(&mut self.vips, address, &service.key);
            touched.insert(Owner::Vip(*address));
        }
        for (frontend, claim) in claims_of(service, &self.nodes) {
            remove_from(&mut self.claims, &frontend, &claim);
            let left = self.claims.get(&frontend).into_iter().flatten();
            concerned.extend(left.map(|claim| claim.service.clone()));
            touched.insert(Owner::Frontend(frontend));
        }
    }

    fn owners_of(&self, service: &Key) -> Vec<Owner> {
        let service = self.by_name.get(service);
        let claims = service.into_iter().flat_map(|service| claims_of(service, &self.nodes));
        claims.map(|(frontend, _)| Owner::Frontend(frontend)).collect()
    }

    /// Frontends that `service` wants and another has.
    fn conflicts(&self, service: &Key) -> Vec<Problem> {
        let Some(service) = self.by_name.get(service) else { return Vec::new() };
        let lost = claims_of(service, &self.nodes).filter_map(|(frontend, claim)| {
            let winner = self.claims.get(&frontend)?.first()?;
            (*winner != claim).then(|| conflict(&frontend, &claim, winner))
        });
        lost.collect()
    }
}

/// The frontends that a service wants: each port at each `ClusterIP`, and each node port at this node's address of each
/// family in which it has a `ClusterIP`.
fn claims_of(service: &Service, nodes: &[IpAddr]) -> impl Iterator<Item = (Frontend, Claim)> {
    let has_family = |node: &&IpAddr| service.cluster_ips.iter().any(|ip| ip.is_ipv4() == node.is_ipv4());
    let served = nodes
        .iter()
        .filter(has_family)
        .flat_map(|address| service.ports.iter().filter_map(|port| Some((*address, port.node_port?, port))));
    let dialled = service.cluster_ips.iter();
    let dialled = dialled.flat_map(|address| service.ports.iter().map(|port| (*address, port.port, port)));
    dialled.chain(served).map(|(address, number, port)| {
        let frontend = Frontend { address, port: number, protocol: port.protocol };
        (frontend, Claim { created: service.created, service: service.key.clone(), port: port.clone() })
    })
}

fn conflict(frontend: &Frontend, loser: &Claim, winner: &Claim) -> Problem {
    let (holder, remedy) = if loser.service == winner.service {
        let text = format!("its own port {:?}", winner.port.name);
        (text, "give each of its ports a number of its own".to_owned())
    } else {
        let text = format!("service {}, created before it", winner.service);
        (
            text,
            format!("change the address or port of one of the two; until then {} keeps it", winner.service),
        )
    };
    Problem {
        subject: Subject::Service(loser.service.clone()),
        reason: "FrontendTaken",
        text: format!("{frontend} (port {:?}) belongs to {holder}", loser.port.name),
        remedy,
    }
}

/// Removes `item` from the set at `key`, and the set with its last item.
fn remove_from<K: Ord, T: Ord>(sets: &mut BTreeMap<K, BTreeSet<T>>, key: &K, item: &T) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(item);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}
