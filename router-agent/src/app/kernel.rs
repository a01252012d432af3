//! The kernel side: prepares the host, loads the programs, and starts what keeps the two in step.
//!
//! Order: settings and `kube-svc` first, then maps and programs, then devices; so that a program that is attached
//! finds a `meta` that names its devices.

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use router_core::cluster::{Event, HostView};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::error;

use crate::app::KernelSide;
use crate::config::{Attach, Services};
use crate::flows::{EventReader, PodNames, Sweeper, Swept, Timeouts};
use crate::node::firewall;
use crate::node::hooks::{self, Attacher};
use crate::node::links::{View, Watcher};
use crate::node::prepare::{self, RESERVED_PORTS};
use crate::node::service_link::Keeper;
use crate::planes::ebpf::{EbpfDriver, Resting, SharedMeta};
use crate::sys::bpf;
use crate::sys::netlink::Netlink;

/// How often the programs' lease is renewed.
const RENEW: Duration = Duration::from_secs(60);

/// Services by eBPF.
pub(crate) struct Ebpf;

impl KernelSide for Ebpf {
    type Driver = EbpfDriver;

    async fn start(
        self,
        services: &Services,
        events: mpsc::Sender<Event>,
        host: watch::Receiver<HostView>,
        parts: &mut JoinSet<()>,
    ) -> Result<EbpfDriver> {
        prepare::bridge(&mut Netlink::open().context("cannot open a netlink socket")?)?;
        prepare::settings(&RESERVED_PORTS);
        let mut keeper = Keeper::open()?;
        keeper.repair()?;

        let pins = hooks::pins(Path::new(bpf::BPFFS));
        let mut object = bpf::load(bpf::OBJECT, pins.as_deref())?;
        let meta = SharedMeta::take(&mut object, services.fast_path, &RESERVED_PORTS)?;
        let resting = Resting::default();
        let driver = EbpfDriver::take(&mut object, meta.clone(), resting.clone())?;
        let mut sweeper = Sweeper::take(&mut object, Timeouts::default(), resting)?;
        sweeper.survey().await?;
        let names = PodNames::default();
        let reader = EventReader::take(&mut object, names.clone())?;
        let attacher = Attacher::new(object, attach(services.attach), pins.as_deref())?;
        let watcher = Watcher::open()?;

        let (uplinks, uplinks_seen) = watch::channel(Uplinks::default());
        let devices = Devices { attacher, meta: meta.clone(), uplinks };
        spawn(parts, "following devices", devices.follow(watcher, events));
        spawn(parts, "following the cluster", follow_host(host, keeper, meta.clone(), names, uplinks_seen));
        let (swept, _) = watch::channel(Arc::<Swept>::default());
        spawn(parts, "sweeping flows", sweeper.run(swept));
        spawn(parts, "reading events", reader.run());
        spawn(parts, "renewing the lease", renew(meta));
        Ok(driver)
    }
}

/// Runs a part; if it fails, says so once and ends it, and with it the agent.
fn spawn(
    parts: &mut JoinSet<()>,
    doing: &'static str,
    part: impl Future<Output = Result<()>> + Send + 'static,
) {
    parts.spawn(async move {
        if let Err(failure) = part.await {
            error!("{doing}: {failure:#}");
        }
    });
}

const fn attach(wanted: Attach) -> hooks::Attach {
    match wanted {
        Attach::Auto => hooks::Attach::Auto,
        Attach::Tcx => hooks::Attach::Tcx,
        Attach::Clsact => hooks::Attach::Clsact,
    }
}

/// What has to be right before anybody hears of a device.
struct Devices {
    attacher: Attacher,
    meta: SharedMeta,
    uplinks: watch::Sender<Uplinks>,
}

/// What the host's routes and firewall have to know of uplinks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Uplinks {
    names: Vec<String>,
    mtu: Option<u32>,
}

impl Devices {
    async fn follow(mut self, watcher: Watcher, events: mpsc::Sender<Event>) -> Result<()> {
        watcher.run(events, move |view, audit| self.prepare(view, audit)).await
    }

    fn prepare(&mut self, view: &View, audit: bool) {
        if let Err(failure) = self.meta.set_devices(view) {
            error!("cannot tell the programs of this node's devices: {failure:#}");
        }
        self.attacher.follow(view, audit);
        let now = Uplinks { names: view.uplinks.values().cloned().collect(), mtu: view.uplink_mtu };
        self.uplinks.send_if_modified(|known| {
            let changed = *known != now;
            known.clone_from(&now);
            changed
        });
        if audit {
            prepare::settings(&RESERVED_PORTS);
        }
    }
}

/// How often routes, pair and rules are compared with what should be, unprompted.
const AUDIT: Duration = Duration::from_secs(30);

/// Routes VIPs to `kube-svc`, keeps the firewall open for them, and remembers who is who.
async fn follow_host(
    mut host: watch::Receiver<HostView>,
    mut keeper: Keeper,
    meta: SharedMeta,
    names: PodNames,
    mut uplinks: watch::Receiver<Uplinks>,
) -> Result<()> {
    loop {
        let view = host.borrow_and_update().clone();
        names.write().unwrap_or_else(PoisonError::into_inner).clone_from(&view.pod_names);
        let interfaces = uplinks.borrow_and_update().clone();
        if let Some(IpAddr::V4(address)) = view.node_addresses.iter().find(|address| address.is_ipv4()) {
            meta.set_node(address.octets())?;
            keeper.set_mtu(interfaces.mtu);
            let ranges: Vec<_> = view.vip_ranges.iter().copied().collect();
            if let Err(failure) = keeper.set_service_routes(&ranges, IpAddr::V4(*address)) {
                error!("cannot route VIPs to kube-svc: {failure:#}");
            }
        }
        if let Err(failure) = firewall::ensure(&interfaces.names) {
            error!("cannot accept our traffic in the host's firewall: {failure:#}");
        }
        tokio::select! {
            changed = host.changed() => changed.context("learn of the cluster")?,
            changed = uplinks.changed() => changed.context("learn of uplinks")?,
            () = tokio::time::sleep(AUDIT) => {}
        }
    }
}

/// Vouches for the tables as long as we run.
async fn renew(meta: SharedMeta) -> Result<()> {
    loop {
        meta.renew_lease()?;
        tokio::time::sleep(RENEW).await;
    }
}
