//! Maps of an agent before us that no bpffs has kept: our filters hold its programs, and those hold its maps.
//!
//! The way to them leads from our own devices' filters to programs to maps, never by a name that anybody may give. They
//! are found together, as the programs of one agent share them; where two agents' stand, as after one that was killed
//! in the midst of replacing another's, those that more filters lead to.

#![expect(unsafe_code, reason = "fsopen(2) and its family have no safe wrapper")]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, MapInfo};
use aya::programs::loaded_programs;

/// A bpffs that is mounted nowhere, and goes with this value: a place where maps have names for as long as a new object
/// is loaded that adopts them.
#[derive(Debug)]
pub(crate) struct Shelter {
    root: OwnedFd,
}

impl Shelter {
    pub(crate) fn make() -> Result<Self> {
        // SAFETY: the name is a constant, and the kernel makes the descriptor for us alone.
        let context =
            unsafe { descriptor(libc::syscall(libc::SYS_fsopen, c"bpf".as_ptr(), libc::FSOPEN_CLOEXEC)) };
        let context = context.context("cannot make a bpffs")?;
        let none = std::ptr::null::<libc::c_void>();
        // SAFETY: this command takes neither key nor value.
        let created =
            unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), CREATE, none, none, 0) };
        if created < 0 {
            return Err(io::Error::last_os_error()).context("cannot set up a bpffs");
        }
        // SAFETY: no pointers, and again a descriptor for us alone.
        let root = unsafe {
            descriptor(libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), libc::FSMOUNT_CLOEXEC, 0))
        };
        Ok(Self { root: root.context("cannot make a bpffs ready")? })
    }

    /// Its folder, for this process alone.
    pub(crate) fn folder(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.root.as_raw_fd()))
    }
}

/// Pins in `folder`, each by its name, those of `names` among the maps that the programs with these ids hold.
pub(crate) fn pin_maps(programs: &[u32], names: impl Fn(&str) -> bool, folder: &Path) -> Result<()> {
    let mut maps = of_one_agent(programs)?;
    maps.retain(|name, _| names(name));
    for (name, id) in &maps {
        let map = MapData::from_id(*id).with_context(|| format!("cannot open the map {name}"))?;
        map.pin(folder.join(name)).with_context(|| format!("cannot keep the map {name}"))?;
    }
    Ok(())
}

/// `FSCONFIG_CMD_CREATE` of linux/mount.h.
const CREATE: libc::c_uint = 6;

/// What a call has returned.
///
/// # Safety
/// If it is a descriptor, nobody else may have it.
unsafe fn descriptor(returned: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(returned) {
        // SAFETY: by the caller.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The maps, by name, of the agent to which most of these programs belong. `programs` names one once for each filter.
fn of_one_agent(programs: &[u32]) -> Result<BTreeMap<String, u32>> {
    let mut agents: Vec<(BTreeSet<u32>, usize)> = Vec::new();
    for program in loaded_programs() {
        let program = program.context("cannot list programs")?;
        let filters = programs.iter().filter(|id| **id == program.id()).count();
        if filters == 0 {
            continue;
        }
        let maps: BTreeSet<u32> =
            program.map_ids().context("cannot ask a program for its maps")?.into_iter().flatten().collect();
        // Whoever shares a map with a program is of the same agent.
        let (same, others): (Vec<_>, Vec<_>) =
            agents.into_iter().partition(|(held, _)| !held.is_disjoint(&maps));
        let joined = same.into_iter().fold((maps, filters), |(mut all, sum), (held, filters)| {
            all.extend(held);
            (all, sum + filters)
        });
        agents = others;
        agents.push(joined);
    }
    let most = agents.into_iter().max_by_key(|(_, filters)| *filters).map(|(maps, _)| maps);
    let named = most.into_iter().flatten().map(|id| {
        let info = MapInfo::from_id(id).with_context(|| format!("cannot ask map {id} for its name"))?;
        Ok((info.name_as_str().unwrap_or_default().to_owned(), id))
    });
    named.collect()
}
