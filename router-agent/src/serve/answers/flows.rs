//! The answer to `flows`.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use router_common::abi::protocol;

use super::super::accounts::{Holders, holders};
use super::super::{Asked, seconds};
use crate::ask::flows::{Flow, Flows};
use crate::flows::Connection;

/// Flows that one answer holds at most.
const MOST: usize = 10_000;

/// The latest `limit`, of all or of those with one address.
pub(in crate::serve) async fn gather(asked: &Asked, of: Option<String>, limit: usize) -> Result<Flows> {
    let kernel = asked.sources.kernel.as_ref();
    let kernel = kernel.context("this agent carries no flows: --run-service-proxy is off")?;
    let address: Option<IpAddr> = match of {
        Some(text) => Some(text.parse().with_context(|| format!("{text:?} is no address"))?),
        None => None,
    };
    let reader = Arc::clone(&kernel.flows);
    let found = tokio::task::spawn_blocking(move || reader.find(limit.min(MOST), address)).await??;
    let holders = asked.sources.look(holders).await?.unwrap_or_default();
    let more = found.total - found.connections.len();
    Ok(Flows { flows: found.connections.iter().map(|it| flow(it, &holders)).collect(), more })
}

fn flow(connection: &Connection, holders: &Holders) -> Flow {
    let protocol = match connection.protocol {
        protocol::TCP => "TCP".to_owned(),
        protocol::UDP => "UDP".to_owned(),
        protocol::ICMP => "ICMP".to_owned(),
        other => other.to_string(),
    };
    let usage = &connection.usage;
    Flow {
        protocol,
        client: connection.client.to_string(),
        frontend: connection.frontend.to_string(),
        backend: connection.backend.to_string(),
        source: connection.source.to_string(),
        service: holders.get(&connection.service).map(|(_, key)| key.to_string()),
        state: connection.state.to_owned(),
        path: if connection.fast { "fast" } else { "slow" }.to_owned(),
        age_seconds: seconds(connection.age),
        idle_seconds: seconds(connection.idle),
        packets_in: usage.from_clients.packets,
        bytes_in: usage.from_clients.bytes,
        packets_out: usage.to_clients.packets,
        bytes_out: usage.to_clients.bytes,
    }
}
