//! Where our own executables are: beside the one that runs, whether that is `lab` or a test in `deps/`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// The lab: `lab holder`, `lab enter` and the verbs for people.
pub fn lab_binary() -> Result<PathBuf> {
    beside("lab")
}

/// The agent.
pub fn agent_binary() -> Result<PathBuf> {
    beside("kube-router")
}

/// The first process of ours in a guest.
pub fn guest_init_binary() -> Result<PathBuf> {
    beside("guest-init")
}

fn beside(name: &str) -> Result<PathBuf> {
    let executable = std::env::current_exe().context("no name of the running executable")?;
    executable
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("{name} is not beside {}: run `cargo build` first", executable.display()))
}
