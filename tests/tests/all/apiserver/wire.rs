//! Answers in detail, below what a client library shows.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use router_tests::apiserver::{ApiServer, Identity, Kind, Options};
use serde_json::{Value, json};

use super::{options, service, start};

/// Sends one request with curl. Gives code and body.
fn ask(
    server: &ApiServer,
    method: &str,
    path: &str,
    headers: &[&str],
    body: Option<&Value>,
) -> (u16, String) {
    let mut authority = tempfile::NamedTempFile::new().unwrap();
    authority.write_all(server.authority().as_bytes()).unwrap();
    let mut command = Command::new("curl");
    command.args(["-s", "-m", "10", "-X", method, "-w", "\n%{http_code}", "--cacert"]).arg(authority.path());
    command.args(["-H", &format!("Authorization: Bearer {}", server.token(Identity::Admin))]);
    for header in headers {
        command.args(["-H", header]);
    }
    if let Some(body) = body {
        command.args(["-d", &body.to_string()]);
    }
    let mut child = command.arg(format!("{}{path}", server.url())).stdout(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    child.wait().unwrap();
    let (body, code) = text.rsplit_once('\n').unwrap();
    (code.parse().unwrap(), body.to_owned())
}

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(value).collect()
}

const SERVICES: &str = "/api/v1/namespaces/default/services";
const JSON: &str = "Content-Type: application/json";
const TABLE: &str = "Accept: application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

#[test]
fn a_streaming_list_ends_with_an_annotated_bookmark() {
    let server = start();
    let path = "/api/v1/services?watch=true&allowWatchBookmarks=true&sendInitialEvents=true\
                &resourceVersionMatch=NotOlderThan&timeoutSeconds=1";
    let (code, body) = ask(&server, "GET", path, &[], None);
    assert_eq!(code, 200);
    let events = lines(&body);
    assert_eq!(events[0]["type"], "ADDED");
    assert_eq!(events[0]["object"]["kind"], "Service", "objects of a watch name their kind");
    assert_eq!(events[1]["type"], "BOOKMARK");
    assert_eq!(events[1]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
}

#[test]
fn a_streaming_list_is_422_where_it_is_off() {
    let server = ApiServer::start(Options { streaming_lists: false, ..options() }).unwrap();
    let path = "/api/v1/services?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    let (code, body) = ask(&server, "GET", path, &[], None);
    assert_eq!(code, 422);
    assert_eq!(value(&body)["reason"], "Invalid");
}

/// A Service's change moves the revision on: a watch of pods learns it by a bookmark before its timeout.
#[test]
fn a_watch_that_saw_nothing_of_its_own_gets_a_bookmark_at_its_end() {
    let server = start();
    let revision = server.store().revision();
    let path =
        format!("/api/v1/pods?watch=1&allowWatchBookmarks=true&timeoutSeconds=1&resourceVersion={revision}");
    server.store().put(Kind::Service, service("web")).unwrap();
    let events = lines(&ask(&server, "GET", &path, &[], None).1);
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["type"], "BOOKMARK");
    assert_eq!(events[0]["object"]["spec"]["containers"], Value::Null);
    assert_ne!(events[0]["object"]["metadata"]["resourceVersion"], revision.to_string());
}

#[test]
fn an_object_that_leaves_a_selector_is_deleted_from_the_watch() {
    let server = start();
    let revision = server.store().revision();
    let mut web = service("web");
    web["metadata"]["labels"] = json!({"a": "b"});
    server.store().put(Kind::Service, web.clone()).unwrap();
    web["metadata"]["labels"] = json!({});
    server.store().put(Kind::Service, web).unwrap();
    let path = format!("{SERVICES}?watch=1&labelSelector=a%3Db&timeoutSeconds=1&resourceVersion={revision}");
    let kinds: Vec<_> =
        lines(&ask(&server, "GET", &path, &[], None).1).iter().map(|event| event["type"].clone()).collect();
    assert_eq!(kinds, ["ADDED", "DELETED"]);
}

#[test]
fn a_table_in_a_watch_has_its_columns_once() {
    let server = start();
    server.store().put(Kind::Service, service("web")).unwrap();
    let path = format!("{SERVICES}?watch=1&timeoutSeconds=1");
    let events = lines(&ask(&server, "GET", &path, &[TABLE], None).1);
    assert_eq!(events.len(), 2);
    assert_eq!(events[0]["object"]["columnDefinitions"][0]["name"], "Name");
    assert_eq!(events[1]["object"]["columnDefinitions"], Value::Null);
}

#[test]
fn items_of_a_list_do_not_repeat_its_kind() {
    let server = start();
    let list = value(&ask(&server, "GET", SERVICES, &[], None).1);
    assert_eq!(list["kind"], "ServiceList");
    assert_eq!(list["items"][0]["metadata"]["name"], "kubernetes");
    assert_eq!(list["items"][0].get("kind"), None);
}

#[test]
fn bad_services_are_refused_field_by_field() {
    let server = start();
    for (spec, expected) in [
        (json!({}), "Service \"web\" is invalid: spec.ports: Required value"),
        (json!({"ports": [{"port": 80}, {"port": 81}]}), "spec.ports[0].name: Required value"),
        (
            json!({"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]}),
            "spec.ports[1].name: Duplicate value: \"a\"",
        ),
        (json!({"ports": [{"port": 80, "protocol": "tcp"}]}), "supported values: \"SCTP\", \"TCP\", \"UDP\""),
        (json!({"ports": [{"port": 70_000}]}), "must be between 1 and 65535"),
        (json!({"ports": [{"port": 80}], "clusterIP": "ten"}), "must be a valid IP address"),
    ] {
        let body = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "web"}, "spec": spec});
        let (code, answer) = ask(&server, "POST", SERVICES, &[JSON], Some(&body));
        assert_eq!(code, 422, "{answer}");
        let message = value(&answer)["message"].clone();
        assert!(message.as_str().unwrap().contains(expected), "{message}");
    }
}

#[test]
fn a_server_without_validation_stores_what_it_is_given() {
    let server = ApiServer::start(Options { validate: false, ..options() }).unwrap();
    let body = json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "ten", "colour": "red"}});
    let path = format!("{SERVICES}?fieldValidation=Strict");
    assert_eq!(ask(&server, "POST", &path, &[JSON], Some(&body)).0, 201);
    let stored = server.store().get(Kind::Service, "default", "web").unwrap();
    assert_eq!((&stored["spec"]["clusterIP"], &stored["spec"]["colour"]), (&json!("ten"), &json!("red")));
}

#[test]
fn unknown_fields_are_refused_or_warned_about_as_asked() {
    let server = start();
    let body = json!({"metadata": {"name": "web"}, "spec": {"prots": [1], "ports": [{"port": 80, "x": 1}]}});
    let (code, answer) =
        ask(&server, "POST", &format!("{SERVICES}?fieldValidation=Strict"), &[JSON], Some(&body));
    assert_eq!(code, 400);
    assert!(answer.contains("strict decoding error"), "{answer}");
    for field in ["spec.ports[0].x", "spec.prots"] {
        assert!(answer.contains(&format!("unknown field \\\"{field}\\\"")), "{answer}");
    }
    assert_eq!(
        ask(&server, "POST", &format!("{SERVICES}?fieldValidation=Warn"), &[JSON], Some(&body)).0,
        201
    );
}

#[test]
fn a_cluster_ip_may_not_change() {
    let server = start();
    server.store().put(Kind::Service, service("web")).unwrap();
    let body = json!({"spec": {"clusterIP": "10.96.0.200"}});
    let merge = "Content-Type: application/merge-patch+json";
    let (code, answer) = ask(&server, "PATCH", &format!("{SERVICES}/web"), &[merge], Some(&body));
    assert_eq!(code, 422);
    assert!(answer.contains("may not change once set"), "{answer}");
}

#[test]
fn a_dry_run_changes_nothing() {
    let server = start();
    let body = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    let before = server.store().revision();
    assert_eq!(ask(&server, "POST", &format!("{SERVICES}?dryRun=All"), &[JSON], Some(&body)).0, 201);
    assert_eq!(ask(&server, "DELETE", &format!("{SERVICES}/kubernetes?dryRun=All"), &[], None).0, 200);
    assert_eq!(server.store().revision(), before);
}

#[test]
fn an_unknown_patch_type_is_415_and_an_unknown_token_401() {
    let server = start();
    let path = format!("{SERVICES}/kubernetes");
    assert_eq!(ask(&server, "PATCH", &path, &[JSON], Some(&json!({}))).0, 415);
    let nobody = ["-sk", "-H", "Authorization: Bearer nobody", "-w", "%{http_code}", "-o", "/dev/null"];
    let anonymous = Command::new("curl").args(nobody).arg(server.url()).output();
    assert_eq!(String::from_utf8(anonymous.unwrap().stdout).unwrap(), "401");
}

#[test]
fn a_uid_that_is_not_the_objects_stops_its_deletion() {
    let server = start();
    let body = json!({"preconditions": {"uid": "other"}});
    assert_eq!(ask(&server, "DELETE", &format!("{SERVICES}/kubernetes"), &[JSON], Some(&body)).0, 409);
    assert!(server.store().get(Kind::Service, "default", "kubernetes").is_some());
}

#[test]
fn an_old_continue_token_is_gone() {
    let server = start();
    server.store().put(Kind::Service, service("web")).unwrap();
    let first = value(&ask(&server, "GET", &format!("{SERVICES}?limit=1"), &[], None).1);
    let token = first["metadata"]["continue"].as_str().unwrap();
    assert_eq!(first["metadata"]["remainingItemCount"], 1);
    let next = format!("{SERVICES}?limit=1&continue={}", token.replace('/', "%2F"));
    assert_eq!(value(&ask(&server, "GET", &next, &[], None).1)["items"][0]["metadata"]["name"], "web");
    server.store().put(Kind::Service, service("more")).unwrap();
    server.store().compact();
    assert_eq!(ask(&server, "GET", &next, &[], None).0, 410);
}

#[test]
fn an_event_can_be_read_through_both_groups() {
    let server = start();
    let event = json!({
        "metadata": {"name": "e", "namespace": "default"}, "eventTime": "2026-01-01T00:00:00.000000Z",
        "regarding": {"kind": "Service", "name": "web"}, "note": "hello", "type": "Warning", "reason": "Bad",
        "reportingController": "kube-router", "reportingInstance": "n1", "action": "Check",
    });
    let path = "/apis/events.k8s.io/v1/namespaces/default/events";
    let (code, answer) = ask(&server, "POST", path, &[JSON], Some(&event));
    assert_eq!(code, 201, "{answer}");
    assert_eq!(value(&answer)["note"], "hello");
    let path = "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dweb";
    let list = value(&ask(&server, "GET", path, &[], None).1);
    assert_eq!(list["items"][0]["message"], "hello");
}
