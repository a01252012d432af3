//! What the server refuses to store, as far as a user of Services meets it.
//!
//! Types and unknown fields come from the generated API types: an object is read into its type and written
//! back, and a field that does not come back is unknown. Beyond that only names and Services are checked.

use std::collections::HashSet;
use std::net::IpAddr;

use k8s_openapi::api::{apps, coordination, core, discovery, events, networking};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::kinds::{Kind, Resource};
use super::status::{Cause, Status};

/// What the client wants done about unknown fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fields {
    Ignore,
    Warn,
    Strict,
}

impl Fields {
    pub(super) fn parse(text: Option<&str>) -> Self {
        match text {
            Some("Strict") => Self::Strict,
            Some("Warn") => Self::Warn,
            _ => Self::Ignore,
        }
    }
}

/// Checks the shape of what a client sent. Gives the warnings to send along.
pub(super) fn shape(resource: &Resource, object: &Value, fields: Fields) -> Result<Vec<String>, Status> {
    let typed = round_trip(resource, object).map_err(|error| {
        let version = resource.api_version();
        Status::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: {error}",
            kind = resource.kind
        ))
    })?;
    let mut unknown = Vec::new();
    missing(object, &typed, "", &mut unknown);
    match fields {
        Fields::Strict if !unknown.is_empty() => {
            let kind = resource.kind;
            let version = resource.api_version();
            Err(Status::bad_request(format!(
                "{kind} in version \"{version}\" cannot be handled as a {kind}: strict decoding error: {}",
                unknown.join(", ")
            )))
        }
        Fields::Ignore => Ok(Vec::new()),
        Fields::Warn | Fields::Strict => Ok(unknown),
    }
}

fn round_trip(resource: &Resource, object: &Value) -> serde_json::Result<Value> {
    match resource.stored {
        Kind::Namespace => typed::<core::v1::Namespace>(object),
        Kind::Node => typed::<core::v1::Node>(object),
        Kind::Pod => typed::<core::v1::Pod>(object),
        Kind::Service => typed::<core::v1::Service>(object),
        Kind::EndpointSlice => typed::<discovery::v1::EndpointSlice>(object),
        Kind::NetworkPolicy => typed::<networking::v1::NetworkPolicy>(object),
        Kind::Deployment => typed::<apps::v1::Deployment>(object),
        Kind::Lease => typed::<coordination::v1::Lease>(object),
        Kind::Event if resource.renamed() => typed::<events::v1::Event>(object),
        Kind::Event => typed::<core::v1::Event>(object),
    }
}

fn typed<T: DeserializeOwned + Serialize>(object: &Value) -> serde_json::Result<Value> {
    serde_json::to_value(T::deserialize(object)?)
}

/// Fields of `sent` that `typed` does not know. Empty values carry nothing and are let through.
fn missing(sent: &Value, typed: &Value, path: &str, unknown: &mut Vec<String>) {
    match (sent, typed) {
        (Value::Object(sent), Value::Object(typed)) => {
            for (name, value) in sent {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match typed.get(name) {
                    Some(known) => missing(value, known, &path, unknown),
                    None if is_empty(value) => {}
                    None => unknown.push(format!("unknown field \"{path}\"")),
                }
            }
        }
        (Value::Array(sent), Value::Array(typed)) => {
            for (at, (sent, typed)) in sent.iter().zip(typed).enumerate() {
                missing(sent, typed, &format!("{path}[{at}]"), unknown);
            }
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// Checks what an object says, once defaults are in.
pub(super) fn content(resource: &Resource, object: &Value) -> Result<(), Status> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let mut causes = Vec::new();
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    } else if !is_name(name) {
        let text = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
                    and must start and end with an alphanumeric character";
        causes.push(Cause::invalid("metadata.name", &name.into(), text));
    }
    match resource.stored {
        Kind::Service => service(&object["spec"], &mut causes),
        Kind::Pod => containers(&object["spec"], "spec", &mut causes),
        Kind::Deployment => deployment(&object["spec"], &mut causes),
        _ => {}
    }
    if causes.is_empty() { Ok(()) } else { Err(Status::invalid(resource, name, &causes)) }
}

fn is_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 253 && name.chars().all(inner) && name.starts_with(edge) && name.ends_with(edge)
}

fn service(spec: &Value, causes: &mut Vec<Cause>) {
    const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    let kind = spec["type"].as_str().unwrap_or("ClusterIP");
    if !TYPES.contains(&kind) {
        causes.push(Cause::unsupported("spec.type", &spec["type"], &TYPES));
    }
    let ports = spec["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    if ports.is_empty() && kind != "ExternalName" && spec["clusterIP"] != "None" {
        causes.push(Cause::required("spec.ports", ""));
    }
    service_ports(ports, causes);
    let cluster_ip = &spec["clusterIP"];
    if cluster_ip.as_str().is_some_and(|text| text != "None" && !text.is_empty() && !is_address(text)) {
        causes.push(Cause::invalid("spec.clusterIPs[0]", cluster_ip, "must be a valid IP address"));
    }
    for (at, address) in spec["externalIPs"].as_array().into_iter().flatten().enumerate() {
        if !address.as_str().is_some_and(is_address) {
            let field = format!("spec.externalIPs[{at}]");
            causes.push(Cause::invalid(field, address, "must be a valid IP address"));
        }
    }
}

fn service_ports(ports: &[Value], causes: &mut Vec<Cause>) {
    const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
    let (mut names, mut keys) = (HashSet::new(), HashSet::new());
    for (at, port) in ports.iter().enumerate() {
        let field = |name: &str| format!("spec.ports[{at}].{name}");
        let name = port["name"].as_str().unwrap_or_default();
        if name.is_empty() && ports.len() > 1 {
            causes.push(Cause::required(field("name"), ""));
        } else if !name.is_empty() && !names.insert(name) {
            causes.push(Cause::duplicate(field("name"), &port["name"]));
        }
        if !port["port"].as_i64().is_some_and(|number| (1..=65_535).contains(&number)) {
            let text = "must be between 1 and 65535, inclusive";
            causes.push(Cause::invalid(field("port"), &port["port"], text));
        }
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        if !PROTOCOLS.contains(&protocol) {
            causes.push(Cause::unsupported(field("protocol"), &port["protocol"], &PROTOCOLS));
        }
        if !keys.insert((protocol, port["port"].as_i64())) {
            causes.push(Cause::duplicate(format!("spec.ports[{at}]"), &port["port"]));
        }
    }
}

fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

fn containers(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    if spec["containers"].as_array().is_none_or(Vec::is_empty) {
        causes.push(Cause::required(format!("{path}.containers"), ""));
    }
}

fn deployment(spec: &Value, causes: &mut Vec<Cause>) {
    containers(&spec["template"]["spec"], "spec.template.spec", causes);
    let selector = &spec["selector"];
    let wanted = selector["matchLabels"].as_object();
    if wanted.is_none() && selector["matchExpressions"].is_null() {
        causes.push(Cause::required("spec.selector", ""));
    }
    let labels = &spec["template"]["metadata"]["labels"];
    if !wanted.into_iter().flatten().all(|(name, value)| labels.get(name) == Some(value)) {
        let text = "`selector` does not match template `labels`";
        causes.push(Cause::invalid("spec.template.metadata.labels", labels, text));
    }
}
