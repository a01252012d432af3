//! The in-process API server against the clients that will use it.

#[path = "apiserver/faults.rs"]
mod faults;
#[path = "apiserver/kube_rs.rs"]
mod kube_rs;
#[path = "apiserver/kubectl.rs"]
mod kubectl;
#[path = "apiserver/wire.rs"]
mod wire;

use std::time::{Duration, Instant};

use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use router_tests::apiserver::{ApiServer, Identity, Kind, Options};
use serde_json::{Value, json};

/// The manifest whose `ClusterRole` the agent's token is held to.
const MANIFEST: &str = include_str!("../../../deploy/kube-router.yaml");

fn options() -> Options {
    Options { role: Some(MANIFEST.into()), ..Options::default() }
}

fn start() -> ApiServer {
    ApiServer::start(options()).unwrap()
}

/// Runs a test that needs a runtime of its own, and fails it when it hangs.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limited = async { tokio::time::timeout(Duration::from_secs(30), test).await };
    runtime.block_on(limited).expect("the test hangs")
}

async fn client(server: &ApiServer, identity: Identity) -> kube::Client {
    let kubeconfig = Kubeconfig::from_yaml(&server.kubeconfig(identity, &server.url())).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    kube::Client::try_from(config).unwrap()
}

/// Waits until something has happened in another thread.
fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{what} does not come about");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn ready_node(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn service(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"ports": [{"port": 80}]}})
}

/// Does what a kubelet does: starts pods that were placed, and ends those that are to go.
fn play_kubelet(server: &ApiServer) {
    for (at, pod) in server.store().list(Kind::Pod).into_iter().enumerate() {
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        let namespace = pod["metadata"]["namespace"].as_str().unwrap().to_owned();
        if pod["metadata"]["deletionTimestamp"].is_string() {
            server.store().remove(Kind::Pod, &namespace, &name);
        } else if pod["spec"]["nodeName"].is_string() && pod["status"]["podIP"].is_null() {
            let mut pod = Value::clone(&pod);
            pod["status"] = json!({
                "phase": "Running",
                "podIP": format!("10.244.0.{}", at + 2),
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [
                    {"name": "c", "ready": true, "restartCount": 0, "image": "", "imageID": ""}],
            });
            server.store().put(Kind::Pod, pod).unwrap();
        }
    }
}
