//! ICMP through VIPs: refusals and expiry reach whoever sent, and name what it dialled.

use std::process::Command;

use router_tests::probe::Probe;

use super::world::{World, four};

#[test]
fn a_closed_port_behind_a_vip_refuses_both_protocols() {
    for (set_up, options) in four() {
        let mut world = World::start("closed", options);
        world.serve("web", &["web"]);
        let remote = world.cluster.back_by_remote("remote").unwrap();
        world.backing.push(remote);
        world.answers("remote");
        // Same backends, a port where nobody listens.
        world.cluster.put_service("closed", Some("web"), 9999).unwrap();
        let to = world.dial("closed");
        for (who, place) in world.clients() {
            let probe = Probe::new(&place);
            world
                .cluster
                .wait(&format!("{set_up}: {who} to be refused"), std::time::Duration::from_secs(5), |_| {
                    let refused =
                        |result: router_tests::probe::ProbeResult| result.error.as_deref() == Some("refused");
                    Ok(refused(probe.tcp(&to)?) && refused(probe.udp(&to)?))
                })
                .unwrap();
            let vip = world.cluster.vip("web").unwrap();
            assert!(probe.ping(&vip).unwrap().ok, "{set_up}: {who}: ping");
        }
        assert_eq!(world.cluster.topology.checksum_errors(&[]).unwrap(), 0, "{set_up}: InCsumErrors");
    }
}

/// What a refusal through the backend's own stack shows, and not one of ours: the backend counts the datagram.
#[test]
fn a_refusal_behind_a_vip_is_the_backends_own() {
    for (set_up, options) in four() {
        let world = World::start("refusal", options);
        world.serve("web", &["web"]);
        world.cluster.put_service("closed", Some("web"), 9999).unwrap();
        let to = world.dial("closed");
        for (who, place) in world.clients() {
            world
                .cluster
                .wait(
                    &format!("{set_up}: {who}'s datagram to reach the closed port"),
                    std::time::Duration::from_secs(5),
                    |_| {
                        let before = no_ports(&world);
                        let result = Probe::new(&place).udp(&to)?;
                        Ok(result.error.as_deref() == Some("refused") && no_ports(&world) > before)
                    },
                )
                .unwrap();
        }
    }
}

/// Datagrams to a port without a listener, in the pod `web`.
fn no_ports(world: &World) -> u64 {
    let output = world.pod("web").command("cat").arg("/proc/net/snmp").output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    let values = table.lines().filter(|line| line.starts_with("Udp:")).nth(1).unwrap();
    values.split_whitespace().nth(2).unwrap().parse().unwrap()
}

/// As traceroute does: what runs out of hops is answered by the node, also where the fast path goes around its stack.
#[test]
fn a_packet_to_a_vip_that_runs_out_of_hops_is_answered() {
    for (set_up, options) in four() {
        let world = World::start("hops", options);
        world.serve("web", &["web"]);
        let (host, port) = (world.cluster.vip("web").unwrap(), "80");
        let client = world.pod("client");
        // The kernel's own default, for every socket of the pod.
        let mut set: Command = client.command("sysctl");
        assert!(set.args(["-qw", "net.ipv4.ip_default_ttl=1"]).status().unwrap().success());
        let result = Probe::new(&client).udp(&format!("{host}:{port}")).unwrap();
        assert_eq!(result.error.as_deref(), Some("time exceeded"), "{set_up}: {result:?}");
    }
}
