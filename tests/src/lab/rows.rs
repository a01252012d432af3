//! The agent's maps as `bpftool` in the node shows them. The layout in the path of the pins is the agent's business:
//! whatever folder is there is the one.

#![expect(clippy::indexing_slicing, reason = "JSON: a field that is missing reads as null")]

use std::collections::BTreeMap;
use std::net::SocketAddrV4;

use anyhow::{Context as _, Result};
use router_common::abi::{flow_flags, protocol};
use serde_json::Value;

use crate::node::Node;
use crate::serve::Transport;

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

/// Who dials what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Dialogue {
    pub transport: Transport,
    pub client: SocketAddrV4,
    pub frontend: SocketAddrV4,
}

/// The flows that clients' rows tell of, and whether each is fast.
pub(super) fn flows(node: &Node, folder: &str) -> Result<BTreeMap<Dialogue, bool>> {
    let mut flows = BTreeMap::new();
    for map in ["FLOWS4", "FLOWS_NEW4"] {
        let rows = bpftool(node, &["map", "dump", "pinned", &format!("{folder}/{map}")])?;
        for row in rows.as_array().context("a dump is a list")? {
            let (key, flow) = (&row["formatted"]["key"], &row["formatted"]["value"]);
            let transport = match key["protocol"].as_u64().and_then(|number| u8::try_from(number).ok()) {
                Some(protocol::TCP) => Transport::Tcp,
                Some(protocol::UDP) => Transport::Udp,
                _ => continue,
            };
            let flags = flow["flags"].as_u64().unwrap_or_default();
            let has = |flag: u16| flags & u64::from(flag) != 0;
            if !has(flow_flags::CLIENT) {
                continue;
            }
            let (Some(client), Some(frontend)) = (end(flow, "client"), end(flow, "frontend")) else {
                continue;
            };
            flows.insert(Dialogue { transport, client, frontend }, has(flow_flags::FAST));
        }
    }
    Ok(flows)
}

/// Address and port of `client` or `frontend`.
fn end(flow: &Value, name: &str) -> Option<SocketAddrV4> {
    let octets: [u8; 4] = serde_json::from_value(flow[name].clone()).ok()?;
    let port = u16::try_from(flow[format!("{name}_port")].as_u64()?).ok()?;
    Some(SocketAddrV4::new(octets.into(), port))
}

fn bpftool(node: &Node, words: &[&str]) -> Result<Value> {
    let text = node.run(&[&["bpftool", "-j"], words].concat())?;
    serde_json::from_str(&text).with_context(|| format!("bpftool {} wrote no JSON", words.join(" ")))
}
