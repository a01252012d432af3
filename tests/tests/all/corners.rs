//! Pods that others have plans for, too: a queueing discipline of their own, and portmap.

use std::time::{Duration, Instant};

use router_tests::apiserver::Kind;
use router_tests::probe::Probe;
use router_tests::serve::Transport;
use router_tests::topology;
use serde_json::json;

use super::world::{BOTH, World, native, plain};

/// The host end of a pod's link.
fn veth(world: &World, pod: &str) -> String {
    let output = world.pod(pod).command("cat").arg("/sys/class/net/eth0/iflink").output().unwrap();
    let index = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let node = &world.cluster.topology.node;
    let links = node.links().unwrap();
    let is_it = |link: &&String| {
        node.run(&["cat", &format!("/sys/class/net/{link}/ifindex")]).unwrap().trim() == index
    };
    links.iter().find(is_it).unwrap().clone()
}

/// A shaper on the host end of a pod's link holds what goes to the pod: 256 kB at 4 Mbit/s take half a second, and
/// more than that by the burst it lets through.
#[test]
fn a_pod_with_a_shaper_is_delivered_to_through_it() {
    for (set_up, options) in [("native", native()), ("plain", plain())] {
        let world = World::start("shaped", options);
        world.serve("web", &["web"]);
        let link = veth(&world, "web");
        world
            .cluster
            .topology
            .node
            .run(&[
                "tc", "qdisc", "replace", "dev", &link, "root", "tbf", "rate", "4mbit", "burst", "32k",
                "latency", "400ms",
            ])
            .unwrap();
        let no_fast = |world: &World| {
            let pods = world.rows("PODS4");
            pods.iter().any(|row| row["value"]["flags"] == 1)
        };
        world
            .cluster
            .wait("the agent to see the shaper", Duration::from_secs(5), |_| Ok(no_fast(&world)))
            .unwrap();
        let client = world.pod("client");
        let begin = Instant::now();
        let result = Probe::new(&client).bulk(Transport::Tcp, 256 << 10, &world.dial("web")).unwrap();
        assert!(result.ok, "{set_up}: {result:?}");
        assert!(begin.elapsed() > Duration::from_millis(350), "{set_up}: {:?}", begin.elapsed());
        assert!(Probe::new(&client).udp(&world.dial("web")).unwrap().ok, "{set_up}");
    }
}

/// portmap's own DNAT, beside us: from outside to the node's address, while the same pod serves a VIP.
#[test]
fn a_host_port_by_portmap_works_beside_us() {
    for (set_up, options) in [("native", native()), ("plain", plain())] {
        let world = World::start("hostport", options);
        let port = |protocol: &str| json!({"name": protocol.to_lowercase(), "protocol": protocol, "containerPort": 8080, "hostPort": 8888});
        world
            .cluster
            .put(
                Kind::Pod,
                json!({
                    "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}},
                    "spec": {"nodeName": router_tests::cluster::NODE_NAME, "containers": [
                        {"name": "serve", "image": "lab/serve", "ports": [port("TCP"), port("UDP")]}]},
                }),
            )
            .unwrap();
        world
            .cluster
            .wait("the pod to run", Duration::from_secs(10), |cluster| Ok(cluster.pod("web").is_ok()))
            .unwrap();
        world.cluster.put_service("web", Some("web"), 8080).unwrap();
        world.answers("web");
        let router = &*world.cluster.topology.router;
        for transport in BOTH {
            let to = format!("{}:8888", topology::NODE);
            let call = router_tests::probe::ProbeCall::new(transport, to.as_str());
            let result = Probe::new(router).call(&call).unwrap().pop().unwrap();
            assert_eq!(result.backend(), Some("web"), "{set_up}: {transport}: {result:?}");
        }
    }
}
