//! A node that forwards for its pods while somebody else balances Services, or nobody.
//!
//! Where we do, `app/kernel.rs` sees to the same, and to what Services need.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use router_core::cluster::HostView;
use tokio::sync::watch;

use super::{firewall, prepare};
use crate::parts::Care;
use crate::sys::netlink::{Link, Netlink};

/// How often settings and rules are compared with what should be.
const AUDIT: Duration = Duration::from_secs(30);

/// Keeps settings and accept rules. Ends when nobody tells of the cluster any more.
pub(crate) async fn keep(mut host: watch::Receiver<HostView>) -> Result<()> {
    let mut netlink = Netlink::open().context("cannot open a netlink socket")?;
    let mut accepting = Care::of("cannot accept our traffic in the host's firewall");
    loop {
        prepare::forwarding();
        let address = host.borrow_and_update().node_addresses.first().copied();
        let device = address.and_then(|address| link_with(&mut netlink, address));
        let devices: Vec<String> = device.into_iter().map(|device| device.name).collect();
        accepting.took(firewall::ensure_for_pods(&devices).map(drop));
        tokio::select! {
            changed = host.changed() => changed.context("learn of the cluster")?,
            () = tokio::time::sleep(AUDIT) => {}
        }
    }
}

/// The device that has `address`, if it leads anywhere: a node that is reached by several has its address on `lo`.
pub(super) fn link_with(netlink: &mut Netlink, address: IpAddr) -> Option<Link> {
    let addresses = netlink.addresses(None).ok()?;
    let index = addresses.iter().find(|found| found.ip == address)?.link;
    netlink.link(index, None).ok()?.filter(|link| !link.loopback)
}
