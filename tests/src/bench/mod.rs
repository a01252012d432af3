//! `bench datapath`: what a Service costs, in instructions, held against no Service at all and against peers.
//!
//! Arms run in guests that count instructions (one nanosecond of their clock is one), so that the load of this
//! machine changes nothing. Arms that need other kernel modules run in another guest, and each on a node made anew,
//! so that nothing of one stands in another's way. What is counted is everything that the guest executes: both pods, the node between them, and the timer ticks of that
//! time. Processor caches and branch prediction are not modelled: an instruction is an instruction.

pub mod arms;
mod hooks;
pub mod load;
mod ours;
pub mod report;
mod world;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

use self::arms::{Arm, Kind, matrix};
use self::report::{Figure, HookCost, Matrix, Row};
use crate::packets::kernel::{Loaded, object_path};
use crate::vm::{Guest, Kernel, Series};

/// Rounds of each arm.
const ROUNDS: u32 = 5;
/// Runs of each packet through a hook.
const HOOK_RUNS: u32 = 9;
/// How long a guest may take to make 30,000 Services.
const PATIENCE: Duration = Duration::from_mins(6);
/// Guests at a time.
const GUESTS: usize = 2;
/// Tools of the guest.
const TOOLS: &[&str] = &["ip", "sysctl", "nft", "ipvsadm", "iptables-legacy-restore"];
/// What findings are called.
const CONNECTION: &str = "connection, ";
const EXCHANGE: &str = "exchange, ";
const HOOK: &str = "hook, ";

/// What was asked for.
#[derive(Debug)]
struct Options {
    series: Series,
    quick: bool,
    json: bool,
    only: String,
}

const USAGE: &str = "\
usage: lab bench datapath [--kernel 6.1|6.12] [--quick] [--only TEXT] [-o json]

Counts instructions of a TCP connection and of a UDP exchange between two pods, by every way to map a Service.
--quick: plain, ours and IPVS, one Service. --only: plain, and the arms whose names contain the text.";

impl Options {
    fn parse(words: &[String]) -> Result<Self> {
        let mut options = Self { series: Series::V6_12, quick: false, json: false, only: String::new() };
        let mut words = words.iter().map(String::as_str);
        if words.next() != Some("datapath") {
            bail!("{USAGE}");
        }
        while let Some(word) = words.next() {
            match word {
                "--quick" => options.quick = true,
                "--only" => words.next().context(USAGE)?.clone_into(&mut options.only),
                "-o" if words.next() == Some("json") => options.json = true,
                "--kernel" => {
                    let name = words.next().unwrap_or_default();
                    let series = Series::ALL.into_iter().find(|series| series.name() == name);
                    options.series = series.with_context(|| format!("no kernel {name:?}\n{USAGE}"))?;
                }
                _ => bail!("{USAGE}"),
            }
        }
        Ok(options)
    }
}

/// `lab bench …`: runs every arm, and returns what to print.
pub fn main(words: &[String]) -> Result<String> {
    if words.iter().any(|word| word == "--help" || word == "-h") {
        return Ok(format!("{USAGE}\n"));
    }
    let options = Options::parse(words)?;
    let mut arms = matrix(options.quick);
    arms.retain(|arm| arm.kind == Kind::Plain || arm.kind.name().contains(&options.only));
    arms.retain(|arm| {
        let reason = arm.impossible(options.series);
        if let Some(reason) = reason {
            eprintln!("{arm}: not measured: {reason}");
        }
        reason.is_none()
    });
    let matrix = run(options.series, &arms)?;
    Ok(if options.json { serde_json::to_string_pretty(&matrix)? + "\n" } else { matrix.table() })
}

/// What a guest found of its arms, with their places in the table.
#[derive(Default)]
struct Part {
    rows: Vec<(usize, Row)>,
    hooks: Vec<HookCost>,
}

fn run(series: Series, arms: &[Arm]) -> Result<Matrix> {
    let start = Instant::now();
    let kernel = Kernel::find(series)?.release;
    let batches = batches(arms);
    let next = AtomicUsize::new(0);
    let mut parts = thread::scope(|scope| {
        let work = || {
            let mut parts = Vec::new();
            while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                // Said at once, since the others go on.
                parts.push(measure(series, batch).inspect_err(|error| eprintln!("failed: {error:#}"))?);
            }
            anyhow::Ok(parts)
        };
        let workers: Vec<_> = (0..GUESTS).map(|_| scope.spawn(work)).collect();
        let joined =
            workers.into_iter().map(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?);
        joined.collect::<Result<Vec<Vec<Part>>>>()
    })?;
    eprintln!("all arms: {:.0} s", start.elapsed().as_secs_f32());
    let mut all = Part::default();
    for part in parts.iter_mut().flatten() {
        all.rows.append(&mut part.rows);
        all.hooks.append(&mut part.hooks);
    }
    all.rows.sort_by_key(|(place, _)| *place);
    let rows = all.rows.into_iter().map(|(_, row)| row).collect();
    Ok(Matrix { kernel, rows, hooks: all.hooks }.compared())
}

/// Arms by the modules that they need, the batch with most to do first.
fn batches(arms: &[Arm]) -> Vec<Vec<(usize, Arm)>> {
    let mut batches: BTreeMap<Vec<&str>, Vec<(usize, Arm)>> = BTreeMap::new();
    for (place, arm) in arms.iter().enumerate() {
        batches.entry(arm.modules()).or_default().push((place, *arm));
    }
    let mut batches: Vec<_> = batches.into_values().collect();
    batches.sort_by_key(|batch| Reverse(batch.iter().map(|(_, arm)| u64::from(arm.services)).sum::<u64>()));
    batches
}

fn measure(series: Series, batch: &[(usize, Arm)]) -> Result<Part> {
    let began = Instant::now();
    let mut guest = Guest::new(series)?.counting().silence(PATIENCE);
    for tool in TOOLS {
        guest.image().tool(tool)?;
    }
    guest.image().xtables()?;
    let (_, first) = batch.first().context("a batch has an arm")?;
    let guest = guest.modules(&first.modules())?;
    let mut words = Vec::new();
    for (_, arm) in batch {
        words.extend(["bench".to_owned(), arm.kind.name().to_owned(), arm.services.to_string()]);
    }
    if first.kind.is_ours() {
        words.push("bench-hooks".to_owned());
    }
    let report = guest.run(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
    report.passed()?;
    let mut found: BTreeMap<&str, Figure> = BTreeMap::new();
    let mut hooks = Vec::new();
    for finding in &report.findings {
        let figure = figures(finding.outcome.as_deref().unwrap_or_default())?.context("no rounds")?;
        match finding.name.strip_prefix(HOOK) {
            Some(what) => hooks.push(HookCost { what: what.to_owned(), cost: figure }),
            None => drop(found.insert(&finding.name, figure)),
        }
    }
    let mut figure = |kind: &str, arm: Arm| {
        let name = format!("{kind}{arm}");
        found.remove(name.as_str()).with_context(|| format!("the guest did not report: {name}"))
    };
    let mut rows = Vec::new();
    for (place, arm) in batch {
        let (connection, exchange) = (figure(CONNECTION, *arm)?, figure(EXCHANGE, *arm)?);
        rows.push((*place, Row::new(*arm, connection, exchange)));
    }
    let names = batch.iter().map(|(_, arm)| arm.to_string()).collect::<Vec<_>>().join(", ");
    eprintln!("{names}: {:.0} s", began.elapsed().as_secs_f32());
    Ok(Part { rows, hooks })
}

fn figures(text: &str) -> Result<Option<Figure>> {
    let rounds = text.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>();
    Ok(Figure::of(&rounds.with_context(|| text.to_owned())?))
}

/// A named result of a guest.
pub type Found = (String, String);

/// In a guest: the arms that it has been through leave their programs here, since the verifier takes its time.
#[derive(Debug, Default)]
pub struct InGuest {
    loaded: Option<Loaded>,
}

impl InGuest {
    /// Makes an arm's node and measures it.
    pub fn arm(&mut self, name: &str, services: &str) -> Result<Vec<Found>> {
        let arm = Arm::parse(name, services)?;
        world::make(arm)?;
        if arm.kind.is_ours() {
            ours::attach(self.loaded()?, arm)?;
        }
        let _server = Server(inside(world::SERVER.0, "load-server", &[]).spawn()?);
        // The clock moves on at once while nobody has work.
        thread::sleep(Duration::from_secs(2));
        let dialled = if arm.kind.dials_vip() {
            SocketAddr::from((world::vip(arm.dialled()), world::SERVICE_PORT))
        } else {
            SocketAddr::from((world::SERVER.1, load::SERVER_PORT))
        };
        let out = inside(world::CLIENT.0, "load-client", &[&dialled.to_string()]).output()?;
        if !out.status.success() {
            bail!("the client failed: {}", String::from_utf8_lossy(&out.stderr).trim());
        }
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let named = text.lines().filter_map(|line| line.split_once('\t'));
        Ok(named.map(|(kind, rounds)| (format!("{kind}{arm}"), rounds.to_owned())).collect())
    }

    /// What our hooks cost by themselves.
    pub fn hooks(&mut self) -> Result<Vec<Found>> {
        let costs = hooks::costs(self.loaded()?, HOOK_RUNS)?;
        Ok(costs.into_iter().map(|(name, runs)| (format!("{HOOK}{name}"), words(&runs))).collect())
    }

    fn loaded(&mut self) -> Result<&mut Loaded> {
        if self.loaded.is_none() {
            self.loaded = Some(Loaded::new(&object_path()?)?);
        }
        self.loaded.as_mut().context("just loaded")
    }
}

/// In a guest, in a pod: measures, and prints what [`InGuest::arm`] reads.
pub fn client(to: &str) -> Result<String> {
    let costs = load::measure(to.parse()?, ROUNDS)?;
    Ok(format!("{CONNECTION}\t{}\n{EXCHANGE}\t{}\n", words(&costs.connection), words(&costs.exchange)))
}

fn words(figures: &[f64]) -> String {
    figures.iter().map(|figure| format!("{figure:.1}")).collect::<Vec<_>>().join(" ")
}

/// This program again, in a pod.
fn inside(pod: &str, word: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", pod, "/usr/bin/guest-init", word]).args(arguments);
    command
}

/// A server that ends with its arm.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Result<Options> {
        Options::parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read_and_what_is_unknown_is_refused() {
        let all = options("datapath --kernel 6.1 --quick --only ours -o json").unwrap();
        assert_eq!((all.series, all.quick, all.json, all.only.as_str()), (Series::V6_1, true, true, "ours"));
        let none = options("datapath").unwrap();
        assert_eq!((none.series, none.quick, none.json), (Series::V6_12, false, false));
        for wrong in ["", "latency", "datapath --kernel 5.4", "datapath -o yaml", "datapath --fast"] {
            assert!(options(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn figures_come_back_from_words() {
        let rounds = [145_000.3, 1.0];
        assert_eq!(figures(&words(&rounds)).unwrap().unwrap().rounds, [145_000.3, 1.0]);
        assert!(figures("many").is_err());
    }
}
