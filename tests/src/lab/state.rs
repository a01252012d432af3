//! What a lab leaves on disk for `lab exec`, `env` and `down`: `/run/kube-router-lab/ID`, with the kubeconfig, the
//! agent's log and `lab.json`, which says where its hosts are.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::topology::Topology;

/// Where labs have their folders.
pub const FOLDER: &str = "/run/kube-router-lab";

/// A lab's folder; it goes when this is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
}

/// A lab as other processes find it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabState {
    pub id: String,
    /// The process of `lab up`, and when it started: process ids are used again.
    pub pid: u32,
    pub started: u64,
    pub hosts: Vec<Host>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    pub name: String,
    /// Of its holder.
    pub pid: u32,
    pub cgroup: PathBuf,
}

impl Folder {
    pub(super) fn make(id: &str) -> Result<Self> {
        let path = Path::new(FOLDER).join(id);
        // A lab that ends now may take the empty parent away between two steps of ours.
        let made = fs::create_dir_all(&path).or_else(|_| fs::create_dir_all(&path));
        made.with_context(|| format!("cannot make {}", path.display()))?;
        let folder = Self { path };
        folder.write(&LabState::of_us(id, Vec::new())?)?;
        Ok(folder)
    }

    pub(super) fn write(&self, state: &LabState) -> Result<()> {
        // In place at once: others may read it now.
        let new = self.path.join("lab.json.new");
        fs::write(&new, serde_json::to_vec_pretty(state)?)?;
        fs::rename(&new, self.path.join("lab.json")).context("cannot write lab.json")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
        // Fails while another lab has its folder there.
        let _ = fs::remove_dir(FOLDER);
    }
}

impl LabState {
    fn of_us(id: &str, hosts: Vec<Host>) -> Result<Self> {
        let pid = std::process::id();
        Ok(Self { id: id.to_owned(), pid, started: started(pid).context("no /proc/self/stat")?, hosts })
    }

    pub(super) fn of_topology(id: &str, topology: &Topology) -> Result<Self> {
        let hosts = topology.hosts().map(|host| Host {
            name: host.name.clone(),
            pid: host.pid(),
            cgroup: host.cgroup_path().to_owned(),
        });
        Self::of_us(id, hosts.collect())
    }

    pub fn folder(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.id)
    }

    /// Whether its `lab up` still runs.
    pub fn is_up(&self) -> bool {
        started(self.pid) == Some(self.started)
    }
}

/// Every lab that has a folder, the oldest first.
pub fn labs() -> Result<Vec<LabState>> {
    let entries = match fs::read_dir(FOLDER) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("cannot list {FOLDER}"))?,
    };
    let mut labs = Vec::new();
    for entry in entries {
        let path = entry?.path().join("lab.json");
        match fs::read(&path) {
            Ok(text) => labs.push(serde_json::from_slice::<LabState>(&text).context("a lab.json")?),
            // It goes or comes right now.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }
    labs.sort_by_key(|lab| lab.started);
    Ok(labs)
}

/// The lab with this id, or the newest whose hosts stand.
pub fn find(id: Option<&str>) -> Result<LabState> {
    let mut up: Vec<LabState> =
        labs()?.into_iter().filter(|lab| lab.is_up() && !lab.hosts.is_empty()).collect();
    let Some(id) = id else { return up.pop().context("no lab is up: start one with `cargo xtask lab`") };
    let known: Vec<String> = up.iter().map(|lab| lab.id.clone()).collect();
    match up.into_iter().find(|lab| lab.id == id) {
        Some(lab) => Ok(lab),
        None => bail!("no lab {id} is up; there is: {}", known.join(" ")),
    }
}

/// When a process started, in the kernel's ticks since boot; none if there is no such process or only its corpse.
pub(super) fn started(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_start_until_it_has_ended() {
        let own = started(std::process::id()).unwrap();
        assert_eq!(started(std::process::id()), Some(own));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(started(child.id()).unwrap() >= own);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(started(child.id()), None);
    }
}
