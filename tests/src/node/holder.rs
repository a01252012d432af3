//! `lab holder CGROUP HOSTNAME [bpffs] [cgroup]`: keeps the namespaces of a node alive.
//!
//! Says `ready` once they are furnished and ends when its standard input does, taking every process of the
//! node and the control group along. So a node goes with whoever started it, even if that one is killed.
//! `PR_SET_PDEATHSIG` would not do: it fires when the *thread* that started us ends, and leaves the rest behind.
//!
//! `/etc/cni/net.d` and `/var/lib/cni` are made on the host where they are missing, since something must be
//! there to mount upon; they stay, empty.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::sethostname;

use super::{NodeOptions, cgroup};

/// Takes what comes after `holder`; returns when the node has ended.
pub fn main(arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let arguments: Vec<OsString> = arguments.collect();
    let [group, hostname, options @ ..] = arguments.as_slice() else {
        bail!("usage: lab holder CGROUP HOSTNAME [bpffs] [cgroup]");
    };
    let options = NodeOptions {
        bpffs: options.iter().any(|option| option == "bpffs"),
        cgroup: options.iter().any(|option| option == "cgroup"),
    };
    let mut way_out = Group::make(Path::new(group))?;
    let held = way_out.enter().and_then(|()| hold(hostname, options));
    let left = way_out.remove();
    held.and(left)
}

/// Our control group and the one above it, opened while their paths are still in sight.
struct Group {
    folder: PathBuf,
    /// What `folder` leads through.
    _above: File,
    outside: File,
}

impl Group {
    fn make(path: &Path) -> Result<Self> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            bail!("{} is no control group", path.display());
        };
        let above = File::open(parent).with_context(|| format!("no {}", parent.display()))?;
        let outside = OpenOptions::new()
            .write(true)
            .open(parent.join("cgroup.procs"))
            .with_context(|| format!("{} is no control group", parent.display()))?;
        fs::create_dir(path).with_context(|| format!("cannot make {}", path.display()))?;
        let folder = Path::new("/proc/self/fd").join(above.as_raw_fd().to_string()).join(name);
        Ok(Self { folder, _above: above, outside })
    }

    fn enter(&self) -> Result<()> {
        fs::write(self.folder.join("cgroup.procs"), "0").context("cannot move into the control group")
    }

    /// Leaves, kills whoever stays, and removes the group.
    fn remove(&mut self) -> Result<()> {
        self.outside.write_all(b"0").context("cannot leave the control group")?;
        cgroup::remove(&self.folder)
    }
}

fn hold(hostname: &OsString, options: NodeOptions) -> Result<()> {
    unshare(
        CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWCGROUP,
    )
    .context("cannot make namespaces (root?)")?;
    sethostname(hostname).context("cannot set the host name")?;
    mount_all(options)?;
    let status = Command::new("ip").args(["link", "set", "lo", "up"]).status().context("cannot run ip")?;
    ensure!(status.success(), "ip link set lo up: {status}");
    let mut output = io::stdout();
    output.write_all(b"ready\n").and_then(|()| output.flush()).context("nobody waits for us")?;
    io::stdin().read_to_end(&mut Vec::new()).context("cannot wait for the end")?;
    Ok(())
}

fn mount_all(options: NodeOptions) -> Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("cannot make the mounts private")?;
    mount_one("tmpfs", "/run", Some("mode=755"))?;
    mount_one("sysfs", "/sys", None)?;
    if options.bpffs {
        mount_one("bpf", "/sys/fs/bpf", Some("mode=700"))?;
    }
    if options.cgroup {
        mount_one("cgroup2", "/sys/fs/cgroup", None)?;
    }
    for path in ["/etc/cni/net.d", "/var/lib/cni"] {
        fs::create_dir_all(path).with_context(|| format!("cannot make {path}"))?;
        mount_one("tmpfs", path, Some("mode=755"))?;
    }
    Ok(())
}

fn mount_one(kind: &str, path: &str, options: Option<&str>) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // Programs may well be put into a tmpfs.
    let flags = if kind == "tmpfs" { MsFlags::MS_NOSUID | MsFlags::MS_NODEV } else { flags };
    mount(Some(kind), path, Some(kind), flags, options)
        .with_context(|| format!("cannot mount {kind} at {path}"))
}
