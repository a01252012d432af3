//! Cluster IPs and node ports: given out in order, one owner each.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::{Value, json};

use super::kinds::Kind;
use super::status::{Cause, Status};

const FIRST_NODE_PORT: u16 = 30_000;
const LAST_NODE_PORT: u16 = 32_767;

#[derive(Debug)]
pub(super) struct Addresses {
    range: Ipv4Net,
    used: HashSet<Ipv4Addr>,
    ports: HashSet<u16>,
    next: u32,
    next_port: u16,
    /// Refuses a Service that names a taken address. Off lets tests make two Services on one address.
    strict: bool,
}

impl Addresses {
    pub(super) fn new(range: Ipv4Net, strict: bool) -> Self {
        let (used, ports) = (HashSet::new(), HashSet::new());
        // The first address is that of the `kubernetes` Service; ordinary Services start further up, so that a
        // test can name low addresses by hand.
        Self { range, used, ports, next: 16, next_port: FIRST_NODE_PORT, strict }
    }

    /// Fills in cluster IP and node ports. On a change the addresses of `old` are kept where the new object
    /// names none.
    pub(super) fn assign(
        &mut self,
        old: Option<&Value>,
        service: &mut Value,
        dry: bool,
    ) -> Result<(), Status> {
        if !service["spec"].is_object() {
            return Ok(());
        }
        let snapshot = dry.then(|| (self.next, self.next_port, self.used.clone(), self.ports.clone()));
        if let Some(old) = old {
            keep(old, service);
            self.release(old);
        }
        let outcome = self.take(service);
        if outcome.is_err()
            && let Some(old) = old
        {
            self.hold(old);
        }
        if let Some((next, next_port, used, ports)) = snapshot {
            (self.next, self.next_port, self.used, self.ports) = (next, next_port, used, ports);
        }
        outcome
    }

    pub(super) fn release(&mut self, service: &Value) {
        for address in cluster_ips(service) {
            self.used.remove(&address);
        }
        for port in node_ports(service) {
            self.ports.remove(&port);
        }
    }

    fn hold(&mut self, service: &Value) {
        self.used.extend(cluster_ips(service));
        self.ports.extend(node_ports(service));
    }

    fn take(&mut self, service: &mut Value) -> Result<(), Status> {
        let kind = service["spec"]["type"].as_str().unwrap_or("ClusterIP").to_owned();
        if kind == "ExternalName" {
            return Ok(());
        }
        if service["spec"]["clusterIP"].as_str().unwrap_or_default().is_empty() {
            let address = self.free().ok_or_else(|| {
                Status::new(500, "InternalError", "failed to allocate a serviceIP: range is full")
            })?;
            service["spec"]["clusterIP"] = address.to_string().into();
        } else if self.strict
            && let Some(taken) = cluster_ips(service).find(|address| self.used.contains(address))
        {
            let text = "failed to allocate IP: provided IP is already allocated";
            let cause = Cause::invalid("spec.clusterIPs", &json!([taken]), text);
            let name = service["metadata"]["name"].as_str().unwrap_or_default();
            return Err(Status::invalid(Kind::Service.resource(), name, &[cause]));
        }
        let address = service["spec"]["clusterIP"].clone();
        service["spec"]["clusterIPs"] = json!([address]);
        if kind == "NodePort" || kind == "LoadBalancer" {
            self.open(service);
        }
        self.hold(service);
        Ok(())
    }

    fn open(&mut self, service: &mut Value) {
        self.ports.extend(node_ports(service));
        let Some(ports) = service["spec"]["ports"].as_array_mut() else { return };
        for port in ports.iter_mut().filter(|port| port.is_object()) {
            if port["nodePort"].as_u64().unwrap_or(0) == 0
                && let Some(free) = self.free_port()
            {
                port["nodePort"] = free.into();
            }
        }
    }

    fn free(&mut self) -> Option<Ipv4Addr> {
        let size = 1u32.checked_shl(32 - u32::from(self.range.prefix_len())).unwrap_or(u32::MAX);
        for _ in 0..size {
            let offset = self.next.checked_rem(size).unwrap_or(0);
            self.next = offset + 1;
            let address = Ipv4Addr::from(u32::from(self.range.network()).wrapping_add(offset));
            let edge = offset < 2 || address == self.range.broadcast();
            if !edge && self.used.insert(address) {
                return Some(address);
            }
        }
        None
    }

    fn free_port(&mut self) -> Option<u16> {
        for _ in FIRST_NODE_PORT..=LAST_NODE_PORT {
            let port = self.next_port;
            self.next_port = if port == LAST_NODE_PORT { FIRST_NODE_PORT } else { port + 1 };
            if self.ports.insert(port) {
                return Some(port);
            }
        }
        None
    }
}

/// A client that replaces a Service need not repeat what the server had chosen.
fn keep(old: &Value, service: &mut Value) {
    if service["spec"]["type"] == "ExternalName" {
        return;
    }
    if service["spec"]["clusterIP"].as_str().unwrap_or_default().is_empty() {
        service["spec"]["clusterIP"] = old["spec"]["clusterIP"].clone();
    }
    if service["spec"]["type"] == "ClusterIP" {
        return;
    }
    let chosen: Vec<Value> = old["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let Some(ports) = service["spec"]["ports"].as_array_mut() else { return };
    for port in ports.iter_mut().filter(|port| port.is_object() && port["nodePort"].as_u64().is_none()) {
        let same = |old: &&Value| old["port"] == port["port"] && old["protocol"] == port["protocol"];
        if let Some(old) = chosen.iter().find(same)
            && old["nodePort"].is_u64()
        {
            port["nodePort"] = old["nodePort"].clone();
        }
    }
}

fn cluster_ips(service: &Value) -> impl Iterator<Item = Ipv4Addr> {
    service["spec"]["clusterIP"].as_str().and_then(|text| text.parse().ok()).into_iter()
}

fn node_ports(service: &Value) -> impl Iterator<Item = u16> {
    let ports = service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    ports.iter().filter_map(|port| port["nodePort"].as_u64()?.try_into().ok())
}
