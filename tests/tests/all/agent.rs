//! The agent's own life: how it starts and ends, what it is told to leave alone, and a host that changes under it.

use std::time::Duration;

use router_tests::apiserver::Kind;
use router_tests::cluster::{AgentOptions, CONFLIST_PATH, ClusterOptions, NODE_NAME};
use router_tests::probe::Probe;
use router_tests::sandbox::{CONFLIST, has_range};
use router_tests::topology;
use serde_json::json;

use super::world::{BOTH, World, hold, native};

/// Every client reaches a service, over both protocols.
fn reached(world: &World, service: &str) {
    let to = world.dial(service);
    for (who, place) in world.clients() {
        for transport in BOTH {
            let summary = Probe::new(&place).many(transport, &to, 4, 1, None).unwrap();
            assert_eq!(
                summary.failed,
                0,
                "{who} {transport} {service}: {summary:?}\n{}",
                world.cluster.agent_log()
            );
        }
    }
}

#[test]
fn at_sigterm_it_ends_at_once_with_0_and_leaves_everything_in_place() {
    let mut world = World::start("term", native());
    world.serve("web", &["web"]);
    let client = world.pod("client");
    let mut held = BOTH.map(|transport| hold(&client, transport, &world.dial("web"), 41_000));
    let mut all_go_on = |when: &str| {
        for flow in &mut held {
            assert!(flow.ask("hello").unwrap().ok, "{when}");
        }
    };
    all_go_on("before");
    let rules = world.cluster.topology.node.run(&["iptables", "-S"]).unwrap();
    let (status, time) = world.cluster.terminate_agent().unwrap();
    assert_eq!(status.code(), Some(0), "{status}\n{}", world.cluster.agent_log());
    assert!(time < router_tests::patience::patient(Duration::from_secs(1)), "it took {time:?}");
    world.logged(&["SIGTERM: leaving"]);
    all_go_on("without an agent");
    reached(&world, "web");
    assert_eq!(world.cluster.topology.node.run(&["iptables", "-S"]).unwrap(), rules);
    world.cluster.start_agent().unwrap();
    world.cluster.run_pods("web", &["more"]).unwrap();
    world.serve("next", &["next"]);
    all_go_on("after the restart");
    reached(&world, "web");
}

#[test]
fn without_the_service_proxy_nothing_of_services_is_made() {
    let agent =
        AgentOptions { more: vec!["--run-service-proxy=false".to_owned()], ..AgentOptions::default() };
    // Starting it waits for the CNI file, and for a pod.
    let mut world = World::start("noproxy", ClusterOptions { agent, ..ClusterOptions::default() });
    world.cluster.run_pods("web", &["web"]).unwrap();
    world.cluster.put_service("web", Some("web"), 8080).unwrap();
    let node = &world.cluster.topology.node;
    let pod = format!("{}:8080", world.cluster.pod_address("web").unwrap());
    assert!(Probe::new(&world.cluster.node()).tcp(&pod).unwrap().ok, "the pod does not answer");
    // The node's new range goes into the file, long after everything else could have happened.
    let found = world.cluster.server().store().get(Kind::Node, "", NODE_NAME).unwrap();
    let mut object = (*found).clone();
    object["spec"] = json!({"podCIDR": "10.244.3.0/24", "podCIDRs": ["10.244.3.0/24"]});
    world.cluster.put(Kind::Node, object).unwrap();
    world
        .cluster
        .wait("the other range in the CNI file", Duration::from_secs(10), |_| {
            Ok(node.run(&["cat", CONFLIST_PATH])?.contains("10.244.3.0/24"))
        })
        .unwrap();
    let links = node.links().unwrap();
    assert!(!links.iter().any(|link| link.starts_with("kube-svc")), "{links:?}");
    let pins = node.run(&["ls", "/sys/fs/bpf"]).unwrap();
    assert!(!pins.contains("kube-router"), "{pins}");
    let rules = node.run(&["iptables", "-S"]).unwrap();
    assert!(!rules.contains("kube-svc"), "{rules}");
    assert!(!Probe::new(&world.cluster.node()).tcp(&world.dial("web")).unwrap().ok, "who serves that?");
    let (status, _) = world.cluster.terminate_agent().unwrap();
    assert_eq!(status.code(), Some(0), "{}", world.cluster.agent_log());
}

#[test]
fn a_cni_file_that_is_no_json_before_the_first_start_keeps_nothing_else_back() {
    let options = ClusterOptions { conflist: Some("{ half a fi".to_owned()), ..native() };
    let mut world = World::bare("nojson1", options);
    let problem = format!("file {CONFLIST_PATH}: NotEditable");
    world.logged(&[&problem, "; correct or replace the file"]);
    assert_eq!(world.cluster.topology.node.run(&["cat", CONFLIST_PATH]).unwrap(), "{ half a fi");
    let backing = world.cluster.back_by_remote("remote").unwrap();
    world.backing.push(backing);
    world.answers("remote");
    world.cluster.topology.node.write(CONFLIST_PATH, CONFLIST).unwrap();
    world.logged(&[&problem, "no longer"]);
    assert!(has_range(&world.cluster.topology.node.run(&["cat", CONFLIST_PATH]).unwrap()));
    world.cluster.run_pods("client", &["client"]).unwrap();
    world.serve("web", &["web"]);
    reached(&world, "web");
}

/// The client reads the file once a minute.
#[test]
fn a_token_that_is_replaced_is_taken_up() {
    let world = World::start("token", native());
    world.serve("web", &["web"]);
    world.cluster.renew_token().unwrap();
    world.cluster.server().faults().hang_up_watches();
    world.logged(&["watch of services: Unauthorized", "401", "; check the token"]);
    reached(&world, "web");
    world
        .cluster
        .wait("the new token to be used", Duration::from_mins(3), |_| {
            // Each kind is followed, and waits, by itself.
            Ok(["services", "endpointslices", "nodes", "pods"].iter().all(|kind| {
                world.last_line(&format!("watch of {kind}: ")).ends_with("Unauthorized: no longer")
            }))
        })
        .unwrap();
    assert_eq!(world.lines("Unauthorized: no longer"), 4, "{}", world.cluster.agent_log());
    assert_eq!(world.lines("UnknownPod"), 0, "{}", world.cluster.agent_log());
    world.serve("next", &["next"]);
    reached(&world, "next");
}

#[test]
fn an_uplink_that_appears_later_carries_flows() {
    let mut world = World::start("uplink2", native());
    world.serve("web", &["web"]);
    let backing = world.cluster.back_by_remote("remote").unwrap();
    world.backing.push(backing);
    world.answers("remote");
    reached(&world, "remote");
    let topology = &world.cluster.topology;
    topology
        .router
        .ip(&format!(
            "link add n1 type veth peer name eth1 netns {}\naddr add 192.168.66.1/24 dev n1\nlink set n1 up\n",
            topology.node.pid()
        ))
        .unwrap();
    topology.node.ip("addr add 192.168.66.2/24 dev eth1\nlink set eth1 up\n").unwrap();
    let range = topology::REMOTE_POD_CIDR;
    topology.node.ip(&format!("route replace {range} via 192.168.66.1 dev eth1\n")).unwrap();
    let pods = topology::NODE_POD_CIDR;
    topology.router.ip(&format!("route replace {pods} via 192.168.66.2 dev n1\n")).unwrap();
    topology.node.ip(&format!("link set {} down\n", topology::UPLINK)).unwrap();
    let to = world.dial("remote");
    let client = world.pod("client");
    world
        .cluster
        .wait("the new uplink to carry a flow", Duration::from_secs(10), |_| {
            Ok(Probe::new(&client).tcp(&to)?.ok && Probe::new(&client).udp(&to)?.ok)
        })
        .unwrap();
    topology.node.ip("link del eth1\n").unwrap();
    reached(&world, "web");
}

#[test]
fn a_bridge_that_goes_and_comes_back_has_pods_again() {
    let world = World::bare("bridge", native());
    let node = &world.cluster.topology.node;
    world
        .cluster
        .wait("the agent to make the bridge", Duration::from_secs(10), |_| {
            Ok(node.links()?.iter().any(|link| link == "kube-bridge"))
        })
        .unwrap();
    node.ip("link del kube-bridge\n").unwrap();
    // The CNI plugin makes it anew.
    world.cluster.run_pods("client", &["client"]).unwrap();
    world.serve("web", &["web"]);
    reached(&world, "web");
}

#[test]
fn a_node_that_moves_to_another_address_goes_on() {
    let world = World::start("move", native());
    world.serve("web", &["web"]);
    let node = &world.cluster.topology.node;
    let move_to = |address: &str| {
        let found = world.cluster.server().store().get(Kind::Node, "", NODE_NAME).unwrap();
        let mut object = (*found).clone();
        object["status"]["addresses"] = json!([{"type": "InternalIP", "address": address}]);
        world.cluster.put(Kind::Node, object).unwrap();
    };
    let routes = || node.run(&["ip", "route", "show", "dev", "kube-svc"]).unwrap();
    let before = routes();
    move_to("192.168.77.3");
    world.logged(&[
        "cannot route VIPs to kube-svc",
        "no device of this host has 192.168.77.3",
        "; give it to one",
    ]);
    assert_eq!(routes(), before, "routes went for nothing");
    reached(&world, "web");
    node.ip(&format!("addr add 192.168.77.3/24 dev {}\n", topology::UPLINK)).unwrap();
    world.logged(&["cannot route VIPs to kube-svc: no longer"]);
    world
        .cluster
        .wait("a process of the node to come from the new address", Duration::from_secs(10), |cluster| {
            let result = Probe::new(&cluster.node()).tcp(&world.dial("web"))?;
            Ok(result.seen().is_some_and(|seen| seen.ip().to_string() == "192.168.77.3"))
        })
        .unwrap();
    reached(&world, "web");
    assert!(!routes().contains("192.168.77.2"), "{}", routes());
}

#[test]
fn a_veth_that_no_pod_of_the_api_has_is_named_until_one_does() {
    let world = World::start("stranger", native());
    world.serve("web", &["web"]);
    let node = &world.cluster.topology.node;
    node.run(&[
        "sh",
        "-ec",
        "ip netns add stranger
         ip link add st0 type veth peer name eth0 netns stranger
         ip link set st0 master kube-bridge up
         ip -n stranger addr add 10.244.1.200/24 dev eth0
         ip -n stranger link set eth0 up",
    ])
    .unwrap();
    let line = world.logged(&["link st0: UnknownPod", "10.244.1.200"]);
    assert!(line.contains("; take down"), "{line}");
    reached(&world, "web");
    world
        .cluster
        .put(
            Kind::Pod,
            json!({"metadata": {"name": "static", "namespace": "default"},
                "spec": {"nodeName": NODE_NAME, "hostNetwork": false, "containers": []},
                "status": {"podIP": "10.244.1.200", "podIPs": [{"ip": "10.244.1.200"}]}}),
        )
        .unwrap();
    world.logged(&["link st0: UnknownPod: no longer"]);
}
