//! The driver of learned routes: reads and writes protocol 17 in the main table, and reads the subnets that next hops
//! are looked for in.
//!
//! A table of a hundred thousand routes takes a while either way, so it is done on a thread that may block.
//! Absent: IPv6, as in `sys/netlink`: without a subnet of that family, none of its prefixes gets a route.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use router_core::plan::fib::{FibPlane, Op, PROTOCOL, Row, Subnet, Tables};
use router_core::plan::{Group, Owner};
use tokio::task::spawn_blocking;

use crate::reconcile::Driver;
use crate::sys::netlink::{Netlink, Route, Write};

/// The main table.
#[derive(Clone, Debug)]
pub(crate) struct FibDriver {
    netlink: Arc<Mutex<Netlink>>,
    port: u32,
}

impl FibDriver {
    /// In the network namespace of the calling thread.
    pub(crate) fn open() -> Result<Self> {
        let netlink = Netlink::open().context("cannot open a netlink socket")?;
        let port = netlink.port().context("cannot learn the port of a netlink socket")?;
        Ok(Self { netlink: Arc::new(Mutex::new(netlink)), port })
    }

    /// What the events of what we do ourselves can be told by.
    pub(crate) const fn port(&self) -> u32 {
        self.port
    }

    /// The subnets that our addresses are in, sorted; those of a VRF are in a table of its own.
    pub(crate) async fn subnets(&self) -> Result<Vec<Subnet>> {
        self.ask(subnets).await.context("cannot read addresses from the kernel")
    }

    async fn ask<T: Send + 'static>(&self, question: impl FnOnce(&mut Netlink) -> T + Send + 'static) -> T {
        let netlink = Arc::clone(&self.netlink);
        let asked =
            spawn_blocking(move || question(&mut netlink.lock().unwrap_or_else(PoisonError::into_inner)));
        match asked.await {
            Ok(answer) => answer,
            Err(failure) => match failure.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Nobody cancels it but the runtime as it ends, and it takes this task with it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

impl Driver<FibPlane> for FibDriver {
    async fn read(&mut self) -> Result<Tables> {
        self.ask(tables).await.context("cannot read routes from the kernel")
    }

    async fn apply(&mut self, groups: &[Group<Op>]) -> Vec<(Owner, anyhow::Error)> {
        let puts = groups.iter().flat_map(|group| group.puts.iter().map(|op| (group.owner.clone(), *op)));
        let dels =
            groups.iter().rev().flat_map(|group| group.dels.iter().map(|op| (group.owner.clone(), *op)));
        let (puts, dels): (Vec<_>, Vec<_>) = (puts.collect(), dels.collect());
        self.ask(move |netlink| {
            let mut failed = write(netlink, &puts);
            let stuck: BTreeSet<&Owner> = failed.iter().map(|(owner, _)| owner).collect();
            let dels: Vec<_> = dels.into_iter().filter(|(owner, _)| !stuck.contains(owner)).collect();
            failed.extend(write(netlink, &dels));
            failed
        })
        .await
    }
}

fn subnets(netlink: &mut Netlink) -> io::Result<Vec<Subnet>> {
    let links = netlink.links()?;
    let addresses = netlink.addresses(None)?;
    let link = |index: u32| links.iter().find(|link| link.index == index);
    let in_main = |index: u32| {
        let master = link(index)?.master.and_then(link);
        (master.and_then(|master| master.kind.as_deref()) != Some("vrf")).then_some(())
    };
    let mut subnets: Vec<Subnet> = addresses
        .into_iter()
        .filter(|address| address.ip.is_ipv4() && in_main(address.link).is_some())
        .map(|address| Subnet {
            network: address.network,
            address: address.ip,
            link: address.link,
            global: address.global,
            up: link(address.link).is_some_and(|link| link.up),
        })
        .collect();
    subnets.sort_unstable();
    Ok(subnets)
}

fn tables(netlink: &mut Netlink) -> io::Result<Tables> {
    let mut tables = Tables::default();
    netlink.main_table(None, |entry| {
        let Route { destination, gateway, link, metric, protocol, further, source } = entry.route;
        // With a source of somebody's choice it is not as we would have written it either.
        let single = entry.unicast && further.is_empty() && source.is_none();
        tables.note(destination, protocol, Row { metric, next_hop: gateway, link, single });
    })?;
    Ok(tables)
}

fn write(netlink: &mut Netlink, ops: &[(Owner, Op)]) -> Vec<(Owner, anyhow::Error)> {
    let writes: Vec<(Write, Route)> = ops.iter().map(|(_, op)| write_of(op)).collect();
    let failed = netlink.write_routes(&writes).into_iter();
    failed
        .filter_map(|(at, error)| {
            let (owner, op) = ops.get(at)?;
            Some((owner.clone(), anyhow::Error::new(error).context(format!("cannot {op}"))))
        })
        .collect()
}

fn write_of(op: &Op) -> (Write, Route) {
    match *op {
        Op::Add(prefix, row) => (Write::Add, route(prefix, row)),
        Op::Replace(prefix, row) => (Write::Replace, route(prefix, row)),
        Op::Delete(prefix, row) => (Write::Delete, route(prefix, row)),
    }
}

const fn route(destination: IpNet, row: Row) -> Route {
    let Row { metric, next_hop: gateway, link, single: _ } = row;
    Route { destination, gateway, link, metric, source: None, protocol: PROTOCOL, further: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::{in_namespace, run};

    #[test]
    fn subnets_are_those_of_the_main_table_with_the_other_end_of_a_point_to_point_link() {
        in_namespace(|| {
            run("ip link add eth0 type bridge; ip addr add 192.0.2.1/24 dev eth0; ip link set eth0 up");
            run("ip link add eth1 type bridge; ip addr add 10.0.0.1 peer 10.0.0.2/32 dev eth1");
            run("ip addr add 169.254.1.1/16 scope link dev eth1");
            let found = subnets(&mut Netlink::open().unwrap()).unwrap();
            let said: Vec<String> = found
                .iter()
                .map(|Subnet { network, address, global, up, .. }| {
                    format!("{network} {address} {} {}", if *global { "global" } else { "narrow" }, up)
                })
                .collect();
            assert_eq!(
                said,
                [
                    "10.0.0.2/32 10.0.0.1 global false",
                    "127.0.0.0/8 127.0.0.1 narrow true",
                    "169.254.0.0/16 169.254.1.1 narrow false",
                    "192.0.2.0/24 192.0.2.1 global true",
                ]
            );
        });
    }

    #[test]
    fn a_table_holds_ours_in_order_and_who_else_has_a_prefix() {
        in_namespace(|| {
            run("ip link add eth0 type bridge; ip addr add 192.0.2.1/24 dev eth0; ip link set eth0 up");
            run("ip route add 10.1.0.0/16 via 192.0.2.2 proto 17 metric 50");
            run("ip route add 10.1.0.0/16 proto 17 nexthop via 192.0.2.2 nexthop via 192.0.2.3");
            run("ip route add blackhole 10.2.0.0/16 proto static");
            run("ip route add 10.3.0.0/16 via 192.0.2.2 proto static metric 7");
            let tables = tables(&mut Netlink::open().unwrap()).unwrap();
            let prefix = |text: &str| text.parse::<ipnet::IpNet>().unwrap();
            let rows: Vec<(u32, bool)> =
                tables.rows_of(prefix("10.1.0.0/16")).map(|row| (row.metric, row.single)).collect();
            assert_eq!(rows, [(0, false), (50, true)]);
            let taken: Vec<_> = tables.taken.keys().copied().collect();
            assert_eq!(taken, [prefix("10.2.0.0/16"), prefix("192.0.2.0/24")]);
        });
    }
}
