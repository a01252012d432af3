//! The agent's maps as `bpftool` in the node shows them. The layout in the path of the pins is the agent's business:
//! whatever folder is there is the one.

#![expect(clippy::indexing_slicing, reason = "JSON: a field that is missing reads as null")]

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::node::Node;

/// The maps whose fill is reported.
pub(super) const MAPS: [&str; 3] = ["FRONTENDS4", "BACKENDS4", "FLOWS4"];

/// How full a map is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fill {
    pub rows: u64,
    pub capacity: u64,
}

/// The folder of the agent's pins, as the node sees it.
pub(super) fn folder(node: &Node) -> Result<String> {
    let found =
        node.run(&["find", "/sys/fs/bpf/kube-router", "-mindepth", "1", "-maxdepth", "1", "-name", "v*"])?;
    found
        .lines()
        .next()
        .map(str::to_owned)
        .context("the agent has pinned nothing below /sys/fs/bpf/kube-router")
}

pub(super) fn fill(node: &Node, folder: &str, map: &str) -> Result<Fill> {
    let path = format!("{folder}/{map}");
    let about = bpftool(node, &["map", "show", "pinned", &path])?;
    let rows = bpftool(node, &["map", "dump", "pinned", &path])?;
    Ok(Fill {
        rows: rows.as_array().context("a dump is a list")?.len() as u64,
        capacity: about["max_entries"].as_u64().context("a map has a capacity")?,
    })
}

fn bpftool(node: &Node, words: &[&str]) -> Result<Value> {
    let text = node.run(&[&["bpftool", "-j"], words].concat())?;
    serde_json::from_str(&text).with_context(|| format!("bpftool {} wrote no JSON", words.join(" ")))
}
