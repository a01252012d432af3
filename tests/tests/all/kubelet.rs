//! The kubelet against the few answers of an API server that it needs: one pod comes, is reported, and goes.

use std::{convert::Infallible, fs, process, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Query, State},
    http::Method,
    response::{IntoResponse as _, Response},
};
use futures::{StreamExt as _, stream};
use router_tests::{
    enter::{Named, Place},
    kubelet::{Kubelet, Options},
    probe::Probe,
    sandbox::CONFLIST,
};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    process::Command,
    sync::{Mutex, mpsc},
    time::timeout,
};

/// What the kubelet did: method, path and body.
type Calls = mpsc::UnboundedReceiver<(Method, String, Value)>;

/// Answers every write with the pod, and the watch with what the test sends.
struct Api {
    calls: mpsc::UnboundedSender<(Method, String, Value)>,
    events: Mutex<Option<mpsc::UnboundedReceiver<Value>>>,
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "web", "namespace": "default", "uid": "0123456789", "resourceVersion": "2" },
        "spec": { "nodeName": "a", "containers": [{ "name": "web", "ports": [{ "containerPort": 8080 }] }] },
    })
}

async fn answer(
    State(api): State<Arc<Api>>,
    method: Method,
    uri: axum::http::Uri,
    Query(query): Query<Vec<(String, String)>>,
    body: Bytes,
) -> Response {
    if method != Method::GET {
        let body = serde_json::from_slice(&body).unwrap_or_default();
        api.calls.send((method, uri.path().into(), body)).unwrap();
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "a" } });
        return Json(if uri.path().contains("nodes") { node } else { pod() }).into_response();
    }
    assert!(query.contains(&("fieldSelector".into(), "spec.nodeName=a".into())), "{query:?}");
    if !query.iter().any(|(key, _)| key == "watch") {
        let list = json!({ "apiVersion": "v1", "kind": "PodList", "metadata": { "resourceVersion": "1" }, "items": [] });
        return Json(list).into_response();
    }
    let events = api.events.lock().await.take();
    let lines = stream::unfold(events, |events| async {
        let mut events = events?;
        let event = events.recv().await?;
        Some((Ok::<_, Infallible>(format!("{event}\n")), Some(events)))
    });
    Body::from_stream(lines.chain(stream::pending())).into_response()
}

async fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().await.unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn next(calls: &mut Calls) -> (Method, String, Value) {
    timeout(Duration::from_secs(20), calls.recv()).await.unwrap().unwrap()
}

/// A network namespace that goes with its value.
struct Namespace(String);

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = process::Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_this_node_gets_a_network_once_there_is_a_range_and_is_deleted_when_it_is_gone() {
    let namespace = Namespace(format!("rt-kubelet-{}", process::id()));
    run("ip", &["netns", "add", &namespace.0]).await;
    let files = tempfile::tempdir().unwrap();
    let conflist_path = files.path().join("conflist");
    fs::write(&conflist_path, CONFLIST).unwrap();
    let (calls, mut done) = mpsc::unbounded_channel();
    let (events, sent) = mpsc::unbounded_channel();
    let api = Arc::new(Api { calls, events: Mutex::new(Some(sent)) });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, Router::new().fallback(answer).with_state(api)).into_future());
    let client = kube::Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
    let place: Place = Arc::new(Named(namespace.0.clone()));
    let options = Options {
        node_name: "a".into(),
        node_ip: "192.0.2.1".into(),
        conflist_path: conflist_path.to_str().unwrap().into(),
        pod_cidr: None,
    };
    let kubelet = Kubelet::start(client, place.clone(), options);

    let (method, path, _) = next(&mut done).await;
    assert_eq!((method, path.as_str()), (Method::POST, "/api/v1/nodes"));
    assert_eq!(next(&mut done).await.1, "/api/v1/nodes/a/status");

    events.send(json!({ "type": "ADDED", "object": pod() })).unwrap();
    let early = timeout(Duration::from_millis(500), done.recv()).await;
    assert!(early.is_err(), "there is no range yet, but {early:?}");
    let leases = files.path().join("leases");
    let ipam =
        json!({ "type": "host-local", "dataDir": leases, "ranges": [[{ "subnet": "10.244.1.0/24" }]] });
    fs::write(&conflist_path, CONFLIST.replace(r#"{ "type": "host-local" }"#, &ipam.to_string())).unwrap();

    let (method, path, body) = next(&mut done).await;
    assert_eq!((method, path.as_str()), (Method::PATCH, "/api/v1/namespaces/default/pods/web/status"));
    let address = body.pointer("/status/podIP").and_then(Value::as_str).unwrap().to_owned();
    assert!(address.starts_with("10.244.1."), "{address}");
    // From the node, over the bridge.
    let result = Probe::new(&place).tcp(&format!("{address}:8080")).unwrap();
    assert_eq!((result.backend(), &result.error), (Some("web"), &None));
    assert_eq!(kubelet.pod("default", "web").unwrap().name(), "default-web-01234567");

    let mut going = pod();
    if let Some(metadata) = going.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("deletionTimestamp".into(), json!("2026-01-01T00:00:00Z"));
    }
    events.send(json!({ "type": "MODIFIED", "object": going })).unwrap();
    let (method, path, body) = next(&mut done).await;
    assert_eq!((method, path.as_str()), (Method::DELETE, "/api/v1/namespaces/default/pods/web"));
    assert_eq!(body.pointer("/gracePeriodSeconds"), Some(&json!(0)));
    assert_eq!(body.pointer("/preconditions/uid"), Some(&json!("0123456789")));
    assert!(!run("ip", &["netns", "list"]).await.contains("default-web-01234567"));
    assert!(kubelet.pod("default", "web").is_none());
}
