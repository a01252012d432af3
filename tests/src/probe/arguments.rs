//! A command line as `--name value`, `--flag` and words, each taken once, and nothing left over.

use std::{fmt::Display, str::FromStr};

use anyhow::{Context as _, Result, anyhow, bail};

pub(super) struct Arguments(Vec<String>);

impl Arguments {
    pub(super) fn new(arguments: Vec<String>) -> Self {
        Self(arguments)
    }

    pub(super) fn flag(&mut self, name: &str) -> bool {
        match self.0.iter().position(|argument| argument == name) {
            Some(at) => {
                self.0.remove(at);
                true
            }
            None => false,
        }
    }

    pub(super) fn option<T: FromStr<Err: Display>>(&mut self, name: &str) -> Result<Option<T>> {
        let Some(at) = self.0.iter().position(|argument| argument == name) else { return Ok(None) };
        self.0.remove(at);
        if at == self.0.len() {
            bail!("{name} needs a value");
        }
        parse(&self.0.remove(at)).map(Some)
    }

    pub(super) fn required<T: FromStr<Err: Display>>(&mut self, name: &str) -> Result<T> {
        self.option(name)?.with_context(|| format!("{name} is missing"))
    }

    /// The next word. Options must have been taken before.
    pub(super) fn word<T: FromStr<Err: Display>>(&mut self, what: &str) -> Result<T> {
        if self.0.is_empty() {
            bail!("{what} is missing");
        }
        parse(&self.0.remove(0))
    }

    pub(super) fn end(self) -> Result<()> {
        match self.0.first() {
            Some(extra) => bail!("what is {extra}?"),
            None => Ok(()),
        }
    }
}

fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T> {
    text.parse().map_err(|error| anyhow!("{text}: {error}"))
}
