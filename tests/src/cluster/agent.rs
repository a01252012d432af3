//! The agent as a process on its node, as a DaemonSet runs it.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::CONFLIST_PATH;
use crate::binaries::agent_binary;
use crate::node::Node;

/// What differs between agents.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    pub fast_path: bool,
    /// `auto`, `tcx` or `clsact`.
    pub attach: String,
    /// Flags beside these.
    pub more: Vec<String>,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self { fast_path: true, attach: "auto".to_owned(), more: Vec::new() }
    }
}

/// A running agent; dropping it kills it.
#[derive(Debug)]
pub struct Agent {
    process: Child,
}

impl Agent {
    pub(super) fn start(node: &Node, options: &AgentOptions, kubeconfig: &str, log: &Path) -> Result<Self> {
        let log = File::options().create(true).append(true).open(log).context("no log for the agent")?;
        let process = node
            .command(agent_binary()?)
            .arg(format!("--kubeconfig={kubeconfig}"))
            .arg(format!("--hostname-override={}", node.name))
            .arg("--dataplane=ebpf")
            .arg(format!("--fast-path={}", options.fast_path))
            .arg(format!("--attach={}", options.attach))
            .arg("-v=2")
            .args(&options.more)
            .env("KUBE_ROUTER_CNI_CONF_FILE", CONFLIST_PATH)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot run the agent")?;
        Ok(Self { process })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Asks it to end, by SIGTERM.
    pub fn terminate(&self) -> Result<()> {
        let pid = i32::try_from(self.pid()).context("its process id")?;
        kill(Pid::from_raw(pid), Signal::SIGTERM).context("cannot signal the agent")
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.process.try_wait().ok().flatten()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
