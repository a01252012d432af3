//! `lab exec` and `lab env`: other programs in a lab that runs.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

use anyhow::{Context as _, Result, bail};

use super::state::{self, Host, LabState};
use super::steps::say;

/// Becomes a program on a host or in a pod; returns only if that fails.
pub(super) fn run(id: Option<&str>, host: &str, words: &[String]) -> Result<ExitCode> {
    let lab = state::find(id)?;
    let mut command = match host.strip_prefix("pod/") {
        None => enter(find_host(&lab, host)?)?,
        Some(pod) => {
            let node = find_host(&lab, crate::cluster::NODE_NAME)?;
            let mut command = enter(node)?;
            command.args(["ip", "netns", "exec", &find_pod(node, pod)?]);
            command
        }
    };
    command.env("PATH", path()?);
    Err(command.args(words).exec()).with_context(|| format!("cannot run {}", words.join(" ")))
}

pub(super) fn print_env(id: Option<&str>) -> Result<()> {
    say(&format!("export KUBECONFIG={}", state::find(id)?.folder().join("kubeconfig").display()))
}

fn enter(host: &Host) -> Result<Command> {
    let mut command = Command::new(env::current_exe().context("no name of the running executable")?);
    command.arg("enter").arg(host.pid.to_string()).arg(&host.cgroup).arg("--");
    Ok(command)
}

fn find_host<'a>(lab: &'a LabState, name: &str) -> Result<&'a Host> {
    let found = lab.hosts.iter().find(|host| host.name == name);
    found.with_context(|| {
        let names: Vec<&str> = lab.hosts.iter().map(|host| host.name.as_str()).collect();
        format!("lab {} has no host {name}: it has {} and pod/NAME", lab.id, names.join(", "))
    })
}

/// The network namespace of a pod, by the name the node has for it: `NAMESPACE-NAME-UID`.
fn find_pod(node: &Host, pod: &str) -> Result<String> {
    let wanted = pod
        .split_once('/')
        .map_or_else(|| format!("default-{pod}"), |(space, name)| format!("{space}-{name}"));
    let folder = PathBuf::from(format!("/proc/{}/root/run/netns", node.pid));
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).into_iter().flatten() {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    for name in &names {
        if name.rsplit_once('-').is_some_and(|(known, _)| known == wanted) {
            return Ok(name.clone());
        }
    }
    let known: Vec<&str> = names.iter().filter_map(|name| Some(name.rsplit_once('-')?.0)).collect();
    bail!("no pod {pod} with a network of its own (as NAMESPACE-NAME): {}", known.join(" "))
}

/// What is on the PATH, our own programs (`kube-router`) before it, and the system's (`bpftool`) after it.
fn path() -> Result<std::ffi::OsString> {
    let executable = env::current_exe().context("no name of the running executable")?;
    let own = executable.parent().map(Path::to_owned);
    let given = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    env::join_paths(own.into_iter().chain(env::split_paths(&given)).chain(system))
        .context("no PATH can be made")
}
