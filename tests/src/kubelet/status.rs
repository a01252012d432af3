//! What the kubelet says about a pod and about its node, as merge patches and objects.

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use serde_json::{Value, json};

use crate::{
    sandbox::PortMapping,
    serve::{Listen, Transport},
};

/// A pod that runs: its addresses, all conditions true, all containers ready. Readiness probes are not run.
pub(super) fn running(pod: &Pod, pod_ip: &str, host_ip: &str, now: Timestamp) -> Value {
    let spec = pod.spec.as_ref();
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let conditions: Vec<_> = ["PodScheduled", "Initialized", "ContainersReady", "Ready"]
        .iter()
        .map(|kind| json!({ "type": kind, "status": "True", "lastTransitionTime": now }))
        .collect();
    let containers: Vec<_> = spec
        .into_iter()
        .flat_map(|spec| &spec.containers)
        .map(|container| {
            json!({
                "name": container.name,
                "image": container.image.clone().unwrap_or_default(),
                "imageID": "",
                "ready": true,
                "started": true,
                "restartCount": 0,
                "state": { "running": { "startedAt": now } },
            })
        })
        .collect();
    json!({ "status": {
        "phase": "Running",
        "podIP": pod_ip,
        "podIPs": [{ "ip": pod_ip }],
        "hostIP": host_ip,
        "hostIPs": [{ "ip": host_ip }],
        "startTime": now,
        "conditions": conditions,
        "containerStatuses": containers,
    } })
}

/// The Node object as a kubelet creates it.
pub(super) fn node(name: &str, pod_cidr: Option<&str>) -> Value {
    let mut node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": name, "labels": {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
        } },
        "spec": {},
    });
    if let (Some(cidr), Some(spec)) = (pod_cidr, node.get_mut("spec")) {
        *spec = json!({ "podCIDR": cidr, "podCIDRs": [cidr] });
    }
    node
}

pub(super) fn node_ready(name: &str, ip: &str, now: Timestamp) -> Value {
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({ "status": {
        "addresses": [{ "type": "InternalIP", "address": ip }, { "type": "Hostname", "address": name }],
        "conditions": [{
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "message": "the lab's kubelet runs",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }],
    } })
}

pub(super) fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false)
}

/// Where the pod's server listens: its declared ports that are TCP or UDP, each once.
pub(super) fn listens(pod: &Pod) -> Vec<Listen> {
    let mut listens: Vec<_> = ports(pod).map(|(listen, _)| listen).collect();
    listens.sort_unstable();
    listens.dedup();
    listens
}

pub(super) fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    ports(pod).filter_map(|(_, mapping)| mapping).collect()
}

fn ports(pod: &Pod) -> impl Iterator<Item = (Listen, Option<PortMapping>)> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers.flat_map(|container| container.ports.iter().flatten()).filter_map(|port| {
        let protocol: Transport = port.protocol.as_deref().unwrap_or("TCP").parse().ok()?;
        let listen = Listen { port: u16::try_from(port.container_port).ok()?, protocol };
        let mapping =
            port.host_port.and_then(|host_port| u16::try_from(host_port).ok()).map(|host_port| PortMapping {
                host_port,
                container_port: listen.port,
                protocol: protocol.to_string(),
                host_ip: port.host_ip.clone(),
            });
        Some((listen, mapping))
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Node, NodeStatus, PodStatus};

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "web-0", "namespace": "default" },
            "spec": { "containers": [
                { "name": "web", "image": "web:1", "ports": [
                    { "containerPort": 8080 },
                    { "containerPort": 8080, "protocol": "UDP", "hostPort": 53, "hostIP": "192.0.2.1" },
                    { "containerPort": 8080, "protocol": "TCP", "name": "again" },
                    { "containerPort": 9, "protocol": "SCTP" },
                ] },
                { "name": "side", "image": "side:1" },
            ] },
        }))
        .unwrap()
    }

    #[test]
    fn a_running_pod_has_its_addresses_and_is_ready_with_all_its_containers() {
        let patch = running(&pod(), "10.244.1.5", "192.168.1.2", Timestamp::UNIX_EPOCH);
        let status: PodStatus = serde_json::from_value(patch["status"].clone()).unwrap();
        assert_eq!(status.phase.as_deref(), Some("Running"));
        assert_eq!(status.pod_ip.as_deref(), Some("10.244.1.5"));
        assert_eq!(status.pod_ips.unwrap()[0].ip, "10.244.1.5");
        assert_eq!(status.host_ip.as_deref(), Some("192.168.1.2"));
        let conditions = status.conditions.unwrap();
        assert_eq!(conditions.len(), 4);
        assert!(conditions.iter().all(|condition| condition.status == "True"));
        let containers = status.container_statuses.unwrap();
        let names: Vec<_> =
            containers.iter().map(|container| (container.name.as_str(), container.ready)).collect();
        assert_eq!(names, [("web", true), ("side", true)]);
        assert_eq!(patch["status"]["startTime"], json!("1970-01-01T00:00:00Z"));
    }

    #[test]
    fn a_pod_serves_its_tcp_and_udp_ports_once_and_maps_its_host_ports() {
        let both = [Transport::Tcp, Transport::Udp].map(|protocol| Listen { port: 8080, protocol });
        assert_eq!(listens(&pod()), both);
        let mapping = PortMapping {
            host_port: 53,
            container_port: 8080,
            protocol: "udp".into(),
            host_ip: Some("192.0.2.1".into()),
        };
        assert_eq!(port_mappings(&pod()), [mapping]);
    }

    #[test]
    fn a_node_is_ready_at_its_address_and_has_a_pod_range_only_if_told() {
        let bare: Node = serde_json::from_value(node("a", None)).unwrap();
        assert_eq!(bare.spec.unwrap().pod_cidr, None);
        let told: Node = serde_json::from_value(node("a", Some("10.244.1.0/24"))).unwrap();
        assert_eq!(told.spec.unwrap().pod_cidr.as_deref(), Some("10.244.1.0/24"));
        assert_eq!(told.metadata.labels.unwrap()["kubernetes.io/hostname"], "a");
        let patch = node_ready("a", "192.168.1.2", Timestamp::UNIX_EPOCH);
        let status: NodeStatus = serde_json::from_value(patch["status"].clone()).unwrap();
        assert_eq!(status.addresses.unwrap()[0].address, "192.168.1.2");
        assert_eq!(status.conditions.unwrap()[0].type_, "Ready");
    }
}
