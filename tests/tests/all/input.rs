//! Input that is wrong: each is named in one line with its remedy while a good Service goes on, and the line that
//! takes it back comes with what mends it.

use std::time::Duration;

use router_tests::apiserver::{Fault, Identity, Kind, Rule};
use router_tests::cluster::{CONFLIST_PATH, ClusterOptions};
use router_tests::probe::Probe;
use serde_json::{Value, json};

use super::world::{BOTH, World, native};

/// A world whose Service `good` answers.
fn start(purpose: &str) -> World {
    let world = World::start(purpose, native());
    world.serve("good", &["good"]);
    world
}

/// The good Service answers everybody.
fn goes_on(world: &World) {
    let to = world.dial("good");
    for (who, place) in world.clients() {
        for transport in BOTH {
            let summary = Probe::new(&place).many(transport, &to, 4, 1, None).unwrap();
            assert_eq!(summary.failed, 0, "{who} {transport}: {summary:?}\n{}", world.cluster.agent_log());
        }
    }
}

fn service(name: &str, address: &str, port: u16) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIP": address, "clusterIPs": [address], "selector": {"app": "good"},
            "ports": [{"protocol": "TCP", "port": port, "targetPort": 8080}]}})
}

#[test]
fn a_cluster_ip_that_is_no_address_is_named_until_it_is_mended() {
    let world = start("noip");
    world.cluster.put(Kind::Service, service("bad", "10.96.0.300", 80)).unwrap();
    world.logged(&["service default/bad: BadClusterIP", "10.96.0.300", "; delete the Service and apply it"]);
    goes_on(&world);
    world.cluster.put(Kind::Service, service("bad", "10.96.0.200", 80)).unwrap();
    world.logged(&["service default/bad: BadClusterIP: no longer"]);
    world.answers_tcp("10.96.0.200:80");
}

#[test]
fn a_slice_without_ports_is_named_or_harmless() {
    let world = start("noports");
    world.cluster.put_service("bad", None, 8080).unwrap();
    let address = world.cluster.pod_address("good").unwrap().to_string();
    let slice = |ports: Value| {
        json!({"metadata": {"name": "bad-1", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "bad"}},
            "addressType": "IPv4", "ports": ports,
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}}]})
    };
    world.cluster.put(Kind::EndpointSlice, slice(Value::Null)).unwrap();
    let line = world.logged(&["endpointslice default/bad-1: "]);
    assert!(line.contains("; "), "no remedy: {line}");
    goes_on(&world);
    world
        .cluster
        .put(
            Kind::EndpointSlice,
            slice(json!([{"name": "tcp", "protocol": "TCP", "port": 8080},
                {"name": "udp", "protocol": "UDP", "port": 8080}])),
        )
        .unwrap();
    world.logged(&["endpointslice default/bad-1: ", ": no longer"]);
    world.answers("bad");
}

#[test]
fn of_two_services_on_one_address_and_port_the_later_is_named_until_the_first_goes() {
    // A real server refuses it, unless it was made so in its database.
    let world = World::start("taken", ClusterOptions { lenient: true, ..native() });
    world.serve("good", &["good"]);
    world.cluster.put(Kind::Service, service("first", "10.96.0.201", 80)).unwrap();
    world.answers_tcp("10.96.0.201:80");
    // Creation times have whole seconds.
    std::thread::sleep(Duration::from_millis(1_100));
    world.cluster.put(Kind::Service, service("second", "10.96.0.201", 80)).unwrap();
    world.logged(&[
        "service default/second: FrontendTaken",
        "10.96.0.201",
        "service default/first",
        "; change the address or port",
    ]);
    goes_on(&world);
    world.answers_tcp("10.96.0.201:80");
    world.cluster.remove(Kind::Service, "first");
    world.logged(&["service default/second: FrontendTaken: no longer"]);
    world.answers_tcp("10.96.0.201:80");
}

/// The map is filled as it is: rows of 65 Services with a thousand ports are put in batches, which takes little.
#[test]
fn a_service_too_big_for_its_map_is_named_once_and_comes_in_when_there_is_room() {
    let world = start("toobig");
    let many = |name: &str, vip: u8, selector: Value| {
        let ports: Vec<Value> = (1..=1_000)
            .map(|port| json!({"name": format!("p{port}"), "protocol": "TCP", "port": port, "targetPort": 8080}))
            .collect();
        let address = format!("10.96.2.{vip}");
        let spec =
            json!({"clusterIP": address, "clusterIPs": [address], "selector": selector, "ports": ports});
        world
            .cluster
            .put(Kind::Service, json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec}))
            .unwrap();
    };
    for number in 0..65 {
        many(&format!("fill-{number}"), number, Value::Null);
    }
    // 65,065 rows; each is written before a later Service's are.
    world.cluster.put(Kind::Service, service("last", "10.96.2.200", 80)).unwrap();
    world.answers_tcp("10.96.2.200:80");
    let start = std::time::Instant::now();
    many("big", 100, json!({"app": "good"}));
    let line = world.logged(&["service default/big: NotProgrammed"]);
    assert!(line.contains("map FRONTENDS4 is full: it holds 65536 rows"), "{line}");
    assert!(line.contains("; delete what is not needed"), "{line}");
    goes_on(&world);
    // What is already known goes on changing.
    world.cluster.run_pods("good", &["good-too"]).unwrap();
    goes_on(&world);
    std::thread::sleep(Duration::from_secs(4).saturating_sub(start.elapsed()));
    assert_eq!(world.lines("NotProgrammed"), 1, "{}", world.cluster.agent_log());
    world.cluster.remove(Kind::Service, "fill-7");
    world
        .cluster
        .wait("the Service to be taken back from the wrong ones", Duration::from_secs(75), |_| {
            Ok(world.last_line("service default/big: NotProgrammed").ends_with("no longer"))
        })
        .unwrap();
    for port in [1, 500, 1_000] {
        world.answers_tcp(&format!("10.96.2.100:{port}"));
    }
    goes_on(&world);
}

#[test]
fn a_cni_file_that_is_no_json_is_named_until_it_is_mended() {
    let world = start("nojson");
    let node = &world.cluster.topology.node;
    let good = node.run(&["cat", CONFLIST_PATH]).unwrap();
    let mut world = world;
    world.cluster.kill_agent();
    world.cluster.topology.node.write(CONFLIST_PATH, "{ half a fi").unwrap();
    // It is looked at when the agent starts, when a link changes, and then every ten seconds.
    world.cluster.start_agent().unwrap();
    world.logged(&[&format!("file {CONFLIST_PATH}: NotEditable"), "; correct or replace the file"]);
    goes_on(&world);
    world.cluster.topology.node.write(CONFLIST_PATH, &good).unwrap();
    world.logged(&[&format!("file {CONFLIST_PATH}: NotEditable: no longer")]);
}

/// Each way in which the API server can answer wrongly, at the next list or watch of Services.
#[test]
fn an_api_server_that_answers_wrongly_is_named_until_it_answers_right() {
    let world = start("faults");
    let faults = world.cluster.server().faults();
    for (number, (fault, words)) in (0_u16..).zip([
        (Fault::Code(403), ["403", "; grant list and watch on services"]),
        (Fault::Code(500), ["500", "; see to the API server"]),
        (Fault::ErrorEvent(410), ["410", "; nothing to do"]),
        (Fault::HalfLine, ["in the midst of a line", "; what was known stays"]),
        // A watch that breaks off between two lines is taken up again without a word.
        (Fault::Close, ["", ""]),
    ]) {
        faults.inject(Rule::new(fault).kind(Kind::Service).identity(Identity::Agent));
        faults.hang_up_watches();
        let what = format!("{fault:?} to be named");
        world
            .cluster
            .wait(&what, Duration::from_secs(15), |_| {
                let line = world.last_line("watch of services: ");
                Ok(words.iter().all(|word| line.contains(word)))
            })
            .unwrap();
        goes_on(&world);
        faults.clear();
        world
            .cluster
            .wait(&format!("{fault:?} to be over"), Duration::from_secs(90), |_| {
                Ok(world.last_line("watch of services: ").ends_with("no longer"))
            })
            .unwrap();
        // It follows again.
        let address = format!("10.96.1.{number}");
        world.cluster.put(Kind::Service, service(&format!("next-{number}"), &address, 80)).unwrap();
        world.answers_tcp(&format!("{address}:80"));
    }
}

/// Another server is only another kubeconfig, with everything in it.
#[test]
fn a_kubeconfig_alone_with_the_token_in_it_is_enough() {
    let mut world = World::start("alone", ClusterOptions::default());
    let token_file = world.cluster.topology.node.run(&["cat", "/run/kube-router/kubeconfig"]).unwrap();
    let server = world.cluster.server();
    let url = token_file.lines().find_map(|line| line.trim().strip_prefix("server: ")).unwrap().to_owned();
    let inline = server.kubeconfig(Identity::Agent, &url);
    world.cluster.kill_agent();
    world.cluster.topology.node.write("/run/kube-router/kubeconfig", &inline).unwrap();
    world.cluster.topology.node.run(&["rm", "/run/kube-router/token"]).unwrap();
    world.cluster.start_agent().unwrap();
    world.serve("good", &["good"]);
    goes_on(&world);
}
