//! What the lab finds out about itself: each fact is tried, said in one line, and right or wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::rows;
use super::source::{self, Who};
use super::targets::Target;
use crate::cluster::Cluster;
use crate::enter::Place;
use crate::probe::{Probe, ProbeCall, percentile};
use crate::serve::Transport;
use crate::topology::hostile::{self, Chain};
use crate::topology::three::SITES;

/// Conversations with each port of each Service from each client.
const CONVERSATIONS: u32 = 200;
/// Longer than TCP takes to send a lost packet again: a loss is then told from a path that does not work.
const TIMEOUT: Duration = Duration::from_secs(3);
/// What takes so long has been sent again.
const RESENT_MICROS: u64 = 900_000;
/// A port that no Service of the lab has.
const UNKNOWN_PORT: u16 = 9;

/// A fact. The figures are what the line says, for programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    pub fact: String,
    pub ok: bool,
    pub line: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub figures: Value,
}

/// Whether it is right, in one line, in figures.
pub(super) type Finding = (bool, String, Value);

/// Where connections come from. Node ports are those of the first node.
pub(super) struct Client {
    /// `pod`, `node` or `outside`.
    pub name: String,
    pub place: Place,
    pub who: Who,
}

impl Fact {
    pub(super) fn new(fact: impl Into<String>, result: Result<Finding>) -> Self {
        let fact = fact.into();
        match result {
            Ok((ok, line, figures)) => Self { fact, ok, line, figures },
            Err(error) => Self { fact, ok: false, line: format!("{error:#}"), figures: Value::Null },
        }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fact, ok, line, figures: _ } = self;
        write!(f, "{}  {fact:<40} {line}", if *ok { "ok    " } else { "FAILED" })
    }
}

/// A port with backends: all conversations are answered, by all backends and by no other, and each backend sees the
/// client it should see.
pub(super) fn answers(target: &Target, client: &Client) -> Fact {
    let (port, what) = match client.who {
        Who::Abroad(_) => (target.node_port.unwrap_or(0), "NodePort "),
        Who::Pod(_) | Who::Process => (target.port, ""),
    };
    let fact = format!("{} {what}{port}/{} from {}", target.service, target.transport, client.name);
    let to = match client.who {
        Who::Abroad(_) => format!("{}:{port}", SITES[0].address),
        Who::Pod(_) | Who::Process => target.address(),
    };
    Fact::new(fact, try_answers(target, client, to))
}

fn try_answers(target: &Target, client: &Client, to: String) -> Result<Finding> {
    let call = ProbeCall::new(target.transport, to).timeout(TIMEOUT);
    let probe = Probe::new(&*client.place);
    // Where one is not answered, nobody waits for the others.
    if let Some(error) = probe.call(&call)?.into_iter().find_map(|result| result.error) {
        return Ok((false, error.clone(), json!({"error": error})));
    }
    let results = probe.call(&call.count(CONVERSATIONS))?;
    let mut hits: BTreeMap<&str, u64> = target.backends.keys().map(|name| (name.as_str(), 0)).collect();
    let mut wrong: Vec<String> = Vec::new();
    let mut seen = BTreeSet::new();
    for result in &results {
        let (Some(backend), Some(source)) = (result.backend(), result.seen()) else {
            wrong.push(result.error.clone().unwrap_or_else(|| format!("an answer {:?}", result.answer)));
            continue;
        };
        *hits.entry(backend).or_default() += 1;
        let source = source.ip().to_string();
        match target.backends.get(backend) {
            None => wrong.push(format!("{backend} answered")),
            Some(address) => {
                let expected = expected_source(target, client, *address);
                if source != expected {
                    wrong.push(format!("{backend} saw {source}, not {expected}"));
                }
            }
        }
        seen.insert(source);
    }
    wrong.extend(
        hits.iter().filter(|(_, hits)| **hits == 0).map(|(name, _)| format!("{name} was never asked")),
    );
    let answered = results.iter().filter(|result| result.ok).count();
    let mut times: Vec<u64> = results.iter().filter(|result| result.ok).map(|result| result.micros).collect();
    times.sort_unstable();
    let (p50, p99) = (percentile(&times, 50), percentile(&times, 99));
    let resent = times.iter().filter(|time| **time >= RESENT_MICROS).count();
    let shares: Vec<String> = hits.iter().map(|(name, hits)| format!("{name} {hits}")).collect();
    let seen: Vec<String> = seen.into_iter().collect();
    let mut line = format!(
        "{answered} of {CONVERSATIONS} answered by {}; p50 {} p99 {}; seen as {}",
        shares.join(", "),
        millis(p50),
        millis(p99),
        seen.join(", "),
    );
    if resent > 0 {
        line = format!("{line}; {resent} only when sent again");
    }
    if let Some(first) = wrong.first() {
        line = format!("{line}; {} wrong: {first}", wrong.len());
    }
    let figures = json!({
        "answered": answered, "asked": CONVERSATIONS, "backends": hits, "p50_micros": p50, "p99_micros": p99,
        "resent": resent, "seen": seen, "wrong": wrong,
    });
    Ok((wrong.is_empty() && answered == CONVERSATIONS as usize, line, figures))
}

fn expected_source(target: &Target, client: &Client, backend: Ipv4Addr) -> String {
    source::expected(&SITES[0], client.who, target.vip, backend).to_string()
}

/// A port without backends, or that no Service has, refuses at once.
pub(super) fn refuses(what: &str, vip: Ipv4Addr, port: u16, transport: Transport, client: &Client) -> Fact {
    let fact = format!("{what} {port}/{transport} from {}", client.name);
    let probe = Probe::new(&*client.place);
    let call = ProbeCall::new(transport, format!("{vip}:{port}"));
    Fact::new(
        fact,
        probe.call(&call).and_then(|mut results| {
            let result = results.pop().context("no report")?;
            let line = result.error.clone().unwrap_or_else(|| format!("answered: {:?}", result.answer));
            Ok((
                line == "refused",
                format!("{line} after {}", millis(result.micros)),
                json!({"error": result.error}),
            ))
        }),
    )
}

pub(super) fn unknown_ports(target: &Target, client: &Client) -> Fact {
    refuses(&format!("{} unknown port", target.service), target.vip, UNKNOWN_PORT, target.transport, client)
}

pub(super) fn ping(service: &str, vip: Ipv4Addr, client: &Client) -> Fact {
    let fact = format!("{service} ping {vip} from {}", client.name);
    let result = Probe::new(&*client.place).ping(&vip.to_string());
    Fact::new(
        fact,
        result.map(|result| {
            let line = match &result.error {
                Some(error) => error.clone(),
                None => format!("answered after {}", millis(result.micros)),
            };
            (result.ok, line, json!({"micros": result.micros}))
        }),
    )
}

/// No packet with a wrong checksum was received, and conntrack called none invalid.
pub(super) fn harmless(cluster: &Cluster) -> [Fact; 2] {
    let checksums = cluster.topology.checksum_errors(&[]);
    let invalid = [Chain::Forward, Chain::Input]
        .into_iter()
        .flat_map(|chain| cluster.topology.nodes().map(move |node| hostile::drops(node, chain)))
        .try_fold(0, |sum, drops| anyhow::Ok(sum + drops?.invalid));
    [("packets with a wrong checksum", checksums), ("packets that conntrack called invalid", invalid)].map(
        |(fact, count)| Fact::new(fact, count.map(|count| (count == 0, count.to_string(), json!(count)))),
    )
}

/// How full the maps of the first node are: neither empty nor full.
pub(super) fn fill(cluster: &Cluster) -> Vec<Fact> {
    let node = &cluster.topology.node;
    let folder = rows::folder(node);
    let facts = rows::MAPS.iter().map(|map| {
        let fill = folder.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"));
        let fill = fill.and_then(|folder| rows::fill(node, folder, map));
        let result = fill.map(|fill| {
            let ok = fill.rows > 0 && fill.rows < fill.capacity;
            (
                ok,
                format!("{} of {} rows", fill.rows, fill.capacity),
                json!({"rows": fill.rows, "capacity": fill.capacity}),
            )
        });
        Fact::new(format!("{} map {map}", node.name), result)
    });
    facts.collect()
}

fn millis(micros: u64) -> String {
    format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10)
}
