//! A whole cluster of one node: an API server, the node with its network, a kubelet, and the agent, started in that
//! order and taken down in reverse. The lab shows it, the path tests send through it.
//!
//! The API server listens where the node's router is, so that the node reaches it as it would a real one, and on
//! loopback for us.

mod agent;
mod workload;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;
use tokio::runtime::Runtime;

pub use self::agent::{Agent, AgentOptions};
pub use self::workload::Backing;

use crate::apiserver::{ApiServer, Identity, Kind, Options};
use crate::enter::Place;
use crate::kubelet::{self, Kubelet};
use crate::patience::patient;
use crate::sandbox::CONFLIST;
use crate::topology::{self, Topology, TopologyOptions};

/// The node's name.
pub const NODE_NAME: &str = "node1";
/// Where the conflist is, on the node.
pub const CONFLIST_PATH: &str = "/etc/cni/net.d/10-kuberouter.conflist";
/// Where the agent's kubeconfig and token are, on the node.
const KUBECONFIG_PATH: &str = "/run/kube-router/kubeconfig";
const TOKEN_PATH: &str = "/run/kube-router/token";
/// The API server's port on the router's address.
const API_PORT: u16 = 6443;
/// The manifest whose `ClusterRole` the agent's token is held to.
const ROLE: &str = include_str!("../../deploy/kube-router.yaml");

/// How a cluster is to be.
#[derive(Clone, Debug, Default)]
pub struct ClusterOptions {
    pub topology: TopologyOptions,
    pub agent: AgentOptions,
    /// Let objects through that a real server refuses.
    pub lenient: bool,
    /// What the CNI file says before the agent's first start, if not what it should. Nobody waits for the agent then.
    pub conflist: Option<String>,
}

/// A running cluster.
pub struct Cluster {
    // In the order in which they go.
    agent: Option<Agent>,
    kubelet: Option<Kubelet>,
    runtime: Runtime,
    server: ApiServer,
    pub topology: Topology,
    options: ClusterOptions,
    /// Kubeconfig for us, and logs.
    folder: PathBuf,
}

impl Cluster {
    /// Starts one; `step` hears of each step when it is done, with the time it took.
    pub fn start(
        prefix: &str,
        folder: &Path,
        options: ClusterOptions,
        mut step: impl FnMut(&str, Duration),
    ) -> Result<Self> {
        let mut since = Instant::now();
        let mut done = |what: &str| {
            step(what, since.elapsed());
            since = Instant::now();
        };
        let topology = Topology::start(prefix, options.topology)?;
        done("hosts: a node, its router, a remote host");
        let api = SocketAddr::new(IpAddr::V4(topology::ROUTER), API_PORT);
        let server = ApiServer::start(Options {
            names: vec![api.ip().to_string()],
            role: Some(ROLE.to_owned()),
            validate: !options.lenient,
            ..Options::default()
        })?;
        server.listen_in(topology.router.listen(api)?)?;
        server.advertise(api)?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let admin = folder.join("kubeconfig");
        fs::write(&admin, server.kubeconfig(Identity::Admin, &server.url()))?;
        done("API server");
        let runtime = Runtime::new().context("no runtime for the kubelet")?;
        let mut cluster = Self {
            agent: None,
            kubelet: None,
            runtime,
            server,
            topology,
            options,
            folder: folder.to_owned(),
        };
        cluster.equip_node(api)?;
        cluster.start_kubelet(&admin)?;
        done("kubelet: the node is registered");
        cluster.start_agent()?;
        if cluster.options.conflist.is_none() {
            cluster.wait(
                "the agent to write the pod range into the CNI file",
                Duration::from_secs(20),
                |cluster| Ok(crate::sandbox::has_range(&cluster.topology.node.run(&["cat", CONFLIST_PATH])?)),
            )?;
            done("agent: the CNI file has a pod range");
        }
        Ok(cluster)
    }

    /// The API server.
    pub const fn server(&self) -> &ApiServer {
        &self.server
    }

    /// The kubeconfig for us.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// The agent, while it runs.
    pub const fn agent(&self) -> Option<&Agent> {
        self.agent.as_ref()
    }

    /// The node, as a place.
    pub fn node(&self) -> Place {
        self.topology.node.clone()
    }

    /// A pod that runs.
    pub fn pod(&self, name: &str) -> Result<Place> {
        self.pod_in("default", name)
    }

    /// The same in any namespace.
    pub fn pod_in(&self, namespace: &str, name: &str) -> Result<Place> {
        self.kubelet
            .as_ref()
            .and_then(|kubelet| kubelet.pod(namespace, name))
            .with_context(|| format!("pod {namespace}/{name} does not run"))
    }

    /// Runs the agent, again if it has been stopped.
    pub fn start_agent(&mut self) -> Result<()> {
        let log = self.folder.join("agent.log");
        self.agent = Some(Agent::start(&self.topology.node, &self.options.agent, KUBECONFIG_PATH, &log)?);
        Ok(())
    }

    /// Replaces the agent's token: at the server, which no longer takes the old one, and in the file.
    pub fn renew_token(&self) -> Result<()> {
        self.topology.node.write(TOKEN_PATH, &self.server.renew_agent_token())
    }

    /// Ends the agent as SIGTERM does; how it ended, and how long that took.
    pub fn terminate_agent(&mut self) -> Result<(ExitStatus, Duration)> {
        let mut agent = self.agent.take().context("no agent runs")?;
        let start = Instant::now();
        agent.terminate()?;
        loop {
            if let Some(status) = agent.ended() {
                return Ok((status, start.elapsed()));
            }
            if start.elapsed() > patient(Duration::from_secs(10)) {
                bail!("the agent does not end; it said:\n{}", self.agent_log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the agent as SIGKILL does.
    pub fn kill_agent(&mut self) {
        self.agent = None;
    }

    /// Replaces what the agent is told to do; it has to be started again.
    pub fn set_agent_options(&mut self, options: AgentOptions) {
        self.options.agent = options;
    }

    /// Waits until something holds; the error shows the end of the agent's log.
    pub fn wait(&self, what: &str, limit: Duration, holds: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let limit = patient(limit);
        let start = Instant::now();
        loop {
            let outcome = holds(self);
            if matches!(outcome, Ok(true)) {
                return Ok(());
            }
            if start.elapsed() > limit {
                let failure = outcome.err().map(|error| format!(" ({error:#})")).unwrap_or_default();
                bail!("waited {limit:?} in vain for {what}{failure}; the agent said:\n{}", self.agent_log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The end of what the agent logged.
    pub fn agent_log(&self) -> String {
        let text = fs::read_to_string(self.folder.join("agent.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n")
    }

    fn equip_node(&self, api: SocketAddr) -> Result<()> {
        let node = &self.topology.node;
        node.run(&["mkdir", "-p", "/run/kube-router"])?;
        node.write(TOKEN_PATH, &self.server.token(Identity::Agent))?;
        let kubeconfig =
            self.server.kubeconfig_with_token_file(Path::new(TOKEN_PATH), &format!("https://{api}"));
        node.write(KUBECONFIG_PATH, &kubeconfig)?;
        node.write(CONFLIST_PATH, self.options.conflist.as_deref().unwrap_or(CONFLIST))
    }

    fn start_kubelet(&mut self, kubeconfig: &Path) -> Result<()> {
        let place = self.node();
        let config = Kubeconfig::read_from(kubeconfig)?;
        let kubelet = self.runtime.block_on(async {
            let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
            let options = kubelet::Options {
                node_name: NODE_NAME.to_owned(),
                node_ip: topology::NODE.to_string(),
                conflist_path: CONFLIST_PATH.to_owned(),
                pod_cidr: Some(topology::NODE_POD_CIDR.to_owned()),
            };
            anyhow::Ok(Kubelet::start(Client::try_from(config)?, place, options))
        })?;
        self.kubelet = Some(kubelet);
        self.wait("the kubelet to register its node", Duration::from_secs(10), |cluster| {
            Ok(cluster.server.store().get(Kind::Node, "", NODE_NAME).is_some())
        })
    }

    /// With `tx off` also on what has come since the start, if the topology is so.
    pub fn settle_offload(&self) -> Result<()> {
        if self.options.topology.offload == topology::Offload::Off {
            self.topology.offload_off(&self.topology.node)?;
        }
        Ok(())
    }

    /// Adds an object as it is.
    pub fn put(&self, kind: Kind, object: serde_json::Value) -> Result<()> {
        self.server.store().put(kind, object).map(drop)
    }

    /// Takes one away.
    pub fn remove(&self, kind: Kind, name: &str) {
        let _ = self.server.store().remove(kind, "default", name);
    }

    /// The `ClusterIP` of a Service.
    pub fn vip(&self, service: &str) -> Result<String> {
        let object = self.server.store().get(Kind::Service, "default", service).context("no such Service")?;
        let vip = object.pointer("/spec/clusterIP").and_then(serde_json::Value::as_str);
        Ok(vip.unwrap_or_default().to_owned())
    }

    /// A label selector's Service with one TCP and one UDP port 80, to `target`.
    pub fn put_service(&self, name: &str, selector: Option<&str>, target: u16) -> Result<()> {
        let port = |protocol: &str| json!({"name": protocol.to_lowercase(), "protocol": protocol, "port": 80, "targetPort": target});
        let ports = json!([port("TCP"), port("UDP")]);
        let spec = match selector {
            Some(app) => json!({"ports": ports, "selector": {"app": app}}),
            None => json!({"ports": ports}),
        };
        self.put(Kind::Service, json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec}))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.agent = None;
        let _inside = self.runtime.enter();
        self.kubelet = None;
    }
}
