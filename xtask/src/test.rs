//! `test`: every tier, and one line at the end. A test that would be skipped here fails instead.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Instant;

use crate::run::{Outcome, cargo, must};
use crate::setup;

pub(crate) fn run(install: bool, filter: &[String]) -> Outcome {
    let start = Instant::now();
    setup::run(install, true)?;
    // The binaries that the tests run, and the object that they load.
    must(cargo().args(["build", "--locked"]))?;
    println!("built ({:.0} s)", start.elapsed().as_secs_f32());
    let mut tests = cargo()
        .args(["test", "--locked", "--no-fail-fast", "--"])
        .args(filter)
        .env(
            "ROUTER_TEST_REQUIRE",
            std::env::var("ROUTER_TEST_REQUIRE").unwrap_or("root,netns,vm,gobgp".into()),
        )
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run cargo test: {error}"))?;
    let mut sum = Sum::default();
    if let Some(stdout) = tests.stdout.take() {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            println!("{line}");
            sum.add(&line);
        }
    }
    let status = tests.wait().map_err(|error| format!("cargo test is gone: {error}"))?;
    println!("all tiers ({:.0} s)", start.elapsed().as_secs_f32());
    println!("{} passed, {} failed", sum.passed, sum.failed);
    if sum.passed == 0 && filter.is_empty() {
        return Err("no test ran".into());
    }
    if status.success() && sum.failed == 0 { Ok(()) } else { Err("tests failed".into()) }
}

#[derive(Default)]
struct Sum {
    passed: usize,
    failed: usize,
}

impl Sum {
    /// Adds what a libtest summary says: `test result: ok. 3 passed; 0 failed; …`.
    fn add(&mut self, line: &str) {
        let Some(summary) = line.strip_prefix("test result:") else { return };
        for part in summary.split(['.', ';']) {
            let mut words = part.split_whitespace();
            match (words.next().and_then(|word| word.parse::<usize>().ok()), words.next()) {
                (Some(number), Some("passed")) => self.passed += number,
                (Some(number), Some("failed")) => self.failed += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Sum;

    #[test]
    fn summaries_add_up() {
        let mut sum = Sum::default();
        sum.add(
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.49s",
        );
        sum.add(
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s",
        );
        sum.add("4 passed");
        assert_eq!((sum.passed, sum.failed), (4, 2));
    }
}
