//! One node of a cluster: its files, its kubelet and its agent.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use kube::Client;

use super::{Agent, CONFLIST_PATH, ClusterOptions};
use crate::kubelet::{self, Kubelet};
use crate::node::Node;
use crate::peers::top_of_rack;
use crate::topology::Shape;
use crate::topology::three::Site;

/// Where the agent's kubeconfig and token are, on the node.
const KUBECONFIG_PATH: &str = "/run/kube-router/kubeconfig";
const TOKEN_PATH: &str = "/run/kube-router/token";

/// A node and what runs on it, in the order in which that goes.
pub(super) struct Member {
    pub(super) agent: Option<Agent>,
    pub(super) kubelet: Option<Kubelet>,
    pub(super) host: Arc<Node>,
    pub(super) site: &'static Site,
    /// What the agent says.
    pub(super) log: PathBuf,
}

/// Where the agent of a node of this name says what it says.
pub fn log_file(folder: &Path, node: &str) -> PathBuf {
    folder.join(format!("agent-{node}.log"))
}

impl Member {
    pub(super) fn new(host: &Arc<Node>, site: &'static Site, folder: &Path) -> Self {
        let log = log_file(folder, site.name);
        Self { agent: None, kubelet: None, host: Arc::clone(host), site, log }
    }

    /// Puts on the node what is there before the agent first starts.
    pub(super) fn equip(&self, token: &str, kubeconfig: &str, conflist: &str) -> Result<()> {
        self.host.run(&["mkdir", "-p", "/run/kube-router"])?;
        self.write_token(token)?;
        self.host.write(KUBECONFIG_PATH, kubeconfig)?;
        self.host.write(CONFLIST_PATH, conflist)
    }

    pub(super) fn write_token(&self, token: &str) -> Result<()> {
        self.host.write(TOKEN_PATH, token)
    }

    /// Runs the kubelet in the current runtime.
    pub(super) fn start_kubelet(&mut self, client: Client) {
        let options = kubelet::Options {
            node_name: self.site.name.to_owned(),
            node_ip: self.site.address.to_string(),
            conflist_path: CONFLIST_PATH.to_owned(),
            pod_cidr: Some(self.site.pod_cidr.to_owned()),
        };
        self.kubelet = Some(Kubelet::start(client, self.host.clone(), options));
    }

    /// Where there are several subnets, the router is a neighbour too.
    pub(super) fn start_agent(&mut self, options: &ClusterOptions) -> Result<()> {
        let mut agent = options.agent.clone();
        if options.topology.shape == Shape::ThreeNodes {
            agent.more.extend(top_of_rack::flags(self.site));
        }
        let agent = Agent::start(&self.host, &agent, KUBECONFIG_PATH, &self.log);
        self.agent = Some(agent.with_context(|| format!("{} has no agent", self.site.name))?);
        Ok(())
    }

    /// Whether the agent has written the pod range into the CNI file.
    pub(super) fn has_range(&self) -> Result<bool> {
        Ok(crate::sandbox::has_range(&self.host.run(&["cat", CONFLIST_PATH])?))
    }
}

/// The path of the token, for whoever writes a kubeconfig.
pub(super) fn token_path() -> &'static Path {
    Path::new(TOKEN_PATH)
}
