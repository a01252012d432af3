//! From the arguments to a running agent: the one file that knows all the parts. Exit codes are upstream's: 0 for
//! an orderly end, 1 for a run that cannot start (one line on stderr, no log header), 2 for a flag that does not
//! parse.
//!
//! SIGTERM and SIGINT end the process and leave everything in the kernel as it is.

pub(crate) mod kernel;

use std::collections::BTreeSet;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use kube::Client;
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use router_core::cluster::{Cluster, Event, HostView, Kind, RoutingView};
use router_core::cni::Wanted;
use router_core::plan::ebpf::EbpfPlane;
use router_core::plan::fib::Own;
use router_core::problem::{Problem, Subject};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::layer::layer_fn;
use tracing::info;

use crate::bgp::speaker::LAST_WORDS;
use crate::bgp::{grpc, speaker};
use crate::cluster::lines::WholeLines;
use crate::cluster::watch as follow;
use crate::config::{Api, Cni, Config, Environment, Routing, Services};
use crate::fib::{self, FibQueue};
use crate::flags::Flags;
use crate::log;
use crate::node::cni_file;
use crate::parts::{publish, spawn};
use crate::reconcile::{self, Driver, Outlets, Progress, Reconciler, Settings};

/// Events under way from the parts to the loop: enough for a burst, few enough that a list of many thousand
/// objects is not held twice.
const EVENTS: usize = 1_024;

/// Questions to the speaker under way.
const ASKS: usize = 16;

/// How often a CNI file that could not be edited is looked at again.
const CNI_RETRY: Duration = Duration::from_secs(10);

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
    ) -> impl Future<Output = anyhow::Result<Self::Driver>> + Send;
}

/// The whole program.
pub(crate) fn main(args: impl Iterator<Item = String>, kernel: impl KernelSide) -> ExitCode {
    let mut args = args;
    let program = args.next().unwrap_or_else(|| "kube-router".to_owned());
    let args: Vec<String> = args.collect();
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
        return Start::Say(Flags::usage(), 0);
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
    let client = connect(&config.api).await?;
    let (events, inbox) = mpsc::channel(EVENTS);
    let (progress, mut progress_seen) = watch::channel(Progress::default());
    let (host, host_seen) = watch::channel(HostView::default());

    let mut parts = JoinSet::new();
    let kinds = spawn_followers(&config, &client, &events, &mut parts);
    let cluster = Cluster::new(&config.node_name, kinds);
    progress.send_modify(|progress| progress.unlisted.clone_from(cluster.unlisted()));
    let driver = match &config.services {
        Some(services) => Some(kernel.start(services, events.clone(), host_seen.clone(), &mut parts).await?),
        None => None,
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
    let routing = config
        .routing
        .as_ref()
        .map(|routing| start_routing(routing, &config, leave, host_seen.clone(), &events, &mut parts));
    let outlets = Outlets { progress, host, routing };
    let reconciler = Reconciler::<EbpfPlane<[u8; 4]>, _>::new(cluster, driver, settings, outlets);
    let loop_ended = reconciler.run(inbox);
    let ready = async {
        first_lists(&config, &mut progress_seen).await?;
        match &config.cni {
            Some(cni) => keep_cni_file(cni, host_seen, events).await,
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
    leave: watch::Receiver<()>,
    host: watch::Receiver<HostView>,
    events: &mpsc::Sender<Event>,
    parts: &mut JoinSet<()>,
) -> reconcile::Routing {
    let started = Instant::now();
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
    parts.spawn(gather_own(host, view_seen.clone(), own));
    parts.spawn(speaker::run(settings, leave, view_seen, events.clone(), asked, Arc::clone(&queue)));
    let kept = fib::run(queue, own_seen, routing.sync_period, events.clone());
    spawn(parts, "keeping learned routes", kept);
    for address in &routing.admin {
        parts.spawn(grpc::run(*address, asks.clone(), started, events.clone()));
    }
    reconcile::Routing { view, announced: announced_seen }
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

/// Keeps the CNI file in step with the node's pod ranges. A file that is missing at start ends the run; one that
/// cannot be edited is a Problem, and looked at again.
async fn keep_cni_file(
    cni: &Cni,
    mut host: watch::Receiver<HostView>,
    events: mpsc::Sender<Event>,
) -> anyhow::Result<()> {
    if !cni.path.exists() {
        bail!("the CNI file {} does not exist (KUBE_ROUTER_CNI_CONF_FILE names it)", cni.path.display());
    }
    loop {
        let view = host.borrow_and_update().clone();
        let subject = Subject::File(cni.path.display().to_string());
        let found = edit_cni_file(cni, &view, &subject);
        let retry = !found.is_empty();
        events.send(Event::Problems(subject, found)).await.context("tell of the CNI file")?;
        tokio::select! {
            changed = host.changed() => changed.context("learn of pod ranges")?,
            () = tokio::time::sleep(CNI_RETRY), if retry => {}
        }
    }
}

fn edit_cni_file(cni: &Cni, view: &HostView, subject: &Subject) -> Vec<Problem> {
    if view.pod_cidrs.is_empty() {
        return Vec::new();
    }
    let mtu =
        cni.auto_mtu.then(|| view.node_addresses.first().and_then(|address| mtu_of(*address))).flatten();
    match cni_file::update(&cni.path, &Wanted { pod_cidrs: &view.pod_cidrs, mtu }) {
        Ok(written) => {
            if written {
                info!("{subject}: pod ranges and MTU are the node's now");
            }
            Vec::new()
        }
        Err(error) => vec![Problem {
            subject: subject.clone(),
            reason: "NotEditable",
            text: format!("{:#}", anyhow::Error::new(error)),
            remedy: "correct or replace the file; until then new pods get addresses as it stands".to_owned(),
        }],
    }
}

/// The MTU of the device that has `address`.
fn mtu_of(address: std::net::IpAddr) -> Option<u32> {
    let has_it = |device: &nix::ifaddrs::InterfaceAddress| {
        let socket = device.address?;
        let v4 = socket.as_sockaddr_in().map(|socket| std::net::IpAddr::V4(socket.ip()));
        let v6 = socket.as_sockaddr_in6().map(|socket| std::net::IpAddr::V6(socket.ip()));
        (v4.or(v6)? == address).then_some(())
    };
    let device = nix::ifaddrs::getifaddrs().ok()?.find(|device| has_it(device).is_some())?;
    let path = Path::new("/sys/class/net").join(device.interface_name).join("mtu");
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
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
