//! What the server writes into an object where its author left a field out.
//!
//! Total on purpose: an object of the wrong shape passes through as far as it has the right one, because tests
//! put malformed objects into the store.

use serde_json::{Map, Value, json};

use super::kinds::Kind;

type Fields = Map<String, Value>;

pub(super) fn fill(kind: Kind, object: &mut Value) {
    let Some(root) = object.as_object_mut() else { return };
    match kind {
        Kind::Namespace => namespace(root),
        Kind::Node => {
            set(root, "spec", json!({}));
            set(root, "status", json!({}));
        }
        Kind::Pod => {
            child(root, "spec", pod_spec);
            set(root, "status", json!({"phase": "Pending", "qosClass": "BestEffort"}));
        }
        Kind::Service => {
            child(root, "spec", service_spec);
            set(root, "status", json!({"loadBalancer": {}}));
        }
        Kind::EndpointSlice => {
            set(root, "endpoints", json!([]));
            each(root, "ports", |port| {
                set(port, "name", "".into());
                set(port, "protocol", "TCP".into());
            });
        }
        Kind::NetworkPolicy => child(root, "spec", policy_spec),
        Kind::Deployment => {
            child(root, "spec", deployment_spec);
            set(root, "status", json!({}));
        }
        Kind::Event | Kind::Lease => {}
    }
}

fn namespace(root: &mut Fields) {
    child(root, "metadata", |metadata| {
        let name = metadata.get("name").cloned().unwrap_or_default();
        child(metadata, "labels", |labels| set(labels, "kubernetes.io/metadata.name", name));
    });
    set(root, "spec", json!({"finalizers": ["kubernetes"]}));
    set(root, "status", json!({"phase": "Active"}));
}

fn service_spec(spec: &mut Fields) {
    set(spec, "type", "ClusterIP".into());
    set(spec, "sessionAffinity", "None".into());
    if spec.get("sessionAffinity").is_some_and(|kind| kind == "ClientIP") {
        set(spec, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": 10_800}}));
    }
    each(spec, "ports", |port| {
        set(port, "protocol", "TCP".into());
        let number = port.get("port").cloned().unwrap_or_default();
        set(port, "targetPort", number);
    });
    let kind = spec.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    if kind == "ExternalName" {
        return;
    }
    set(spec, "internalTrafficPolicy", "Cluster".into());
    set(spec, "ipFamilies", json!(["IPv4"]));
    set(spec, "ipFamilyPolicy", "SingleStack".into());
    if kind == "NodePort" || kind == "LoadBalancer" {
        set(spec, "externalTrafficPolicy", "Cluster".into());
    }
    if kind == "LoadBalancer" {
        set(spec, "allocateLoadBalancerNodePorts", true.into());
    }
}

fn policy_spec(spec: &mut Fields) {
    set(spec, "podSelector", json!({}));
    for direction in ["ingress", "egress"] {
        each(spec, direction, |rule| each(rule, "ports", |port| set(port, "protocol", "TCP".into())));
    }
    let types = if spec.contains_key("egress") { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
    set(spec, "policyTypes", types);
}

fn deployment_spec(spec: &mut Fields) {
    set(spec, "replicas", 1.into());
    set(spec, "revisionHistoryLimit", 10.into());
    set(spec, "progressDeadlineSeconds", 600.into());
    let rolling =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}});
    set(spec, "strategy", rolling);
    child(spec, "template", |template| child(template, "spec", pod_spec));
}

fn pod_spec(spec: &mut Fields) {
    set(spec, "restartPolicy", "Always".into());
    set(spec, "terminationGracePeriodSeconds", 30.into());
    set(spec, "dnsPolicy", "ClusterFirst".into());
    set(spec, "securityContext", json!({}));
    set(spec, "schedulerName", "default-scheduler".into());
    for list in ["containers", "initContainers"] {
        each(spec, list, |container| {
            set(container, "imagePullPolicy", "IfNotPresent".into());
            set(container, "resources", json!({}));
            set(container, "terminationMessagePath", "/dev/termination-log".into());
            set(container, "terminationMessagePolicy", "File".into());
            each(container, "ports", |port| set(port, "protocol", "TCP".into()));
        });
    }
}

fn set(fields: &mut Fields, name: &str, value: Value) {
    let field = fields.entry(name).or_insert(Value::Null);
    if field.is_null() {
        *field = value;
    }
}

/// Edits a field that is an object, making it where it is missing.
fn child(fields: &mut Fields, name: &str, edit: impl FnOnce(&mut Fields)) {
    set(fields, name, json!({}));
    if let Some(Value::Object(inner)) = fields.get_mut(name) {
        edit(inner);
    }
}

/// Edits every object in a list, if there is a list.
fn each(fields: &mut Fields, name: &str, edit: impl Fn(&mut Fields)) {
    if let Some(Value::Array(items)) = fields.get_mut(name) {
        items.iter_mut().filter_map(Value::as_object_mut).for_each(edit);
    }
}
