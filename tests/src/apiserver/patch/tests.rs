use serde_json::json;

use super::*;

fn strategic_on(kind: Kind, mut target: Value, patch: &Value) -> Value {
    strategic(kind, &mut target, patch);
    target
}

#[test]
fn merge_patch_sets_removes_and_replaces_lists() {
    let mut object = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "list": [1, 2]});
    merge(&mut object, &json!({"metadata": {"labels": {"a": null, "c": "3"}}, "list": [3]}));
    assert_eq!(object, json!({"metadata": {"labels": {"b": "2", "c": "3"}}, "list": [3]}));
}

#[test]
fn merge_patch_leaves_no_null_in_a_new_object() {
    let mut object = json!({});
    merge(&mut object, &json!({"status": {"a": null, "b": 1}}));
    assert_eq!(object, json!({"status": {"b": 1}}));
}

#[test]
fn json_patch_runs_every_operation() {
    let mut object = json!({"a": [1, 2], "b": {"x/y": 1}});
    let operations = json!([
        {"op": "test", "path": "/a/0", "value": 1},
        {"op": "add", "path": "/a/1", "value": 9},
        {"op": "add", "path": "/a/-", "value": 8},
        {"op": "replace", "path": "/b/x~1y", "value": 2},
        {"op": "copy", "from": "/b", "path": "/c"},
        {"op": "move", "from": "/b/x~1y", "path": "/d"},
        {"op": "remove", "path": "/a/0"},
    ]);
    json(&mut object, &operations).unwrap();
    assert_eq!(object, json!({"a": [9, 2, 8], "b": {}, "c": {"x/y": 2}, "d": 2}));
}

#[test]
fn json_patch_that_cannot_be_carried_out_is_invalid() {
    for operation in [
        json!([{"op": "test", "path": "/a", "value": 2}]),
        json!([{"op": "remove", "path": "/b"}]),
        json!([{"op": "add", "path": "/x/y", "value": 2}]),
        json!([{"op": "paint", "path": "/a"}]),
    ] {
        assert_eq!(json(&mut json!({"a": 1}), &operation).unwrap_err().code, 422, "{operation}");
    }
}

/// The patch kubectl sends when one port changes its target and another goes.
#[test]
fn strategic_patch_merges_service_ports_by_port() {
    let service = json!({"spec": {"ports": [
        {"port": 80, "targetPort": 80, "name": "a"}, {"port": 81, "name": "b"}]}});
    let patch = json!({"spec": {
        "$setElementOrder/ports": [{"port": 80}],
        "ports": [{"port": 80, "targetPort": 8080}, {"$patch": "delete", "port": 81}]}});
    let expected = json!({"spec": {"ports": [{"port": 80, "targetPort": 8080, "name": "a"}]}});
    assert_eq!(strategic_on(Kind::Service, service, &patch), expected);
}

#[test]
fn strategic_patch_orders_a_list_as_asked() {
    let service = json!({"spec": {"ports": [{"port": 80}, {"port": 81}]}});
    let patch = json!({"spec": {
        "$setElementOrder/ports": [{"port": 82}, {"port": 81}, {"port": 80}], "ports": [{"port": 82}]}});
    let expected = json!({"spec": {"ports": [{"port": 82}, {"port": 81}, {"port": 80}]}});
    assert_eq!(strategic_on(Kind::Service, service, &patch), expected);
}

#[test]
fn strategic_patch_replaces_atomic_lists() {
    let policy = json!({"spec": {"ingress": [{"ports": [{"port": 1}]}, {}]}});
    let patch = json!({"spec": {"ingress": [{"ports": [{"port": 2}]}]}});
    assert_eq!(strategic_on(Kind::NetworkPolicy, policy, &patch), patch);
}

#[test]
fn strategic_patch_obeys_its_directives() {
    let pod = json!({"spec": {"containers": [
        {"name": "a", "image": "old", "ports": [{"containerPort": 80}]}, {"name": "b"}], "nodeSelector": {"x": "y"}},
        "metadata": {"finalizers": ["one", "two"]}});
    let patch = json!({
        "spec": {"containers": [{"name": "a", "image": "new"}], "nodeSelector": {"$patch": "replace", "z": "w"}},
        "metadata": {"$deleteFromPrimitiveList/finalizers": ["one"], "finalizers": ["three"]}});
    let expected = json!({"spec": {"containers": [
        {"name": "a", "image": "new", "ports": [{"containerPort": 80}]}, {"name": "b"}], "nodeSelector": {"z": "w"}},
        "metadata": {"finalizers": ["two", "three"]}});
    assert_eq!(strategic_on(Kind::Pod, pod, &patch), expected);
}

/// A kubelet reports conditions one by one.
#[test]
fn strategic_patch_merges_conditions_by_type() {
    let node = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "Disk"}]}});
    let patch = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let expected = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Disk"}]}});
    assert_eq!(strategic_on(Kind::Node, node, &patch), expected);
}

#[test]
fn apply_tells_service_ports_apart_by_port_and_protocol() {
    let mut service = json!({"spec": {"ports": [{"port": 53, "protocol": "UDP"}]}});
    apply(Kind::Service, &mut service, &json!({"spec": {"ports": [{"port": 53, "name": "tcp"}]}}));
    let expected = json!({"spec": {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "name": "tcp"}]}});
    assert_eq!(service, expected);
}
