//! A host that does nothing for us: strict reverse-path filters, and the packet filter of a machine with Docker
//! or ufw on it, where what nobody accepts is dropped and what conntrack calls invalid is dropped first.
//!
//! The rules are iptables' own chains, since that is where an agent must make itself heard. A node can still
//! reach others (probes, the API server): answers are `ESTABLISHED`.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};

use crate::node::Node;
use crate::serve::Transport;

/// For `iptables-restore`; the brackets make the policies count.
const RULES: &str = "\
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -m conntrack --ctstate INVALID -j DROP
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p icmp -j ACCEPT
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
";

/// Whether a bridge hands its packets to iptables.
const BRIDGE: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// A chain with a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    Input,
    Forward,
}

impl Chain {
    const fn name(self) -> &'static str {
        match self {
            Self::Input => "INPUT",
            Self::Forward => "FORWARD",
        }
    }
}

/// Packets that a chain has dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drops {
    /// Nobody accepted them.
    pub policy: u64,
    /// Conntrack did not know what to make of them.
    pub invalid: u64,
}

/// Makes a node hostile, the links it has and those that will come.
pub fn make(node: &Node, bridge_nf_call: bool) -> Result<()> {
    let mut names = vec!["all".to_owned(), "default".to_owned()];
    names.extend(node.links()?);
    for name in names {
        node.write(&format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"), "1")?;
    }
    node.run_with(&["iptables-restore"], RULES)?;
    set_bridge_nf_call(node, bridge_nf_call)
}

/// Accepts a port, or a range `FIRST:LAST`, as whoever runs a server on the node's own network does.
pub fn open(node: &Node, transport: Transport, ports: &str) -> Result<()> {
    let transport = transport.to_string();
    node.run(&["iptables", "-A", "INPUT", "-p", &transport, "--dport", ports, "-j", "ACCEPT"]).map(drop)
}

/// Whether what a bridge of this node switches goes through iptables, too.
pub fn set_bridge_nf_call(node: &Node, on: bool) -> Result<()> {
    node.write(BRIDGE, if on { "1" } else { "0" }).context("is br_netfilter missing?")
}

/// Turns checksum offload off on a link, so that every packet has its checksums in it.
pub fn offload_off(node: &Node, link: &str) -> Result<()> {
    node.run(&["ethtool", "-K", link, "tx", "off", "rx", "off"]).map(drop)
}

/// What a chain has dropped so far.
pub fn drops(node: &Node, chain: Chain) -> Result<Drops> {
    parse(&node.run(&["iptables-save", "-c", "-t", "filter"])?, chain)
}

/// The filter with its counters, for people to read.
pub fn describe(node: &Node) -> Result<String> {
    let mut text = String::new();
    for chain in [Chain::Input, Chain::Forward] {
        writeln!(text, "{}", node.run(&["iptables", "-nvxL", chain.name()])?)?;
    }
    Ok(text)
}

/// Reads `iptables-save -c`: `:CHAIN POLICY [packets:bytes]` and `[packets:bytes] -A CHAIN …`.
fn parse(text: &str, chain: Chain) -> Result<Drops> {
    let name = chain.name();
    let policy = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!(":{name} DROP ")))
        .with_context(|| format!("{name} does not drop what nobody accepts"))?;
    let rule = format!("-A {name} -m conntrack --ctstate INVALID -j DROP");
    let invalid = text
        .lines()
        .find_map(|line| line.strip_suffix(&rule))
        .with_context(|| format!("{name} does not drop what is invalid"))?;
    Ok(Drops { policy: packets(policy)?, invalid: packets(invalid)? })
}

fn packets(counter: &str) -> Result<u64> {
    let Some((packets, _)) = counter.trim_start_matches('[').split_once(':') else {
        bail!("{counter} is no counter");
    };
    packets.parse().with_context(|| format!("{counter} is no counter"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = "\
*filter
:INPUT DROP [3:180]
:FORWARD DROP [5:300]
:OUTPUT ACCEPT [7:420]
[1:40] -A INPUT -m conntrack --ctstate INVALID -j DROP
[2:80] -A FORWARD -m conntrack --ctstate INVALID -j DROP
COMMIT
";

    #[test]
    fn a_chain_s_own_counters_are_read() {
        assert_eq!(parse(SAVED, Chain::Input).unwrap(), Drops { policy: 3, invalid: 1 });
        assert_eq!(parse(SAVED, Chain::Forward).unwrap(), Drops { policy: 5, invalid: 2 });
    }

    #[test]
    fn a_chain_that_accepts_is_not_hostile() {
        assert!(parse(&SAVED.replace(":FORWARD DROP", ":FORWARD ACCEPT"), Chain::Forward).is_err());
        assert!(parse(&SAVED.replace("INVALID -j DROP", "INVALID -j LOG"), Chain::Input).is_err());
    }
}
