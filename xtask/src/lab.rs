//! `lab`: builds, and hands over to the `lab` program of package `router-tests`.

use std::process::Command;

use crate::run::{Outcome, cargo, must, target};
use crate::setup;

pub(crate) fn run(install: bool, arguments: &[String]) -> Outcome {
    setup::run(install, false)?;
    must(cargo().args(["build", "--locked", "--quiet"]))?;
    let mut lab = Command::new(target().join("debug/lab"));
    if arguments.is_empty()
        || arguments.first().is_some_and(|first| first.starts_with('-') && first != "--help")
    {
        lab.arg("up");
    }
    must(lab.args(arguments))
}
