//! The host's own `iptables`: which of its two flavours carries the rules, and single rules put at the top.
//!
//! Only where the host filters already: in an empty table there is nothing to accept over, and a rule of ours would
//! be the first to bring the table into being. Absent: which rules (`node/firewall.rs`), and any of our own tables,
//! which are nftables.

use std::io;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};

/// A rule: a chain of the table `filter`, and the match with its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub chain: &'static str,
    pub arguments: Vec<String>,
}

/// A flavour's program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Iptables {
    program: &'static str,
}

impl Iptables {
    /// Every flavour whose table `filter` holds a rule, or a policy other than ACCEPT.
    pub(crate) fn filtering() -> Vec<Self> {
        let mut found: Vec<Self> = ["iptables-nft", "iptables-legacy"]
            .into_iter()
            .map(|program| Self { program })
            .filter(|flavour| flavour.filters().unwrap_or(false))
            .collect();
        let default = Self { program: "iptables" };
        let flavoured = ["iptables-nft", "iptables-legacy"].into_iter().any(exists);
        if found.is_empty() && !flavoured && default.filters().unwrap_or(false) {
            found.push(default);
        }
        found
    }

    /// The flavour with this program.
    #[cfg(test)]
    pub(crate) const fn of(program: &'static str) -> Self {
        Self { program }
    }

    /// The name of its program.
    pub(crate) const fn name(&self) -> &'static str {
        self.program
    }

    fn filters(&self) -> io::Result<bool> {
        // Merely listing loads the table of the legacy flavour, which then costs every packet.
        if self.program == "iptables-legacy" {
            let tables = std::fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
            if !tables.lines().any(|table| table == "filter") {
                return Ok(false);
            }
        }
        let listing = self.run(&["-S"])?;
        let text = String::from_utf8_lossy(&listing.stdout);
        Ok(listing.status.success()
            && text.lines().any(|line| !(line.starts_with("-P ") && line.ends_with(" ACCEPT"))))
    }

    /// Puts a rule at the top of its chain unless it stands somewhere in it. Says whether it had to.
    pub(crate) fn ensure(&self, rule: &Rule) -> Result<bool> {
        let mut arguments = vec!["-C", rule.chain];
        arguments.extend(rule.arguments.iter().map(String::as_str));
        if self.run(&arguments).with_context(|| format!("cannot run {}", self.program))?.status.success() {
            return Ok(false);
        }
        let mut arguments = vec!["-I", rule.chain, "1"];
        arguments.extend(rule.arguments.iter().map(String::as_str));
        self.must(&arguments)?;
        Ok(true)
    }

    fn must(&self, arguments: &[&str]) -> Result<()> {
        let output = self.run(arguments)?;
        ensure!(
            output.status.success(),
            "{} {}: {}",
            self.program,
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    /// Waits for the lock that other users of the legacy flavour take.
    fn run(&self, arguments: &[&str]) -> io::Result<Output> {
        Command::new(self.program).args(["-w", "5"]).args(arguments).output()
    }
}

fn exists(program: &str) -> bool {
    Command::new(program).arg("-V").output().is_ok()
}
