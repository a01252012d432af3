//! What the lab finds out about BGP: who is a neighbour of whom, which routes that gave, and that the router keeps
//! what it learned to itself.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::facts::{Fact, Finding};
use crate::cluster::Cluster;
use crate::node::Node;
use crate::tools;
use crate::topology::three::{SITES, Site};

/// Every fact.
pub fn facts(cluster: &Cluster) -> Vec<Fact> {
    let mut facts = vec![
        Fact::new("router peers", router_peers(cluster)),
        Fact::new("router routes", router_routes(cluster)),
    ];
    for (node, site) in cluster.topology.nodes().zip(&SITES) {
        facts.push(Fact::new(format!("{} peers", site.name), peers(node, site)));
        facts.push(Fact::new(format!("{} routes", site.name), routes(node, site)));
        facts.push(Fact::new(format!("{} hears of no route from the router", site.name), heard(node, site)));
    }
    facts
}

/// By `birdc`: a session with each node.
fn router_peers(cluster: &Cluster) -> Result<Finding> {
    let said = cluster.router()?.ask("show protocols")?;
    let up = said.lines().filter(|line| line.contains("BGP") && line.contains("Established"));
    let up = up.filter_map(|line| line.split_whitespace().next()).map(str::to_owned);
    Ok(compare("established", up, SITES.iter().map(|site| site.name.to_owned())))
}

/// By `gobgp`: a session with each other node and with the router.
fn peers(node: &Node, site: &Site) -> Result<Finding> {
    let said = gobgp(node, &["neighbor"])?;
    let up = said.lines().filter(|line| line.contains("Establ"));
    let up = up.filter_map(|line| line.split_whitespace().next()).map(str::to_owned);
    let others = others(site).map(|other| other.address);
    let wanted = others.chain([site.router]).map(|address| address.to_string());
    Ok(compare("established", up, wanted))
}

/// What BIRD has put into the router's kernel: the pods of every node.
fn router_routes(cluster: &Cluster) -> Result<Finding> {
    let wanted = SITES.iter().map(|site| format!("{} via {}", site.pod_cidr, site.address));
    Ok(compare("learned", learned(&cluster.topology.router, "bird")?, wanted))
}

/// What the agent has put into the node's kernel: the pods of nodes in its subnet. Those of others are behind the
/// default route.
fn routes(node: &Node, site: &Site) -> Result<Finding> {
    let near = others(site).filter(|other| other.router == site.router);
    let wanted = near.map(|other| format!("{} via {}", other.pod_cidr, other.address));
    Ok(compare("learned", learned(node, "17")?, wanted))
}

fn heard(node: &Node, site: &Site) -> Result<Finding> {
    let said = gobgp(node, &["neighbor", &site.router.to_string(), "adj-in"])?;
    let heard = said.split_whitespace().filter(|word| word.contains('/')).map(str::to_owned);
    Ok(compare("heard", heard, []))
}

fn others(site: &Site) -> impl Iterator<Item = &'static Site> {
    SITES.iter().filter(move |other| *other != site)
}

fn learned(host: &Node, protocol: &str) -> Result<BTreeSet<String>> {
    let text = host.run(&["ip", "-4", "route", "show", "proto", protocol])?;
    Ok(text.lines().filter_map(|line| line.split(" dev ").next()).map(str::to_owned).collect())
}

fn gobgp(node: &Node, words: &[&str]) -> Result<String> {
    let [program, _] = tools::gobgps()?;
    let program = program.to_str().context("the path of gobgp is not UTF-8")?;
    node.run(&[&[program], words].concat())
}

fn compare(
    what: &str,
    found: impl IntoIterator<Item = String>,
    wanted: impl IntoIterator<Item = String>,
) -> Finding {
    let [found, wanted]: [BTreeSet<String>; 2] = [found.into_iter().collect(), wanted.into_iter().collect()];
    let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
    let mut line = match found.len() {
        0 => format!("none {what}"),
        count => format!("{count} {what}: {}", list(&found)),
    };
    let ok = found == wanted;
    if !ok {
        line = format!("{line}; there should be: {}", list(&wanted));
    }
    (ok, line, json!(found))
}
