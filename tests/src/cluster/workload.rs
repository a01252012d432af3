//! What runs in a cluster: pods of this node, servers on its own network, and pods of another node.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Cluster, NODE_NAME};
use crate::apiserver::Kind;
use crate::sandbox::Serving;
use crate::serve::{Listen, Transport};
use crate::topology;

/// The port that backends serve, TCP and UDP.
const PORT: u16 = 8080;

/// Servers that are no pods; they end when this is dropped.
pub struct Backing {
    _servers: Vec<Serving>,
}

impl Cluster {
    /// Pods of this node that carry the label `app`, and waits until they are ready.
    pub fn run_pods(&self, app: &str, names: &[&str]) -> Result<()> {
        self.run_pods_on(NODE_NAME, app, names)
    }

    /// The same of any node.
    pub fn run_pods_on(&self, node: &str, app: &str, names: &[&str]) -> Result<()> {
        for name in names {
            self.put(Kind::Pod, pod(node, app, name))?;
        }
        self.wait("the pods to be ready", Duration::from_secs(20), |cluster| {
            Ok(names.iter().all(|name| is_ready(cluster, name)))
        })?;
        self.settle_offload()
    }

    /// A Service whose backend is a process on this node's own network.
    pub fn back_by_node(&self, service: &str) -> Result<Backing> {
        let node = self.node();
        let server = Serving::start(&node, "on-node", &both())?;
        self.put_service(service, None, PORT)?;
        self.put_slice(service, &[topology::NODE], Some(NODE_NAME))?;
        Ok(Backing { _servers: vec![server] })
    }

    /// A Service whose backends are pods of another node, behind the uplink.
    pub fn back_by_remote(&self, service: &str) -> Result<Backing> {
        let server = Serving::start(&self.topology.remote, "remote", &both())?;
        self.put_service(service, None, PORT)?;
        self.put_slice(service, &topology::REMOTE_PODS[..1], Some("node9"))?;
        Ok(Backing { _servers: vec![server] })
    }

    /// Serves both protocols of a Service on a node port too.
    pub fn open_node_port(&self, service: &str, number: u16) -> Result<()> {
        let found =
            self.server().store().get(Kind::Service, "default", service).context("no such Service")?;
        let mut object = Value::clone(&found);
        let spec = object.get_mut("spec").and_then(Value::as_object_mut).context("a Service without spec")?;
        spec.insert("type".to_owned(), json!("NodePort"));
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            let port = port.as_object_mut().context("a port that is no object")?;
            port.insert("nodePort".to_owned(), json!(number));
        }
        self.put(Kind::Service, object)
    }

    /// An EndpointSlice by hand, of endpoints that are ready.
    pub fn put_slice(&self, service: &str, addresses: &[Ipv4Addr], node: Option<&str>) -> Result<()> {
        let ready: Vec<_> = addresses.iter().map(|address| (*address, true)).collect();
        self.put_endpoints(service, &ready, node)
    }

    /// The same, of endpoints that are ready, or else shut down while they still serve.
    pub fn put_endpoints(
        &self,
        service: &str,
        endpoints: &[(Ipv4Addr, bool)],
        node: Option<&str>,
    ) -> Result<()> {
        let port =
            |protocol: &str| json!({"name": protocol.to_lowercase(), "protocol": protocol, "port": PORT});
        let endpoint = |(address, ready): &(Ipv4Addr, bool)| {
            json!({"addresses": [address.to_string()], "nodeName": node,
                "conditions": {"ready": ready, "serving": true, "terminating": !ready}})
        };
        self.put(
            Kind::EndpointSlice,
            json!({
                "metadata": {"name": format!("{service}-by-hand"), "namespace": "default",
                    "labels": {"kubernetes.io/service-name": service}},
                "addressType": "IPv4",
                "ports": [port("TCP"), port("UDP")],
                "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
            }),
        )
    }
}

fn both() -> [Listen; 2] {
    [Listen { port: PORT, protocol: Transport::Tcp }, Listen { port: PORT, protocol: Transport::Udp }]
}

fn pod(node: &str, app: &str, name: &str) -> Value {
    let port = |protocol: &str| json!({"name": protocol.to_lowercase(), "protocol": protocol, "containerPort": PORT});
    json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"app": app}},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "serve", "image": "lab/serve", "ports": [port("TCP"), port("UDP")]}],
        },
    })
}

fn is_ready(cluster: &Cluster, name: &str) -> bool {
    let Some(pod) = cluster.server().store().get(Kind::Pod, "default", name) else { return false };
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let ready = json!("Ready");
    conditions.iter().any(|condition| {
        condition.get("type") == Some(&ready) && condition.get("status") == Some(&json!("True"))
    })
}

impl Cluster {
    /// The address of a pod.
    pub fn pod_address(&self, name: &str) -> Result<Ipv4Addr> {
        let pod = self.server().store().get(Kind::Pod, "default", name).context("no such pod")?;
        pod.pointer("/status/podIP")
            .and_then(Value::as_str)
            .context("the pod has no address")?
            .parse()
            .context("its address is none")
    }
}
