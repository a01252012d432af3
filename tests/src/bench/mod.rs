//! `bench datapath`: what a Service costs, in instructions, held against no Service at all and against peers.
//!
//! Each arm runs in a guest of its own that counts instructions (one nanosecond of its clock is one), so that
//! nothing of one arm stands in another's way, and so that the load of this machine changes nothing. What is
//! counted is everything that the guest executes: both pods, the node between them, and the timer ticks of that
//! time. Processor caches and branch prediction are not modelled: an instruction is an instruction.

pub mod arms;
pub mod load;
mod ours;
pub mod report;
mod world;

use std::net::SocketAddr;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use self::arms::{Arm, Kind, matrix};
use self::report::{Figure, HookCost, Matrix, Row};
use crate::vm::{Guest, Series};

/// Rounds of each arm.
const ROUNDS: u32 = 5;
/// How long a guest may take to make 30,000 Services.
const PATIENCE: Duration = Duration::from_mins(6);
/// Guests at a time.
const GUESTS: usize = 2;
/// Tools of the guest.
const TOOLS: &[&str] = &["ip", "sysctl", "nft", "ipvsadm", "iptables-legacy-restore"];
/// What findings are called.
const CONNECTION: &str = "connection";
const EXCHANGE: &str = "exchange";

/// What was asked for.
#[derive(Debug)]
struct Options {
    series: Series,
    quick: bool,
    json: bool,
}

const USAGE: &str = "\
usage: lab bench datapath [--kernel 6.1|6.12] [--quick] [-o json]

Counts instructions of a TCP connection and of a UDP exchange between two pods, by every way to map a Service.
--quick: plain, ours and IPVS, one Service.";

impl Options {
    fn parse(words: &[String]) -> Result<Self> {
        let mut options = Self { series: Series::V6_12, quick: false, json: false };
        let mut words = words.iter().map(String::as_str);
        if words.next() != Some("datapath") {
            bail!("{USAGE}");
        }
        while let Some(word) = words.next() {
            match word {
                "--quick" => options.quick = true,
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
    let options = Options::parse(words)?;
    let arms = matrix(options.quick);
    let matrix = run(options.series, &arms)?;
    Ok(if options.json { serde_json::to_string_pretty(&matrix)? + "\n" } else { matrix.table() })
}

fn run(series: Series, arms: &[Arm]) -> Result<Matrix> {
    let start = Instant::now();
    let next = AtomicUsize::new(0);
    let rows = Mutex::new(Vec::new());
    let kernel = crate::vm::Kernel::find(series)?.release;
    let hooks = thread::scope(|scope| -> Result<_> {
        let work = || -> Result<()> {
            while let Some((place, arm)) = {
                let place = next.fetch_add(1, Ordering::Relaxed);
                arms.get(place).map(|arm| (place, *arm))
            } {
                let began = Instant::now();
                let row = measure(series, arm).with_context(|| arm.to_string())?;
                eprintln!("{arm}: {:.0} s", began.elapsed().as_secs_f32());
                rows.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((place, row));
            }
            Ok(())
        };
        let workers: Vec<_> = (0..GUESTS).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))??;
        }
        hooks(series)
    })?;
    eprintln!("all arms: {:.0} s", start.elapsed().as_secs_f32());
    let mut rows = rows.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    rows.sort_by_key(|(place, _)| *place);
    let rows = rows.into_iter().map(|(_, row)| row).collect();
    Ok(Matrix { kernel, rows, hooks }.compared())
}

fn guest(series: Series, arm: Arm) -> Result<Guest> {
    let mut guest = Guest::new(series)?.counting().silence(PATIENCE);
    for tool in TOOLS {
        guest.image().tool(tool)?;
    }
    guest.image().xtables()?;
    guest.modules(&arm.modules())
}

fn measure(series: Series, arm: Arm) -> Result<Row> {
    let services = arm.services.to_string();
    let report = guest(series, arm)?.run(&["bench", arm.kind.name(), &services])?;
    report.passed()?;
    let figure = |kind: &str| -> Result<Figure> {
        let finding = report.findings.iter().find(|finding| finding.name == kind).context(kind.to_owned())?;
        let text = finding.outcome.as_deref().unwrap_or_default();
        figures(text)?.context("no rounds")
    };
    Ok(Row {
        arm: arm.kind.name().to_owned(),
        services: arm.services,
        connection: figure(CONNECTION)?,
        connection_ratio: 1.0,
        exchange: figure(EXCHANGE)?,
        exchange_ratio: 1.0,
    })
}

fn figures(text: &str) -> Result<Option<Figure>> {
    let rounds = text.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>();
    Ok(Figure::of(&rounds.with_context(|| text.to_owned())?))
}

fn hooks(series: Series) -> Result<Vec<HookCost>> {
    let report = guest(series, Arm { kind: Kind::Fast, services: 0 })?.run(&["bench-hooks"])?;
    report.passed()?;
    let mut costs = Vec::new();
    for finding in &report.findings {
        let text = finding.outcome.as_deref().unwrap_or_default();
        costs.push(HookCost { what: finding.name.clone(), cost: figures(text)?.context("no runs")? });
    }
    Ok(costs)
}

/// A named result of a guest.
pub type Found = (String, String);

/// In a guest: makes an arm's node and measures it.
pub fn in_guest(name: &str, services: &str) -> Result<Vec<Found>> {
    let arm = Arm::parse(name, services)?;
    world::make(arm)?;
    let _programs = match arm.kind {
        Kind::Fast | Kind::Slow | Kind::Direct => Some(ours::attach(arm)?),
        _ => None,
    };
    let _server = Server(inside(world::SERVER.0, "load-server", &[]).spawn()?);
    // The clock moves on at once while nobody has work.
    thread::sleep(Duration::from_secs(2));
    let dialled = if arm.kind.dials_vip() {
        SocketAddr::from((world::vip(arm.dialled()), world::SERVICE_PORT))
    } else {
        SocketAddr::from((world::SERVER.1, load::SERVER_PORT))
    };
    let out = inside(world::CLIENT.0, "load-client", &[&dialled.to_string()]).output()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    if !out.status.success() {
        bail!("the client failed: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    let named = text.lines().filter_map(|line| line.split_once('\t'));
    Ok(named.map(|(name, rounds)| (name.to_owned(), rounds.to_owned())).collect())
}

/// In a guest: what the hooks cost by themselves.
pub fn hooks_in_guest() -> Result<Vec<Found>> {
    let costs = ours::hook_costs(ROUNDS)?;
    Ok(costs.into_iter().map(|(name, runs)| (name.to_owned(), words(&runs))).collect())
}

/// In a guest, in a pod: measures, and prints what [`in_guest`] reads.
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
        let all = options("datapath --kernel 6.1 --quick -o json").unwrap();
        assert_eq!((all.series, all.quick, all.json), (Series::V6_1, true, true));
        let none = options("datapath").unwrap();
        assert_eq!((none.series, none.quick, none.json), (Series::V6_12, false, false));
        for wrong in ["", "latency", "datapath --kernel 5.4", "datapath -o yaml", "datapath --fast"] {
            assert!(options(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn figures_come_back_from_words() {
        let rounds = [145_000.25, 1.0];
        assert_eq!(figures(&words(&rounds)).unwrap().unwrap().rounds, [145_000.3, 1.0]);
        assert!(figures("many").is_err());
    }
}
