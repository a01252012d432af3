//! `plan` without an agent: everything is listed once, the pinned maps are read, and what an agent with these flags
//! would write is said. Nothing is written, attached or bound.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use router_core::cluster::{Cluster, Event};
use router_core::plan::Plane as _;
use router_core::plan::ebpf::{EbpfPlane, Tables};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{EVENTS, connect, prepare, spawn_followers};
use crate::ask::plan::Plan;
use crate::config::Config;
use crate::flags::Flags;
use crate::node::hooks;
use crate::node::links::Watcher;
use crate::parts::spawn;
use crate::planes::ebpf::EbpfDriver;
use crate::sys::bpf;

/// The plan, given an agent's flags.
pub(crate) fn without_agent(flags: &[String]) -> Result<Plan> {
    let (flags, positional) = Flags::parse(flags).map_err(anyhow::Error::msg)?;
    ensure!(positional.is_empty(), "{} is not understood; see --help", positional.join(" "));
    let config = prepare(flags)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let plan = runtime.block_on(plan(&config));
    runtime.shutdown_background();
    plan
}

async fn plan(config: &Config) -> Result<Plan> {
    let mut plan = Plan::default();
    if config.routing.is_some() {
        plan.notes.push("learned routes are planned by a running agent only".to_owned());
    }
    if config.services.is_none() {
        plan.notes.push("--run-service-proxy is off: no services are planned".to_owned());
        return Ok(plan);
    }
    let cluster = list(config).await?;
    let pins = hooks::pins(Path::new(bpf::BPFFS));
    let held = pins.as_deref().map(EbpfDriver::read_pinned).transpose()?.flatten();
    let mut have = held.unwrap_or_else(|| {
        plan.notes.push("no pinned maps: an agent would begin with empty ones".to_owned());
        Tables::default()
    });
    let owners = EbpfPlane::owners(&cluster, &have);
    plan.add(&EbpfPlane::plan_all(&cluster, &mut have, &owners, Duration::ZERO));
    Ok(plan)
}

/// The cluster and this host's devices, as they are now.
async fn list(config: &Config) -> Result<Cluster> {
    let client = connect(&config.api).await?;
    let (events, mut inbox) = mpsc::channel(EVENTS);
    let mut parts = JoinSet::new();
    let kinds = spawn_followers(config, &client, &events, &mut parts);
    let watcher = Watcher::open()?;
    spawn(&mut parts, "following devices", watcher.run(events, |_, _| {}));
    let mut cluster = Cluster::new(&config.node_name, kinds);
    let limit = config.api.sync_timeout;
    let listed = timeout(limit, async {
        while !cluster.unlisted().is_empty() {
            let event: Event = inbox.recv().await.context("nothing tells of the cluster any more")?;
            cluster.absorb(event);
        }
        anyhow::Ok(())
    });
    let Ok(listed) = listed.await else {
        let missing: Vec<String> = cluster.unlisted().iter().map(|kind| format!("{kind:?}")).collect();
        let why: Vec<String> = cluster.problems().iter().map(ToString::to_string).collect();
        bail!(
            "no first list of {} within {limit:?} (--cache-sync-timeout); {}",
            missing.join(", "),
            why.join("; ")
        );
    };
    listed?;
    if cluster.node().is_none() {
        bail!("there is no Node {:?}, as {} names this node", config.node_name, config.node_name_source);
    }
    Ok(cluster)
}
