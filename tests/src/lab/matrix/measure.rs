//! Measures cells: all of them at once, since a path that does not work is waited for; then the flows they made are
//! read from the maps of the nodes that balanced.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::thread;

use anyhow::{Context as _, Result, anyhow};

use super::world::{self, Target};
use super::{Backend, Cell, Row};
use crate::cluster::Cluster;
use crate::lab::rows::{self, Dialogue};
use crate::lab::source::expected;
use crate::node::Node;
use crate::probe::{Probe, ProbeResult};
use crate::serve::Transport;

/// Bytes there, and as many back: many segments, or one datagram.
const fn size(transport: Transport) -> usize {
    match transport {
        Transport::Tcp => 64 << 10,
        Transport::Udp => 1000,
    }
}

/// What one cell dials, and what came of it.
struct Trial<'a> {
    row: &'a Row,
    backend: Backend,
    transport: Transport,
    target: Target,
    result: Result<ProbeResult>,
}

pub(super) fn all(cluster: &Cluster, rows: &[Row]) -> Result<Vec<Cell>> {
    let trials = thread::scope(|scope| {
        let mut running = Vec::new();
        for row in rows {
            for transport in [Transport::Tcp, Transport::Udp] {
                for backend in Backend::ALL {
                    let target = world::target(cluster, row, backend, transport)?;
                    running.push(scope.spawn(move || Trial::run(row, backend, transport, target)));
                }
            }
        }
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().map_err(|_| anyhow!("the thread of a cell panicked"))
        };
        running.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    let flows = cluster.topology.nodes().map(|node| Ok((node.name.as_str(), flows(node)?)));
    let flows: BTreeMap<&str, BTreeMap<Dialogue, bool>> = flows.collect::<Result<_>>()?;
    trials.iter().map(|trial| trial.cell(&flows)).collect()
}

fn flows(node: &Node) -> Result<BTreeMap<Dialogue, bool>> {
    rows::flows(node, &rows::folder(node)?)
}

impl<'a> Trial<'a> {
    fn run(row: &'a Row, backend: Backend, transport: Transport, target: Target) -> Self {
        let to = SocketAddrV4::new(target.dialled.0, target.dialled.1).to_string();
        let result = Probe::new(&*row.place).bulk(transport, size(transport), &to);
        Self { row, backend, transport, target, result }
    }

    fn cell(&self, flows: &BTreeMap<&str, BTreeMap<Dialogue, bool>>) -> Result<Cell> {
        let Self { row, backend, transport, target: Target { dialled, backend: address }, result } = self;
        let expected = expected(row.here, row.who, dialled.0, *address);
        let mut cell = Cell {
            row: row.name.clone(),
            here: row.here.name.to_owned(),
            there: row.there.name.to_owned(),
            backend: *backend,
            protocol: transport.to_string(),
            bytes: None,
            source: None,
            expected: expected.to_string(),
            fast: None,
            error: None,
        };
        match result {
            Ok(result) if result.ok => {
                let client = result.source.as_deref().context("a client without address")?.parse()?;
                let frontend = SocketAddrV4::new(dialled.0, dialled.1);
                let dialogue = Dialogue { transport: *transport, client, frontend };
                cell.bytes = Some(size(*transport));
                cell.source = result.seen().map(|seen| seen.ip().to_string());
                cell.fast = flows.get(row.here.name).and_then(|flows| flows.get(&dialogue)).copied();
            }
            Ok(result) => cell.error = Some(result.error.clone().unwrap_or_else(|| "no answer".to_owned())),
            Err(error) => cell.error = Some(format!("{error:#}")),
        }
        Ok(cell)
    }
}
