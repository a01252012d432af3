//! BIRD as the top of rack of three nodes: it learns from them where pods and VIPs are, and tells them nothing, since
//! their default route leads to it anyhow.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

use super::Bird;
use crate::node::Node;
use crate::topology::ROUTER;
use crate::topology::three::{SITES, Site};

/// The router's AS number; the nodes have the agent's default.
pub const ROUTER_ASN: u32 = 64513;
const NODES_ASN: u32 = 64512;

impl Bird {
    /// On the router of [`crate::topology::three`].
    pub fn top_of_rack(router: &Arc<Node>, folder: &Path) -> Result<Self> {
        let mut configuration = format!(
            "router id {ROUTER};\n\
             protocol device {{ }}\n\
             protocol kernel {{ merge paths on; ipv4 {{ export where source = RTS_BGP; }}; }}\n\
             template bgp rack {{\n  local as {ROUTER_ASN};\n  connect delay time 1;\n  connect retry time 1;\n  \
             error wait time 1, 2;\n  ipv4 {{ import all; export none; }};\n}}\n"
        );
        for Site { name, address, .. } in &SITES {
            writeln!(
                configuration,
                "protocol bgp {name} from rack {{ neighbor {address} as {NODES_ASN}; }}"
            )?;
        }
        Self::start(router, folder, &configuration)
    }
}

/// The flags by which an agent has the router in its subnet as a neighbour.
pub fn flags(site: &Site) -> [String; 2] {
    [format!("--peer-router-ips={}", site.router), format!("--peer-router-asns={ROUTER_ASN}")]
}
