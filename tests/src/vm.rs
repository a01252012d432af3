//! Guests with another kernel: Debian's cloud kernels under qemu's emulator, an initramfs made of what is built
//! and installed here, one command, and its results as values.
//!
//! Only x86-64 guests on a host of the same kind. There is no network to the guest and no disk in it; hardware
//! acceleration is not used, since where tests run it is seldom to be had.

pub mod cpio;
pub mod image;
pub mod kernel;
pub mod report;
mod run;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

pub use image::Image;
pub use kernel::{Kernel, Series};
pub use report::{Finding, Findings};

use crate::binaries;
use crate::packets::kernel::object_path;

/// Modules that the data path, its neighbours on a node and its rivals need.
pub const NETWORK_MODULES: &[&str] = &[
    "veth",
    "dummy",
    "bridge",
    "br_netfilter",
    "ipip",
    "fou",
    "sch_ingress",
    "cls_bpf",
    "act_bpf",
    "act_mirred",
    "nf_conntrack",
    "nf_tables",
    "nft_chain_nat",
    "nft_ct",
    "nft_nat",
    "nft_masq",
    "nft_numgen",
    "nft_compat",
    "iptable_filter",
    "iptable_nat",
    "iptable_mangle",
    "xt_nat",
    "xt_tcpudp",
    "xt_MASQUERADE",
    "xt_mark",
    "xt_conntrack",
    "xt_comment",
    "xt_addrtype",
    "xt_multiport",
    "xt_statistic",
    "xt_REDIRECT",
    "xt_set",
    "ip_set_hash_ip",
    "ip_set_hash_net",
    "nf_conntrack_netlink",
    "ip_vs",
    "ip_vs_rr",
    "ip_vs_mh",
];

/// How long a guest may take to boot on a busy host, and between two results.
const PATIENCE: Duration = Duration::from_mins(2);

/// How time passes in a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clock {
    /// As in the world.
    Real,
    /// By executed instructions, one a nanosecond, on one processor: what a run costs can be counted, and is the
    /// same in every run.
    Instructions,
}

/// A guest to be.
#[derive(Debug)]
pub struct Guest {
    kernel: Kernel,
    image: Image,
    clock: Clock,
    silence: Duration,
}

/// What became of a guest.
#[derive(Clone, Debug)]
pub struct Report {
    pub findings: Vec<Finding>,
    pub ending: Ending,
    pub console: String,
    /// Building the image and running the guest.
    pub took: Duration,
}

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The command ran to its end.
    Done,
    /// The guest went off before that.
    Died,
    /// Nothing was heard from it for too long, and it was killed.
    Hung,
}

impl Guest {
    /// A guest with busybox, `guest-init` and the BPF object.
    pub fn new(series: Series) -> Result<Self> {
        let kernel = Kernel::find(series)?;
        let mut image = Image::new()?;
        image.program("/usr/bin/guest-init", &binaries::guest_init_binary()?)?;
        image.file("/bpf/kube-router.bpf.o", &object_path()?);
        Ok(Self { kernel, image, clock: Clock::Real, silence: PATIENCE })
    }

    /// Its kernel.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Its files, to add to.
    pub fn image(&mut self) -> &mut Image {
        &mut self.image
    }

    /// Loads these modules.
    pub fn modules(mut self, names: &[&str]) -> Result<Self> {
        self.image.modules(&self.kernel, names)?;
        Ok(self)
    }

    /// With the agent, the lab, and the tools and modules that path tests need.
    pub fn for_paths(mut self) -> Result<Self> {
        self.image.program("/usr/bin/kube-router", &binaries::agent_binary()?)?;
        self.image.program("/usr/bin/lab", &binaries::lab_binary()?)?;
        self.image.network_tools()?;
        self.modules(NETWORK_MODULES)
    }

    /// Time counts instructions.
    #[must_use]
    pub fn counting(mut self) -> Self {
        self.clock = Clock::Instructions;
        self
    }

    /// How long the guest may say nothing between two results; two minutes unless set. To boot it always has two.
    #[must_use]
    pub fn silence(mut self, longest: Duration) -> Self {
        self.silence = longest;
        self
    }

    /// With the running test binary, for the word `tests FILTER`: those of its tests whose names contain the
    /// filter run, one at a time.
    pub fn with_tests(mut self) -> Result<Self> {
        self.image.program("/usr/bin/tests", &std::env::current_exe()?)?;
        Ok(self)
    }

    /// Boots, runs `guest-init` with these words, and powers off. Its words: `release`, `programs`, `packets`,
    /// `tests FILTER`, and last `command PROGRAM ARGUMENT…`.
    pub fn run(mut self, words: &[&str]) -> Result<Report> {
        let start = Instant::now();
        let folder = tempfile::tempdir()?;
        let [archive, console, results] =
            ["initramfs", "console", "results"].map(|name| folder.path().join(name));
        self.image.command(&[&["/usr/bin/guest-init"], words].concat());
        self.image.write(&archive)?;
        let mut machine = Machine(self.start(&archive, &console, &results)?);
        let hung = machine.wait(&results, self.silence)?;
        drop(machine);
        let Findings { findings, done } = Findings::parse(&text(&results));
        let ending = match (done, hung) {
            (true, false) => Ending::Done,
            (_, true) => Ending::Hung,
            (false, false) => Ending::Died,
        };
        Ok(Report { findings, ending, console: text(&console), took: start.elapsed() })
    }

    fn start(&self, archive: &Path, console: &Path, results: &Path) -> Result<Child> {
        let mut append = "console=ttyS0 panic=-1 quiet".to_owned();
        let mut qemu = Command::new("qemu-system-x86_64");
        match self.clock {
            Clock::Real => qemu.args(["-accel", "tcg,thread=multi", "-smp", "2"]),
            Clock::Instructions => {
                append.push_str(" mitigations=off");
                qemu.args(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-smp", "1"])
            }
        };
        qemu.args(["-cpu", "max", "-m", "2048", "-nodefaults", "-no-reboot", "-display", "none"])
            .arg("-kernel")
            .arg(self.kernel.image())
            .arg("-initrd")
            .arg(archive)
            .args(["-append", &append]);
        for port in [console, results] {
            File::create(port)?;
            qemu.arg("-serial").arg(format!("file:{}", port.display()));
        }
        qemu.stdin(Stdio::null()).stdout(Stdio::null());
        qemu.spawn().context("cannot run qemu-system-x86_64")
    }
}

impl Report {
    /// The guest's findings, when its command ran to the end; else its console.
    pub fn finished(&self) -> Result<&[Finding]> {
        match self.ending {
            Ending::Done => Ok(&self.findings),
            ending => {
                let what = if ending == Ending::Hung { "hung and was killed" } else { "died" };
                let last = self.findings.last().map_or("nothing", |finding| finding.name.as_str());
                bail!("the guest {what}; its last result: {last}; its console:\n{}", self.console.trim_end())
            }
        }
    }

    /// That the guest came to its end and found nothing wrong. Something must have been found.
    pub fn passed(&self) -> Result<()> {
        let findings = self.finished()?;
        ensure!(!findings.is_empty(), "the guest found nothing; its console:\n{}", self.console.trim_end());
        let failures: Vec<_> = findings
            .iter()
            .filter_map(|finding| {
                finding.outcome.as_ref().err().map(|text| format!("{}: {text}", finding.name))
            })
            .collect();
        ensure!(
            failures.is_empty(),
            "{} of {} failed:\n{}",
            failures.len(),
            findings.len(),
            failures.join("\n")
        );
        Ok(())
    }
}

/// A running guest, which does not outlive the test.
struct Machine(Child);

impl Machine {
    /// Waits for its end; true if it hung.
    fn wait(&mut self, results: &Path, silence: Duration) -> Result<bool> {
        let mut heard = (0, Instant::now());
        loop {
            if self.0.try_wait()?.is_some() {
                return Ok(false);
            }
            let length = fs::metadata(results)?.len();
            if length != heard.0 {
                heard = (length, Instant::now());
            }
            if heard.1.elapsed() > if heard.0 == 0 { PATIENCE } else { silence } {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).replace('\r', "")
}

/// Whether guests can be had here: the tools are installed and each kernel is in the cache or can be fetched.
pub fn probe() -> Result<()> {
    ensure!(cfg!(target_arch = "x86_64"), "guests are x86-64 and this host is not");
    for tool in ["qemu-system-x86_64", "busybox", "xz", "depmod", "ldd"] {
        run::which(tool)?;
    }
    for series in Series::ALL {
        Kernel::find(series)?;
    }
    Ok(())
}
