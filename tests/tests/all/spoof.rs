//! A pod that pretends to be somebody else: its neighbour, or the node.

use std::time::Duration;

use router_tests::probe::Probe;

use super::world::{BOTH, World, native, plain};

/// Runs a program in a pod.
fn run(world: &World, pod: &str, words: &[&str]) -> String {
    let output = world.pod(pod).command(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?} in {pod}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Datagrams that a pod's own stack has had no listener for, or has delivered.
fn datagrams(world: &World, pod: &str) -> u64 {
    let table = run(world, pod, &["cat", "/proc/net/snmp"]);
    let values = table.lines().filter(|line| line.starts_with("Udp:")).nth(1).unwrap();
    let of = |at: usize| values.split_whitespace().nth(at).unwrap().parse::<u64>().unwrap();
    of(1) + of(2)
}

#[test]
fn a_pod_that_claims_its_neighbours_address_gets_nothing_of_it() {
    for (set_up, options) in [("native", native()), ("plain", plain())] {
        let world = World::start("spoof", options);
        world.serve("victim", &["victim"]);
        world.cluster.run_pods("thief", &["thief"]).unwrap();
        let victim = world.cluster.pod_address("victim").unwrap().to_string();
        let answers = |when: &str| {
            for (who, place) in world.clients() {
                for to in [world.dial("victim"), format!("{victim}:8080")] {
                    for transport in BOTH {
                        let call = router_tests::probe::ProbeCall::new(transport, to.as_str());
                        let result = Probe::new(&place).call(&call).unwrap().pop().unwrap();
                        assert_eq!(
                            result.backend(),
                            Some("victim"),
                            "{set_up} {when}: {who} {transport} {to}: {result:?}"
                        );
                    }
                }
            }
        };
        let thief = world.pod("thief");
        for _ in 0..5 {
            assert!(Probe::new(&thief).arp("eth0", &victim, None).unwrap().ok);
        }
        answers("after ARP");
        world.logged(&["spoofed-arp", "default/thief"]);
        run(&world, "thief", &["ip", "addr", "add", &format!("{victim}/32"), "dev", "eth0"]);
        run(&world, "thief", &["ip", "link", "set", "eth0", "down"]);
        run(&world, "thief", &["ip", "link", "set", "eth0", "up"]);
        // The kernel has told the agent of the second address by then.
        std::thread::sleep(Duration::from_millis(500));
        assert!(Probe::new(&thief).arp("eth0", &victim, None).unwrap().ok);
        answers("after ip addr add");
    }
}

#[test]
fn what_a_pod_sends_as_its_neighbour_or_as_the_node_does_not_arrive() {
    for (set_up, options) in [("native", native()), ("plain", plain())] {
        let world = World::start("spoof", options);
        world.serve("victim", &["victim"]);
        world.cluster.run_pods("thief", &["thief"]).unwrap();
        let thief = world.pod("thief");
        let victim = world.cluster.pod_address("victim").unwrap();
        let client = world.cluster.pod_address("client").unwrap();
        let node = router_tests::topology::NODE;
        // It can send as itself.
        let itself = world.cluster.pod_address("thief").unwrap().to_string();
        for to in [format!("{victim}:8080"), world.dial("victim")] {
            let before = datagrams(&world, "victim");
            for source in [client.to_string(), node.to_string()] {
                let sent = Probe::new(&thief).spoof("eth0", &source, &to).unwrap();
                assert!(sent.ok, "{set_up}: {sent:?}");
            }
            std::thread::sleep(Duration::from_millis(200));
            assert_eq!(datagrams(&world, "victim"), before, "{set_up}: {to}");
            assert!(Probe::new(&thief).spoof("eth0", &itself, &to).unwrap().ok);
            world
                .cluster
                .wait("the pod's own packet to arrive", Duration::from_secs(2), |_| {
                    Ok(datagrams(&world, "victim") > before)
                })
                .unwrap();
        }
        world.logged(&["spoofed-source", "default/thief"]);
    }
}
