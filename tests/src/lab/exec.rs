//! `lab exec` and `lab env`: other programs in a lab that runs.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

use anyhow::{Context as _, Result, bail};

use super::state::{self, Host, LabState};
use super::steps::say;
use crate::cluster::log_file;
use crate::tools;

/// Becomes a program on a host or in a pod; returns only if that fails.
pub(super) fn run(id: Option<&str>, host: &str, words: &[String]) -> Result<ExitCode> {
    let lab = state::find(id)?;
    let mut command = match host.strip_prefix("pod/") {
        None => enter(find_host(&lab, host)?)?,
        Some(pod) => {
            let (node, namespace) = find_pod(&lab, pod)?;
            let mut command = enter(node)?;
            command.args(["ip", "netns", "exec", &namespace]);
            command
        }
    };
    command.env("PATH", path()?);
    Err(command.args(words).exec()).with_context(|| format!("cannot run {}", words.join(" ")))
}

pub(super) fn print_log(id: Option<&str>, node: &str) -> Result<()> {
    let lab = state::find(id)?;
    find_host(&lab, node)?;
    let log = log_file(&lab.folder(), node);
    say(fs::read_to_string(&log).with_context(|| format!("no agent runs on {node}"))?.trim_end())
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

/// The node of a pod, and its network namespace by the name that the node has for it: `NAMESPACE-NAME-UID`.
fn find_pod<'a>(lab: &'a LabState, pod: &str) -> Result<(&'a Host, String)> {
    let wanted = pod
        .split_once('/')
        .map_or_else(|| format!("default-{pod}"), |(space, name)| format!("{space}-{name}"));
    let mut known = Vec::new();
    for host in &lab.hosts {
        for namespace in namespaces(host)? {
            let Some((name, _)) = namespace.rsplit_once('-') else { continue };
            if name == wanted {
                return Ok((host, namespace));
            }
            known.push(name.to_owned());
        }
    }
    known.sort();
    bail!("no pod {pod} with a network of its own (as NAMESPACE-NAME): {}", known.join(" "))
}

fn namespaces(host: &Host) -> Result<Vec<String>> {
    let folder = PathBuf::from(format!("/proc/{}/root/run/netns", host.pid));
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).into_iter().flatten() {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

/// What is on the PATH, our own programs (`kube-router`) before it, and the system's (`bpftool`) and those that `setup`
/// has unpacked (`birdc`, `gobgp`) after it.
fn path() -> Result<std::ffi::OsString> {
    let executable = env::current_exe().context("no name of the running executable")?;
    let own = executable.parent().map(Path::to_owned);
    let given = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    let unpacked =
        [tools::bird().ok().map(|bird| bird.birdc), tools::gobgps().ok().map(|[newest, _]| newest)];
    let unpacked = unpacked.into_iter().flatten().filter_map(|program| program.parent().map(Path::to_owned));
    env::join_paths(own.into_iter().chain(env::split_paths(&given)).chain(system).chain(unpacked))
        .context("no PATH can be made")
}
