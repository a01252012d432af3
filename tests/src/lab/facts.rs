//! What the lab finds out about itself: each fact is tried, said in one line, and right or wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::rows;
use super::targets::Target;
use crate::cluster::Cluster;
use crate::enter::Place;
use crate::probe::{Probe, ProbeCall, percentile};
use crate::serve::Transport;
use crate::topology;
use crate::topology::hostile::{self, Chain};

/// Conversations with each port of each Service from each client.
const CONVERSATIONS: u32 = 200;
/// Longer than TCP takes to send a lost packet again: a loss is then told from a path that does not work.
const TIMEOUT: Duration = Duration::from_secs(3);
/// What takes so long has been sent again.
const RESENT_MICROS: u64 = 900_000;
/// A port that no Service of the lab has.
const UNKNOWN_PORT: u16 = 9;
/// As whom the node's own processes appear to a backend on the node.
const NODE_SELF: &str = "169.254.255.1";

/// A fact. The figures are what the line says, for programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    pub fact: String,
    pub ok: bool,
    pub line: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub figures: Value,
}

/// Where connections come from.
pub(super) struct Client {
    /// `pod` or `node`.
    pub name: String,
    pub place: Place,
    /// The pod's name and address; none for the node.
    pub pod: Option<(String, Ipv4Addr)>,
}

impl Fact {
    fn new(fact: String, result: Result<(bool, String, Value)>) -> Self {
        match result {
            Ok((ok, line, figures)) => Self { fact, ok, line, figures },
            Err(error) => Self { fact, ok: false, line: format!("{error:#}"), figures: Value::Null },
        }
    }
}

/// A port with backends: all conversations are answered, by all backends and by no other, and each backend sees the
/// client it should see.
pub(super) fn answers(target: &Target, client: &Client) -> Fact {
    let fact = format!("{} {}/{} from {}", target.service, target.port, target.transport, client.name);
    Fact::new(fact, try_answers(target, client))
}

fn try_answers(target: &Target, client: &Client) -> Result<(bool, String, Value)> {
    let call = ProbeCall::new(target.transport, target.address()).count(CONVERSATIONS).timeout(TIMEOUT);
    let results = Probe::new(&*client.place).call(&call)?;
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
                let expected = expected_source(target, client, backend, *address);
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

/// The contract on source addresses: a pod is seen as itself, but for one that is its own backend; the node is seen
/// by its uplink's address, but for backends on itself.
fn expected_source(target: &Target, client: &Client, backend: &str, address: Ipv4Addr) -> String {
    match &client.pod {
        Some((pod, _)) if pod == backend => target.vip.to_string(),
        Some((_, own)) => own.to_string(),
        None if address == topology::NODE => NODE_SELF.to_owned(),
        None => topology::NODE.to_string(),
    }
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
        .try_fold(0, |sum, chain| anyhow::Ok(sum + hostile::drops(&cluster.topology.node, chain)?.invalid));
    [("packets with a wrong checksum", checksums), ("packets that conntrack called invalid", invalid)].map(
        |(fact, count)| {
            Fact::new(fact.to_owned(), count.map(|count| (count == 0, count.to_string(), json!(count))))
        },
    )
}

/// How full the maps are: neither empty nor full.
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
        Fact::new(format!("map {map}"), result)
    });
    facts.collect()
}

fn millis(micros: u64) -> String {
    format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10)
}
