//! How a guest says what it found: lines on its second serial port, so that the console stays the kernel's.

use std::io::{self, Write};

/// The guest's end of the line.
pub const PORT: &str = "/dev/ttyS1";
const STARTED: &str = "STARTED";
const DONE: &str = "DONE";
const RESULT: &str = "RESULT";

/// One thing that the guest found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub name: String,
    /// What it says for itself: a figure, or what went wrong.
    pub outcome: Result<String, String>,
}

/// What came out of a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    pub findings: Vec<Finding>,
    /// The command ran to its end.
    pub done: bool,
}

impl Findings {
    /// Reads lines; the last may be incomplete.
    pub fn parse(text: &str) -> Self {
        let mut read = Self::default();
        for line in text.lines() {
            let mut fields = line.trim_end_matches('\r').split('\t');
            match (fields.next(), fields.next(), fields.next(), fields.next()) {
                (Some(DONE), ..) => read.done = true,
                (Some(RESULT), Some(name), Some(kind), Some(text)) => {
                    let text = unescape(text);
                    let outcome = if kind == "ok" { Ok(text) } else { Err(text) };
                    read.findings.push(Finding { name: name.to_owned(), outcome });
                }
                _ => {}
            }
        }
        read
    }
}

/// Speaks to the host.
#[derive(Debug)]
pub struct Reporter<W> {
    to: W,
}

impl<W: Write> Reporter<W> {
    /// Says that the command runs.
    pub fn start(mut to: W) -> io::Result<Self> {
        writeln!(to, "{STARTED}")?;
        Ok(Self { to })
    }

    /// Says one thing, at once.
    pub fn report(&mut self, name: &str, outcome: Result<&str, &str>) -> io::Result<()> {
        let (kind, text) = match outcome {
            Ok(text) => ("ok", text),
            Err(text) => ("failed", text),
        };
        // One write, so that nothing comes between.
        let line = format!("{RESULT}\t{}\t{kind}\t{}\n", escape(name), escape(text));
        self.to.write_all(line.as_bytes())
    }

    /// Says that nothing more comes.
    pub fn done(mut self) -> io::Result<()> {
        writeln!(self.to, "{DONE}")
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t").replace('\r', "")
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, character == '\\') {
            (_, true) => match characters.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                other => out.extend(other),
            },
            (character, false) => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reported_is_what_is_read() {
        let mut wire = Vec::new();
        let mut reporter = Reporter::start(&mut wire).unwrap();
        reporter.report("a name", Ok("12")).unwrap();
        reporter.report("another", Err("tab\t, line\nand \\n")).unwrap();
        let half = Findings::parse(std::str::from_utf8(reporter.to).unwrap());
        assert!(!half.done);
        reporter.done().unwrap();
        let whole = Findings::parse(&String::from_utf8(wire).unwrap().replace('\n', "\r\n"));
        assert!(whole.done);
        assert_eq!(whole.findings, half.findings);
        let outcomes: Vec<_> = whole.findings.into_iter().map(|one| one.outcome).collect();
        assert_eq!(outcomes, [Ok("12".to_owned()), Err("tab\t, line\nand \\n".to_owned())]);
    }
}
