//! A node: network, mount, UTS and control group namespaces of its own, held by one process ([`holder`]).
//!
//! It has its own `/run`, `/sys`, bpffs, control groups, `/etc/cni/net.d` and `/var/lib/cni`. Routers and
//! other plain hosts are nodes too, with less in them. Whoever drops a node ends all that runs in it. A test
//! never changes namespace itself: it runs programs through [`Node::command`].
//!
//! Absent: process ids and users are the host's, and so is the rest of the file system.

mod cgroup;
pub mod enter;
pub mod holder;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};

use crate::binaries::lab_binary;

/// How long a holder may take to end.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a node has beyond its own `/run`, `/sys` and names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeOptions {
    /// An own bpffs at `/sys/fs/bpf`; without, as kubespray leaves hosts, the directory is empty.
    pub bpffs: bool,
    /// An own version 2 hierarchy at `/sys/fs/cgroup`. The node has its control group in any case.
    pub cgroup: bool,
}

impl NodeOptions {
    /// A plain host: a router, a client.
    pub const HOST: Self = Self { bpffs: false, cgroup: false };
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self { bpffs: true, cgroup: true }
    }
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// Also its host name.
    pub name: String,
    holder: Child,
    cgroup: PathBuf,
    lab: PathBuf,
}

impl Node {
    /// Starts a node. `prefix` and `name` together are unlike those of any other running one.
    pub fn start(prefix: &str, name: &str, options: NodeOptions) -> Result<Self> {
        let lab = lab_binary()?;
        let cgroup = cgroup::mount_point()?.join(format!("{prefix}-{name}"));
        let mut command = Command::new(&lab);
        command.arg("holder").arg(&cgroup).arg(name);
        command.args(options.bpffs.then_some("bpffs")).args(options.cgroup.then_some("cgroup"));
        // Ctrl-C is for whoever started us, who then ends the node in order.
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let holder = command.spawn().with_context(|| format!("cannot run {}", lab.display()))?;
        let mut node = Self { name: name.to_owned(), holder, cgroup, lab };
        node.wait_ready().with_context(|| format!("node {name} does not start"))?;
        Ok(node)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let mut line = String::new();
        if let Some(output) = self.holder.stdout.take() {
            BufReader::new(output).read_line(&mut line).context("cannot hear the holder")?;
        }
        if line != "ready\n" {
            let mut text = String::new();
            if let Some(mut errors) = self.holder.stderr.take() {
                errors.read_to_string(&mut text).context("cannot hear the holder")?;
            }
            bail!("{}", text.trim());
        }
        Ok(())
    }

    /// The holder's process id: it names the namespaces, as in `ip link set … netns PID`.
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// The network namespace, as a path on the host.
    pub fn netns_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.pid()))
    }

    /// The control group, as a path on the host.
    pub fn cgroup_path(&self) -> &Path {
        &self.cgroup
    }

    /// A file of the node, as a path on the host. Not for `/proc/sys/net`, which shows every reader its own
    /// network: see [`Node::write`].
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.pid())).join(path.trim_start_matches('/'))
    }

    /// A program that will run in the node.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(&self.lab);
        command.arg("enter").arg(self.pid().to_string()).arg(&self.cgroup).arg("--").arg(program);
        // As with the holder: what runs in a node ends when its owner says so, not when somebody types Ctrl-C.
        command.process_group(0);
        command
    }

    /// Runs a program to its end; its output, or an error that says what it wrote on standard error.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        self.run_with(words, "")
    }

    /// As [`Node::run`], with something to read.
    pub fn run_with(&self, words: &[&str], input: &str) -> Result<String> {
        let (program, arguments) = words.split_first().context("no program to run")?;
        let mut command = self.command(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot run {}", self.lab.display()))?;
        // What does not read its input is free to close it; its status tells how it went.
        let mut pipe = child.stdin.take().context("no standard input")?;
        let given = input.to_owned();
        let writer = thread::spawn(move || pipe.write_all(given.as_bytes()).is_ok());
        let output = child.wait_with_output().context("lost a program")?;
        let read = writer.join().unwrap_or(false);
        ensure!(
            output.status.success(),
            "{} on {}: {}: {}",
            words.join(" "),
            self.name,
            output.status,
            String::from_utf8_lossy(&output.stderr).trim(),
        );
        ensure!(read || input.is_empty(), "{} on {} did not read its input", words.join(" "), self.name);
        String::from_utf8(output.stdout).with_context(|| format!("{} wrote no text", words.join(" ")))
    }

    /// Writes a file from inside the node: sysctls and the like.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        self.run_with(&["tee", path], text).map(drop)
    }

    /// Runs lines of `ip -batch`.
    pub fn ip(&self, lines: &str) -> Result<()> {
        self.run_with(&["ip", "-batch", "-"], lines).map(drop)
    }

    /// A listener of ours on an address of this node. A socket keeps the network namespace it was made in, so one thread,
    /// and nothing else of us, goes there for a moment.
    pub fn listen(&self, address: SocketAddr) -> Result<TcpListener> {
        let namespace = fs::File::open(self.netns_path()).context("the node has no network namespace")?;
        thread::spawn(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the node's network")?;
            TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))
        })
        .join()
        .map_err(|_| anyhow::anyhow!("the thread that listens panicked"))?
    }

    /// The names of its links, as the kernel lists them.
    pub fn links(&self) -> Result<Vec<String>> {
        let text = self.run(&["ls", "/sys/class/net"])?;
        Ok(text.split_whitespace().filter(|name| *name != "bonding_masters").map(str::to_owned).collect())
    }

    /// Ends it; as dropping it, but says what went wrong.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        drop(self.holder.stdin.take());
        let deadline = Instant::now() + PATIENCE;
        while self.holder.try_wait().context("lost the holder")?.is_none() {
            if Instant::now() > deadline {
                self.holder.kill().context("cannot kill the holder")?;
            }
            thread::sleep(Duration::from_millis(2));
        }
        // The holder has done this, unless it was killed.
        cgroup::remove(&self.cgroup)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("node {} did not end: {error:#}", self.name);
        }
    }
}

/// A prefix that no other caller on this machine has.
pub fn unique_prefix(purpose: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("kr-{purpose}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The prefixes of nodes that have a control group, each once.
pub fn prefixes() -> Result<BTreeSet<String>> {
    let mut prefixes = BTreeSet::new();
    for entry in fs::read_dir(cgroup::mount_point()?).context("cannot list control groups")? {
        let name = entry?.file_name();
        let name = name.to_str().filter(|name| name.starts_with("kr-"));
        prefixes.extend(name.and_then(|name| name.rsplit_once('-')).map(|(prefix, _)| prefix.to_owned()));
    }
    Ok(prefixes)
}

/// Ends what is left of nodes with a prefix whose holder was killed; how many there were.
pub fn sweep(prefix: &str) -> Result<usize> {
    ensure!(!prefix.is_empty(), "an empty prefix means every control group of this machine");
    let mut count = 0;
    for entry in fs::read_dir(cgroup::mount_point()?).context("cannot list control groups")? {
        let entry = entry?;
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(&format!("{prefix}-")));
        if is_ours && entry.file_type()?.is_dir() {
            cgroup::remove(&entry.path())?;
            count += 1;
        }
    }
    Ok(count)
}
