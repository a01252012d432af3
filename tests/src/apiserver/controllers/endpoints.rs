//! `EndpointSlices` of Services with a selector.
//!
//! Pods that resolve a Service's ports to different numbers are kept in different slices, at most 100 in one.
//! A slice that this controller did not make is left alone.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::super::kinds::Kind;
use super::super::selector::Labels;
use super::super::store::{Key, Store, key, suffix};
use super::deployments::is_ready;

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const LARGEST: usize = 100;

/// The Service a slice of this controller belongs to.
pub(super) fn service_of(slice: &Value) -> Option<&str> {
    let labels = &slice["metadata"]["labels"];
    (labels[MANAGED_BY] == MANAGER).then_some(())?;
    labels[SERVICE_NAME].as_str()
}

pub(super) fn reconcile(store: &Store, service: &Key) {
    let wanted = store.get(Kind::Service, &service.0, &service.1).map(|found| slices(store, &found));
    let mut wanted = wanted.unwrap_or_default();
    for slice in store.with_prefix(Kind::EndpointSlice, &service.0, &format!("{}-", service.1)) {
        if service_of(&slice) != Some(&service.1) {
            continue;
        }
        let name = slice["metadata"]["name"].as_str().unwrap_or_default();
        match wanted.remove(name) {
            Some(wanted) => update(store, &slice, &wanted),
            None => drop(store.remove(Kind::EndpointSlice, &service.0, name)),
        }
    }
    for slice in wanted.into_values() {
        // A name that is taken by somebody else's slice stays theirs.
        store.create(Kind::EndpointSlice, slice, false).ok();
    }
}

fn update(store: &Store, slice: &Value, wanted: &Value) {
    let edit = |old: &Value| {
        let mut new = old.clone();
        for field in ["ports", "endpoints"] {
            new[field] = wanted[field].clone();
        }
        Ok(new)
    };
    store.edit(Kind::EndpointSlice, &key(Kind::EndpointSlice, slice), false, edit).ok();
}

/// The slices a Service should have, by name.
fn slices(store: &Store, service: &Value) -> BTreeMap<String, Value> {
    let selector = Labels::from_map(&service["spec"]["selector"]);
    if selector.is_empty() || service["spec"]["type"] == "ExternalName" {
        return BTreeMap::new();
    }
    let namespace = &service["metadata"]["namespace"];
    let mut groups: BTreeMap<String, (Vec<Value>, Vec<Value>)> = BTreeMap::new();
    for pod in store.list(Kind::Pod) {
        if pod["metadata"]["namespace"] == *namespace && selector.matches(&pod) && has_address(&pod) {
            let ports = ports(service, &pod);
            let group = groups.entry(Value::from(ports.clone()).to_string()).or_default();
            group.0 = ports;
            group.1.push(endpoint(service, &pod));
        }
    }
    if groups.is_empty() {
        // The real controller keeps one empty slice.
        groups.insert(String::new(), (Vec::new(), Vec::new()));
    }
    let mut all = BTreeMap::new();
    for (text, (ports, endpoints)) in groups {
        let mut parts: Vec<&[Value]> = endpoints.chunks(LARGEST).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        for (at, part) in parts.into_iter().enumerate() {
            let name = slice_name(service, &text, at);
            all.insert(name.clone(), slice(service, &name, &ports, part));
        }
    }
    all
}

fn has_address(pod: &Arc<Value>) -> bool {
    let finished = pod["status"]["phase"] == "Failed" || pod["status"]["phase"] == "Succeeded";
    !finished && pod["status"]["podIP"].as_str().is_some_and(|address| !address.is_empty())
}

fn slice_name(service: &Value, ports: &str, at: usize) -> String {
    let mut hasher = DefaultHasher::new();
    (service["metadata"]["uid"].as_str(), ports, at).hash(&mut hasher);
    format!("{}-{}", service["metadata"]["name"].as_str().unwrap_or_default(), suffix(hasher.finish(), 5))
}

fn slice(service: &Value, name: &str, ports: &[Value], endpoints: &[Value]) -> Value {
    let metadata = &service["metadata"];
    let mut labels = metadata["labels"].as_object().cloned().unwrap_or_else(Map::new);
    labels.insert(SERVICE_NAME.into(), metadata["name"].clone());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if service["spec"]["clusterIP"] == "None" {
        labels.insert("service.kubernetes.io/headless".into(), "".into());
    }
    json!({
        "metadata": {
            "name": name,
            "generateName": format!("{}-", metadata["name"].as_str().unwrap_or_default()),
            "namespace": metadata["namespace"],
            "labels": labels,
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": metadata["name"], "uid": metadata["uid"],
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": endpoints,
    })
}

fn endpoint(service: &Value, pod: &Value) -> Value {
    let terminating = pod["metadata"]["deletionTimestamp"].is_string();
    let serving = is_ready(pod) || service["spec"]["publishNotReadyAddresses"] == true;
    let metadata = &pod["metadata"];
    let mut endpoint = json!({
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": serving && !terminating, "serving": serving, "terminating": terminating},
        "targetRef": {
            "kind": "Pod", "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
        },
    });
    if pod["spec"]["nodeName"].is_string() {
        endpoint["nodeName"] = pod["spec"]["nodeName"].clone();
    }
    endpoint
}

/// A Service's ports as one pod serves them. A named port that the pod does not have is left out.
fn ports(service: &Value, pod: &Value) -> Vec<Value> {
    let ports = service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let resolved = ports.iter().filter_map(|port| {
        let number = match &port["targetPort"] {
            Value::String(name) => container_port(pod, name, &port["protocol"])?,
            Value::Null => port["port"].as_u64()?,
            number => number.as_u64()?,
        };
        let name = port["name"].as_str().unwrap_or_default();
        let mut resolved = json!({"name": name, "protocol": port["protocol"], "port": number});
        if port["appProtocol"].is_string() {
            resolved["appProtocol"] = port["appProtocol"].clone();
        }
        Some(resolved)
    });
    resolved.collect()
}

fn container_port(pod: &Value, name: &str, protocol: &Value) -> Option<u64> {
    let containers = pod["spec"]["containers"].as_array()?;
    let mut ports = containers.iter().filter_map(|container| container["ports"].as_array()).flatten();
    ports.find(|port| port["name"] == name && port["protocol"] == *protocol)?["containerPort"].as_u64()
}
