//! `check`: what a reviewer should not have to say.

use crate::run::{Outcome, cargo, must};

pub(crate) fn run() -> Outcome {
    must(cargo().args(["fmt", "--all", "--check"]))?;
    must(cargo().args(["clippy", "--locked", "--all-targets", "--quiet", "--", "-D", "warnings"]))?;
    must(cargo().args(["doc", "--locked", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    println!("check: formatting, lints and documentation are in order");
    Ok(())
}
