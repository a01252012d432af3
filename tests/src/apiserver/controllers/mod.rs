//! What a control plane does behind the API server, as far as Services need it.
//!
//! One task follows the store and works off what a change touched: pod CIDRs for nodes, pods of Deployments,
//! nodes for pods, `EndpointSlices` for Services, the emptying of namespaces. Each of them looks at the present
//! state and makes it right, so running one too often does no harm.
//!
//! A Deployment owns its pods directly: there is no `ReplicaSet` between them.

mod deployments;
mod endpoints;
mod namespaces;
mod nodes;
mod scheduler;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::Ipv4Net;
use serde_json::Value;

use super::kinds::Kind;
use super::selector::Labels;
use super::store::{Change, Key, Store, key};

const FOLLOWED: [Kind; 6] =
    [Kind::Namespace, Kind::Node, Kind::Pod, Kind::Service, Kind::EndpointSlice, Kind::Deployment];

/// Follows the store for as long as the runtime lives.
pub(super) async fn run(store: Arc<Store>, pod_range: Ipv4Net) {
    let mut changed = store.subscribe();
    let mut seen = BTreeMap::new();
    let mut scheduler = scheduler::Scheduler::default();
    loop {
        changed.mark_unchanged();
        let dirty = Dirty::collect(&store, &mut seen);
        dirty.work_off(&store, pod_range, &mut scheduler);
        if changed.changed().await.is_err() {
            return;
        }
    }
}

/// What must be looked at again.
#[derive(Debug, Default)]
struct Dirty {
    nodes: bool,
    pods: bool,
    namespaces: bool,
    services: BTreeSet<Key>,
    deployments: BTreeSet<Key>,
    /// Pods as they are and as they were: Services that select them are dirty.
    moved: Vec<Arc<Value>>,
}

impl Dirty {
    fn collect(store: &Store, seen: &mut BTreeMap<Kind, u64>) -> Self {
        let mut dirty = Self::default();
        for kind in FOLLOWED {
            if let Ok((revision, changes)) = store.since(kind, seen.get(&kind).copied().unwrap_or(0)) {
                seen.insert(kind, revision);
                for change in &changes {
                    dirty.add(kind, change);
                }
            } else {
                let (revision, objects) = store.snapshot(kind);
                seen.insert(kind, revision);
                for object in &objects {
                    dirty.touch(kind, object);
                }
            }
        }
        // A pod that goes may be the last thing a namespace waits for.
        dirty.namespaces |= dirty.pods;
        dirty.select(store);
        dirty
    }

    fn add(&mut self, kind: Kind, change: &Change) {
        self.touch(kind, &change.object);
        if let Some(before) = &change.before {
            self.touch(kind, before);
        }
    }

    fn touch(&mut self, kind: Kind, object: &Arc<Value>) {
        let key = key(kind, object);
        match kind {
            Kind::Namespace => self.namespaces = true,
            Kind::Node => (self.nodes, self.pods) = (true, true),
            Kind::Pod => {
                self.pods = true;
                if let Some(owner) = deployments::owner(object) {
                    self.deployments.insert((key.0, owner.to_owned()));
                }
                self.moved.push(Arc::clone(object));
            }
            Kind::Service => {
                self.services.insert(key);
            }
            Kind::EndpointSlice => {
                if let Some(service) = endpoints::service_of(object) {
                    self.services.insert((key.0, service.to_owned()));
                }
            }
            Kind::Deployment => {
                self.deployments.insert(key);
            }
            Kind::NetworkPolicy | Kind::Event | Kind::Lease => {}
        }
    }

    fn select(&mut self, store: &Store) {
        if self.moved.is_empty() {
            return;
        }
        for service in store.list(Kind::Service) {
            let selector = Labels::from_map(&service["spec"]["selector"]);
            let namespace = &service["metadata"]["namespace"];
            let chosen =
                |pod: &Arc<Value>| pod["metadata"]["namespace"] == *namespace && selector.matches(pod);
            if !selector.is_empty() && self.moved.iter().any(chosen) {
                self.services.insert(key(Kind::Service, &service));
            }
        }
    }

    fn work_off(&self, store: &Store, pod_range: Ipv4Net, scheduler: &mut scheduler::Scheduler) {
        if self.nodes {
            nodes::give_cidrs(store, pod_range);
        }
        for deployment in &self.deployments {
            deployments::reconcile(store, deployment);
        }
        if self.pods {
            scheduler.place_all(store);
        }
        for service in &self.services {
            endpoints::reconcile(store, service);
        }
        if self.namespaces {
            namespaces::empty_terminating(store);
        }
    }
}
