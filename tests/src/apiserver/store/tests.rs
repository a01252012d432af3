use serde_json::json;

use super::*;

fn store(history: usize) -> Store {
    Store::new(Addresses::new("10.96.0.0/24".parse().unwrap(), true), history)
}

fn service(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"ports": [{"port": 80}]}})
}

fn default_key(name: &str) -> Key {
    ("default".into(), name.into())
}

#[test]
fn a_new_object_gets_what_only_the_server_knows() {
    let created = store(10).create(Kind::Service, service("web"), false).unwrap();
    assert_eq!(created["spec"]["clusterIP"], "10.96.0.16");
    assert_eq!(created["spec"]["ports"][0]["targetPort"], 80);
    assert_eq!(created["metadata"]["uid"].as_str().unwrap().len(), 36);
    assert_eq!(created["metadata"]["resourceVersion"], "2");
    assert!(created["metadata"]["creationTimestamp"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn an_edit_without_effect_makes_no_revision() {
    let store = store(10);
    store.put(Kind::Service, service("web")).unwrap();
    let before = store.revision();
    store.put(Kind::Service, service("web")).unwrap();
    assert_eq!(store.revision(), before);
}

#[test]
fn a_replaced_service_keeps_its_address_and_a_removed_one_frees_it() {
    let store = store(10);
    let first = store.put(Kind::Service, service("web")).unwrap();
    let mut changed = service("web");
    changed["spec"]["ports"][0]["port"] = 81.into();
    let second = store.put(Kind::Service, changed).unwrap();
    assert_eq!(first["spec"]["clusterIP"], second["spec"]["clusterIP"]);
    let mut other = service("other");
    other["spec"]["clusterIP"] = first["spec"]["clusterIP"].clone();
    assert_eq!(store.create(Kind::Service, other.clone(), false).unwrap_err().code, 422);
    store.remove(Kind::Service, "default", "web").unwrap();
    store.create(Kind::Service, other, false).unwrap();
}

#[test]
fn a_dry_run_takes_nothing() {
    let store = store(10);
    let would = store.create(Kind::Service, service("web"), true).unwrap();
    assert!(store.get(Kind::Service, "default", "web").is_none());
    let does = store.create(Kind::Service, service("web"), false).unwrap();
    assert_eq!(would["spec"]["clusterIP"], does["spec"]["clusterIP"]);
}

#[test]
fn history_tells_what_happened_until_it_is_forgotten() {
    let store = store(2);
    for name in ["a", "b"] {
        store.put(Kind::Service, service(name)).unwrap();
    }
    store.remove(Kind::Service, "default", "a").unwrap();
    let (revision, changes) = store.since(Kind::Service, 2).unwrap();
    assert_eq!(revision, 4);
    let happened: Vec<_> = changes.iter().map(|change| change.happened).collect();
    assert_eq!(happened, [Happened::Added, Happened::Deleted]);
    assert_eq!(store.since(Kind::Service, 1).unwrap_err().oldest, 2, "the first addition is forgotten");
}

#[test]
fn a_changed_spec_raises_the_generation_and_a_changed_status_does_not() {
    let store = store(10);
    store.put(Kind::Deployment, json!({"metadata": {"name": "d", "namespace": "default"}})).unwrap();
    let change = |field: &str| {
        let edited = store.edit(Kind::Deployment, &default_key("d"), false, |old| {
            let mut new = old.clone();
            new[field]["replicas"] = 7.into();
            Ok(new)
        });
        edited.unwrap()["metadata"]["generation"].clone()
    };
    assert_eq!(change("status"), 1);
    assert_eq!(change("spec"), 2);
}

#[test]
fn thirty_thousand_services_are_loaded_in_seconds() {
    let store = Store::new(Addresses::new("10.96.0.0/12".parse().unwrap(), true), 50_000);
    let start = std::time::Instant::now();
    for at in 0..30_000 {
        store.put(Kind::Service, service(&format!("s{at}"))).unwrap();
    }
    assert_eq!(store.list(Kind::Service).len(), 30_000);
    assert!(start.elapsed().as_secs() < 20, "took {:?}", start.elapsed());
}
