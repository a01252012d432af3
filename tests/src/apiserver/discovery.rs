//! `/api`, `/apis` and below, `/version`, and the `OpenAPI` answers that satisfy kubectl without a schema.
//!
//! Only the old form of discovery is served. An empty protobuf answer at `/openapi/v2` and none at
//! `/openapi/v3` is the least that lets every kubectl create and apply: the checking is left to the server.

use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::kinds::{RESOURCES, Resource};
use super::status::Status;

const OPENAPI_V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Groups in the order in which kubectl looks for a bare name.
const GROUPS: [&str; 6] = [
    "apps",
    "events.k8s.io",
    "authorization.k8s.io",
    "networking.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
];

/// The answer to a path that names no object, or none if it is no such path.
pub(super) fn answer(path: &str) -> Option<Response> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let value = match parts.as_slice() {
        ["version"] => version(),
        ["healthz" | "livez" | "readyz"] => return Some("ok".into_response()),
        ["openapi", "v2"] => return Some(([(header::CONTENT_TYPE, OPENAPI_V2)], "").into_response()),
        ["openapi", "v3", ..] => return Some(Status::no_such_path().into_response()),
        ["api"] => json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        ["apis"] => {
            let groups: Vec<Value> = GROUPS.iter().map(|name| group(name)).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        ["apis", name] if GROUPS.contains(name) => {
            let mut value = group(name);
            value["kind"] = "APIGroup".into();
            value["apiVersion"] = "v1".into();
            value
        }
        ["api", "v1"] => resources("", "v1"),
        ["apis", name, "v1"] if GROUPS.contains(name) => resources(name, &format!("{name}/v1")),
        _ => return None,
    };
    Some(axum::Json(value).into_response())
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "37", "gitVersion": "v1.37.0", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z", "goVersion": "", "compiler": "", "platform": "linux/amd64",
    })
}

fn group(name: &str) -> Value {
    let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
    json!({"name": name, "versions": [version], "preferredVersion": version})
}

fn resources(group: &str, group_version: &str) -> Value {
    let rows = RESOURCES.iter().filter(|row| row.group == group);
    let mut list: Vec<Value> = rows.flat_map(entries).collect();
    if group == "authorization.k8s.io" {
        list.push(json!({
            "name": "selfsubjectaccessreviews", "singularName": "selfsubjectaccessreview", "namespaced": false,
            "kind": "SelfSubjectAccessReview", "verbs": ["create"],
        }));
    }
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list})
}

fn entries(row: &Resource) -> Vec<Value> {
    let mut list = vec![json!({
        "name": row.plural, "singularName": row.singular, "namespaced": row.namespaced, "kind": row.kind,
        "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        "shortNames": row.short_names, "categories": row.categories,
    })];
    if row.status {
        list.push(json!({
            "name": format!("{}/status", row.plural), "singularName": "", "namespaced": row.namespaced,
            "kind": row.kind, "verbs": ["get", "patch", "update"],
        }));
    }
    if row.scale {
        list.push(json!({
            "name": format!("{}/scale", row.plural), "singularName": "", "namespaced": row.namespaced,
            "group": "autoscaling", "version": "v1", "kind": "Scale", "verbs": ["get", "patch", "update"],
        }));
    }
    list
}
