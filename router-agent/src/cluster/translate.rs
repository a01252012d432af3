//! API objects to the model's words. Total: what is wrong with an object becomes a Problem of that object, what
//! is right with it goes on, and no other object notices.
//!
//! What the API leaves open is decided here: a missing port name is the empty name, a missing protocol TCP, an
//! endpoint of unknown readiness is ready.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use router_core::cluster::Event;
use router_core::model::Key;
use router_core::model::node::Node;
use router_core::model::pod::Pod;
use router_core::model::service::{Endpoint, Protocol, Service, ServicePort, Slice, SlicePort};
use router_core::problem::{Problem, Subject};

use super::narrow;

const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
const HEADLESS: &str = "service.kubernetes.io/headless";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const POD_CIDRS: &str = "kube-router.io/pod-cidrs";
const POD_CIDR: &str = "kube-router.io/pod-cidr";

/// Namespace and name of an object.
pub(crate) fn key(metadata: &ObjectMeta) -> Key {
    Key::new(metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

/// What a Service comes to.
pub(crate) fn service(object: &narrow::Service) -> Vec<Event> {
    let key = key(&object.metadata);
    let mut wrong = Wrong::new(Subject::Service(key.clone()));
    let spec = wrong.part("spec", object.spec.get());
    let event = match spec.filter(|spec| is_balanced(&object.metadata, spec)) {
        Some(spec) => Event::Service(Service {
            created: object.metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second()),
            cluster_ips: cluster_ips(spec, &mut wrong),
            ports: service_ports(spec, &mut wrong),
            key,
        }),
        None => Event::ServiceGone(key),
    };
    wrong.after(event)
}

/// What a slice comes to.
pub(crate) fn slice(object: &narrow::EndpointSlice) -> Vec<Event> {
    let key = key(&object.metadata);
    let mut wrong = Wrong::new(Subject::EndpointSlice(key.clone()));
    let kind = object.address_type.as_deref().unwrap_or_default();
    if has_label(&object.metadata, HEADLESS) || kind == "FQDN" {
        return wrong.after(Event::SliceGone(key));
    }
    let Some(service) = service_name(&object.metadata) else {
        wrong.add("NoService", "it names no service", &format!("label it {SERVICE_NAME}"));
        return wrong.after(Event::SliceGone(key));
    };
    let service = Key::new(key.namespace.clone(), service);
    let endpoints =
        wrong.part("endpoints", object.endpoints.get()).and_then(Option::as_deref).unwrap_or_default();
    let ports = wrong.part("ports", object.ports.get()).and_then(Option::as_deref);
    if ports.is_some_and(<[_]>::is_empty) && !endpoints.is_empty()
        || matches!(object.ports.get(), Ok(None)) && !endpoints.is_empty()
    {
        let text = format!("it has {} endpoints and no ports", endpoints.len());
        wrong.add("NoPorts", &text, &format!("give it the ports on which they serve {service}"));
    }
    let ports = slice_ports(ports.unwrap_or_default(), &mut wrong);
    let endpoints = slice_endpoints(kind, endpoints, &mut wrong);
    wrong.after(Event::Slice(Slice { key, service, ports, endpoints }))
}

/// What this node's object comes to.
pub(crate) fn node(object: &narrow::Node) -> Vec<Event> {
    let name = key(&object.metadata).name;
    let mut wrong = Wrong::new(Subject::Node(name.clone()));
    let spec = wrong.part("spec", object.spec.get()).cloned().unwrap_or_default();
    let status = wrong.part("status", object.status.get()).cloned().unwrap_or_default();
    let listed = status.addresses.unwrap_or_default();
    let mut addresses = Vec::new();
    for kind in ["InternalIP", "ExternalIP"] {
        for entry in listed.iter().filter(|entry| entry.kind == kind) {
            if let Ok(address) = entry.address.parse::<IpAddr>() {
                addresses.push(address);
            } else {
                let text = format!("its {kind} {:?} is no IP address", entry.address);
                wrong.add("BadAddress", &text, "correct status.addresses, which the kubelet writes");
            }
        }
    }
    if addresses.is_empty() {
        wrong.add("NoAddress", "it has no InternalIP or ExternalIP", "start its kubelet with --node-ip");
    }
    let pod_cidrs = pod_cidrs(&object.metadata, &spec, &mut wrong);
    wrong.after(Event::Node(name, Node { addresses, pod_cidrs }))
}

/// What a pod of this node comes to.
pub(crate) fn pod(object: &narrow::Pod) -> Vec<Event> {
    let key = key(&object.metadata);
    let mut wrong = Wrong::new(Subject::Pod(key.clone()));
    let spec = wrong.part("spec", object.spec.get()).copied().unwrap_or_default();
    let status = wrong.part("status", object.status.get()).cloned().unwrap_or_default();
    let mut listed: Vec<String> =
        status.pod_ips.unwrap_or_default().into_iter().map(|entry| entry.ip).collect();
    if listed.is_empty() {
        listed.extend(status.pod_ip);
    }
    let mut addresses = Vec::new();
    for text in listed.iter().filter(|text| !text.is_empty()) {
        if let Ok(address) = text.parse() {
            addresses.push(address);
        } else {
            let text = format!("its address {text:?} is no IP address");
            wrong.add("BadAddress", &text, "correct status.podIPs, which the kubelet writes");
        }
    }
    let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let host_network = spec.host_network == Some(true);
    wrong.after(Event::Pod(Pod { key, addresses, host_network, ended }))
}

/// Whether a Service is ours to balance.
fn is_balanced(metadata: &ObjectMeta, spec: &narrow::ServiceSpec) -> bool {
    let proxy = metadata.labels.as_ref().and_then(|labels| labels.get(PROXY_NAME));
    let first = spec.cluster_ips.as_ref().and_then(|addresses| addresses.first());
    let address = spec.cluster_ip.as_ref().filter(|address| !address.is_empty()).or(first);
    let headless = address.is_none_or(|address| address.is_empty() || address.eq_ignore_ascii_case("none"));
    !headless
        && spec.kind.as_deref() != Some("ExternalName")
        && proxy.is_none_or(|name| name == "kube-router")
        && !has_label(metadata, HEADLESS)
}

fn cluster_ips(spec: &narrow::ServiceSpec, wrong: &mut Wrong) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    let listed = spec.cluster_ips.as_deref().unwrap_or_default();
    for text in spec.cluster_ip.iter().filter(|text| !text.is_empty()).chain(listed) {
        match usable(text) {
            Ok(address) if !addresses.contains(&address) => addresses.push(address),
            Ok(_) => {}
            Err(why) => {
                let text = format!("its ClusterIP {text:?} {why}");
                wrong.add(
                    "BadClusterIP",
                    &text,
                    "delete the Service and apply it with an address of the range",
                );
            }
        }
    }
    addresses
}

fn service_ports(spec: &narrow::ServiceSpec, wrong: &mut Wrong) -> Vec<ServicePort> {
    let listed = spec.ports.as_deref().unwrap_or_default();
    if listed.is_empty() {
        wrong.add("NoPorts", "it has no ports", "give it one under spec.ports");
    }
    let read = listed.iter().filter_map(|port| {
        let (protocol, number) = port_of(port, wrong)?;
        let node_port = node_port(port, wrong);
        Some(ServicePort { name: port.name.clone().unwrap_or_default(), protocol, port: number, node_port })
    });
    read.collect()
}

/// Its node port; one that is no port costs the rest of the Service nothing.
fn node_port(port: &narrow::Port, wrong: &mut Wrong) -> Option<u16> {
    let number = port.on_nodes.filter(|number| *number != 0)?;
    let read = u16::try_from(number).ok();
    if read.is_none() {
        let name = port.name.as_deref().unwrap_or_default();
        let text = format!("the node port of its port {name:?} is {number}");
        wrong.add("BadNodePort", &text, "give it a number from 1 to 65535, or none");
    }
    read
}

/// A port without a number means all ports, which no frontend of ours does.
fn slice_ports(listed: &[narrow::Port], wrong: &mut Wrong) -> Vec<SlicePort> {
    let numbered = listed.iter().filter(|port| port.number.is_some());
    let read = numbered.filter_map(|port| {
        let (protocol, number) = port_of(port, wrong)?;
        Some(SlicePort { name: port.name.clone().unwrap_or_default(), protocol, port: number })
    });
    read.collect()
}

fn port_of(port: &narrow::Port, wrong: &mut Wrong) -> Option<(Protocol, u16)> {
    let name = port.name.as_deref().unwrap_or_default();
    let protocol = match port.protocol.as_deref().unwrap_or("TCP") {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        other => {
            // Slices repeat what their service is told already.
            if !matches!((other, &wrong.subject), ("SCTP", Subject::EndpointSlice(_))) {
                let text = format!("its port {name:?} is {other}, which is not balanced");
                wrong.add("NotBalanced", &text, "use TCP or UDP; its other ports are balanced");
            }
            return None;
        }
    };
    let number = port.number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number != 0);
    if number.is_none() {
        let shown = port.number.map_or("missing".to_owned(), |number| number.to_string());
        let text = format!("the number of its port {name:?} is {shown}");
        wrong.add("BadPort", &text, "give the port a number from 1 to 65535");
    }
    Some((protocol, number?))
}

fn slice_endpoints(kind: &str, listed: &[narrow::Endpoint], wrong: &mut Wrong) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    let mut unusable = Vec::new();
    for entry in listed {
        // Of several addresses the API gives only the first a meaning.
        let text = entry.addresses.iter().flatten().next().map_or("", String::as_str);
        let address = usable(text).and_then(|address| match (kind, address) {
            ("IPv4", IpAddr::V4(_)) | ("IPv6", IpAddr::V6(_)) => Ok(address),
            _ => Err(format!("is not of the slice's addressType {kind:?}")),
        });
        match address {
            Ok(address) => endpoints.push(endpoint(address, entry.conditions.unwrap_or_default())),
            Err(why) => unusable.push(format!("{text:?} {why}")),
        }
    }
    if let Some(first) = unusable.first() {
        let more = unusable.len() - 1;
        let more = if more == 0 { String::new() } else { format!(", and {more} more cannot be used") };
        wrong.add(
            "BadAddress",
            &format!("its address {first}{more}"),
            "correct the slice; its other endpoints are used",
        );
    }
    endpoints
}

fn endpoint(address: IpAddr, conditions: narrow::Conditions) -> Endpoint {
    let ready = conditions.ready.unwrap_or(true);
    Endpoint {
        address,
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
    }
}

/// Annotations before the spec: one rule everywhere.
fn pod_cidrs(metadata: &ObjectMeta, spec: &narrow::NodeSpec, wrong: &mut Wrong) -> Vec<IpNet> {
    let annotation = |key| metadata.annotations.as_ref().and_then(|annotations| annotations.get(key));
    let (source, listed): (_, Vec<String>) = if let Some(list) = annotation(POD_CIDRS) {
        (POD_CIDRS, list.split(',').map(str::to_owned).collect())
    } else if let Some(single) = annotation(POD_CIDR) {
        (POD_CIDR, vec![single.clone()])
    } else {
        let single = spec.pod_cidr.iter().filter(|cidr| !cidr.is_empty()).cloned().collect();
        ("spec.podCIDRs", spec.pod_cidrs.clone().filter(|cidrs| !cidrs.is_empty()).unwrap_or(single))
    };
    if listed.is_empty() {
        let remedy =
            format!("let the controller-manager allocate them, or annotate the node with {POD_CIDRS}");
        wrong.add("NoPodCIDR", "it has no pod ranges", &remedy);
    }
    let mut cidrs = Vec::new();
    for text in &listed {
        if let Ok(cidr) = text.trim().parse::<IpNet>() {
            cidrs.push(cidr.trunc());
        } else {
            let text = format!("{text:?} in {source} is no range");
            wrong.add("BadPodCIDR", &text, "write it as address/length, such as 10.1.0.0/24");
        }
    }
    cidrs
}

/// An address that a client or a backend can have, or why it is none.
fn usable(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| "is no IP address".to_owned())?;
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.to_ipv4_mapped().is_some(),
    };
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() || link_local {
        return Err("is an address that nobody else can reach".to_owned());
    }
    Ok(address)
}

fn service_name(metadata: &ObjectMeta) -> Option<String> {
    let label = metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME)).cloned();
    let owner = match metadata.owner_references.as_deref() {
        Some([owner]) => Some(owner.name.clone()),
        _ => None,
    };
    let generated =
        metadata.generate_name.as_deref().map(|name| name.strip_suffix('-').unwrap_or(name).to_owned());
    label.or(owner).or(generated).filter(|name| !name.is_empty())
}

fn has_label(metadata: &ObjectMeta, key: &str) -> bool {
    metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(key))
}

/// What is found wrong with one object.
struct Wrong {
    subject: Subject,
    found: Vec<Problem>,
}

impl Wrong {
    fn new(subject: Subject) -> Self {
        Self { subject, found: Vec::new() }
    }

    fn add(&mut self, reason: &'static str, text: &str, remedy: &str) {
        let (text, remedy) = (text.to_owned(), remedy.to_owned());
        self.found.push(Problem { subject: self.subject.clone(), reason, text, remedy });
    }

    /// A part of the object, if it could be read.
    fn part<'a, T>(&mut self, name: &str, part: Result<&'a T, String>) -> Option<&'a T> {
        part.map_err(|error| self.add("NotReadable", &format!("its {name}: {error}"), "correct it")).ok()
    }

    /// `event`, and then all that is wrong.
    fn after(self, event: Event) -> Vec<Event> {
        vec![event, Event::Problems(self.subject, self.found)]
    }
}

#[cfg(test)]
mod tests;
