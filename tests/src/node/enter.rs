//! `lab enter PID CGROUP -- PROGRAM ARGS…`: becomes a program of a node.
//!
//! The kernel lets only a process without other threads change its mount namespace, so no test does it itself:
//! this small one does, and then is the program, under the same process id.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};

/// In this order: after the last one, the paths of the others are out of sight.
const NAMESPACES: [(&str, CloneFlags); 4] = [
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ("net", CloneFlags::CLONE_NEWNET),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("mnt", CloneFlags::CLONE_NEWNS),
];

/// Takes what comes after `enter`; returns only if it failed.
pub fn main(arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let arguments: Vec<OsString> = arguments.collect();
    let [pid, cgroup, dashes, program, rest @ ..] = arguments.as_slice() else {
        bail!("usage: lab enter PID CGROUP -- PROGRAM ARGS…");
    };
    if dashes != "--" {
        bail!("lab enter: `--` comes before the program, not {}", dashes.display());
    }
    let procs = Path::new(cgroup).join("cgroup.procs");
    fs::write(&procs, "0").with_context(|| format!("cannot move into {}", procs.display()))?;
    let folder = Path::new("/proc").join(pid).join("ns");
    let mut opened = Vec::with_capacity(NAMESPACES.len());
    for (name, flag) in NAMESPACES {
        let path = folder.join(name);
        opened.push((File::open(&path).with_context(|| format!("no namespace {}", path.display()))?, flag));
    }
    for (namespace, flag) in opened {
        setns(namespace, flag).with_context(|| format!("cannot enter {flag:?}"))?;
    }
    let error = Command::new(program).args(rest).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}
