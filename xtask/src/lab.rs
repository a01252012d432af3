//! `lab`: builds, and becomes the `lab` program of package `router-tests`.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use crate::run::{Outcome, cargo, must, target};
use crate::setup;

pub(crate) fn run(install: bool, arguments: &[String]) -> Outcome {
    let program = built(install)?;
    // Under our process id: Ctrl-C and `kill` reach the lab alone, and the shell waits until it has cleaned up.
    let error = Command::new(&program).args(arguments).exec();
    Err(format!("cannot run {}: {error}", program.display()))
}

/// The `lab` program, built. Cargo says on standard error how far it is: the first time takes minutes.
pub(crate) fn built(install: bool) -> Outcome<PathBuf> {
    setup::run(install, false)?;
    must(cargo().args(["build", "--locked"]))?;
    Ok(target().join("debug/lab"))
}
