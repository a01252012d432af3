//! What the agents say of themselves when they are asked: that all is well, and that nothing is left to change.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::facts::{Fact, Finding};
use crate::binaries::agent_binary;
use crate::cluster::Cluster;
use crate::node::Node;

/// Every fact.
pub(super) fn facts(cluster: &Cluster) -> Vec<Fact> {
    let nodes = cluster.topology.nodes();
    let told = nodes.flat_map(|node| {
        [
            Fact::new(format!("{} kube-router status", node.name), status(node)),
            Fact::new(format!("{} kube-router plan", node.name), plan(node)),
        ]
    });
    told.collect()
}

fn status(node: &Node) -> Result<Finding> {
    let said = ask(node, "status")?;
    let verdict = said.get("verdict").and_then(Value::as_str).unwrap_or("no verdict").to_owned();
    let problems = said.get("problems").and_then(Value::as_array).into_iter().flatten();
    let texts: Vec<&str> =
        problems.filter_map(|problem| problem.get("text").and_then(Value::as_str)).collect();
    let line = if texts.is_empty() { verdict.clone() } else { format!("{verdict}: {}", texts.join("; ")) };
    Ok((verdict == "OK", line, json!({"verdict": verdict})))
}

fn plan(node: &Node) -> Result<Finding> {
    let said = ask(node, "plan")?;
    let changes = said.get("changes").and_then(Value::as_array).context("a plan without changes")?;
    let line = match changes.first() {
        None => "nothing to change".to_owned(),
        Some(first) => format!("{} owners would be changed, such as {first}", changes.len()),
    };
    Ok((changes.is_empty(), line, json!({"changes": changes.len()})))
}

fn ask(node: &Node, command: &str) -> Result<Value> {
    let agent = agent_binary()?;
    let said = node.run(&[&agent.to_string_lossy(), command, "-o", "json"])?;
    serde_json::from_str(&said).with_context(|| format!("kube-router {command} wrote no JSON"))
}
