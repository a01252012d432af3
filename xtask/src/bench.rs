//! `bench`: builds, and hands over to `lab bench`.

use std::process::Command;

use crate::run::{Outcome, cargo, must, target};
use crate::setup;

pub(crate) fn run(install: bool, arguments: &[String]) -> Outcome {
    setup::run(install, false)?;
    must(cargo().args(["build", "--locked", "--quiet"]))?;
    must(Command::new(target().join("debug/lab")).arg("bench").args(arguments))
}
