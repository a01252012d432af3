//! What the API server's objects promise: each port of each Service, with the backends that should answer.

#![expect(clippy::indexing_slicing, reason = "JSON: a field that is missing reads as null")]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::Value;

use super::matrix;
use crate::apiserver::{Kind, Store};
use crate::serve::Transport;

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// `web`, or `space/web` outside of `default`.
    pub service: String,
    pub vip: Ipv4Addr,
    pub port: u16,
    pub node_port: Option<u16>,
    pub transport: Transport,
    /// By the name that each answers with.
    pub backends: BTreeMap<String, Ipv4Addr>,
}

impl Target {
    pub(super) fn address(&self) -> String {
        format!("{}:{}", self.vip, self.port)
    }
}

/// Every port of every Service that has an address, but for the API server's own, which speaks TLS, and those of the
/// matrix.
pub(super) fn all(store: &Store) -> Vec<Target> {
    let slices = store.list(Kind::EndpointSlice);
    let mut targets = Vec::new();
    for service in store.list(Kind::Service) {
        let (namespace, name) = name_of(&service);
        let Some(vip) = text(&service["spec"]["clusterIP"]).parse().ok() else { continue };
        if (namespace, name) == ("default", "kubernetes") || namespace == matrix::NAMESPACE {
            continue;
        }
        for port in service["spec"]["ports"].as_array().into_iter().flatten() {
            let Some(transport) = transport(port) else { continue };
            let Some(number) = number(&port["port"]) else { continue };
            let own = slices.iter().filter(|slice| {
                name_of(slice).0 == namespace
                    && slice["metadata"]["labels"]["kubernetes.io/service-name"] == *name
            });
            targets.push(Target {
                service: if namespace == "default" { name.to_owned() } else { format!("{namespace}/{name}") },
                vip,
                port: number,
                node_port: self::number(&port["nodePort"]),
                transport,
                backends: own.flat_map(|slice| backends(slice, port, transport)).collect(),
            });
        }
    }
    targets
}

/// The pod that connections are tried from: that of `app=client`, or else the first. It has its own network.
pub(super) fn client(store: &Store) -> Option<(String, String)> {
    let pods = store.list(Kind::Pod);
    let others = pods.iter().filter(|pod| name_of(pod).0 != matrix::NAMESPACE);
    let mut able = others.filter(|pod| pod["spec"]["hostNetwork"] != true && is_ready(pod));
    let preferred = able.clone().find(|pod| pod["metadata"]["labels"]["app"] == "client");
    let (namespace, name) = name_of(preferred.or_else(|| able.next())?);
    Some((namespace.to_owned(), name.to_owned()))
}

/// The Deployments and pods that are not yet as they should be.
pub(super) fn unready(store: &Store) -> Vec<String> {
    let mut unready = Vec::new();
    for deployment in store.list(Kind::Deployment) {
        let wanted = deployment["spec"]["replicas"].as_u64().unwrap_or(1);
        if deployment["status"]["readyReplicas"].as_u64().unwrap_or(0) != wanted {
            unready.push(format!("deployment {}", name_of(&deployment).1));
        }
    }
    for pod in store.list(Kind::Pod).iter().filter(|pod| !is_ready(pod)) {
        unready.push(format!("pod {}", name_of(pod).1));
    }
    unready
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.clone().any(|one| one["type"] == "Ready" && one["status"] == "True")
}

/// The ready backends that a slice has for a Service's port.
fn backends(slice: &Value, port: &Value, transport: Transport) -> Vec<(String, Ipv4Addr)> {
    let same =
        |one: &&Value| text(&one["name"]) == text(&port["name"]) && self::transport(one) == Some(transport);
    let Some(_) = slice["ports"].as_array().into_iter().flatten().find(same) else { return Vec::new() };
    endpoints(slice)
        .filter(|(_, endpoint)| endpoint["conditions"]["ready"] != false)
        .map(|(address, endpoint)| {
            let pod = text(&endpoint["targetRef"]["name"]);
            let name = if pod.is_empty() { address.to_string() } else { pod.to_owned() };
            (name, address)
        })
        .collect()
}

fn endpoints(slice: &Value) -> impl Iterator<Item = (Ipv4Addr, &Value)> {
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    endpoints.flat_map(|endpoint| {
        let addresses = endpoint["addresses"].as_array().into_iter().flatten();
        addresses.filter_map(move |address| Some((text(address).parse().ok()?, endpoint)))
    })
}

fn transport(port: &Value) -> Option<Transport> {
    match text(&port["protocol"]) {
        "TCP" | "" => Some(Transport::Tcp),
        "UDP" => Some(Transport::Udp),
        _ => None,
    }
}

fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok())
}

fn name_of(object: &Value) -> (&str, &str) {
    (text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
