//! Runs `lab probe` in another place and reads its report.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddrV4,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::de::DeserializeOwned;

use super::{ProbeResult, Summary};
use crate::{binaries::lab_binary, enter::Enter, serve::Transport};

/// A client in some place.
pub struct Probe<'a> {
    pub enter: &'a dyn Enter,
}

/// Everything that can be said about a conversation; [`Probe::call`] makes one.
#[derive(Debug, Clone)]
pub struct Call {
    pub transport: Transport,
    pub to: String,
    pub from: Option<SocketAddrV4>,
    pub count: u32,
    pub timeout: Duration,
}

/// A probe that stays until it is dropped, and reports once for each line.
#[derive(Debug)]
struct Session {
    child: Child,
    lines: Option<ChildStdin>,
    reports: BufReader<ChildStdout>,
}

/// A flow that stays open until it is dropped.
#[derive(Debug)]
pub struct Held {
    session: Session,
    /// The report of its opening.
    pub opened: ProbeResult,
}

/// Many flows that stay open until it is dropped.
#[derive(Debug)]
pub struct Crowd {
    session: Session,
    /// How many were opened.
    pub opened: Summary,
}

impl Call {
    /// One conversation, from any port.
    pub fn new(transport: Transport, to: impl Into<String>) -> Self {
        Self {
            transport,
            to: to.into(),
            from: None,
            count: 1,
            timeout: crate::patience::patient(super::TIMEOUT),
        }
    }

    #[must_use]
    pub fn from(self, from: SocketAddrV4) -> Self {
        Self { from: Some(from), ..self }
    }

    #[must_use]
    pub fn count(self, count: u32) -> Self {
        Self { count, ..self }
    }

    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![self.transport.to_string(), self.to.clone()];
        arguments.extend(["--count".into(), self.count.to_string()]);
        arguments.extend(["--timeout".into(), self.timeout.as_millis().to_string()]);
        if let Some(from) = self.from {
            arguments.extend(["--from".into(), from.to_string()]);
        }
        arguments
    }
}

impl<'a> Probe<'a> {
    pub fn new(enter: &'a dyn Enter) -> Self {
        Self { enter }
    }

    pub fn tcp(&self, to: &str) -> Result<ProbeResult> {
        self.one(Call::new(Transport::Tcp, to).arguments())
    }

    pub fn udp(&self, to: &str) -> Result<ProbeResult> {
        self.one(Call::new(Transport::Udp, to).arguments())
    }

    /// One report for each of the call's count.
    pub fn call(&self, call: &Call) -> Result<Vec<ProbeResult>> {
        self.all(call.arguments())
    }

    /// Opens a flow and keeps it.
    pub fn hold(&self, call: &Call) -> Result<Held> {
        let mut arguments = call.arguments();
        arguments.push("--hold".into());
        Held::open(self.command(arguments)?)
    }

    /// Datagrams in IPv4 packets of `size` bytes that must not be fragmented, one after the other in one flow.
    pub fn df(&self, size: usize, to: &str, count: u32) -> Result<Vec<ProbeResult>> {
        self.all(["df", &size.to_string(), to, "--count", &count.to_string()])
    }

    /// A line of `size` bytes there, and one as long back.
    pub fn bulk(&self, transport: Transport, size: usize, to: &str) -> Result<ProbeResult> {
        self.one(["bulk", &size.to_string(), to, &transport.to_string()])
    }

    /// `count` UDP flows whose first packets two CPUs send at once.
    pub fn race(&self, to: &str, count: u32) -> Result<Summary> {
        self.one(["race", to, "--count", &count.to_string()])
    }

    /// The first packets of `count` flows from a link's own address.
    pub fn flood(&self, device: &str, transport: Transport, to: &str, count: u32) -> Result<Summary> {
        self.one(["flood", to, "--device", device, "--count", &count.to_string(), &transport.to_string()])
    }

    /// Opens `count` flows and keeps them.
    pub fn crowd(&self, transport: Transport, to: &str, count: u16) -> Result<Crowd> {
        Crowd::open(self.command(["crowd", to, "--count", &count.to_string(), &transport.to_string()])?)
    }

    pub fn ping(&self, to: &str) -> Result<ProbeResult> {
        self.one(["ping", to])
    }

    /// Claims an address on a link, for its own MAC or for another.
    pub fn arp(&self, device: &str, claim: &str, mac: Option<&str>) -> Result<ProbeResult> {
        let mut arguments = vec!["arp", "--device", device, "--claim", claim];
        arguments.extend(mac.into_iter().flat_map(|mac| ["--mac", mac]));
        self.one(arguments)
    }

    /// Sends one UDP packet from an address (or address and port) of another.
    pub fn spoof(&self, device: &str, source: &str, destination: &str) -> Result<ProbeResult> {
        self.one(["spoof", "--device", device, "--source", source, "--destination", destination, "udp"])
    }

    /// Up to `count` connections, `parallel` at a time, for at most `limit`.
    pub fn many(
        &self,
        transport: Transport,
        to: &str,
        count: u64,
        parallel: usize,
        limit: Option<Duration>,
    ) -> Result<Summary> {
        let (count, parallel) = (count.to_string(), parallel.to_string());
        let mut arguments =
            vec!["many".into(), to.into(), "--count".into(), count, "--parallel".into(), parallel];
        arguments
            .extend(limit.into_iter().flat_map(|limit| ["--seconds".into(), limit.as_secs().to_string()]));
        arguments.push(transport.to_string());
        self.one(arguments)
    }

    fn one<T: DeserializeOwned>(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<T> {
        self.all(arguments)?.pop().context("the probe reported nothing")
    }

    fn all<T: DeserializeOwned>(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<Vec<T>> {
        let mut command = self.command(arguments)?;
        let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {command:?}"))?;
        if !output.status.success() {
            bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        let report = String::from_utf8(output.stdout).context("a report is text")?;
        report.lines().map(read).collect()
    }

    fn command(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Command> {
        let lab = lab_binary()?;
        let mut command = self.enter.command(lab.to_str().context("the path of lab is not UTF-8")?);
        command.arg("probe").args(arguments);
        Ok(command)
    }
}

impl Session {
    fn open(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
        let lines = child.stdin.take();
        let reports = BufReader::new(child.stdout.take().context("standard output is a pipe")?);
        Ok(Self { child, lines, reports })
    }

    fn ask<T: DeserializeOwned>(&mut self, line: &str) -> Result<T> {
        ensure!(!line.contains('\n'), "{line:?} is more than a line");
        let lines = self.lines.as_mut().context("the flow is closed")?;
        writeln!(lines, "{line}").context("the probe has ended")?;
        self.report()
    }

    fn report<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        self.reports.read_line(&mut line).context("read a report")?;
        ensure!(!line.is_empty(), "the probe ended without a report");
        read(&line)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The end of its input ends the probe, which closes its flows in order.
        drop(self.lines.take());
        let _ = self.child.wait();
    }
}

impl Held {
    fn open(command: Command) -> Result<Self> {
        let mut session = Session::open(command)?;
        let opened = session.report()?;
        Ok(Self { session, opened })
    }

    /// Sends a line in the flow and waits for the answer.
    pub fn ask(&mut self, line: &str) -> Result<ProbeResult> {
        self.session.ask(line)
    }
}

impl Crowd {
    fn open(command: Command) -> Result<Self> {
        let mut session = Session::open(command)?;
        let opened = session.report()?;
        Ok(Self { session, opened })
    }

    /// Sends a line in each flow and waits for each answer, which must come from who answered first.
    pub fn ask(&mut self, line: &str) -> Result<Summary> {
        self.session.ask(line)
    }
}

fn read<T: DeserializeOwned>(line: &str) -> Result<T> {
    serde_json::from_str(line).with_context(|| format!("{line} is no report"))
}
