//! The version 2 control group of a node: the list of all its processes, by which they end with it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How long the processes of a group may take to be gone once they are killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the host has the version 2 hierarchy mounted: its only one, or `unified` beside those of version 1.
pub(super) fn mount_point() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    find_mount(&mounts).context("no cgroup2 is mounted: `mount -t cgroup2 none /sys/fs/cgroup`")
}

fn find_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let path = fields.next()?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(path))
    })
}

/// Kills every process of a group and of those below it, waits until they are gone, and removes them all.
/// A group that does not exist is removed already.
pub(super) fn remove(group: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match fs::write(group.join("cgroup.kill"), "1") {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot kill what is in {}", group.display()));
            }
        }
        match remove_tree(group) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                let left = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
                bail!("cannot remove {}: {error}; still in it: {left:?}", group.display());
            }
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn remove_tree(group: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_is_found_beside_version_1_and_alone() {
        let hybrid =
            "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(find_mount(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        let unified = "sysfs /sys sysfs rw 0 0\nnone /sys/fs/cgroup cgroup2 rw 0 0\n";
        assert_eq!(find_mount(unified), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(find_mount("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n"), None);
    }
}
