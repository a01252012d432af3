//! A cluster for one test, with words for what tests of flows do to it.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Stdio;
use std::time::Duration;

use router_tests::apiserver::Kind;
use router_tests::cluster::{AgentOptions, Backing, Cluster, ClusterOptions, NODE_NAME, log_file};
use router_tests::enter::Place;
use router_tests::node::unique_prefix;
use router_tests::probe::{Held, Probe, ProbeCall};
use router_tests::serve::Transport;
use router_tests::topology::{self, TopologyOptions};
use serde_json::{Value, json};

pub(super) use super::paths::{native, plain, slow};

/// Both protocols.
pub(super) const BOTH: [Transport; 2] = [Transport::Tcp, Transport::Udp];

/// The four set-ups that paths differ in, by name.
pub(super) fn four() -> [(&'static str, ClusterOptions); 4] {
    [
        ("native fast", native()),
        ("native slow", slow(native())),
        ("plain fast", plain()),
        ("plain slow", slow(plain())),
    ]
}

/// A bpffs, and still the older way to attach.
pub(super) fn clsact_with_pins() -> ClusterOptions {
    ClusterOptions {
        agent: AgentOptions { attach: "clsact".to_owned(), ..AgentOptions::default() },
        topology: TopologyOptions::default(),
        ..ClusterOptions::default()
    }
}

/// A cluster and its folder.
pub(super) struct World {
    pub(super) cluster: Cluster,
    pub(super) backing: Vec<Backing>,
    folder: tempfile::TempDir,
}

/// Makes the remote host, which plays pods, a node of the cluster.
pub(super) fn put_remote_node(cluster: &Cluster) {
    let range = topology::REMOTE_POD_CIDR;
    let node = json!({
        "metadata": {"name": "node9"}, "spec": {"podCIDR": range, "podCIDRs": [range]},
        "status": {"addresses": [{"type": "InternalIP", "address": topology::REMOTE.to_string()}]},
    });
    cluster.put(Kind::Node, node).unwrap();
}

/// A flow from a port of a place that stays open.
pub(super) fn hold(place: &Place, transport: Transport, to: &str, port: u16) -> Held {
    let from = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
    Probe::new(place).hold(&ProbeCall::new(transport, to).from(from)).unwrap()
}

impl World {
    /// With a pod `client`.
    pub(super) fn start(purpose: &str, options: ClusterOptions) -> Self {
        let world = Self::bare(purpose, options);
        world.cluster.run_pods("client", &["client"]).unwrap();
        world
    }

    /// Without.
    pub(super) fn bare(purpose: &str, options: ClusterOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cluster = Cluster::start(&unique_prefix(purpose), folder.path(), options, |_, _| {}).unwrap();
        Self { cluster, backing: Vec::new(), folder }
    }

    /// A Service and the pods behind it, once it answers from the node.
    pub(super) fn serve(&self, service: &str, pods: &[&str]) {
        self.cluster.run_pods(service, pods).unwrap();
        self.cluster.put_service(service, Some(service), 8080).unwrap();
        self.answers(service);
    }

    /// Waits until a service answers.
    pub(super) fn answers(&self, service: &str) {
        let to = self.dial(service);
        self.cluster
            .wait(&format!("service {service} to answer"), Duration::from_secs(10), |cluster| {
                let node = cluster.node();
                let probe = Probe::new(&node);
                Ok(probe.tcp(&to)?.ok && probe.udp(&to)?.ok)
            })
            .unwrap();
    }

    /// Waits until somebody answers TCP there.
    pub(super) fn answers_tcp(&self, to: &str) {
        self.cluster
            .wait(&format!("{to} to answer"), Duration::from_secs(10), |cluster| {
                Ok(Probe::new(&cluster.node()).tcp(to)?.ok)
            })
            .unwrap();
    }

    /// The last line of the agent's log with this in it.
    pub(super) fn last_line(&self, words: &str) -> String {
        self.log().lines().rfind(|line| line.contains(words)).unwrap_or_default().to_owned()
    }

    /// All that the agent, and those before it, have logged.
    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(log_file(self.folder.path(), NODE_NAME)).unwrap()
    }

    /// How many lines of the agent's log have this in them.
    pub(super) fn lines(&self, words: &str) -> usize {
        let log = std::fs::read_to_string(log_file(self.folder.path(), NODE_NAME)).unwrap();
        log.lines().filter(|line| line.contains(words)).count()
    }

    /// What a client dials.
    pub(super) fn dial(&self, service: &str) -> String {
        format!("{}:80", self.cluster.vip(service).unwrap())
    }

    pub(super) fn pod(&self, name: &str) -> Place {
        self.cluster.pod(name).unwrap()
    }

    pub(super) fn clients(&self) -> [(&'static str, Place); 2] {
        [("pod", self.pod("client")), ("node", self.cluster.node())]
    }

    /// Waits until the agent's log has a line with all these words, and gives it back.
    pub(super) fn logged(&self, words: &[&str]) -> String {
        let find = |cluster: &Cluster| {
            let log = cluster.agent_log();
            let found = log.lines().find(|line| words.iter().all(|word| line.contains(word)));
            found.map(str::to_owned)
        };
        let what = format!("a line with {words:?}");
        self.cluster.wait(&what, Duration::from_secs(15), |cluster| Ok(find(cluster).is_some())).unwrap();
        find(&self.cluster).unwrap()
    }

    /// The rows of a map of this cluster's agent, as `bpftool` shows them.
    pub(super) fn rows(&self, map: &str) -> Vec<Value> {
        let id = self.map_id(map);
        let output = self
            .cluster
            .topology
            .node
            .command("bpftool")
            .args(["-j", "map", "dump", "id", &id.to_string()])
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "bpftool cannot dump {map}");
        let dump: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        // With BTF each row comes twice: in bytes, and by name.
        let mut rows: Vec<Value> = dump
            .into_iter()
            .map(|mut row| if row["formatted"].is_object() { row["formatted"].take() } else { row })
            .collect();
        rows.sort_by_key(Value::to_string);
        rows
    }

    /// Of a map that the running agent holds.
    pub(super) fn map_id(&self, map: &str) -> u64 {
        let pid = self.cluster.agent().unwrap().pid();
        let infos = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
        let ids = infos.filter_map(|info| {
            let text = std::fs::read_to_string(info.unwrap().path()).ok()?;
            text.lines().find_map(|line| line.strip_prefix("map_id:")?.trim().parse::<u64>().ok())
        });
        let is_it = |id: &u64| {
            let shown =
                self.cluster.topology.node.run(&["bpftool", "-j", "map", "show", "id", &id.to_string()]);
            let shown: Value = serde_json::from_str(&shown.unwrap()).unwrap();
            shown["name"] == map
        };
        ids.into_iter().find(is_it).unwrap_or_else(|| panic!("the agent holds no map {map}"))
    }
}
