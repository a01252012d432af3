//! `lab probe`: traffic from inside a namespace, reported as one JSON object per line, and [`Probe`], which runs it
//! there and reads the report.
//!
//! ```text
//! tcp|udp ADDR [--count N] [--from IP:PORT] [--timeout MS] [--hold]
//! df SIZE ADDR [--count N] [--from IP:PORT] [--timeout MS]
//! bulk SIZE ADDR [--from IP:PORT] tcp|udp
//! crowd ADDR --count N [--from IP] [--timeout MS] tcp|udp
//! race ADDR --count N [--timeout MS]
//! flood ADDR --device D --count N tcp|udp
//! ping ADDR [--count N] [--timeout MS]
//! many ADDR --count N [--parallel P] [--seconds S] [--from IP] [--timeout MS] tcp|udp
//! arp --device D --claim IP [--mac MAC]
//! spoof --device D --source IP[:PORT] --destination IP:PORT [--gateway-mac MAC] udp
//! ```
//!
//! The other side is `lab serve`. IPv4 only: the data path has no IPv6 rows yet.

mod arguments;
mod bulk;
mod conversation;
mod crowd;
mod failure;
mod flood;
mod frame;
mod many;
mod mtu;
mod ping;
mod race;
mod run;
mod sys;

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, Write as _},
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

pub(crate) use self::many::percentile;
pub use self::run::{Call as ProbeCall, Crowd, Held, Probe};
use self::{
    arguments::Arguments,
    conversation::{Call, Conversation},
    failure::Failure,
};
use crate::serve::Transport;

/// How long a probe waits for each answer unless told.
pub const TIMEOUT: Duration = Duration::from_secs(1);

/// What one attempt came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeResult {
    pub ok: bool,
    /// The answering line: who answered, and whom it saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The address and port the client used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// `refused`, `timed out`, `unreachable (icmp code N)`, `time exceeded`, `frag-needed (mtu N)`, or what else it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub micros: u64,
    /// `df`: the path's MTU as this host knows it afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// What many attempts came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub ok: u64,
    pub failed: u64,
    /// Of the attempts that were answered.
    pub p50_micros: u64,
    pub p99_micros: u64,
    /// Answers by who gave them.
    pub backends: BTreeMap<String, u64>,
    /// Failures by their text.
    pub errors: BTreeMap<String, u64>,
}

/// The arguments after `lab probe`.
pub fn main(arguments: Vec<String>) -> Result<()> {
    let mut arguments = Arguments::new(arguments);
    match arguments.word::<String>("what to probe")?.as_str() {
        "tcp" => converse(arguments, Transport::Tcp),
        "udp" => converse(arguments, Transport::Udp),
        "df" => mtu::main(arguments),
        "ping" => ping::main(arguments),
        "bulk" => bulk::main(arguments),
        "crowd" => crowd::main(arguments),
        "race" => race::main(arguments),
        "flood" => flood::main(arguments),
        "many" => many::main(arguments),
        "arp" => frame::arp(arguments),
        "spoof" => frame::spoof(arguments),
        other => bail!("{other} is no probe"),
    }
}

impl ProbeResult {
    /// Which pod answered.
    pub fn backend(&self) -> Option<&str> {
        self.answer.as_deref()?.split_whitespace().next()
    }

    /// The client as the pod saw it.
    pub fn seen(&self) -> Option<SocketAddrV4> {
        self.answer.as_deref()?.split_whitespace().nth(1)?.parse().ok()
    }

    fn new(outcome: Result<String, Failure>, source: Option<SocketAddrV4>, took: Duration) -> Self {
        let (answer, error) = match outcome {
            Ok(answer) => (Some(answer), None),
            Err(failure) => (None, Some(failure.to_string())),
        };
        Self {
            ok: error.is_none(),
            answer,
            source: source.map(|source| source.to_string()),
            error,
            micros: micros(took),
            mtu: None,
        }
    }
}

impl Summary {
    fn fail(&mut self, error: String) {
        self.failed += 1;
        *self.errors.entry(error).or_default() += 1;
    }
}

fn converse(mut arguments: Arguments, transport: Transport) -> Result<()> {
    let from: Option<SocketAddrV4> = arguments.option("--from")?;
    let timeout = timeout(&mut arguments)?;
    let count = arguments.option("--count")?.unwrap_or(1);
    let hold = arguments.flag("--hold");
    let to = arguments.word("ADDR")?;
    arguments.end()?;
    let reset = from.is_some_and(|from| from.port() != 0);
    let call = Call { transport, from, to, timeout, reset };
    if hold {
        return converse_at_length(call);
    }
    for number in 0..count {
        print(&attempt(call, &format!("{number}")))?;
    }
    Ok(())
}

/// One conversation of one line.
fn attempt(call: Call, line: &str) -> ProbeResult {
    let start = Instant::now();
    match call.open() {
        Ok(mut conversation) => ask(&mut conversation, line, start),
        Err(failure) => ProbeResult::new(Err(failure), call.from, start.elapsed()),
    }
}

fn ask(conversation: &mut Conversation, line: &str, start: Instant) -> ProbeResult {
    let outcome = conversation.ask(line);
    ProbeResult::new(outcome, conversation.source(), start.elapsed())
}

/// A flow that lives as long as standard input: a report once it is open, then one for each line.
/// The line `silent` is sent like any other and not waited for.
fn converse_at_length(call: Call) -> Result<()> {
    let start = Instant::now();
    let mut conversation = match call.open() {
        Ok(conversation) => conversation,
        Err(failure) => return print(&ProbeResult::new(Err(failure), call.from, start.elapsed())),
    };
    print(&ProbeResult::new(Ok(String::new()), conversation.source(), start.elapsed()))?;
    for line in io::stdin().lock().lines() {
        let line = line.context("read what to send")?;
        let start = Instant::now();
        if line == crate::serve::SILENT {
            let outcome = conversation.tell(format!("{line}\n").as_bytes()).map(|()| String::new());
            print(&ProbeResult::new(outcome, conversation.source(), start.elapsed()))?;
        } else {
            print(&ask(&mut conversation, &line, start))?;
        }
    }
    Ok(())
}

fn timeout(arguments: &mut Arguments) -> Result<Duration> {
    Ok(arguments.option("--timeout")?.map_or(TIMEOUT, Duration::from_millis))
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

fn print(report: &impl Serialize) -> Result<()> {
    let line = serde_json::to_string(report).context("write the report as JSON")?;
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("print the report")
}
