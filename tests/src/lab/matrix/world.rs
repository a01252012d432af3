//! What the matrix runs on: on one node of each subnet a client, a backend with a network of its own and one on the
//! node's, and a Service for each backend.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{Backend, Dialled, Row};
use crate::apiserver::Kind;
use crate::cluster::Cluster;
use crate::enter::Place;
use crate::probe::Probe;
use crate::serve::Transport;
use crate::topology::three::{SITES, Site};

/// Where all of it is.
pub const NAMESPACE: &str = "matrix";
/// The port of the Services, and of the backends, which the nodes' firewalls let in.
const SERVICE_PORT: u16 = 80;
const BACKEND_PORT: u16 = 6061;
/// How long the pods, and then the Services, may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where to dial a backend, and where that is.
pub(super) struct Target {
    pub dialled: (Ipv4Addr, u16),
    pub backend: Ipv4Addr,
}

/// Puts clients, backends and Services into the cluster. It is not yet waited for them.
pub fn deploy(cluster: &Cluster) -> Result<()> {
    cluster.put(Kind::Namespace, json!({"metadata": {"name": NAMESPACE}}))?;
    for site in sites() {
        for (kind, on_host) in [("client", false), ("pod", false), ("host", true)] {
            cluster.put(Kind::Pod, pod(kind, site, on_host))?;
        }
        for kind in ["pod", "host"] {
            cluster.put(Kind::Service, service(kind, site))?;
        }
    }
    Ok(())
}

/// Waits until both nodes reach every backend.
pub fn wait_settled(cluster: &Cluster) -> Result<()> {
    cluster.wait("every backend of the matrix to answer", PATIENCE, |cluster| {
        for (node, _) in cluster.topology.nodes().zip(&SITES).filter(|(_, site)| sites().contains(site)) {
            for (kind, site) in ["pod", "host"].into_iter().flat_map(|kind| sites().map(|site| (kind, site)))
            {
                let to = format!("{}:{SERVICE_PORT}", cluster_ip(cluster, kind, site)?);
                let (tcp, udp) = (Probe::new(node).tcp(&to)?, Probe::new(node).udp(&to)?);
                ensure!(tcp.ok && udp.ok, "{kind}-{} from {}: {tcp:?} {udp:?}", site.name, node.name);
            }
        }
        Ok(true)
    })
}

/// The client on a node, and its address.
pub(super) fn client(cluster: &Cluster, site: &Site) -> Result<(Place, Ipv4Addr)> {
    let name = format!("client-{}", site.name);
    Ok((cluster.pod_in(NAMESPACE, &name)?, address_of(cluster, &name)?))
}

pub(super) fn target(cluster: &Cluster, row: &Row, backend: Backend, transport: Transport) -> Result<Target> {
    let (kind, site) = match backend {
        Backend::PodHere => ("pod", row.here),
        Backend::PodThere => ("pod", row.there),
        Backend::HostNetworkHere => ("host", row.here),
        Backend::HostNetworkThere => ("host", row.there),
    };
    let dialled = match row.dialled {
        Dialled::ClusterIp => (cluster_ip(cluster, kind, site)?, SERVICE_PORT),
        Dialled::NodePort => (row.here.address, node_port(cluster, kind, site, transport)?),
    };
    Ok(Target { dialled, backend: address_of(cluster, &format!("{kind}-{}", site.name))? })
}

fn sites() -> [&'static Site; 2] {
    let [first, _, last] = &SITES;
    [first, last]
}

fn pod(kind: &str, site: &Site, on_host: bool) -> Value {
    let name = format!("{kind}-{}", site.name);
    let port = |protocol: &str| json!({"containerPort": BACKEND_PORT, "protocol": protocol});
    json!({
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": name}},
        "spec": {
            "hostNetwork": on_host,
            "nodeSelector": {"kubernetes.io/hostname": site.name},
            "containers": [{"name": "serve", "image": "lab/serve", "ports": [port("TCP"), port("UDP")]}],
        },
    })
}

fn service(kind: &str, site: &Site) -> Value {
    let name = format!("{kind}-{}", site.name);
    let port = |protocol: &str| json!({"name": protocol.to_lowercase(), "protocol": protocol, "port": SERVICE_PORT, "targetPort": BACKEND_PORT});
    json!({
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"type": "NodePort", "selector": {"app": name}, "ports": [port("TCP"), port("UDP")]},
    })
}

fn cluster_ip(cluster: &Cluster, kind: &str, site: &Site) -> Result<Ipv4Addr> {
    address(&*object(cluster, Kind::Service, &format!("{kind}-{}", site.name))?, "/spec/clusterIP")
}

fn node_port(cluster: &Cluster, kind: &str, site: &Site, transport: Transport) -> Result<u16> {
    let service = object(cluster, Kind::Service, &format!("{kind}-{}", site.name))?;
    let mut ports = service.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten();
    let port = ports.find(|port| port.get("name").is_some_and(|name| *name == transport.to_string()));
    let number = port.and_then(|port| port.get("nodePort")?.as_u64());
    number.and_then(|number| u16::try_from(number).ok()).context("a Service without node port")
}

fn address_of(cluster: &Cluster, pod: &str) -> Result<Ipv4Addr> {
    address(&*object(cluster, Kind::Pod, pod)?, "/status/podIP")
}

fn address(object: &Value, field: &str) -> Result<Ipv4Addr> {
    let text = object.pointer(field).and_then(Value::as_str).with_context(|| format!("no {field} yet"))?;
    text.parse().with_context(|| format!("{text} is no address"))
}

fn object(cluster: &Cluster, kind: Kind, name: &str) -> Result<Arc<Value>> {
    let found = cluster.server().store().get(kind, NAMESPACE, name);
    found.with_context(|| format!("there is no {kind} {NAMESPACE}/{name}"))
}
