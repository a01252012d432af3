//! Services through a whole cluster on a hostile host: real sockets from pods and from the node, to each kind of
//! backend, in the two set-ups that differ most, with the fast path and without.

use std::time::Duration;

use router_tests::cluster::{AgentOptions, Cluster, ClusterOptions};
use router_tests::enter::Place;
use router_tests::node::unique_prefix;
use router_tests::probe::{Probe, ProbeResult};
use router_tests::topology::hostile::{self, Chain};
use router_tests::topology::{Offload, TopologyOptions};

/// Checksum offload as the kernel sets it, tcx, bridge traffic past the firewall.
pub(super) fn native() -> ClusterOptions {
    ClusterOptions::default()
}

/// Every link without transmit offload, clsact, bridge traffic through the firewall, no default route.
pub(super) fn plain() -> ClusterOptions {
    ClusterOptions {
        topology: TopologyOptions {
            offload: Offload::Off,
            bridge_nf_call: true,
            default_route: false,
            bpffs: false,
            ..TopologyOptions::default()
        },
        agent: AgentOptions { attach: "clsact".to_owned(), ..AgentOptions::default() },
        ..ClusterOptions::default()
    }
}

pub(super) fn slow(mut options: ClusterOptions) -> ClusterOptions {
    options.agent.fast_path = false;
    options
}

/// One cluster, its folder, and what the paths lead to.
struct Paths {
    cluster: Cluster,
    _folder: tempfile::TempDir,
    _backing: Vec<router_tests::cluster::Backing>,
}

/// A client pod, a service of one other pod, one of the node itself, one of a remote pod, one of the client itself.
fn start(options: ClusterOptions) -> Paths {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&unique_prefix("paths"), folder.path(), options, |_, _| {}).unwrap();
    super::world::put_remote_node(&cluster);
    cluster.run_pods("client", &["client"]).unwrap();
    cluster.run_pods("web", &["web"]).unwrap();
    cluster.put_service("web", Some("web"), 8080).unwrap();
    cluster.put_service("self", Some("client"), 8080).unwrap();
    let backing = vec![cluster.back_by_node("own").unwrap(), cluster.back_by_remote("remote").unwrap()];
    let paths = Paths { cluster, _folder: folder, _backing: backing };
    for service in ["web", "self", "own", "remote"] {
        paths.answers(service);
    }
    paths
}

impl Paths {
    /// Waits until a service answers.
    fn answers(&self, service: &str) {
        let vip = self.cluster.vip(service).unwrap();
        self.cluster
            .wait(&format!("service {service} to answer"), Duration::from_secs(10), |cluster| {
                let node = cluster.node();
                let probe = Probe::new(&node);
                Ok(probe.tcp(&format!("{vip}:80"))?.ok && probe.udp(&format!("{vip}:80"))?.ok)
            })
            .unwrap();
    }

    fn clients(&self) -> [(&'static str, Place); 2] {
        [("pod", self.cluster.pod("client").unwrap()), ("node", self.cluster.node())]
    }
}

/// Every cell of client × service × protocol; what the backend saw is the contract's source address.
fn matrix(paths: &Paths) {
    let cluster = &paths.cluster;
    let client = cluster.pod_address("client").unwrap().to_string();
    let mut failures = Vec::new();
    for (who, place) in paths.clients() {
        for (service, backend) in
            [("web", "web"), ("self", "client"), ("own", "on-node"), ("remote", "remote")]
        {
            let vip = cluster.vip(service).unwrap();
            let source = match (who, service) {
                // A pod that is its own backend sees the VIP.
                ("pod", "self") => vip.clone(),
                ("pod", _) => client.clone(),
                // A backend on the node sees its own processes link-local.
                ("node", "own") => "169.254.255.1".to_owned(),
                _ => router_tests::topology::NODE.to_string(),
            };
            let probe = Probe::new(&place);
            for (protocol, result) in
                [("tcp", probe.tcp(&format!("{vip}:80"))), ("udp", probe.udp(&format!("{vip}:80")))]
            {
                let result = result.unwrap();
                if !is_answer(&result, backend, &source) {
                    failures.push(format!(
                        "{who} -> {service} {protocol}: {result:?}, not {backend} seeing {source}"
                    ));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}\n{}", failures.join("\n"), cluster.agent_log());
    assert_eq!(cluster.topology.checksum_errors(&[]).unwrap(), 0, "InCsumErrors");
    for chain in [Chain::Forward, Chain::Input] {
        assert_eq!(
            hostile::drops(&cluster.topology.node, chain).unwrap().invalid,
            0,
            "{chain:?}: ct state invalid"
        );
    }
}

fn is_answer(result: &ProbeResult, backend: &str, source: &str) -> bool {
    result.ok
        && result.backend() == Some(backend)
        && result.seen().is_some_and(|seen| seen.ip().to_string() == source)
}

#[test]
fn every_path_works_slowly_in_the_native_set_up() {
    matrix(&start(slow(native())));
}

#[test]
fn every_path_works_slowly_in_the_plain_set_up() {
    matrix(&start(slow(plain())));
}

#[test]
fn every_path_works_fast_in_the_native_set_up() {
    matrix(&start(native()));
}

#[test]
fn every_path_works_fast_in_the_plain_set_up() {
    matrix(&start(plain()));
}

#[test]
fn a_process_bound_to_another_address_of_the_node_is_served_and_kube_svc_comes_back_at_once() {
    let paths = start(native());
    let node = &paths.cluster.topology.node;
    let vip = paths.cluster.vip("web").unwrap();
    // A route of its own makes the stack choose the bridge's address, as a process does that binds to it.
    let other = format!(
        "ip route add {vip} dev kube-svc src $(ip -4 -o addr show kube-bridge | awk '{{print $4}}' | cut -d/ -f1)"
    );
    node.run(&["sh", "-ec", &other]).unwrap();
    let place = paths.cluster.node();
    for service in ["web", "remote"] {
        let vip = paths.cluster.vip(service).unwrap();
        let result = Probe::new(&place).tcp(&format!("{vip}:80")).unwrap();
        assert!(result.ok, "{service}: {result:?}\n{}", paths.cluster.agent_log());
    }
    node.run(&["ip", "link", "del", "kube-svc"]).unwrap();
    let back = |cluster: &Cluster| Ok(Probe::new(&cluster.node()).tcp(&format!("{vip}:80"))?.ok);
    paths.cluster.wait("kube-svc to be back", Duration::from_secs(2), back).unwrap();
}
