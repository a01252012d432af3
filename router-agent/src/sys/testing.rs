//! Network namespaces for tests: each test runs its body on a thread of its own that has left the namespace of the
//! process, and everything made there goes with the thread.

use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};

/// Runs `body` in a new network namespace, with `lo` up.
pub(crate) fn in_namespace<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root: run them with CAP_SYS_ADMIN");
            run("ip link set lo up");
            body()
        });
        match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// The same with a bpffs at `/sys/fs/bpf` that only this thread sees.
pub(crate) fn in_namespace_with_bpffs<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    in_namespace(|| {
        unshare(CloneFlags::CLONE_NEWNS).expect("cannot leave the mount namespace");
        run("mount --make-rprivate /");
        run("mount -t bpf none /sys/fs/bpf");
        body()
    })
}

/// Runs a command line in the namespace of this thread; panics with its output where it fails.
pub(crate) fn run(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().expect("sh runs");
    assert!(
        output.status.success(),
        "{line}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A second namespace, held by a process that ends with this value.
#[derive(Debug)]
pub(crate) struct Other {
    holder: std::process::Child,
}

impl Other {
    pub(crate) fn new() -> Self {
        let holder = Command::new("unshare").args(["-n", "sleep", "600"]).spawn().expect("unshare runs");
        // From here on it ends with this value, whatever happens.
        let other = Self { holder };
        let own = std::fs::read_link("/proc/thread-self/ns/net").expect("a namespace of our own");
        let path = format!("/proc/{}/ns/net", other.pid());
        for _ in 0..500 {
            if std::fs::read_link(&path).is_ok_and(|found| found != own) {
                return other;
            }
            thread::sleep(std::time::Duration::from_millis(2));
        }
        panic!("the holder of the namespace did not start");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// Runs a command line in it.
    pub(crate) fn run(&self, line: &str) -> String {
        run(&format!("nsenter --net=/proc/{}/ns/net {line}", self.pid()))
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
