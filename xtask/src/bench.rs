//! `bench`: hands over to `lab bench`.

use std::process::Command;

use crate::lab;
use crate::run::{Outcome, must};

pub(crate) fn run(install: bool, arguments: &[String]) -> Outcome {
    must(Command::new(lab::built(install)?).arg("bench").args(arguments))
}
