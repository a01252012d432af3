//! Where the binaries of this workspace are: beside the executable that asks for them.

use std::{env, path::PathBuf};

use anyhow::{Context as _, Result, bail};

/// The `lab` binary, for a test executable (`target/debug/deps/all-…`) as well as for `lab` itself.
pub fn lab_binary() -> Result<PathBuf> {
    binary("lab")
}

/// A binary of the same build as the running executable.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("find the running executable")?;
    for directory in own.ancestors().skip(1).take(2) {
        let candidate = directory.join(name);
        if candidate.is_file() {
            return Ok(candidate);
        }
    }
    bail!("no {name} beside {}: build it first", own.display())
}
