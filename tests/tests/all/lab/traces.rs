//! What a lab could leave on the machine.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use router_tests::lab::state::{FOLDER, Host};
use router_tests::node;

/// The mounts, links and routes of the machine before a lab.
pub(super) struct Traces {
    mounts: BTreeSet<String>,
    links: BTreeSet<String>,
    routes: BTreeSet<String>,
}

impl Traces {
    pub(super) fn before() -> Self {
        Self { mounts: mounts(), links: links(), routes: routes() }
    }

    /// Nothing is left of the lab of this process.
    pub(super) fn none_of(&self, pid: u32) {
        self.none_of_hosts(pid, &[]);
    }

    /// The same, with a look into the control groups of its hosts.
    pub(super) fn none_of_hosts(&self, pid: u32, hosts: &[Host]) {
        let start = Instant::now();
        // The holders of a killed lab need a moment to see that it is gone.
        while let Some(left) = self.left(pid, hosts) {
            assert!(start.elapsed() < Duration::from_secs(10), "{left} is left of lab {pid}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn left(&self, pid: u32, hosts: &[Host]) -> Option<String> {
        let prefix = node::prefixes()
            .unwrap()
            .into_iter()
            .find(|prefix| prefix.starts_with(&format!("kr-lab-{pid}-")));
        let folder = Path::new(FOLDER).join(pid.to_string());
        prefix
            .map(|prefix| format!("control group {prefix}"))
            .or_else(|| folder.exists().then(|| folder.display().to_string()))
            .or_else(|| hosts.iter().find(|host| host.cgroup.exists()).map(|host| format!("{host:?}")))
            .or_else(|| process_of(pid))
            .or_else(|| more("mount", &mounts(), &self.mounts))
            .or_else(|| more("link", &links(), &self.links))
            .or_else(|| more("route", &routes(), &self.routes))
    }
}

/// A process in a control group of the lab: what the lab starts, and what that starts, is in one.
fn process_of(pid: u32) -> Option<String> {
    let mark = format!("/kr-lab-{pid}-");
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let groups = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        if groups.contains(&mark) {
            let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            return Some(format!("process {}: {}", entry.file_name().display(), command.replace('\0', " ")));
        }
    }
    None
}

fn more(kind: &str, now: &BTreeSet<String>, before: &BTreeSet<String>) -> Option<String> {
    now.difference(before).next().map(|one| format!("{kind} {one}"))
}

fn mounts() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    text.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect()
}

fn links() -> BTreeSet<String> {
    fs::read_dir("/sys/class/net")
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().display().to_string())
        .collect()
}

fn routes() -> BTreeSet<String> {
    fs::read_to_string("/proc/self/net/route").unwrap().lines().map(str::to_owned).collect()
}
