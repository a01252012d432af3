//! A node for every pod that has none: ready nodes in turn. Resources, taints and affinity do not count.

use serde_json::{Value, json};

use super::super::kinds::Kind;
use super::super::store::{Store, key, now};

#[derive(Debug, Default)]
pub(super) struct Scheduler {
    turn: usize,
}

impl Scheduler {
    pub(super) fn place_all(&mut self, store: &Store) {
        let waiting = |pod: &Value| {
            pod["spec"]["nodeName"].as_str().unwrap_or_default().is_empty()
                && pod["metadata"]["deletionTimestamp"].is_null()
        };
        let pods = store.list(Kind::Pod);
        let mut pods = pods.iter().filter(|pod| waiting(pod)).peekable();
        if pods.peek().is_none() {
            return;
        }
        let nodes = store.list(Kind::Node);
        for pod in pods {
            let fit: Vec<_> = nodes.iter().filter(|node| is_ready(node) && suits(node, pod)).collect();
            let Some(node) = self.turn.checked_rem(fit.len()).and_then(|at| fit.get(at)) else { continue };
            self.turn = self.turn.wrapping_add(1);
            let name = node["metadata"]["name"].clone();
            store.edit(Kind::Pod, &key(Kind::Pod, pod), false, |pod| Ok(placed(pod, name))).ok();
        }
    }
}

fn placed(pod: &Value, node: Value) -> Value {
    let mut pod = pod.clone();
    pod["spec"]["nodeName"] = node;
    if pod["status"]["conditions"].is_null() {
        let condition = json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": now()});
        pod["status"]["conditions"] = json!([condition]);
    }
    pod
}

fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    node["spec"]["unschedulable"] != true && conditions.iter().any(ready)
}

fn suits(node: &Value, pod: &Value) -> bool {
    let metadata = &node["metadata"];
    pod["spec"]["nodeSelector"].as_object().into_iter().flatten().all(|(label, wanted)| {
        metadata["labels"].get(label) == Some(wanted)
            || label == "kubernetes.io/hostname" && metadata["name"] == *wanted
    })
}
