//! The kernel side: prepares the host, loads the programs, and starts what keeps the two in step.
//!
//! Order: settings and `kube-svc` first, then maps and programs, then devices; so that a program that is attached
//! finds a `meta` that names its devices.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use router_core::cluster::{Event, HostView};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::error;

use crate::app::{KernelSide, Started};
use crate::config::Services;
use crate::drops::Drops;
use crate::flows::{EventReader, PodNames, Sweeper, Swept, Timeouts};
use crate::node::firewall;
use crate::node::hooks::{self, Attacher};
use crate::node::links::{View, Watcher};
use crate::node::prepare::{self, RESERVED_PORTS};
use crate::node::service_link::{Keeper, ServiceLink};
use crate::parts::{Care, publish, spawn};
use crate::planes::ebpf::{EbpfDriver, Resting, SharedMeta};
use crate::serve::Kernel;
use crate::sys::netlink::Netlink;
use crate::sys::{attach, bpf};

/// How often the programs' lease is renewed.
const RENEW: Duration = Duration::from_mins(1);

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
    ) -> Result<Started<EbpfDriver>> {
        prepare::settings(&RESERVED_PORTS);
        let mut keeper = Keeper::open()?;
        keeper.repair()?;

        let pins = hooks::pins(Path::new(bpf::BPFFS));
        let filters = attach::held_by_filters(&mut Netlink::open().context("cannot open a netlink socket")?)
            .context("cannot list the filters of an agent before this one")?;
        let mut object = bpf::load_after(&filters, bpf::OBJECT, pins.as_deref())?;
        let meta = SharedMeta::take(&mut object, services.fast_path, &RESERVED_PORTS)?;
        let resting = Resting::default();
        let driver = EbpfDriver::take(&mut object, meta.clone(), resting.clone())?;
        let mut sweeper = Sweeper::take(&mut object, Timeouts::default(), resting)?;
        sweeper.survey().await?;
        let names = PodNames::default();
        let reader = EventReader::take(&mut object, names.clone())?;
        let drops = Arc::new(Drops::take(&mut object)?);
        let attacher = Attacher::new(object, services.attach, pins.as_deref())?;
        let attach_mode = attacher.mode_name();
        let watcher = Watcher::open()?;

        let (outside, outside_seen) = watch::channel(Outside::default());
        let devices = Devices { attacher, meta: meta.clone(), outside };
        spawn(parts, "following devices", devices.follow(watcher, events));
        spawn(parts, "following the cluster", follow_host(host, keeper, meta.clone(), names, outside_seen));
        let (swept, swept_seen) = watch::channel(Arc::<Swept>::default());
        let seen = Kernel {
            attach: attach_mode,
            fast_path: services.fast_path,
            swept: swept_seen,
            flows: Arc::new(sweeper.reader()?),
            drops: Arc::clone(&drops),
        };
        spawn(parts, "counting drops", async move { drops.run().await });
        spawn(parts, "sweeping flows", sweeper.run(swept));
        spawn(parts, "reading events", reader.run());
        spawn(parts, "renewing the lease", renew(meta));
        Ok(Started { driver, seen })
    }
}

/// What `kube-svc`, its routes and the firewall depend on; where any of it changes, they are looked at again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Outside {
    uplinks: Vec<String>,
    mtu: Option<u32>,
    /// As found: it changes when somebody takes it away.
    service: Option<ServiceLink>,
    service_routes: BTreeSet<IpNet>,
    node_addresses: BTreeSet<IpAddr>,
}

/// What has to be right before anybody hears of a device.
struct Devices {
    attacher: Attacher,
    meta: SharedMeta,
    outside: watch::Sender<Outside>,
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
        let outside = Outside {
            uplinks: view.uplinks.values().cloned().collect(),
            mtu: view.mtu,
            service: view.service,
            service_routes: view.service_routes.clone(),
            node_addresses: view.node_addresses.clone(),
        };
        publish(&self.outside, outside);
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
    mut outside: watch::Receiver<Outside>,
) -> Result<()> {
    let [mut routing, mut pair, mut accepting] = [
        Care::of("cannot route VIPs to kube-svc"),
        Care::of("cannot keep kube-svc"),
        Care::of("cannot accept our traffic in the host's firewall"),
    ];
    loop {
        let view = host.borrow_and_update().clone();
        let around = outside.borrow_and_update().clone();
        keeper.set_mtu(around.mtu);
        names.write().unwrap_or_else(PoisonError::into_inner).clone_from(&view.pod_names);
        if let Some(IpAddr::V4(address)) = view.node_addresses.iter().find(|address| address.is_ipv4()) {
            meta.set_node(address.octets())?;
            meta.set_node_ports(view.node_ports)?;
            let ranges: Vec<_> = view.vip_ranges.iter().copied().collect();
            let done = keeper.set_service_routes(&ranges, IpAddr::V4(*address));
            if done.is_err() && !around.node_addresses.contains(&IpAddr::V4(*address)) {
                let missing = format!(
                    "no device of this host has {address}, the Node's address at the API; give it to one, or have \
                     the kubelet report another (--node-ip)"
                );
                routing.took(done.context(missing));
            } else {
                routing.took(done);
            }
        } else {
            pair.took(keeper.repair().map(drop));
        }
        accepting.took(firewall::ensure(&around.uplinks).map(drop));
        tokio::select! {
            changed = host.changed() => changed.context("learn of the cluster")?,
            changed = outside.changed() => changed.context("learn of devices")?,
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
