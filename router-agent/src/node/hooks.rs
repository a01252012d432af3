//! Which program sits on which hook of which device, and the attaching and detaching that leads there.
//!
//! A device that refuses a program is named once, with the reason, and tried again at each audit; the others go on.
//! Absent: rows of `devices`, which are planned.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use aya::Ebpf;
use aya::programs::SchedClassifier;

use crate::config::Attach;
use crate::sys::attach::{self, Hook, Mode, Target};
use crate::sys::bpf;
use crate::sys::netlink::Netlink;

use super::links::View;
use super::service_link::FAR;

/// The folder of our pins, if a bpffs stands at `bpffs`.
pub(crate) fn pins(bpffs: &Path) -> Option<std::path::PathBuf> {
    bpf::is_bpffs(bpffs).then(|| bpf::pin_folder(bpffs))
}

const POD_IN: &str = "pod_in";
const POD_OUT: &str = "pod_out";
const UPLINK_IN: &str = "uplink_in";
const UPLINK_OUT: &str = "uplink_out";
const SERVICE_IN: &str = "svc_in";

/// A program's place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    program: &'static str,
    device: String,
}

/// Every place a view asks for.
fn places(view: &View) -> BTreeMap<(u32, Hook), Place> {
    let place = |program, device: &str| Place { program, device: device.to_owned() };
    let mut places = BTreeMap::new();
    for (index, port) in &view.ports {
        places.insert((*index, Hook::Ingress), place(POD_IN, &port.name));
        places.insert((*index, Hook::Egress), place(POD_OUT, &port.name));
    }
    for (index, name) in &view.uplinks {
        places.insert((*index, Hook::Ingress), place(UPLINK_IN, name));
        places.insert((*index, Hook::Egress), place(UPLINK_OUT, name));
    }
    if let Some(pair) = view.service {
        places.insert((pair.far, Hook::Ingress), place(SERVICE_IN, FAR));
    }
    places
}

/// Attaches.
#[derive(Debug)]
pub(crate) struct Attacher {
    ebpf: Ebpf,
    mode: Mode,
    netlink: Netlink,
    attached: BTreeMap<(u32, Hook), Place>,
    refused: BTreeMap<(u32, Hook), String>,
}

impl Attacher {
    /// Takes the loaded programs. Must be called in the namespace of the devices.
    pub(crate) fn new(mut ebpf: Ebpf, attach: Attach, pins: Option<&Path>) -> Result<Self> {
        let mode = choose(&mut ebpf, attach, pins)?;
        let netlink = Netlink::open().context("cannot open a netlink socket")?;
        let attacher = Self { ebpf, mode, netlink, attached: BTreeMap::new(), refused: BTreeMap::new() };
        tracing::info!(mode = attacher.mode_name(), "attaching programs");
        Ok(attacher)
    }

    /// How it attaches, in the words of `--attach`.
    pub(crate) const fn mode_name(&self) -> &'static str {
        match self.mode {
            Mode::Tcx(_) => "tcx",
            Mode::Clsact(_) => "clsact",
        }
    }

    #[cfg(test)]
    const fn mode(&self) -> &Mode {
        &self.mode
    }

    /// The devices that refused a program, and why.
    #[cfg(test)]
    fn refused(&self) -> impl Iterator<Item = (u32, &str)> {
        self.refused.iter().map(|((index, _), reason)| (*index, reason.as_str()))
    }

    /// Brings programs where `view` wants them. In an audit nothing is taken for granted: every program is put in
    /// place again, which replaces it without a gap.
    pub(crate) fn follow(&mut self, view: &View, audit: bool) {
        let wanted = places(view);
        let first = self.attached.is_empty();
        if audit {
            self.refused.retain(|key, _| wanted.contains_key(key));
        }
        self.leave(&wanted);
        for (key, place) in &wanted {
            if audit || (self.attached.get(key) != Some(place) && !self.refused.contains_key(key)) {
                self.enter(*key, place);
            }
        }
        if let (true, Mode::Tcx(folder) | Mode::Clsact(Some(folder))) = (first, &self.mode) {
            let kept: BTreeSet<(u32, Hook)> = match self.mode {
                Mode::Tcx(_) => wanted.keys().copied().collect(),
                Mode::Clsact(_) => BTreeSet::new(),
            };
            if let Err(error) = attach::sweep_pins(folder, &kept) {
                tracing::warn!("{error:#}");
            }
        }
    }

    fn leave(&mut self, wanted: &BTreeMap<(u32, Hook), Place>) {
        self.refused.retain(|key, _| wanted.contains_key(key));
        let gone: Vec<_> = self
            .attached
            .iter()
            .filter(|(key, place)| wanted.get(key).map(|wanted| wanted.program) != Some(place.program))
            .map(|(key, place)| (*key, place.clone()))
            .collect();
        for (key, place) in gone {
            self.attached.remove(&key);
            let target = Target { index: key.0, name: &place.device, hook: key.1 };
            if let Err(error) = attach::detach(place.program, &target, &self.mode) {
                tracing::warn!(device = place.device, "{error:#}");
            }
        }
    }

    fn enter(&mut self, key: (u32, Hook), place: &Place) {
        match self.attach(key, place) {
            Ok(()) => {
                self.attached.insert(key, place.clone());
                self.refused.remove(&key);
            }
            Err(error) => {
                self.attached.remove(&key);
                let reason = format!("{error:#}");
                if self.refused.get(&key) != Some(&reason) {
                    tracing::error!(device = place.device, program = place.program, "{reason}");
                }
                self.refused.insert(key, reason);
            }
        }
    }

    fn attach(&mut self, (index, hook): (u32, Hook), place: &Place) -> Result<()> {
        let target = Target { index, name: &place.device, hook };
        let program = program(&mut self.ebpf, place.program)?;
        attach::attach(program, place.program, &target, &self.mode, &mut self.netlink)
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    let program = ebpf.program_mut(name).with_context(|| format!("the BPF object has no program {name}"))?;
    Ok(program.try_into()?)
}

/// Tries, rather than compare kernel versions.
fn choose(ebpf: &mut Ebpf, attach: Attach, pins: Option<&Path>) -> Result<Mode> {
    let clsact = || Mode::Clsact(pins.map(Path::to_path_buf));
    match (attach, pins) {
        (Attach::Clsact, _) | (Attach::Auto, None) => Ok(clsact()),
        (Attach::Tcx, None) => bail!(
            "--attach=tcx needs a bpffs at {} that outlives the agent: mount one on the host, or use --attach=clsact",
            bpf::BPFFS
        ),
        (Attach::Tcx | Attach::Auto, Some(folder)) => {
            match attach::probe_tcx(program(ebpf, POD_OUT)?, folder) {
                Ok(()) => Ok(Mode::Tcx(folder.to_path_buf())),
                Err(error) if attach == Attach::Auto => {
                    tracing::info!("no tcx on this kernel: {error:#}");
                    Ok(clsact())
                }
                Err(error) => Err(error.context("--attach=tcx is not possible on this kernel")),
            }
        }
    }
}

#[cfg(test)]
mod tests;
