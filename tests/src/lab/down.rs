//! `lab down`: ends labs, and clears what is left of those that were killed.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::state::{Folder, LabState, labs, started};
use super::steps::say;
use crate::node;

/// How long a lab may take to end in order.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn run(id: Option<&str>) -> Result<()> {
    let mut said = false;
    for lab in labs()? {
        if lab.is_up() && id.is_none_or(|id| lab.id == id) {
            end(&lab)?;
            say(&format!("lab {} ended", lab.id))?;
            said = true;
        }
    }
    for what in clear_dead()? {
        say(&format!("removed {what}"))?;
        said = true;
    }
    if !said {
        say("there is nothing to end or to remove")?;
    }
    Ok(())
}

fn end(lab: &LabState) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(lab.pid).context("no process id")?);
    kill(pid, Signal::SIGTERM).with_context(|| format!("cannot end lab {}", lab.id))?;
    let start = Instant::now();
    while lab.is_up() {
        ensure!(start.elapsed() < PATIENCE, "lab {} (process {pid}) does not end", lab.id);
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Removes hosts and folders whose lab does not run any more; what they were.
pub(super) fn clear_dead() -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for prefix in node::prefixes()? {
        if owner(&prefix).is_some_and(|pid| started(pid).is_none()) {
            let hosts = node::sweep(&prefix)?;
            if hosts > 0 {
                removed.push(format!("{hosts} hosts of {prefix}"));
            }
        }
    }
    for lab in labs()?.into_iter().filter(|lab| !lab.is_up()) {
        removed.push(lab.folder().display().to_string());
        drop(Folder { path: lab.folder() });
    }
    Ok(removed)
}

/// The process that made hosts with a prefix of [`node::unique_prefix`].
fn owner(prefix: &str) -> Option<u32> {
    let (front, count) = prefix.strip_prefix("kr-")?.rsplit_once('-')?;
    count.parse::<u32>().ok()?;
    front.rsplit_once('-')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_tells_who_made_it() {
        assert_eq!(owner(&node::unique_prefix("a-purpose")), Some(std::process::id()));
        for other in ["system.slice", "kr-lab-12", "kr-lab-x-0", "kr-lab-12-y"] {
            assert_eq!(owner(other), None, "{other}");
        }
    }
}
