//! What is said while a lab comes up: the steps, on standard error, so that standard output is the report's.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::interrupt::Interrupt;

/// A step that is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub step: String,
    pub seconds: f64,
}

/// The steps so far. None begins once somebody wants us to end.
pub(super) struct Steps<'a> {
    interrupt: &'a Interrupt,
    done: Vec<Step>,
}

impl<'a> Steps<'a> {
    pub(super) const fn new(interrupt: &'a Interrupt) -> Self {
        Self { interrupt, done: Vec::new() }
    }

    pub(super) fn run<T>(&mut self, step: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.interrupt.check()?;
        let start = Instant::now();
        let result = work().with_context(|| step.to_owned())?;
        self.note(step, start.elapsed());
        Ok(result)
    }

    pub(super) fn note(&mut self, step: &str, took: Duration) {
        // That nobody listens to the steps is no reason to end.
        let _ = writeln!(io::stderr(), "{:>7.2} s  {step}", took.as_secs_f64());
        self.done.push(Step { step: step.to_owned(), seconds: took.as_secs_f64() });
    }

    pub(super) fn into_done(self) -> Vec<Step> {
        self.done
    }
}

/// A line on standard output; an error if nobody listens any more.
pub(super) fn say(line: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("nobody reads what we say")
}
