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
use super::state::{Folder, LabState};
use super::steps::{Step, Steps, say};
use super::targets::{self, REMOTE, Target};
use super::{down, rows};
use crate::apiserver::Kind;
use crate::cluster::{Cluster, ClusterOptions};
use crate::node::unique_prefix;
use crate::probe::Probe;
use crate::sandbox::Serving;
use crate::serve::Transport;
use crate::tools;

/// How long pods may take to be there, and then Services.
const PODS: Duration = Duration::from_secs(30);
const SERVICES: Duration = Duration::from_secs(10);

/// All that `lab up` found out, as `-o json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub id: String,
    pub kubeconfig: PathBuf,
    pub steps: Vec<Step>,
    pub facts: Vec<Fact>,
    pub passed: usize,
    pub failed: usize,
}

/// A lab that is up. Its parts go in this order.
struct Lab {
    remote: Option<Serving>,
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
    let mut report = Report {
        id: lab.id.clone(),
        kubeconfig: lab.cluster.kubeconfig(),
        steps: Vec::new(),
        facts: Vec::new(),
        passed: 0,
        failed: 0,
    };
    let start = Instant::now();
    lab.report(interrupt, |fact| {
        if !options.json {
            say(&format!("{}  {:<40} {}", if fact.ok { "ok    " } else { "FAILED" }, fact.fact, fact.line))?;
        }
        report.facts.push(fact);
        Ok(())
    })?;
    steps.note("facts", start.elapsed());
    report.steps = steps.into_done();
    report.passed = report.facts.iter().filter(|fact| fact.ok).count();
    report.failed = report.facts.len() - report.passed;
    if options.json {
        say(&serde_json::to_string_pretty(&report)?)?;
    } else {
        say(&format!("\n{}", lab.kubectl(&["get", "svc", "-o", "wide"])?.trim_end()))?;
        say(&format!("\n{} passed, {} failed", report.passed, report.failed))?;
    }
    if !options.once {
        if !options.json {
            say(&lab.invitation()?)?;
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
        let cluster =
            Cluster::start(&unique_prefix("lab"), &folder.path, ClusterOptions::default(), |step, took| {
                steps.note(step, took);
            })?;
        folder.write(&LabState::of_topology(&id, &cluster.topology)?)?;
        let mut lab = Self { remote: None, cluster, folder, id };
        let manifests = manifests.to_str().context("the path of the manifests is not UTF-8")?;
        steps.run("kubectl apply", || lab.kubectl(&["apply", "--recursive", "-f", manifests]))?;
        steps.run("the remote host serves the other node's pods", || lab.serve_remote())?;
        steps.run("every pod is ready", || lab.wait_ready())?;
        // Manifests may hold what cannot work: the facts then say what that is.
        if let Err(error) = steps.run("every Service answers or refuses", || lab.wait_settled()) {
            interrupt.check()?;
            eprintln!("lab: {error:#}");
        }
        Ok(lab)
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

    fn serve_remote(&mut self) -> Result<()> {
        let listens = targets::remote_listens(self.cluster.server().store());
        self.remote = Some(Serving::start(&self.cluster.topology.remote, REMOTE, &listens)?);
        Ok(())
    }

    fn wait_ready(&self) -> Result<()> {
        let what = "every Deployment to have its pods";
        self.cluster.wait(what, PODS, |cluster| {
            let unready = targets::unready(cluster.server().store());
            ensure!(unready.is_empty(), "not ready: {}", unready.join(", "));
            Ok(true)
        })
    }

    /// Until each port does what it should, once, for the node. The facts look closer.
    fn wait_settled(&self) -> Result<()> {
        self.cluster.wait("every Service to answer or refuse", SERVICES, |cluster| {
            let node = cluster.node();
            let probe = Probe::new(&node);
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

    fn report(&self, interrupt: &Interrupt, mut tell: impl FnMut(Fact) -> Result<()>) -> Result<()> {
        let mut tell = |fact| interrupt.check().and_then(|()| tell(fact));
        let clients = self.clients()?;
        let targets = targets::all(self.cluster.server().store());
        for target in targets.iter().filter(|target| !target.backends.is_empty()) {
            for client in &clients {
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
        facts::fill(&self.cluster).into_iter().try_for_each(&mut tell)
    }

    fn clients(&self) -> Result<Vec<Client>> {
        let mut clients = Vec::new();
        if let Some((namespace, name)) = targets::client(self.cluster.server().store()) {
            clients.push(Client {
                name: "pod".to_owned(),
                place: self.cluster.pod_in(&namespace, &name)?,
                pod: Some((name.clone(), self.pod_address(&namespace, &name)?)),
            });
        }
        clients.push(Client { name: "node".to_owned(), place: self.cluster.node(), pod: None });
        Ok(clients)
    }

    fn pod_address(&self, namespace: &str, name: &str) -> Result<Ipv4Addr> {
        let pod =
            self.cluster.server().store().get(Kind::Pod, namespace, name).context("the pod has gone")?;
        let address = pod.pointer("/status/podIP").and_then(serde_json::Value::as_str);
        address.context("the pod has no address")?.parse().context("its address is none")
    }

    /// What to try, with names and addresses that exist.
    fn invitation(&self) -> Result<String> {
        let kubeconfig = self.cluster.kubeconfig();
        let pins = rows::folder(&self.cluster.topology.node)?;
        let store = self.cluster.server().store();
        let targets = targets::all(store);
        let shown = targets.iter().find(|target| target.service == "web").or_else(|| targets.first());
        let vip = shown.map_or_else(|| "VIP:PORT".to_owned(), Target::address);
        let deployment = store.list(Kind::Deployment);
        let named = |name: &str| {
            deployment.iter().any(|one| one.pointer("/metadata/name").is_some_and(|found| found == name))
        };
        let deployment = if named("web") { "web" } else { "NAME" };
        Ok(format!(
            "lab {} is up until Ctrl-C or `cargo xtask lab down`. Things to try, in another terminal:\n\
             \n  cargo xtask lab exec node1 -- ip -br addr; cargo xtask lab exec pod/NAME -- ip route\
             \n  export KUBECONFIG={}; kubectl get pods,svc -o wide\
             \n  kubectl scale deployment {deployment} --replicas=5 && for i in $(seq 20); do cargo xtask lab exec \
             node1 -- lab probe tcp {vip}; done\
             \n  cargo xtask lab exec node1 -- bpftool map dump pinned {pins}/FRONTENDS4",
            self.id,
            kubeconfig.display(),
        ))
    }
}
