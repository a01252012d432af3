//! Pods of Deployments, and what a Deployment's status says about them.
//!
//! A changed template makes new pods at once; an old one goes when a new one is ready to stand in for it, or
//! first of all with strategy `Recreate`.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::kinds::Kind;
use super::super::removal::{Removal, remove};
use super::super::store::{Key, Store, key, now, random, suffix};

const HASH: &str = "pod-template-hash";

/// The Deployment a pod belongs to.
pub(super) fn owner(pod: &Value) -> Option<&str> {
    reference(pod)?["name"].as_str()
}

fn reference(pod: &Value) -> Option<&Value> {
    pod["metadata"]["ownerReferences"].as_array()?.iter().find(|owner| owner["kind"] == "Deployment")
}

pub(super) fn reconcile(store: &Store, deployment: &Key) {
    let found = store.get(Kind::Deployment, &deployment.0, &deployment.1);
    let uid = found.as_ref().map(|found| found["metadata"]["uid"].clone()).unwrap_or_default();
    let (mine, orphans): (Vec<_>, Vec<_>) = store
        .list(Kind::Pod)
        .into_iter()
        .filter(|pod| pod["metadata"]["namespace"] == deployment.0 && owner(pod) == Some(&deployment.1))
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .partition(|pod| reference(pod).is_some_and(|owner| owner["uid"] == uid));
    delete(store, &orphans);
    if let Some(found) = found {
        scale(store, &found, mine);
    }
}

fn scale(store: &Store, deployment: &Value, pods: Vec<Arc<Value>>) {
    let spec = &deployment["spec"];
    let wanted = spec["replicas"].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or(1);
    let hash = template_hash(&spec["template"]);
    let (mut current, mut old): (Vec<_>, Vec<_>) =
        pods.into_iter().partition(|pod| pod["metadata"]["labels"][HASH] == hash.as_str());

    // Those that serve are kept longest.
    current.sort_by_key(|pod| (!is_ready(pod), pod["metadata"]["creationTimestamp"].to_string()));
    old.sort_by_key(|pod| !is_ready(pod));
    let ready = current.iter().filter(|pod| is_ready(pod)).count();
    let keep_old = if spec["strategy"]["type"] == "Recreate" { 0 } else { wanted.saturating_sub(ready) };
    let surplus_old = old.split_off(keep_old.min(old.len()));
    let surplus = current.split_off(wanted.min(current.len()));
    delete(store, &surplus_old);
    delete(store, &surplus);
    for _ in current.len()..wanted {
        if let Ok(pod) = store.create(Kind::Pod, pod_of(deployment, &hash), false) {
            current.push(pod);
        }
    }
    report(store, deployment, &current, &old);
}

fn delete(store: &Store, pods: &[Arc<Value>]) {
    for pod in pods {
        // Somebody else may have been faster.
        remove(store, Kind::Pod, &key(Kind::Pod, pod), &Removal::default()).ok();
    }
}

fn template_hash(template: &Value) -> String {
    let mut hasher = DefaultHasher::new();
    template.to_string().hash(&mut hasher);
    suffix(hasher.finish(), 10)
}

fn pod_of(deployment: &Value, hash: &str) -> Value {
    let (metadata, template) = (&deployment["metadata"], &deployment["spec"]["template"]);
    let name = metadata["name"].as_str().unwrap_or_default();
    let mut labels = template["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    labels.insert(HASH.into(), hash.into());
    let mut pod = json!({
        "metadata": {
            "name": format!("{name}-{hash}-{}", suffix(random(), 5)),
            "generateName": format!("{name}-{hash}-"),
            "namespace": metadata["namespace"],
            "labels": labels,
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": metadata["uid"],
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": template["spec"],
    });
    if template["metadata"]["annotations"].is_object() {
        pod["metadata"]["annotations"] = template["metadata"]["annotations"].clone();
    }
    pod
}

pub(super) fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn report(store: &Store, deployment: &Value, current: &[Arc<Value>], old: &[Arc<Value>]) {
    let wanted = deployment["spec"]["replicas"].as_u64().unwrap_or(1);
    let ready = current.iter().chain(old).filter(|pod| is_ready(pod)).count();
    let total = current.len() + old.len();
    let available = u64::try_from(ready).unwrap_or(u64::MAX) >= wanted;
    let complete = available && old.is_empty();
    let known = &deployment["status"]["conditions"];
    let conditions = [
        condition(known, "Available", available, ["MinimumReplicasAvailable", "MinimumReplicasUnavailable"]),
        progress(known, complete),
    ];
    let mut status = json!({
        "observedGeneration": deployment["metadata"]["generation"], "replicas": total, "conditions": conditions,
    });
    let counts = [
        ("updatedReplicas", current.len()),
        ("readyReplicas", ready),
        ("availableReplicas", ready),
        ("unavailableReplicas", usize::try_from(wanted).unwrap_or(usize::MAX).saturating_sub(ready)),
    ];
    // Counts of zero are left out, as the real ones are.
    for (field, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        status[field] = count.into();
    }
    let edited = |old: &Value| {
        let mut new = old.clone();
        new["status"] = status;
        Ok(new)
    };
    store.edit(Kind::Deployment, &key(Kind::Deployment, deployment), false, edited).ok();
}

fn condition(known: &Value, kind: &str, holds: bool, [yes, no]: [&str; 2]) -> Value {
    let (status, reason) = if holds { ("True", yes) } else { ("False", no) };
    stamped(known, kind, status, reason)
}

fn progress(known: &Value, complete: bool) -> Value {
    let reason = if complete { "NewReplicaSetAvailable" } else { "ReplicaSetUpdated" };
    stamped(known, "Progressing", "True", reason)
}

/// A condition with the times of the known one, if that says the same.
fn stamped(known: &Value, kind: &str, status: &str, reason: &str) -> Value {
    let known = known.as_array().map(Vec::as_slice).unwrap_or_default();
    let same = |old: &&Value| old["type"] == kind && old["status"] == status && old["reason"] == reason;
    known.iter().find(same).cloned().unwrap_or_else(|| {
        let now = now();
        json!({
            "type": kind, "status": status, "reason": reason, "message": reason,
            "lastUpdateTime": now, "lastTransitionTime": now,
        })
    })
}
