//! nftables: a table as text, read and written by the program `nft`, each script one transaction.
//!
//! Absent: what the text says (`node/egress/ruleset.rs`), and word of changes (`sys/netlink/table_events.rs`).

use std::io::{self, Write as _};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

/// A table as `nft` lists it; `None` if there is none of this name.
pub(crate) fn list(family: &str, table: &str) -> Result<Option<String>> {
    let output = run(&["list", "table", family, table], "")?;
    if output.status.success() {
        return Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()));
    }
    let said = said(&output);
    if said.contains("No such file or directory") {
        return Ok(None);
    }
    bail!("nft list table {family} {table}: {said}")
}

/// Carries out all of a script, or nothing of it.
pub(crate) fn apply(script: &str) -> Result<()> {
    let output = run(&["-f", "-"], script)?;
    ensure!(output.status.success(), "nft -f -: {}", said(&output));
    Ok(())
}

/// Whether this is the error of a host without the program.
pub(crate) fn is_missing(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::NotFound)
}

/// What went wrong is told in the host's language, unless that is C.
fn run(arguments: &[&str], input: &str) -> Result<Output> {
    let spawned = Command::new("nft")
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.context("cannot run nft")?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends before it has read everything says why itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output().context("cannot wait for nft")
}

/// On one line: `nft` quotes the script below its message.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned()
}
