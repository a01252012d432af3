//! Accepts in the host's own firewall, where it has one.
//!
//! In nftables an accept ends one base chain only, and a drop in another is final; so where the host's `filter`
//! table drops what is forwarded or comes in (Docker, ufw), our accepts have to stand in it. They carry comments by
//! which operators know them, and are put back when they are missing.
//! Absent: anything that drops, and removal.

use anyhow::{Result, ensure};

use crate::sys::iptables::{Iptables, Rule};

/// Bit that our programs set on what they translated and passed to the stack.
pub(crate) const MARK: u32 = 1 << 27;

/// Rules for pods, whoever balances Services. `node_interfaces` are those that hold the node's addresses.
fn for_pods(node_interfaces: &[String]) -> Vec<Rule> {
    let mut rules = vec![
        forward("-i", "kube-bridge", "allow outbound traffic from pods"),
        forward("-o", "kube-bridge", "allow inbound traffic to pods"),
    ];
    rules.extend(node_interfaces.iter().map(|device| {
        let comment = "allow outbound node port traffic on node interface with which node ip is associated";
        forward("-o", device, comment)
    }));
    rules
}

/// Rules for Services that we balance.
fn for_services() -> [Rule; 4] {
    let mark = format!("{MARK:#x}/{MARK:#x}");
    let marked = ["-m", "mark", "--mark", &mark];
    [
        forward("-i", "kube-svc", "allow traffic to service addresses from kube-svc"),
        forward("-o", "kube-svc", "allow traffic to service addresses to kube-svc"),
        rule("INPUT", &marked, "allow service traffic to processes of this node"),
        rule("INPUT", &["-i", "kube-svc"], "allow service traffic from processes of this node"),
    ]
}

fn forward(direction: &str, device: &str, comment: &str) -> Rule {
    rule("FORWARD", &[direction, device], comment)
}

fn rule(chain: &'static str, matches: &[&str], comment: &str) -> Rule {
    let target = ["-m", "comment", "--comment", comment, "-j", "ACCEPT"];
    Rule { chain, arguments: matches.iter().chain(&target).map(ToString::to_string).collect() }
}

/// Puts the rules wherever a flavour of iptables filters, and says how many were missing. A rule that cannot be put
/// keeps back no other, and no other flavour; all that failed is returned.
pub(crate) fn ensure(node_interfaces: &[String]) -> Result<usize> {
    ensure_in(&Iptables::filtering(), &rules(node_interfaces))
}

/// The same where somebody else balances Services.
pub(crate) fn ensure_for_pods(node_interfaces: &[String]) -> Result<usize> {
    ensure_in(&Iptables::filtering(), &for_pods(node_interfaces))
}

fn rules(node_interfaces: &[String]) -> Vec<Rule> {
    for_pods(node_interfaces).into_iter().chain(for_services()).collect()
}

fn ensure_in(flavours: &[Iptables], rules: &[Rule]) -> Result<usize> {
    let mut inserted = 0;
    let mut failed = Vec::new();
    for iptables in flavours {
        let before = inserted;
        for rule in rules {
            match iptables.ensure(rule) {
                Ok(was_missing) => inserted += usize::from(was_missing),
                Err(failure) => failed.push(format!("{failure:#}")),
            }
        }
        if inserted > before {
            tracing::info!(
                program = iptables.name(),
                rules = inserted - before,
                "accepted our traffic in the host's firewall"
            );
        }
    }
    failed.dedup();
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(inserted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::{in_namespace, run};

    fn uplinks() -> Vec<String> {
        vec!["eth0".to_owned()]
    }

    #[test]
    fn a_host_without_a_firewall_gets_no_rule_and_no_table() {
        in_namespace(|| {
            assert_eq!(ensure(&uplinks()).unwrap(), 0);
            assert_eq!(run("nft list tables"), "");
        });
    }

    #[test]
    fn a_dropping_firewall_gets_each_rule_once_above_its_own() {
        in_namespace(|| {
            run(
                "iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -m conntrack --ctstate INVALID -j DROP",
            );
            run("iptables-nft -P INPUT DROP");
            assert_eq!(ensure(&uplinks()).unwrap(), 7);
            assert_eq!(ensure(&uplinks()).unwrap(), 0);
            let listing = run("iptables-nft -S");
            for rule in rules(&uplinks()) {
                let comment = rule.arguments.iter().find(|word| word.starts_with("allow")).unwrap();
                assert_eq!(listing.matches(comment.as_str()).count(), 1, "{listing}");
            }
            let drop = listing.find("INVALID -j DROP").unwrap();
            assert!(listing.find("allow inbound traffic to pods").unwrap() < drop, "{listing}");
            assert!(listing.contains("-A INPUT -m mark --mark 0x8000000/0x8000000"), "{listing}");
        });
    }

    #[test]
    fn without_services_of_ours_only_what_pods_need_is_accepted() {
        in_namespace(|| {
            run("iptables-nft -P FORWARD DROP; iptables-nft -P INPUT DROP");
            assert_eq!(ensure_for_pods(&uplinks()).unwrap(), 3);
            let listing = run("iptables-nft -S");
            assert!(listing.contains("-i kube-bridge") && listing.contains("-o eth0"), "{listing}");
            assert!(!listing.contains("kube-svc") && !listing.contains("-A INPUT"), "{listing}");
        });
    }

    /// With a kernel that lacks a match, or with a program that is half installed, one flavour fails.
    #[test]
    fn a_flavour_that_fails_is_reported_and_keeps_the_other_not_back() {
        in_namespace(|| {
            run("iptables-nft -P FORWARD DROP");
            let flavours = [Iptables::of("/nowhere/iptables"), Iptables::of("iptables-nft")];
            let failure = ensure_in(&flavours, &rules(&uplinks())).unwrap_err().to_string();
            assert!(failure.starts_with("cannot run /nowhere/iptables"), "{failure}");
            let listing = run("iptables-nft -S");
            assert_eq!(listing.matches("--comment").count(), 7, "{listing}");
        });
    }

    #[test]
    fn a_rule_that_fails_is_reported_and_keeps_the_others_not_back() {
        in_namespace(|| {
            run("iptables-nft -P FORWARD DROP");
            let refused = vec!["a device name that is too long".to_owned(), "eth0".to_owned()];
            let failure = ensure(&refused).unwrap_err().to_string();
            assert!(failure.contains(&refused[0]), "{failure}");
            let listing = run("iptables-nft -S");
            assert_eq!(listing.matches("--comment").count(), 7, "{listing}");
        });
    }

    #[test]
    fn a_deleted_rule_comes_back() {
        in_namespace(|| {
            run("iptables-nft -P FORWARD DROP");
            ensure(&uplinks()).unwrap();
            run("iptables-nft -D FORWARD 1");
            assert_eq!(ensure(&uplinks()).unwrap(), 1);
        });
    }
}
