//! The answer to `routes`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use nix::net::if_::if_indextoname;
use router_bgp::family::Family;
use router_bgp::rib::Lookup;

use super::super::{Asked, Routing};
use crate::ask::routes::{Learned, Routes, ToServices};
use crate::bgp::view::{Ask, Table};
use crate::fib::{self, Standing};
use crate::node::service_link::{NEAR, PROTOCOL};
use crate::sys::netlink::Netlink;

pub(in crate::serve) async fn gather(asked: &Asked) -> Result<Routes> {
    let learned = match &asked.sources.routing {
        Some(routing) => Some(learned(routing).await?),
        None => None,
    };
    let services = if asked.sources.kernel.is_some() {
        let wanted = asked.sources.host.borrow().vip_ranges.clone();
        let held = tokio::task::spawn_blocking(to_services).await??;
        let route = |prefix: IpNet| ToServices {
            prefix: prefix.to_string(),
            device: NEAR.to_owned(),
            in_kernel: held.contains(&prefix),
        };
        wanted.into_iter().map(route).collect()
    } else {
        Vec::new()
    };
    Ok(Routes { learned, services })
}

/// What the kernel leads to services.
fn to_services() -> Result<BTreeSet<IpNet>> {
    let mut netlink = Netlink::open().context("cannot open a netlink socket")?;
    let routes = netlink.routes(Some(PROTOCOL)).context("cannot read routes from the kernel")?;
    Ok(routes.into_iter().map(|route| route.destination).collect())
}

async fn learned(routing: &Routing) -> Result<Vec<Learned>> {
    let routes = routing.ask_routes(fib::Ask::Routes).await?;
    let from = senders(routing).await?;
    let learned = |route: fib::LearnedRoute| {
        let (state, reason) = match route.standing {
            Standing::InKernel => ("in kernel", String::new()),
            Standing::Pending => ("pending", String::new()),
            Standing::Refused(reason) => ("refused", reason),
            Standing::Failed(error) => ("failed", error),
        };
        Learned {
            prefix: route.prefix.to_string(),
            next_hop: route.next_hop.to_string(),
            device: route.link.and_then(|link| if_indextoname(link).ok()?.into_string().ok()),
            from: from.get(&route.prefix).cloned(),
            state: state.to_owned(),
            reason,
        }
    };
    Ok(routes.into_iter().map(learned).collect())
}

/// The peer whose path was chosen, by prefix.
async fn senders(routing: &Routing) -> Result<BTreeMap<IpNet, String>> {
    let mut from = BTreeMap::new();
    for family in Family::ALL {
        let asked = routing.ask_speaker(|to| Ask::Paths(Table::Global, Lookup::All(family), to)).await?;
        for destination in asked.unwrap_or_default() {
            let best = destination.paths.iter().find(|path| path.best).and_then(|path| path.source);
            from.extend(best.map(|source| (destination.prefix.trunc(), source.address.to_string())));
        }
    }
    Ok(from)
}
