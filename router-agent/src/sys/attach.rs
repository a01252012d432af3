//! One program on one hook of one device: by a tcx link pinned in a bpffs, or by a filter of clsact.
//!
//! A device carries our program once: what we find of ours is replaced, whichever way it is attached. Filters sit
//! at a priority and handle of their own. clsact is never used beside a foreign `ingress` qdisc: there an egress
//! filter would be accepted and run on ingress. Nothing detaches when the process ends.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::links::{FdLink, LinkOrder, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact, qdisc_detach_program,
};
use aya::programs::{SchedClassifier, TcAttachType};

use super::netlink::Netlink;

/// Ours among the filters of clsact.
const PRIORITY: u16 = 0x6b72;
const HANDLE: TcHandle = TcHandle::new(0, 1);

/// What pins of links begin with.
const PIN_PREFIX: &str = "link_";

/// How programs are attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Links of tcx, pinned in this folder.
    Tcx(PathBuf),
    /// Filters; the folder, if there is a bpffs, is looked through for links of an earlier run.
    Clsact(Option<PathBuf>),
}

/// A side of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hook {
    Ingress,
    Egress,
}

impl Hook {
    const fn kind(self) -> TcAttachType {
        match self {
            Self::Ingress => TcAttachType::Ingress,
            Self::Egress => TcAttachType::Egress,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// A device to attach to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub index: u32,
    pub name: &'a str,
    pub hook: Hook,
}

impl Target<'_> {
    /// A link is pinned by index: bpffs refuses a dot in a name, and a device may be renamed.
    fn pin(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{PIN_PREFIX}{}_{}", self.index, self.hook.name()))
    }
}

/// The programs that our filters hold in this namespace, one for each filter.
pub(crate) fn held_by_filters(netlink: &mut Netlink) -> io::Result<Vec<u32>> {
    netlink.filter_programs(PRIORITY, u32::from(HANDLE))
}

/// Whether a tcx link can be created and pinned here, tried on a device that always stands (`lo`).
pub(crate) fn probe_tcx(program: &mut SchedClassifier, folder: &Path) -> Result<()> {
    let pin = folder.join("probe");
    remove_pin(&pin)?;
    let link = create(program, "lo", Hook::Egress)?;
    let pinned = link.pin(&pin).context("a tcx link cannot be pinned")?;
    pinned.unpin().context("the probe's pin cannot be removed")?;
    Ok(())
}

/// Attaches a loaded program, in place of whatever is there of ours.
pub(crate) fn attach(
    program: &mut SchedClassifier,
    program_name: &str,
    target: &Target<'_>,
    mode: &Mode,
    netlink: &mut Netlink,
) -> Result<()> {
    match mode {
        Mode::Tcx(folder) => {
            remove_filters(program_name, target)?;
            attach_link(program, target, folder)
        }
        Mode::Clsact(folder) => {
            if let Some(folder) = folder {
                remove_pin(&target.pin(folder))?;
            }
            attach_filter(program, target, netlink)
        }
    }
}

/// Takes our program off a device that still stands, or drops what is left of one that went.
pub(crate) fn detach(program_name: &str, target: &Target<'_>, mode: &Mode) -> Result<()> {
    match mode {
        Mode::Tcx(folder) => remove_pin(&target.pin(folder)),
        Mode::Clsact(_) => remove_filters(program_name, target),
    }
}

/// Unpins the links of devices other than `kept`.
pub(crate) fn sweep_pins(folder: &Path, kept: &BTreeSet<(u32, Hook)>) -> Result<()> {
    let kept: BTreeSet<PathBuf> = kept
        .iter()
        .map(|(index, hook)| Target { index: *index, name: "", hook: *hook }.pin(folder))
        .collect();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        let ours = entry.file_name().to_string_lossy().starts_with(PIN_PREFIX);
        if ours && !kept.contains(&entry.path()) {
            remove_pin(&entry.path())?;
        }
    }
    Ok(())
}

fn attach_link(program: &mut SchedClassifier, target: &Target<'_>, folder: &Path) -> Result<()> {
    let pin = target.pin(folder);
    if let Ok(pinned) = PinnedLink::from_pin(&pin) {
        if replace(program, pinned).is_ok() {
            return Ok(());
        }
        // Its device is gone, and another has its index.
        remove_pin(&pin)?;
    }
    create(program, target.name, target.hook)?
        .pin(&pin)
        .with_context(|| format!("cannot pin the link of {}", target.name))?;
    Ok(())
}

fn replace(program: &mut SchedClassifier, pinned: PinnedLink) -> Result<()> {
    let link = SchedClassifierLink::try_from(FdLink::from(pinned))?;
    let id = program.attach_to_link(link)?;
    // Only our descriptor of the link goes: the pin holds it.
    drop(program.take_link(id)?);
    Ok(())
}

fn create(program: &mut SchedClassifier, device: &str, hook: Hook) -> Result<FdLink> {
    let options = TcAttachOptions::TcxOrder(LinkOrder::default());
    let id = program
        .attach_with_options(device, hook.kind(), options)
        .with_context(|| format!("cannot create a tcx link on {device}"))?;
    Ok(program.take_link(id)?.try_into()?)
}

fn attach_filter(program: &mut SchedClassifier, target: &Target<'_>, netlink: &mut Netlink) -> Result<()> {
    let Target { index, name, hook } = *target;
    ensure_clsact(netlink, index, name)?;
    let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
    let id = match program.attach_with_options(name, hook.kind(), TcAttachOptions::Netlink(options)) {
        Ok(id) => id,
        Err(first) => {
            // One of an earlier run stands there; where not, the first error says more.
            let found = SchedClassifierLink::attached(name, hook.kind(), PRIORITY, HANDLE, None)?;
            program
                .attach_to_link(found)
                .map_err(|_| first)
                .with_context(|| format!("cannot attach to {} of {name}", hook.name()))?
        }
    };
    // The filter stays when we go; dropping its handle would take it away.
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

/// While clsact stands, no `ingress` qdisc can come beside it, so our egress filters stay on egress.
fn ensure_clsact(netlink: &mut Netlink, index: u32, name: &str) -> Result<()> {
    for attempt in 0.. {
        let found = netlink
            .disciplines()?
            .into_iter()
            .find(|discipline| discipline.link == index && discipline.ingress)
            .map(|discipline| discipline.kind);
        match found.as_deref() {
            Some("clsact") => break,
            Some(other) => bail!(
                "{name} has a foreign `{other}` qdisc (the CNI plugin `bandwidth` makes one), beside which programs \
                 cannot be attached without tcx: remove the plugin from the conflist, mount a bpffs at /sys/fs/bpf \
                 on a kernel of 6.6 or later, or use --dataplane=ipvs"
            ),
            None => {
                ensure!(attempt == 0, "{name} keeps losing its clsact qdisc");
                qdisc_add_clsact(name).with_context(|| format!("cannot add clsact to {name}"))?;
            }
        }
    }
    Ok(())
}

fn remove_filters(program_name: &str, target: &Target<'_>) -> Result<()> {
    match qdisc_detach_program(target.name, target.hook.kind(), program_name) {
        Ok(()) => Ok(()),
        Err(aya::programs::tc::TcError::IoError(error))
            if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV) =>
        {
            Ok(())
        }
        Err(error) => Err(error).with_context(|| format!("cannot remove a filter from {}", target.name)),
    }
}

fn remove_pin(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot unpin {}", path.display()))
        }
        _ => Ok(()),
    }
}
