//! Packets that do not fit: answered, learned from, or sent in fragments, through a VIP as without one.

use router_tests::cluster::ClusterOptions;
use router_tests::probe::Probe;
use router_tests::serve::Transport;
use router_tests::topology::UPLINK;

use super::world::{BOTH, World, four, native, plain, slow};

/// Enough to fill a window of full-sized segments many times.
const MUCH: usize = 2 << 20;

/// A client pod, a Service of another pod and one of a remote one.
fn start(options: ClusterOptions) -> World {
    let mut world = World::start("mtu", options);
    world.serve("web", &["web"]);
    let remote = world.cluster.back_by_remote("remote").unwrap();
    world.backing.push(remote);
    world.answers("remote");
    world
}

/// Gives the client full-sized packets, whatever the uplink takes: its link, and all that it crosses on the node.
fn widen(world: &World) {
    let node = &world.cluster.topology.node;
    for link in node.links().unwrap().iter().filter(|link| link.starts_with("veth") || *link == "kube-bridge")
    {
        node.run(&["ip", "link", "set", link, "mtu", "1500"]).unwrap();
    }
    let client = world.pod("client");
    let output = client.command("ip").args(["link", "set", "eth0", "mtu", "1500"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// What does not fit is answered with what would, which the client then sends, and bulk goes through.
fn narrow(set_up: &str, world: &World, clients: &[(&str, router_tests::enter::Place)]) {
    let to = world.dial("remote");
    for (who, place) in clients {
        let probe = Probe::new(place);
        let results = probe.df(1500, &to, 2).unwrap();
        assert!(
            results.iter().any(|result| result.error.as_deref() == Some("frag-needed (mtu 1400)")),
            "{set_up}: {who}: {results:?}"
        );
        assert_eq!(results.last().and_then(|result| result.mtu), Some(1400), "{set_up}: {who}: {results:?}");
        let fitting = probe.df(1400, &to, 1).unwrap();
        assert!(fitting.iter().all(|result| result.ok), "{set_up}: {who}: {fitting:?}");
        for transport in BOTH {
            let size = if transport == Transport::Tcp { MUCH } else { 4_000 };
            let result = probe.bulk(transport, size, &to).unwrap();
            assert!(result.ok, "{set_up}: {who}: {transport}: {result:?}\n{}", world.cluster.agent_log());
        }
    }
}

#[test]
fn an_uplink_narrower_than_the_pods_says_so_through_a_vip() {
    for (set_up, mut options) in four() {
        options.topology.uplink_mtu = 1400;
        let world = start(options);
        widen(&world);
        narrow(set_up, &world, &[("pod", world.pod("client"))]);
        let whole = Probe::new(&world.cluster.node()).bulk(Transport::Tcp, MUCH, &world.dial("remote"));
        assert!(whole.unwrap().ok, "{set_up}: node");
        assert_eq!(world.cluster.topology.checksum_errors(&[]).unwrap(), 0, "{set_up}: InCsumErrors");
        let uplink = world.cluster.topology.node.run(&["cat", &format!("/sys/class/net/{UPLINK}/mtu")]);
        assert_eq!(uplink.unwrap().trim(), "1400");
    }
}

#[test]
fn a_link_beyond_the_router_is_learned_through_a_vip() {
    for (set_up, options) in four() {
        let world = start(options);
        world.cluster.topology.narrow_far_link(1400).unwrap();
        narrow(set_up, &world, &world.clients());
        assert_eq!(world.cluster.topology.checksum_errors(&[]).unwrap(), 0, "{set_up}: InCsumErrors");
    }
}

#[test]
fn a_datagram_in_fragments_comes_through_a_vip_both_ways() {
    for (set_up, options) in four() {
        let world = start(options);
        for (who, place) in world.clients() {
            for service in ["web", "remote"] {
                let result = Probe::new(&place).bulk(Transport::Udp, 4_000, &world.dial(service)).unwrap();
                assert!(result.ok, "{set_up}: {who} to {service}: {result:?}\n{}", world.cluster.agent_log());
            }
        }
        assert_eq!(world.cluster.topology.checksum_errors(&[]).unwrap(), 0, "{set_up}: InCsumErrors");
    }
}

/// A transfer that offloads join into packets far above any MTU.
#[test]
fn bulk_comes_through_a_vip_both_ways() {
    for (set_up, options) in [("native", native()), ("slow", slow(native())), ("plain", plain())] {
        let world = start(options);
        for (who, place) in world.clients() {
            for service in ["web", "remote"] {
                let result = Probe::new(&place).bulk(Transport::Tcp, MUCH, &world.dial(service)).unwrap();
                assert!(result.ok, "{set_up}: {who} to {service}: {result:?}");
            }
        }
        assert_eq!(world.cluster.topology.checksum_errors(&[]).unwrap(), 0, "{set_up}: InCsumErrors");
    }
}
