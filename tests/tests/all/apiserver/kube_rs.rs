//! kube-rs, as the agent and the lab's kubelet use it.

use std::collections::BTreeSet;
use std::pin::pin;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Error, ResourceExt as _};
use router_tests::apiserver::{ApiServer, Identity, Kind, Options};
use serde_json::{Value, json};

use super::{client, eventually, options, play_kubelet, ready_node, run, service, start};

/// Names in the store of a reflector after its first list, then the next event's.
async fn watch_services(server: &ApiServer, config: watcher::Config) {
    let services: Api<Service> = Api::all(client(server, Identity::Agent).await);
    for at in 0..7 {
        server.store().put(Kind::Service, service(&format!("s{at}"))).unwrap();
    }
    let mut events = pin!(watcher(services, config));
    let mut listed = BTreeSet::new();
    loop {
        match events.try_next().await.unwrap().unwrap() {
            Event::Init => {}
            Event::InitApply(service) => drop(listed.insert(service.name_any())),
            Event::InitDone => break,
            Event::Apply(_) | Event::Delete(_) => panic!("an event before the list is done"),
        }
    }
    assert_eq!(listed.len(), 8, "seven and `kubernetes`: {listed:?}");

    server.store().put(Kind::Service, service("late")).unwrap();
    server.store().remove(Kind::Service, "default", "s3").unwrap();
    let mut told = Vec::new();
    for event in events.by_ref().take(2).collect::<Vec<_>>().await {
        told.push(match event.unwrap() {
            Event::Apply(service) => format!("+{}", service.name_any()),
            Event::Delete(service) => format!("-{}", service.name_any()),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(told, ["+late", "-s3"]);
    assert_eq!(server.refusals(), Vec::<String>::new());
}

#[test]
fn a_watcher_lists_in_pages_and_goes_on_from_there() {
    let server = start();
    run(watch_services(&server, watcher::Config::default().page_size(3)));
    let pages = server.requests().iter().filter(|line| line.contains("continue=")).count();
    assert_eq!(pages, 2, "eight objects in pages of three: {:?}", server.requests());
}

#[test]
fn a_watcher_lists_by_streaming() {
    let server = start();
    run(watch_services(&server, watcher::Config::default().streaming_lists()));
    assert!(server.requests().iter().all(|line| !line.contains("limit=")), "{:?}", server.requests());
}

#[test]
fn streaming_lists_are_refused_where_they_are_off() {
    let server = ApiServer::start(Options { streaming_lists: false, ..options() }).unwrap();
    run(async {
        let services: Api<Service> = Api::all(client(&server, Identity::Agent).await);
        let mut events = pin!(watcher(services, watcher::Config::default().streaming_lists()));
        let error = loop {
            if let Err(error) = events.next().await.unwrap() {
                break error;
            }
        };
        assert!(format!("{error:?}").contains("422"), "{error:?}");
    });
}

/// A kubelet in small: a node reports itself, its pods come by a field selector, their status goes back.
#[test]
fn a_kubelet_can_run_pods_through_the_api() {
    let server = start();
    run(async {
        let admin = client(&server, Identity::Admin).await;
        let nodes: Api<Node> = Api::all(admin.clone());
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "n1"}})).unwrap();
        nodes.create(&PostParams::default(), &node).await.unwrap();
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        nodes.patch_status("n1", &PatchParams::default(), &Patch::Strategic(ready)).await.unwrap();

        let pods: Api<Pod> = Api::namespaced(admin.clone(), "default");
        let pod = json!({"metadata": {"generateName": "p-"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let pod = pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
        let name = pod.name_any();

        let config = watcher::Config::default().fields("spec.nodeName=n1");
        let mut events = pin!(watcher(Api::<Pod>::all(admin), config));
        while let Some(event) = events.try_next().await.unwrap() {
            match event {
                Event::InitApply(pod) | Event::Apply(pod) if pod.name_any() == name => break,
                _ => {}
            }
        }
        let running = json!({"status": {"phase": "Running", "podIP": "10.244.0.2"}});
        let pod = pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(running)).await.unwrap();
        assert_eq!(pod.status.unwrap().pod_ip.as_deref(), Some("10.244.0.2"));

        let deleted = pods.delete(&name, &DeleteParams::default()).await.unwrap();
        assert!(
            deleted.left().unwrap().metadata.deletion_timestamp.is_some(),
            "a placed pod waits for its kubelet"
        );
        assert!(pods.get_opt(&name).await.unwrap().is_some());
        pods.delete(&name, &DeleteParams::default().grace_period(0)).await.unwrap();
        assert!(pods.get_opt(&name).await.unwrap().is_none());
        let node = eventually("a pod CIDR", || server.store().get(Kind::Node, "", "n1"));
        assert_eq!(node["spec"]["podCIDR"], "10.244.0.0/24");
    });
}

#[test]
fn the_agent_may_do_what_its_role_says_and_no_more() {
    let server = start();
    run(async {
        let agent = client(&server, Identity::Agent).await;
        let services: Api<Service> = Api::namespaced(agent.clone(), "default");
        let kubernetes = services.get("kubernetes").await.unwrap();
        services.replace_status("kubernetes", &PostParams::default(), &kubernetes).await.unwrap();
        let leases: Api<Lease> = Api::namespaced(agent.clone(), "kube-system");
        let lease =
            serde_json::from_value(json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}}))
                .unwrap();
        leases.create(&PostParams::default(), &lease).await.unwrap();
        assert_eq!(server.refusals(), Vec::<String>::new());

        let Err(Error::Api(status)) = services.delete("kubernetes", &DeleteParams::default()).await else {
            panic!("the agent deleted a Service");
        };
        assert_eq!(status.code, 403);
        let refusals = server.refusals();
        assert_eq!(refusals.len(), 1);
        assert!(refusals[0].contains("kube-router\" cannot delete resource \"services\""), "{refusals:?}");
    });
}

#[test]
fn a_stale_replace_is_a_conflict() {
    let server = start();
    server.store().put(Kind::Service, service("web")).unwrap();
    run(async {
        let services: Api<Service> = Api::namespaced(client(&server, Identity::Admin).await, "default");
        let mut stale = services.get("web").await.unwrap();
        let labels = json!({"metadata": {"labels": {"a": "b"}}});
        services.patch("web", &PatchParams::default(), &Patch::Merge(labels)).await.unwrap();
        stale.labels_mut().insert("c".into(), "d".into());
        let Err(Error::Api(status)) = services.replace("web", &PostParams::default(), &stale).await else {
            panic!("a stale object was stored");
        };
        assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    });
}

#[test]
fn apply_creates_and_then_changes() {
    let server = start();
    run(async {
        let services: Api<Service> = Api::namespaced(client(&server, Identity::Admin).await, "default");
        let manager = PatchParams::apply("test").force();
        for port in [80, 81] {
            let wanted = json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": port, "name": "a"}]}});
            services.patch("web", &manager, &Patch::Apply(wanted)).await.unwrap_or_else(|error| {
                // Apply keeps no owners, so the port of before stays and shares a name.
                assert!(port == 81 && error.to_string().contains("Duplicate value"), "{error}");
                Service::default()
            });
        }
        let applied = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"labels": {"x": "y"}}});
        let service = services.patch("web", &manager, &Patch::Apply(applied)).await.unwrap();
        assert_eq!(service.labels()["x"], "y");
    });
}

#[test]
fn deleting_a_collection_heeds_its_selector() {
    let server = start();
    let mut labelled = service("labelled");
    labelled["metadata"]["labels"] = json!({"gone": "yes"});
    server.store().put(Kind::Service, labelled).unwrap();
    server.store().put(Kind::Service, service("plain")).unwrap();
    run(async {
        let services: Api<Service> = Api::namespaced(client(&server, Identity::Admin).await, "default");
        let list = ListParams::default().labels("gone=yes");
        services.delete_collection(&DeleteParams::default(), &list).await.unwrap();
    });
    assert!(server.store().get(Kind::Service, "default", "labelled").is_none());
    assert!(server.store().get(Kind::Service, "default", "plain").is_some());
}

fn deployment(replicas: u32) -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 8080}]}]},
        }},
    })
}

fn slices(server: &ApiServer) -> Vec<EndpointSlice> {
    let all = server.store().list(Kind::EndpointSlice);
    let of_web =
        all.iter().filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == "web");
    of_web.map(|slice| serde_json::from_value(Value::clone(slice)).unwrap()).collect()
}

fn endpoints(server: &ApiServer) -> Vec<Endpoint> {
    slices(server).into_iter().flat_map(|slice| slice.endpoints.unwrap_or_default()).collect()
}

#[test]
fn a_deployment_becomes_pods_and_its_service_gets_their_addresses() {
    let server = start();
    let store = server.store();
    for name in ["n1", "n2"] {
        store.put(Kind::Node, ready_node(name)).unwrap();
    }
    let mut web = service("web");
    web["spec"]["selector"] = json!({"app": "web"});
    web["spec"]["ports"][0]["targetPort"] = "http".into();
    store.put(Kind::Service, web).unwrap();
    store.put(Kind::Deployment, deployment(4)).unwrap();

    eventually("four endpoints", || {
        play_kubelet(&server);
        (endpoints(&server).len() == 4).then_some(())
    });
    let all = slices(&server);
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].ports.as_ref().unwrap()[0].port, Some(8080), "the named port of the container");
    let nodes: Vec<_> = endpoints(&server).into_iter().filter_map(|endpoint| endpoint.node_name).collect();
    assert_eq!(nodes.iter().filter(|name| *name == "n1").count(), 2, "in turn: {nodes:?}");

    // One pod goes: its endpoint is terminating until the kubelet is done, and another takes its place.
    store.put(Kind::Deployment, deployment(3)).unwrap();
    eventually("a terminating endpoint", || {
        let all = endpoints(&server);
        let mut conditions = all.iter().filter_map(|one| one.conditions.as_ref());
        conditions.any(|one| one.terminating == Some(true) && one.ready == Some(false)).then_some(())
    });
    eventually("three endpoints", || {
        play_kubelet(&server);
        (endpoints(&server).len() == 3).then_some(())
    });
    store.remove(Kind::Deployment, "default", "web");
    store.remove(Kind::Service, "default", "web");
    eventually("nothing left", || {
        play_kubelet(&server);
        (slices(&server).is_empty() && store.list(Kind::Pod).is_empty()).then_some(())
    });
}

#[test]
fn a_hundred_endpoints_fill_a_slice() {
    let server = start();
    let mut web = service("web");
    web["spec"]["selector"] = json!({"app": "web"});
    for at in 0..101 {
        let pod = json!({
            "metadata": {"name": format!("p{at}"), "namespace": "default", "labels": {"app": "web"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "c"}]},
            "status": {"phase": "Running", "podIP": format!("10.244.0.{}", at + 2)},
        });
        server.store().put(Kind::Pod, pod).unwrap();
    }
    server.store().put(Kind::Service, web).unwrap();
    let sizes = eventually("two slices", || {
        let sizes = slices(&server).into_iter().map(|slice| slice.endpoints.unwrap_or_default().len());
        let mut sizes: Vec<_> = sizes.collect();
        sizes.sort_unstable();
        (sizes.len() == 2).then_some(sizes)
    });
    assert_eq!(sizes, [1, 100]);
}
