//! The path matrix: clients of every kind dial cluster IPs and node ports whose backends are of every kind, over TCP and
//! UDP, and for each it is said what came through, whom the backend saw, and which way the packets took.
//!
//! "Here" is the node that balances: the client's own for a cluster IP, the one whose address is dialled for a node
//! port. "There" is a node in the other subnet.

mod measure;
mod table;
mod world;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

pub(super) use self::table::table;
pub use self::world::{NAMESPACE, deploy, wait_settled};
use super::facts::Fact;
use super::source::Who;
use crate::cluster::Cluster;
use crate::enter::Place;
use crate::topology::REMOTE;
use crate::topology::three::{SITES, Site};

/// A cell, measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// `pod of node1 dials ClusterIP`.
    pub row: String,
    /// The node that balances, and the one in the other subnet.
    pub here: String,
    pub there: String,
    pub backend: Backend,
    pub protocol: String,
    /// Bytes that went there, and as many back.
    pub bytes: Option<usize>,
    /// Whom the backend saw, and whom it should see.
    pub source: Option<String>,
    pub expected: String,
    /// Whether the balancing node sends the flow past its stack; none if it has no row of it.
    pub fast: Option<bool>,
    pub error: Option<String>,
}

/// Where a backend is, from the node that balances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    PodHere,
    PodThere,
    HostNetworkHere,
    HostNetworkThere,
}

/// What cannot be tried, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impossible {
    pub row: String,
    pub why: String,
}

/// The whole matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    pub cells: Vec<Cell>,
    pub impossible: Vec<Impossible>,
}

/// What is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialled {
    ClusterIp,
    NodePort,
}

/// A client that dials, and the node that balances it.
struct Row {
    name: String,
    place: Place,
    who: Who,
    dialled: Dialled,
    here: &'static Site,
    there: &'static Site,
}

impl Backend {
    const ALL: [Self; 4] = [Self::PodHere, Self::PodThere, Self::HostNetworkHere, Self::HostNetworkThere];

    const fn name(self) -> &'static str {
        match self {
            Self::PodHere => "pod here",
            Self::PodThere => "pod there",
            Self::HostNetworkHere => "host network here",
            Self::HostNetworkThere => "host network there",
        }
    }
}

impl Cell {
    /// Everything came through, the backend saw whom it should, and the balancing node has the flow.
    pub fn is_right(&self) -> bool {
        self.bytes.is_some() && self.source.as_deref() == Some(&*self.expected) && self.fast.is_some()
    }

    /// Whether it needs node ports.
    pub fn is_by_node_port(&self) -> bool {
        self.row.contains(Dialled::NodePort.name())
    }

    pub(super) fn fact(&self) -> Fact {
        let fact = format!("{}: {}, {}", self.row, self.backend.name(), self.protocol);
        let figures = serde_json::to_value(self).unwrap_or_default();
        Fact { fact, ok: self.is_right(), line: self.line(), figures }
    }

    fn line(&self) -> String {
        let Self { bytes: Some(bytes), source: Some(source), expected, fast, .. } = self else {
            return self.error.clone().unwrap_or_default();
        };
        let path = match fast {
            Some(true) => "fast",
            Some(false) => "slow",
            None => "no flow",
        };
        let instead = if source == expected { String::new() } else { format!(", not {expected}") };
        format!("{bytes} {source} {path}{instead}")
    }
}

impl Dialled {
    const fn name(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
        }
    }
}

/// Measures every cell, all at once.
pub fn run(cluster: &Cluster) -> Result<Matrix> {
    Ok(Matrix { cells: measure::all(cluster, &rows(cluster)?)?, impossible: impossible() })
}

fn rows(cluster: &Cluster) -> Result<Vec<Row>> {
    let [node1, _, node3] = &SITES;
    let pod = |site: &Site| world::client(cluster, site);
    let process = |site: &Site| -> Result<Place> {
        let node = cluster.topology.nodes().find(|node| node.name == site.name);
        Ok(node.with_context(|| format!("there is no {}", site.name))?.clone())
    };
    let row = |client: &str, place, who, dialled: Dialled, here: &'static Site| {
        let there = if here == node1 { node3 } else { node1 };
        let whose = match dialled {
            Dialled::ClusterIp => String::new(),
            Dialled::NodePort => format!(" of {}", here.name),
        };
        let name = format!("{client} dials {}{whose}", dialled.name());
        Row { name, place, who, dialled, here, there }
    };
    let ((near, near_address), (far, far_address)) = (pod(node1)?, pod(node3)?);
    let outside: Place = cluster.topology.remote.clone();
    let (cluster_ip, node_port) = (Dialled::ClusterIp, Dialled::NodePort);
    Ok(vec![
        row("pod of node1", near.clone(), Who::Pod(near_address), cluster_ip, node1),
        row("pod of node3", far.clone(), Who::Pod(far_address), cluster_ip, node3),
        row("process of node1", process(node1)?, Who::Process, cluster_ip, node1),
        row("pod of node1", near, Who::Pod(near_address), node_port, node1),
        row("pod of node3", far, Who::Abroad(far_address), node_port, node1),
        row("process of node3", process(node3)?, Who::Abroad(node3.address), node_port, node1),
        row("client outside", outside, Who::Abroad(REMOTE), node_port, node1),
    ])
}

fn impossible() -> Vec<Impossible> {
    let says = |row: &str, why: &str| Impossible { row: row.to_owned(), why: why.to_owned() };
    vec![
        says(
            "client outside dials ClusterIP",
            "the nodes announce no ClusterIP here (--advertise-cluster-ip is off), and their uplinks balance none: \
             what reaches a node is led to kube-svc, which refuses all but the node's own processes",
        ),
        says(
            "process of node1 dials NodePort of node1",
            "a node's packets to its own address go by lo, where no program is attached",
        ),
    ]
}
