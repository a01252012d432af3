//! From the arguments to a running agent: the one file that knows all the parts. Exit codes are upstream's: 0 for
//! an orderly end, 1 for a run that cannot start (one line on stderr, no log header), 2 for a flag that does not
//! parse.
//!
//! SIGTERM and SIGINT end the process and leave everything in the kernel as it is.

pub(crate) mod kernel;
pub(crate) mod plan;

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use kube::Client;
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use router_core::cluster::{Cluster, Event, HostView, Kind, RoutingView};
use router_core::plan::ebpf::EbpfPlane;
use router_core::plan::fib::Own;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::layer::layer_fn;
use tracing::info;

use crate::ask;
use crate::bgp::speaker::LAST_WORDS;
use crate::bgp::{grpc, speaker};
use crate::cluster::lines::WholeLines;
use crate::cluster::watch as follow;
use crate::config::{Api, Config, Environment, Routing, Services};
use crate::fib::{self, FibQueue};
use crate::flags::Flags;
use crate::log;
use crate::node::{egress, forwarding, pod_network};
use crate::parts::{publish, spawn};
use crate::reconcile::{self, Driver, Outlets, Progress, Reconciler, Settings};
use crate::serve::{self, Sources, health};

/// Events under way from the parts to the loop: enough for a burst, few enough that a list of many thousand
/// objects is not held twice.
const EVENTS: usize = 1_024;

/// Upstream's default of --routes-sync-period: the speaker turns far more often.
const ROUTES_SYNC_PERIOD: Duration = Duration::from_mins(5);

/// Questions to a loop under way.
const ASKS: usize = 16;

/// A kernel side that has started.
#[derive(Debug)]
pub(crate) struct Started<D> {
    pub(crate) driver: D,
    /// What is told of it.
    pub(crate) seen: serve::Kernel,
}

/// All that touches the kernel.
pub(crate) trait KernelSide: Send + 'static {
    type Driver: Driver<EbpfPlane<[u8; 4]>> + Send;

    /// Prepares the host and starts telling of its links: each as it is now, then `Listed(Kind::Links)`, then
    /// every change. `host` says, from when the cluster has listed, which routes are needed and who is who. What
    /// has to go on runs in `parts`; a part that ends, ends the agent.
    fn start(
        self,
        services: &Services,
        events: mpsc::Sender<Event>,
        host: watch::Receiver<HostView>,
        parts: &mut JoinSet<()>,
    ) -> impl Future<Output = anyhow::Result<Started<Self::Driver>>> + Send;
}

/// The whole program.
pub(crate) fn main(args: impl Iterator<Item = String>, kernel: impl KernelSide) -> ExitCode {
    let mut args = args;
    let program = args.next().unwrap_or_else(|| "kube-router".to_owned());
    let args: Vec<String> = args.collect();
    if let Some(code) = ask::main(&args) {
        return code;
    }
    match start(&program, &args) {
        Start::Say(text, code) => {
            eprint!("{text}");
            ExitCode::from(code)
        }
        Start::Run(verbosity, flags) => {
            log::start(verbosity);
            info!("{}", version_line(&program));
            match prepare(*flags).and_then(|config| run_to_end(config, kernel)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("{error:#}");
                    ExitCode::from(1)
                }
            }
        }
    }
}

/// What the command line comes to.
#[derive(Debug, PartialEq, Eq)]
enum Start {
    /// Print this on stderr and end with this code.
    Say(String, u8),
    /// Log this much and go on.
    Run(i64, Box<Flags>),
}

fn start(program: &str, args: &[String]) -> Start {
    let (flags, positional) = match Flags::parse(args) {
        Ok(parsed) => parsed,
        Err(message) => return Start::Say(format!("{}{message}\n", Flags::usage()), 2),
    };
    let Ok(verbosity) = flags.verbosity.parse() else {
        return Start::Say(format!("--v: {:?} is no integer\n", flags.verbosity), 1);
    };
    if !positional.is_empty() {
        let items = positional.join(" ");
        return Start::Say(
            format!("{program} takes flags only (a value needs \"=\"); it was also given: {items}\n"),
            1,
        );
    }
    if flags.help {
        return Start::Say(format!("{}\n{}", Flags::usage(), ask::usage()), 0);
    }
    if flags.version {
        return Start::Say(format!("{}\n", version_line(program)), 0);
    }
    Start::Run(verbosity, Box::new(flags))
}

/// With what `build.rs` found.
fn version_line(program: &str) -> String {
    format!(
        "Running {program} version {}, built on {}, {}",
        env!("KUBE_ROUTER_VERSION"),
        env!("KUBE_ROUTER_BUILD_DATE"),
        env!("KUBE_ROUTER_TOOLCHAIN")
    )
}

fn prepare(flags: Flags) -> anyhow::Result<Config> {
    if !nix::unistd::geteuid().is_root() {
        bail!("kube-router must run as root: it programs the kernel's network");
    }
    flags.resolve(Environment::read()).map_err(|wrong| anyhow::anyhow!("{}", wrong.join("; ")))
}

fn run_to_end(config: Config, kernel: impl KernelSide) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")?;
    let outcome = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let (leave, left) = watch::channel(());
        let mut running = pin!(run(config, kernel, left));
        let signal = tokio::select! {
            outcome = &mut running => return outcome,
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        info!("{signal}: leaving, with everything in the kernel as it is");
        leave.send_replace(());
        tokio::select! {
            _ = running => {}
            // Whoever has last words to say holds the other end.
            () = leave.closed() => {}
            () = sleep(LAST_WORDS) => {}
        }
        Ok(())
    });
    // A thread that waits for a name server is not waited for.
    runtime.shutdown_background();
    outcome
}

/// Runs until something that cannot be mended at start, or until dropped. Parts that have something to do before hear of
/// it by `leave`, and drop it when they are done.
async fn run(config: Config, kernel: impl KernelSide, leave: watch::Receiver<()>) -> anyhow::Result<()> {
    if config.services.is_none() && config.routing.is_none() {
        info!("--run-router and --run-service-proxy are both off: nothing to run");
        return Ok(());
    }
    let started = Instant::now();
    let (events, inbox) = mpsc::channel(EVENTS);
    let (progress, mut progress_seen) = watch::channel(Progress::default());
    let (host, host_seen) = watch::channel(HostView::default());

    let mut parts = JoinSet::new();
    let monitor = Arc::new(health::Monitor::new(heartbeats(&config)));
    spawn(&mut parts, "watching heartbeats", Arc::clone(&monitor).run(progress_seen.clone()));
    if let Some(listen) = &config.health {
        let serving = health::serve(listen.bind().await?, Arc::clone(&monitor), progress_seen.clone());
        spawn(&mut parts, "serving health", serving);
    }
    let metrics = match &config.metrics {
        Some(metrics) => Some((metrics.clone(), metrics.listen.bind().await?)),
        None => None,
    };
    let client = connect(&config.api).await?;
    let followed = spawn_followers(&config, &client, &events, &mut parts);
    let cluster = Cluster::new(&config.node_name, followed.clone());
    progress.send_modify(|progress| progress.unlisted.clone_from(cluster.unlisted()));
    let (driver, kernel) = match &config.services {
        Some(services) => {
            let started = kernel.start(services, events.clone(), host_seen.clone(), &mut parts).await?;
            (Some(started.driver), Some(started.seen))
        }
        None => (None, None),
    };
    let settings = Settings {
        sync_period: config.services.as_ref().map_or(Duration::MAX, |services| services.sync_period),
        cluster_ip_ranges: config
            .services
            .iter()
            .flat_map(|services| services.cluster_ip_ranges.clone())
            .collect(),
        advertise_vips: config.routing.as_ref().is_some_and(|routing| routing.terms.advertise_cluster_ips),
    };
    let (routing, asked_routing) = config
        .routing
        .as_ref()
        .map(|routing| {
            start_routing(routing, &config, started, leave, host_seen.clone(), &events, &mut parts)
        })
        .unzip();
    let (asks, asked) = mpsc::channel(ASKS);
    let sources = Sources {
        node: config.node_name.clone(),
        started,
        followed,
        monitor,
        progress: progress_seen.clone(),
        host: host_seen.clone(),
        services: asks,
        kernel,
        routing: asked_routing,
    };
    serve::start(sources, config.socket.clone(), metrics, events.clone(), &mut parts);
    let outlets = Outlets { progress, host, routing };
    let reconciler = Reconciler::<EbpfPlane<[u8; 4]>, _>::new(cluster, driver, settings, outlets);
    let loop_ended = reconciler.run(inbox, asked);
    let ready = async {
        first_lists(&config, &mut progress_seen).await?;
        match &config.cni {
            Some(cni) => pod_network::keep(cni, host_seen, events).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = loop_ended => bail!("the loop ended, since nothing tells it anything any more"),
        outcome = ready => outcome,
        Some(outcome) = parts.join_next() => {
            outcome.context("a part of the agent ended")?;
            bail!("a part of the agent ended")
        }
    }
}

/// Starts to follow what the parts that are on need, and says what that is.
fn spawn_followers(
    config: &Config,
    client: &Client,
    events: &mpsc::Sender<Event>,
    parts: &mut JoinSet<()>,
) -> Vec<Kind> {
    let name = &config.node_name;
    if config.routing.is_some() {
        parts.spawn(follow::nodes(client.clone(), events.clone()));
    } else {
        parts.spawn(follow::node(client.clone(), name.clone(), events.clone()));
    }
    let announces = config.routing.as_ref().is_some_and(|routing| routing.terms.advertise_cluster_ips);
    if config.services.is_some() || announces {
        parts.spawn(follow::services(client.clone(), events.clone()));
    }
    if config.services.is_none() {
        return if announces { vec![Kind::Node, Kind::Services] } else { vec![Kind::Node] };
    }
    parts.spawn(follow::endpoint_slices(client.clone(), events.clone()));
    parts.spawn(follow::pods(client.clone(), name.clone(), events.clone()));
    vec![Kind::Node, Kind::Services, Kind::EndpointSlices, Kind::Pods, Kind::Links]
}

/// Starts the speaker, and what keeps the kernel's routes as it learns them; returns where it is told of the cluster.
fn start_routing(
    routing: &Routing,
    config: &Config,
    started: Instant,
    leave: watch::Receiver<()>,
    host: watch::Receiver<HostView>,
    events: &mpsc::Sender<Event>,
    parts: &mut JoinSet<()>,
) -> (reconcile::Routing, serve::Routing) {
    let (announced, announced_seen) = watch::channel(BTreeSet::new());
    let (view, view_seen) = watch::channel(None);
    let (asks, asked) = mpsc::channel(ASKS);
    let settings = speaker::Settings {
        terms: routing.terms.clone(),
        hold_time: routing.hold_time,
        host_name: config.node_name.clone(),
        graceful_restart: routing.graceful_restart,
        announced,
        started,
    };
    let queue = Arc::new(FibQueue::default());
    let (own, own_seen) = watch::channel(None);
    if config.services.is_none() {
        spawn(parts, "keeping the node forwarding", forwarding::keep(host.clone()));
    }
    parts.spawn(gather_own(host, view_seen.clone(), own));
    let way_out = egress::run(routing.pod_egress, view_seen.clone(), events.clone());
    spawn(parts, "keeping pods' way out", way_out);
    parts.spawn(speaker::run(settings, leave, view_seen, events.clone(), asked, Arc::clone(&queue)));
    let (routes, routes_asked) = mpsc::channel(ASKS);
    let kept = fib::run(queue, own_seen, routing.sync_period, events.clone(), routes_asked);
    spawn(parts, "keeping learned routes", kept);
    for address in &routing.admin {
        parts.spawn(grpc::run(*address, asks.clone(), started, events.clone()));
    }
    (reconcile::Routing { view, announced: announced_seen }, serve::Routing { speaker: asks, routes })
}

/// Whose heartbeats are expected, and how often.
fn heartbeats(config: &Config) -> Vec<(&'static health::Pulse, Duration)> {
    let mut expected = Vec::new();
    if let Some(routing) = &config.routing {
        expected.push((&health::ROUTING, ROUTES_SYNC_PERIOD));
        expected.push((&health::ROUTES, routing.sync_period));
    }
    expected.extend(config.services.iter().map(|services| (&health::SERVICES, services.sync_period)));
    expected.extend(config.metrics.iter().map(|_| (&health::METRICS, health::METRICS_PERIOD)));
    expected
}

/// What must never be led elsewhere by a learned route, from this host's view and the speaker's.
async fn gather_own(
    mut host: watch::Receiver<HostView>,
    mut view: watch::Receiver<Option<RoutingView>>,
    own: watch::Sender<Option<Own>>,
) {
    loop {
        let now = {
            let (host, view) = (host.borrow_and_update(), view.borrow_and_update());
            view.as_ref().map(|view| Own::new(&host, view.others.values()))
        };
        publish(&own, now);
        let changed = tokio::select! {
            changed = host.changed() => changed,
            changed = view.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Waits for the first list of everything, and for our Node in it.
async fn first_lists(config: &Config, progress: &mut watch::Receiver<Progress>) -> anyhow::Result<()> {
    let limit = config.api.sync_timeout;
    let listed = timeout(limit, progress.wait_for(|progress| progress.unlisted.is_empty())).await;
    let listed = listed.map(|progress| progress.map(|progress| progress.has_node));
    let Ok(has_node) = listed else {
        let missing: Vec<String> =
            progress.borrow().unlisted.iter().map(|kind| format!("{kind:?}")).collect();
        bail!("no first list of {} within {limit:?} (--cache-sync-timeout)", missing.join(", "));
    };
    if !has_node.context("wait for the first lists")? {
        bail!("there is no Node {:?}, as {} names this node", config.node_name, config.node_name_source);
    }
    Ok(())
}

/// A client of the API server, by kubeconfig, service account, or neither and an address.
async fn connect(api: &Api) -> anyhow::Result<Client> {
    let mut config = match (&api.kubeconfig, &api.master) {
        (Some(path), _) => {
            let doing = || format!("read the kubeconfig {}", path.display());
            let file = Kubeconfig::read_from(path).with_context(doing)?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(doing)?
        }
        (None, Some(master)) => match kube::Config::incluster() {
            Ok(config) => config,
            // Outside a cluster an address is enough for a server that asks nothing of its clients.
            Err(_) => kube::Config::new(master.parse().with_context(|| format!("read --master {master:?}"))?),
        },
        (None, None) => {
            kube::Config::incluster().context("no --kubeconfig and no --master, and not in a cluster")?
        }
    };
    if let Some(master) = &api.master {
        config.cluster_url = master.parse().with_context(|| format!("read --master {master:?}"))?;
    }
    let builder = ClientBuilder::try_from(config).context("make a client of the API server")?;
    Ok(builder.with_layer(&layer_fn(WholeLines::new)).build())
}

#[cfg(test)]
mod tests;
