//! What is changed with kubectl while a lab is up, and how soon connections follow.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use router_tests::probe::ProbeResult;
use router_tests::tools::kubectls;
use serde_json::Value;

use super::Lab;

/// No figure: a second is what people should see, and a machine under test may be slow.
const BOUND: Duration = Duration::from_secs(5);

/// What kubectl says about this lab.
pub(super) fn kubectl(lab: &Lab, words: &[&str]) -> String {
    let cache = tempfile::tempdir().unwrap();
    let program = kubectls().unwrap().remove(0);
    let mut command = Command::new(program);
    command.env("KUBECONFIG", &lab.report.kubeconfig).arg("--cache-dir").arg(cache.path()).args(words);
    let output = command.output().unwrap();
    assert!(output.status.success(), "kubectl {words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn vip(lab: &Lab, service: &str) -> String {
    kubectl(lab, &["get", "svc", service, "-o", "jsonpath={.spec.clusterIP}"])
}

/// So many connections from the node to an address.
fn probe(lab: &Lab, to: &str, count: u32) -> Vec<ProbeResult> {
    let text =
        lab.exec("node1", &["lab", "probe", "tcp", to, "--count", &count.to_string(), "--timeout", "500"]);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Who answers, if all are answered.
fn answering(lab: &Lab, to: &str) -> Option<BTreeSet<String>> {
    probe(lab, to, 60).iter().map(|result| result.backend().map(str::to_owned)).collect()
}

fn is_refused(lab: &Lab, to: &str) -> bool {
    probe(lab, to, 3).iter().all(|result| result.error.as_deref() == Some("refused"))
}

fn pods(lab: &Lab, app: &str) -> BTreeSet<String> {
    let text = kubectl(lab, &["get", "pods", "-l", &format!("app={app}"), "-o", "json"]);
    let list: Value = serde_json::from_str(&text).unwrap();
    let live =
        list["items"].as_array().unwrap().iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    live.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

/// Waits until connections are as they should be, and says how long that took.
fn follow(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < BOUND, "{what}: connections did not follow");
        std::thread::sleep(Duration::from_millis(20));
    }
    eprintln!("{what}: after {:?}", start.elapsed());
}

#[test]
fn connections_follow_what_kubectl_changes() {
    let lab = Lab::up();
    let to = format!("{}:80", vip(&lab, "web"));
    for replicas in [1, 5, 0, 2] {
        kubectl(&lab, &["scale", "deployment", "web", &format!("--replicas={replicas}")]);
        follow(&format!("scaled to {replicas}"), || {
            let expected = pods(&lab, "web");
            expected.len() == replicas
                && if replicas == 0 { is_refused(&lab, &to) } else { answering(&lab, &to) == Some(expected) }
        });
    }

    let patch = r#"[{"op": "replace", "path": "/spec/ports/0/port", "value": 8000}]"#;
    kubectl(&lab, &["patch", "svc", "web", "--type=json", "-p", patch]);
    let moved = to.replace(":80", ":8000");
    follow("port moved", || is_refused(&lab, &to) && answering(&lab, &moved) == Some(pods(&lab, "web")));

    kubectl(&lab, &["delete", "svc", "web"]);
    // The address belongs to nobody now: its packets go where the node's routes lead, and nobody answers.
    follow("Service deleted", || probe(&lab, &moved, 3).iter().all(|result| !result.ok));
    let verdict = lab.verdict();
    assert_eq!(lab.end(Signal::SIGINT), Some(verdict));
}

#[test]
fn a_map_dump_shows_field_names_and_the_address_of_a_service() {
    let lab = Lab::up();
    let folder = lab.exec("node1", &["sh", "-c", "echo /sys/fs/bpf/kube-router/v*"]);
    let map = format!("{}/FRONTENDS4", folder.trim());
    let text = lab.exec("node1", &["bpftool", "map", "dump", "pinned", &map]);
    let rows: Vec<Value> = serde_json::from_str(&text).unwrap();
    let octets: Vec<u8> = vip(&lab, "web").split('.').map(|octet| octet.parse().unwrap()).collect();
    let expected = serde_json::json!(octets);
    let row = rows.iter().find(|row| row["key"].to_string().contains(&expected.to_string()));
    let row = row.unwrap_or_else(|| panic!("no {octets:?} in {text}"));
    for part in ["key", "value"] {
        assert!(row[part].as_object().is_some_and(|fields| fields.len() > 1), "{row}");
    }
    let verdict = lab.verdict();
    assert_eq!(lab.end(Signal::SIGINT), Some(verdict));
}
