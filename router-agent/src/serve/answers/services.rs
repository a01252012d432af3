//! The answer to `services`.

use anyhow::{Result, ensure};
use router_core::cluster::Cluster;
use router_core::model::service::Frontend;

use super::super::Asked;
use crate::ask::services::{Service, Services, Traffic};
use crate::flows::Usage;
use crate::serve::seconds;

/// All services, or those of one name or address.
pub(in crate::serve) async fn gather(asked: &Asked, of: Option<String>) -> Result<Services> {
    ensure!(
        asked.sources.kernel.is_some(),
        "this agent does not balance services: --run-service-proxy is off"
    );
    let wanted = of.clone();
    let mut services = asked.sources.look(move |look| list(look.cluster, wanted.as_deref())).await?;
    ensure!(of.is_none() || !services.is_empty(), "no service is called, or has, {}", of.unwrap_or_default());
    let accounts = asked.accounts.borrow().clone();
    for (frontend, service) in &mut services {
        let account = accounts.by_frontend.get(frontend);
        service.traffic = account.map(|account| traffic(&account.total)).unwrap_or_default();
    }
    Ok(Services {
        counted_seconds: accounts.at.map(|at| seconds(at.elapsed())),
        services: services.into_iter().map(|(_, service)| service).collect(),
    })
}

/// By name, then by what is dialled.
fn list(cluster: &Cluster, of: Option<&str>) -> Vec<(Frontend, Service)> {
    let mut found = Vec::new();
    for frontend in cluster.frontends() {
        let Some(key) = cluster.service_of(frontend) else { continue };
        let address = frontend.address.to_string();
        if of.is_some_and(|of| of != key.to_string() && of != address) {
            continue;
        }
        let endpoints = cluster.endpoints(frontend).unwrap_or_default();
        let service = Service {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            address,
            port: frontend.port,
            protocol: frontend.protocol.to_string(),
            ready: endpoints.chosen.iter().map(ToString::to_string).collect(),
            draining: endpoints.draining.iter().map(ToString::to_string).collect(),
            traffic: Traffic::default(),
        };
        found.push((*frontend, service));
    }
    found.sort_by(|(one, a), (other, b)| (&a.namespace, &a.name, one).cmp(&(&b.namespace, &b.name, other)));
    found
}

const fn traffic(usage: &Usage) -> Traffic {
    Traffic {
        connections: usage.connections,
        packets_in: usage.from_clients.packets,
        bytes_in: usage.from_clients.bytes,
        packets_out: usage.to_clients.packets,
        bytes_out: usage.to_clients.bytes,
    }
}
