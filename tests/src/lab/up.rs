//! `lab up`: the cluster, its application, the report, and the wait for somebody to end it.

use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

pub use super::arguments::UpOptions;
use super::facts::{self, Client, Fact};
use super::interrupt::{INTERRUPTED, Interrupt};
use super::source::Who;
use super::state::{Folder, LabState};
use super::steps::{Step, Steps, say};
use super::{down, invitation, matrix, routing, targets, told};
use crate::apiserver::Kind;
use crate::cluster::{Cluster, ClusterOptions};
use crate::node::unique_prefix;
use crate::probe::Probe;
use crate::serve::Transport;
use crate::tools;
use crate::topology::{REMOTE, Shape, TopologyOptions};

/// How long pods may take to be there, and then Services.
const PODS: Duration = Duration::from_secs(30);
const SERVICES: Duration = Duration::from_secs(10);
/// How long sessions and their routes may take.
const ROUTES: Duration = Duration::from_secs(30);

/// All that `lab up` found out, as `-o json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub id: String,
    pub kubeconfig: PathBuf,
    pub steps: Vec<Step>,
    pub facts: Vec<Fact>,
    /// What could not be tried; it counts neither as passed nor as failed.
    pub impossible: Vec<matrix::Impossible>,
    pub passed: usize,
    pub failed: usize,
}

/// A lab that is up. Its parts go in this order.
struct Lab {
    cluster: Cluster,
    folder: Folder,
    id: String,
}

/// The verb. An interrupt is no failure once the report is complete.
pub(super) fn run(options: &UpOptions) -> Result<ExitCode> {
    let interrupt = Interrupt::install()?;
    match bring_up(options, &interrupt) {
        Err(error) if interrupt.is_wished() => {
            eprintln!("lab: {error:#}; nothing is left of it");
            Ok(ExitCode::from(INTERRUPTED))
        }
        result => result,
    }
}

fn bring_up(options: &UpOptions, interrupt: &Interrupt) -> Result<ExitCode> {
    down::clear_dead()?;
    let mut steps = Steps::new(interrupt);
    let lab = Lab::start(interrupt, &mut steps, options.manifests.as_deref())?;
    let start = Instant::now();
    let (facts, impossible) = lab.find_out(options, interrupt)?;
    steps.note("facts", start.elapsed());
    let passed = facts.iter().filter(|fact| fact.ok).count();
    let report = Report {
        id: lab.id.clone(),
        kubeconfig: lab.cluster.kubeconfig(),
        steps: steps.into_done(),
        failed: facts.len() - passed,
        passed,
        facts,
        impossible,
    };
    if options.json {
        say(&serde_json::to_string_pretty(&report)?)?;
    } else {
        say(&format!("\n{}", lab.kubectl(&["get", "svc", "-o", "wide"])?.trim_end()))?;
        say(&format!("\n{} passed, {} failed", report.passed, report.failed))?;
    }
    if !options.once {
        if !options.json {
            say(&invitation::text(&lab.id, &lab.cluster)?)?;
        }
        interrupt.wait();
        eprintln!("taking lab {} down", lab.id);
    }
    drop(lab);
    Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Lab {
    fn start(interrupt: &Interrupt, steps: &mut Steps<'_>, manifests: Option<&Path>) -> Result<Self> {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/lab");
        let manifests = manifests.unwrap_or(&own);
        ensure!(manifests.exists(), "there is no {}", manifests.display());
        let id = std::process::id().to_string();
        let folder = Folder::make(&id)?;
        let topology = TopologyOptions { shape: Shape::ThreeNodes, ..TopologyOptions::default() };
        let options = ClusterOptions { topology, ..ClusterOptions::default() };
        let cluster = Cluster::start(&unique_prefix("lab"), &folder.path, options, |step, took| {
            steps.note(step, took);
        })?;
        folder.write(&LabState::of_topology(&id, &cluster.topology)?)?;
        let lab = Self { cluster, folder, id };
        let manifests = manifests.to_str().context("the path of the manifests is not UTF-8")?;
        steps.run("kubectl apply", || lab.kubectl(&["apply", "--recursive", "-f", manifests]))?;
        matrix::deploy(&lab.cluster)?;
        steps.run("every pod is ready", || lab.wait_ready())?;
        lab.settle(interrupt, steps, "BGP: every session is up, every route is there", Self::wait_routed)?;
        lab.settle(interrupt, steps, "every Service answers or refuses", Self::wait_settled)?;
        lab.settle(interrupt, steps, "every path of the matrix is there", |lab| {
            matrix::wait_settled(&lab.cluster)
        })?;
        Ok(lab)
    }

    /// A step that may fail, since manifests may hold what cannot work: the facts then say what that is.
    fn settle(
        &self,
        interrupt: &Interrupt,
        steps: &mut Steps<'_>,
        step: &str,
        wait: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<()> {
        if let Err(error) = steps.run(step, || wait(self)) {
            interrupt.check()?;
            eprintln!("lab: {error:#}");
        }
        Ok(())
    }

    /// Runs the kubectl on the PATH, else the one that `setup` unpacked.
    fn kubectl(&self, words: &[&str]) -> Result<String> {
        let program = tools::on_path("kubectl")
            .or_else(|error| tools::kubectls().ok().and_then(|all| all.into_iter().next()).ok_or(error))?;
        let output = Command::new(&program)
            .args(words)
            .arg("--cache-dir")
            .arg(self.folder.path.join("cache"))
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .stdin(Stdio::null())
            .process_group(0)
            .output()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {}: {}", words.join(" "), errors.trim());
        String::from_utf8(output.stdout).context("kubectl wrote no text")
    }

    fn wait_ready(&self) -> Result<()> {
        let what = "every Deployment to have its pods";
        self.cluster.wait(what, PODS, |cluster| {
            let unready = targets::unready(cluster.server().store());
            ensure!(unready.is_empty(), "not ready: {}", unready.join(", "));
            Ok(true)
        })
    }

    fn wait_routed(&self) -> Result<()> {
        self.cluster.wait("every session to be up and every route to be there", ROUTES, |cluster| {
            let facts = routing::facts(cluster);
            let wrong = facts.iter().find(|fact| !fact.ok);
            ensure!(wrong.is_none(), "{}", wrong.map(|fact| &*fact.line).unwrap_or_default());
            Ok(true)
        })
    }

    /// Until each port does what it should, once, for pod and node. The facts look closer.
    fn wait_settled(&self) -> Result<()> {
        self.clients()?.iter().try_for_each(|client| self.wait_settled_for(client))
    }

    fn wait_settled_for(&self, client: &Client) -> Result<()> {
        self.cluster.wait("every Service to answer or refuse", SERVICES, |cluster| {
            let probe = Probe::new(&*client.place);
            for target in targets::all(cluster.server().store()) {
                let to = target.address();
                let result = match target.transport {
                    Transport::Tcp => probe.tcp(&to)?,
                    Transport::Udp => probe.udp(&to)?,
                };
                let settled = if target.backends.is_empty() {
                    result.error.as_deref() == Some("refused")
                } else {
                    result.ok
                };
                ensure!(settled, "{} at {to}/{}: {:?}", target.service, target.transport, result.error);
            }
            Ok(true)
        })
    }

    /// All facts, those of the matrix last; said at once, unless JSON is wanted.
    fn find_out(
        &self,
        options: &UpOptions,
        interrupt: &Interrupt,
    ) -> Result<(Vec<Fact>, Vec<matrix::Impossible>)> {
        let tell = |line: &str| if options.json { Ok(()) } else { say(line) };
        let mut facts = Vec::new();
        self.report(interrupt, |fact| {
            tell(&fact.to_string())?;
            facts.push(fact);
            Ok(())
        })?;
        interrupt.check()?;
        let matrix = matrix::run(&self.cluster)?;
        tell(&format!("\n{}\n", matrix::table(&matrix)))?;
        for fact in matrix.cells.iter().map(matrix::Cell::fact) {
            if !fact.ok {
                tell(&fact.to_string())?;
            }
            facts.push(fact);
        }
        Ok((facts, matrix.impossible))
    }

    fn report(&self, interrupt: &Interrupt, mut tell: impl FnMut(Fact) -> Result<()>) -> Result<()> {
        let mut tell = |fact| interrupt.check().and_then(|()| tell(fact));
        routing::facts(&self.cluster).into_iter().try_for_each(&mut tell)?;
        let clients = self.clients()?;
        let outside = Client {
            name: "outside".to_owned(),
            place: self.cluster.topology.remote.clone(),
            who: Who::Abroad(REMOTE),
        };
        let targets = targets::all(self.cluster.server().store());
        for target in targets.iter().filter(|target| !target.backends.is_empty()) {
            let outside = target.node_port.map(|_| &outside);
            for client in clients.iter().chain(outside) {
                tell(facts::answers(target, client))?;
            }
        }
        for client in &clients {
            let mut pinged: Vec<Ipv4Addr> = Vec::new();
            for target in &targets {
                if target.backends.is_empty() {
                    let what = format!("{} has no backend", target.service);
                    tell(facts::refuses(&what, target.vip, target.port, target.transport, client))?;
                } else {
                    tell(facts::unknown_ports(target, client))?;
                }
                if !pinged.contains(&target.vip) {
                    pinged.push(target.vip);
                    tell(facts::ping(&target.service, target.vip, client))?;
                }
            }
        }
        facts::harmless(&self.cluster).into_iter().try_for_each(&mut tell)?;
        facts::fill(&self.cluster).into_iter().try_for_each(&mut tell)?;
        told::facts(&self.cluster).into_iter().try_for_each(&mut tell)
    }

    fn clients(&self) -> Result<Vec<Client>> {
        let mut clients = Vec::new();
        if let Some((namespace, name)) = targets::client(self.cluster.server().store()) {
            clients.push(Client {
                name: "pod".to_owned(),
                place: self.cluster.pod_in(&namespace, &name)?,
                who: Who::Pod(self.pod_address(&namespace, &name)?),
            });
        }
        clients.push(Client { name: "node".to_owned(), place: self.cluster.node(), who: Who::Process });
        Ok(clients)
    }

    fn pod_address(&self, namespace: &str, name: &str) -> Result<Ipv4Addr> {
        let pod =
            self.cluster.server().store().get(Kind::Pod, namespace, name).context("the pod has gone")?;
        let address = pod.pointer("/status/podIP").and_then(serde_json::Value::as_str);
        address.context("the pod has no address")?.parse().context("its address is none")
    }
}
