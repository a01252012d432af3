//! A whole cluster: an API server, nodes with their network, and on each node a kubelet and the agent, started in that
//! order and taken down in reverse. The lab shows one of three nodes; the path tests send through one of a single node,
//! and where words here say "the node" they mean the first.
//!
//! The API server listens where the nodes' router is, so that they reach it as they would a real one, and on loopback
//! for us.

mod agent;
mod member;
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
use self::member::Member;
pub use self::member::log_file;
pub use self::workload::Backing;

use crate::apiserver::{ApiServer, Identity, Kind, Options};
use crate::enter::Place;
use crate::patience::patient;
use crate::peers::Bird;
use crate::sandbox::CONFLIST;
use crate::topology::three::SITES;
use crate::topology::{self, Shape, Topology, TopologyOptions};

/// The node's name.
pub const NODE_NAME: &str = "node1";
/// Where the conflist is, on the node.
pub const CONFLIST_PATH: &str = "/etc/cni/net.d/10-kuberouter.conflist";
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
    members: Vec<Member>,
    router: Option<Bird>,
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
        done(match options.topology.shape {
            Shape::OneNode => "hosts: a node, its router, a remote host",
            Shape::ThreeNodes => "hosts: three nodes in two subnets, their router, a client outside",
        });
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
        let runtime = Runtime::new().context("no runtime for the kubelets")?;
        let members =
            topology.nodes().zip(&SITES).map(|(host, site)| Member::new(host, site, folder)).collect();
        let folder = folder.to_owned();
        let mut cluster = Self { members, router: None, runtime, server, topology, options, folder };
        if cluster.options.topology.shape == Shape::ThreeNodes {
            cluster.router = Some(Bird::top_of_rack(&cluster.topology.router, &cluster.folder)?);
            done("BIRD on the router");
        }
        cluster.equip_nodes(api)?;
        cluster.start_kubelets(&admin)?;
        done("kubelets: the nodes are registered");
        cluster.start_agents()?;
        if cluster.options.conflist.is_none() {
            let what = "the agents to write pod ranges into the CNI files";
            cluster.wait(what, Duration::from_mins(1), |cluster| {
                cluster.members.iter().try_fold(true, |all, member| Ok(all && member.has_range()?))
            })?;
            done("agents: the CNI files have pod ranges");
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
    pub fn agent(&self) -> Option<&Agent> {
        self.members.first()?.agent.as_ref()
    }

    /// BIRD on the router of three nodes.
    pub fn router(&self) -> Result<&Bird> {
        self.router.as_ref().context("the router of one node speaks no BGP")
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
        self.members
            .iter()
            .find_map(|member| member.kubelet.as_ref()?.pod(namespace, name))
            .with_context(|| format!("pod {namespace}/{name} does not run"))
    }

    /// Runs the agent, again if it has been stopped.
    pub fn start_agent(&mut self) -> Result<()> {
        let member = self.members.first_mut().context("there is no node")?;
        member.start_agent(&self.options)
    }

    /// Replaces the agents' token: at the server, which no longer takes the old one, and in their files.
    pub fn renew_token(&self) -> Result<()> {
        let token = self.server.renew_agent_token();
        self.members.iter().try_for_each(|member| member.write_token(&token))
    }

    /// Ends the agent as SIGTERM does; how it ended, and how long that took.
    pub fn terminate_agent(&mut self) -> Result<(ExitStatus, Duration)> {
        let member = self.members.first_mut().context("there is no node")?;
        let mut agent = member.agent.take().context("no agent runs")?;
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
        if let Some(member) = self.members.first_mut() {
            member.agent = None;
        }
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

    /// The end of what the agents logged.
    pub fn agent_log(&self) -> String {
        let ends = self.members.iter().map(|member| {
            let text = fs::read_to_string(&member.log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n")
        });
        ends.collect::<Vec<_>>().join("\n\n")
    }

    fn equip_nodes(&self, api: SocketAddr) -> Result<()> {
        let token = self.server.token(Identity::Agent);
        let url = format!("https://{api}");
        let kubeconfig = self.server.kubeconfig_with_token_file(member::token_path(), &url);
        let conflist = self.options.conflist.as_deref().unwrap_or(CONFLIST);
        self.members.iter().try_for_each(|member| member.equip(&token, &kubeconfig, conflist))
    }

    fn start_kubelets(&mut self, kubeconfig: &Path) -> Result<()> {
        let config = Kubeconfig::read_from(kubeconfig)?;
        self.runtime.block_on(async {
            let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
            let client = Client::try_from(config)?;
            self.members.iter_mut().for_each(|member| member.start_kubelet(client.clone()));
            anyhow::Ok(())
        })?;
        self.wait("the kubelets to register their nodes", Duration::from_secs(10), |cluster| {
            let store = cluster.server.store();
            let mut members = cluster.members.iter();
            Ok(members.all(|member| store.get(Kind::Node, "", member.site.name).is_some()))
        })
    }

    fn start_agents(&mut self) -> Result<()> {
        self.members.iter_mut().try_for_each(|member| member.start_agent(&self.options))
    }

    /// With `tx off` also on what has come since the start, if the topology is so.
    pub fn settle_offload(&self) -> Result<()> {
        if self.options.topology.offload == topology::Offload::Off {
            self.topology.nodes().try_for_each(|node| self.topology.offload_off(node))?;
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
        for member in &mut self.members {
            member.agent = None;
        }
        let _inside = self.runtime.enter();
        self.members.clear();
    }
}
