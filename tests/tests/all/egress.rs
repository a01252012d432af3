//! Pods' way out of the cluster, and what lies under it: packets from pods on a host that drops what nobody accepts,
//! the bridge and its MTU.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use router_tests::apiserver::Kind;
use router_tests::cluster::{AgentOptions, CONFLIST_PATH, Cluster, ClusterOptions};
use router_tests::enter::Place;
use router_tests::probe::{Probe, ProbeCall};
use router_tests::sandbox::{CONFLIST, Serving};
use router_tests::serve::{Listen, Transport};
use router_tests::topology::hostile::{self, Chain};
use router_tests::topology::{NODE, REMOTE, REMOTE_PODS, ROUTER, UPLINK};

use super::world::{BOTH, World, hold, native, plain, put_remote_node, slow};

/// A port in the pod's own hands: a NodePort, one of the agent's reserved, one that would do.
const SOURCE_PORTS: [u16; 3] = [30_080, 50_000, 40_000];

/// A host outside the cluster, which does not answer pods.
fn outside(world: &World) -> Serving {
    let router = &world.cluster.topology.router;
    let deaf =
        "table ip lab { chain in { type filter hook input priority 0; ip saddr 10.244.0.0/16 drop; }; }";
    router.run_with(&["nft", "-f", "-"], deaf).unwrap();
    let listen = |protocol| Listen { port: 8080, protocol };
    Serving::start(router, "outside", &BOTH.map(listen)).unwrap()
}

fn with(more: &[&str]) -> ClusterOptions {
    let more = more.iter().map(|flag| (*flag).to_owned()).collect();
    ClusterOptions { agent: AgentOptions { more, ..AgentOptions::default() }, ..native() }
}

/// Whom the server at an address saw, when a place called it from a port.
fn seen(place: &Place, transport: Transport, to: Ipv4Addr, port: u16) -> SocketAddrV4 {
    let from = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
    let call = ProbeCall::new(transport, format!("{to}:8080")).from(from);
    let result = Probe::new(place).call(&call).unwrap().remove(0);
    result.seen().unwrap_or_else(|| panic!("{transport} to {to} from {port}: {result:?}"))
}

fn table(cluster: &Cluster) -> String {
    cluster.topology.node.run(&["nft", "list", "tables"]).unwrap()
}

fn wait_for_table(world: &World) {
    let there = |cluster: &Cluster| Ok(table(cluster).contains("table ip kube-router"));
    world.cluster.wait("the table", Duration::from_secs(10), there).unwrap();
}

/// To the host outside, over everything, from every port.
fn leaves_as_the_node(set_up: &str, client: &Place) {
    for transport in BOTH {
        for port in SOURCE_PORTS {
            let seen = seen(client, transport, ROUTER, port);
            assert_eq!(*seen.ip(), NODE, "{set_up}: {transport} from {port}");
            assert!((32_768..=49_151).contains(&seen.port()), "{set_up}: {transport} from {port}: {seen}");
        }
    }
    let reply = Probe::new(client).ping(&ROUTER.to_string()).unwrap();
    assert!(reply.ok, "{set_up}: {reply:?}");
}

#[test]
fn pods_leave_the_cluster_as_the_node_and_within_it_stay_who_they_are() {
    for (set_up, mut options) in [("fast", native()), ("slow", slow(native())), ("plain", plain())] {
        options.topology.default_route = true;
        let mut world = World::start("egress", options);
        put_remote_node(&world.cluster);
        let backing = world.cluster.back_by_remote("remote").unwrap();
        world.backing.push(backing);
        world.answers("remote");
        wait_for_table(&world);
        let _outside = outside(&world);
        let ssh = Listen { port: 22, protocol: Transport::Tcp };
        let _on_node = Serving::start(&world.cluster.node(), "on-node", &[ssh]).unwrap();
        let (client, address) = (world.pod("client"), world.cluster.pod_address("client").unwrap());

        leaves_as_the_node(set_up, &client);
        for transport in BOTH {
            for to in [REMOTE_PODS[0], REMOTE] {
                let seen = seen(&client, transport, to, 50_000);
                assert_eq!(seen, SocketAddrV4::new(address, 50_000), "{set_up}: {transport} to {to}");
            }
        }
        let own = Probe::new(&client).tcp(&format!("{NODE}:22")).unwrap();
        assert_eq!(own.seen().map(|seen| *seen.ip()), Some(address), "{set_up}: {own:?}");
        for transport in BOTH {
            let call = ProbeCall::new(transport, format!("{address}:8080"));
            let result = Probe::new(&world.cluster.node()).call(&call).unwrap().remove(0);
            assert!(result.ok, "{set_up}: a probe of the kubelet's by {transport}: {result:?}");
        }
        for chain in [Chain::Forward, Chain::Input] {
            assert_eq!(hostile::drops(&world.cluster.topology.node, chain).unwrap().invalid, 0, "{set_up}");
        }
    }
}

/// A Service may have an endpoint outside the cluster.
#[test]
fn a_slow_flow_through_a_vip_to_outside_the_cluster_leaves_as_the_node() {
    let world = World::start("egressvip", slow(native()));
    let _outside = outside(&world);
    world.cluster.put_service("outside", None, 8080).unwrap();
    world.cluster.put_slice("outside", &[ROUTER], None).unwrap();
    world.answers("outside");
    wait_for_table(&world);
    let client = world.pod("client");
    for transport in BOTH {
        let call = ProbeCall::new(transport, world.dial("outside"));
        let result = Probe::new(&client).call(&call).unwrap().remove(0);
        assert_eq!(result.seen().map(|seen| *seen.ip()), Some(NODE), "{transport}: {result:?}");
    }
}

/// Sent by the node itself from an address of its pod range: forwarding groups takes a daemon.
#[test]
fn what_goes_to_a_group_or_the_link_keeps_its_source() {
    let world = World::start("egressgroup", native());
    wait_for_table(&world);
    let (node, router) = (&world.cluster.topology.node, &world.cluster.topology.router);
    let count = "table ip lab { chain in { type filter hook prerouting priority -300;
        ip saddr 10.244.1.250 ip daddr 239.1.1.1 counter;
        ip saddr 10.244.1.250 ip daddr 169.254.7.7 counter;
        ip saddr 10.244.1.250 ip daddr 192.168.77.1 counter;
    }; }";
    router.run_with(&["nft", "-f", "-"], count).unwrap();
    router.ip("addr add 169.254.7.7/16 dev n0\n").unwrap();
    node.ip(&format!(
        "addr add 10.244.1.250/32 dev {UPLINK}\nroute add 239.0.0.0/8 dev {UPLINK}\nroute add 169.254.0.0/16 dev {UPLINK}\n"
    ))
    .unwrap();
    let place = world.cluster.node();
    let from = SocketAddrV4::new(Ipv4Addr::new(10, 244, 1, 250), 5_000);
    for to in ["239.1.1.1:9", "169.254.7.7:9", "192.168.77.1:9"] {
        let call = ProbeCall::new(Transport::Udp, to).from(from).timeout(Duration::from_millis(200));
        Probe::new(&place).call(&call).unwrap();
    }
    let counted = router.run(&["nft", "list", "table", "ip", "lab"]).unwrap();
    let packets = |to: &str| {
        let line = counted.lines().find(|line| line.contains(to)).unwrap();
        !line.contains("packets 0")
    };
    assert!(packets("239.1.1.1") && packets("169.254.7.7"), "{counted}");
    assert!(!packets("192.168.77.1"), "what goes to a host is masqueraded: {counted}");
}

#[test]
fn a_node_s_pods_are_known_as_soon_as_the_node_is_and_no_longer() {
    let mut world = World::start("egressnode", native());
    let backing = world.cluster.back_by_remote("remote").unwrap();
    world.backing.push(backing);
    world.answers("remote");
    wait_for_table(&world);
    let (client, address) = (world.pod("client"), world.cluster.pod_address("client").unwrap());
    let sees = |who: Ipv4Addr| {
        let sees = |_: &Cluster| Ok(*seen(&client, Transport::Udp, REMOTE_PODS[0], 0).ip() == who);
        world.cluster.wait(&format!("the remote pod to see {who}"), Duration::from_secs(2), sees).unwrap();
    };
    sees(NODE);
    put_remote_node(&world.cluster);
    sees(address);
    world.cluster.server().store().remove(Kind::Node, "", "node9").unwrap();
    sees(NODE);
}

#[test]
fn a_restart_rewrites_nothing_and_without_the_flag_the_table_goes() {
    let mut world = World::start("egressoff", native());
    let _outside = outside(&world);
    wait_for_table(&world);
    let rules = |world: &World| {
        world.cluster.topology.node.run(&["nft", "-a", "list", "table", "ip", "kube-router"]).unwrap()
    };
    let before = rules(&world);
    let client = world.pod("client");
    let mut held = hold(&client, Transport::Tcp, &format!("{ROUTER}:8080"), 41_000);
    world.cluster.terminate_agent().unwrap();
    leaves_as_the_node("without an agent", &client);
    world.cluster.start_agent().unwrap();
    let started = |_: &Cluster| Ok(world.lines("everything that is followed has listed") == 2);
    world.cluster.wait("the next agent to know the cluster", Duration::from_secs(10), started).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(rules(&world), before);
    assert!(held.ask("still").unwrap().ok);
    world.cluster.topology.node.run(&["nft", "delete", "table", "ip", "kube-router"]).unwrap();
    wait_for_table(&world);
    assert!(held.ask("through a repair").unwrap().ok);
    world.logged(&["wrote the table ip kube-router", "somebody had changed it"]);

    world.cluster.kill_agent();
    world.cluster.set_agent_options(with(&["--enable-pod-egress=false"]).agent);
    world.cluster.start_agent().unwrap();
    let gone = |cluster: &Cluster| Ok(!table(cluster).contains("kube-router"));
    world.cluster.wait("the table to go", Duration::from_secs(10), gone).unwrap();
    let unanswered = Probe::new(&client).tcp(&format!("{ROUTER}:8080")).unwrap();
    assert!(!unanswered.ok, "{unanswered:?}");
}

#[test]
fn without_the_service_proxy_pods_leave_through_a_host_that_drops_in_both_flavours() {
    let mut world = World::bare("egressalone", with(&["--run-service-proxy=false"]));
    world.cluster.run_pods("client", &["client"]).unwrap();
    let _outside = outside(&world);
    world.cluster.kill_agent();
    world.cluster.topology.node.run(&["iptables-legacy", "-P", "FORWARD", "DROP"]).unwrap();
    world.cluster.start_agent().unwrap();
    let node = &world.cluster.topology.node;
    let accepted = |_: &Cluster| Ok(node.run(&["iptables-legacy", "-S"])?.contains("-i kube-bridge"));
    world.cluster.wait("the accept rules", Duration::from_secs(10), accepted).unwrap();
    wait_for_table(&world);
    leaves_as_the_node("alone", &world.pod("client"));
    assert!(!node.run(&["iptables-save"]).unwrap().contains("kube-svc"));
}

#[test]
fn the_bridge_has_the_uplink_s_mtu_and_follows_it() {
    let mut options = native();
    options.topology.uplink_mtu = 1400;
    let world = World::start("egressmtu", options);
    let node = &world.cluster.topology.node;
    let bridge = |mtu: &str| {
        let has = |_: &Cluster| {
            let file = node.run(&["cat", CONFLIST_PATH])?;
            let bridge = node.run(&["cat", "/sys/class/net/kube-bridge/mtu"])?;
            Ok(bridge.trim() == mtu && file.contains(&format!("\"mtu\":{mtu}")))
        };
        world.cluster.wait(&format!("an MTU of {mtu}"), Duration::from_secs(5), has).unwrap();
    };
    bridge("1400");
    node.ip(&format!("link set {UPLINK} mtu 1450\n")).unwrap();
    bridge("1450");
    node.ip("link set kube-bridge mtu 1300\n").unwrap();
    bridge("1450");
}

#[test]
fn without_cni_no_bridge_is_made() {
    let options = ClusterOptions { conflist: Some(CONFLIST.to_owned()), ..with(&["--enable-cni=false"]) };
    let world = World::bare("egressnocni", options);
    world.logged(&["everything that is followed has listed"]);
    wait_for_table(&world);
    let links = world.cluster.topology.node.links().unwrap();
    assert!(!links.contains(&"kube-bridge".to_owned()), "{links:?}");
}
