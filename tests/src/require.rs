//! What a test may need of the machine. A test that lacks it says why it does nothing; where
//! `ROUTER_TEST_REQUIRE` names the need (`root,netns,vm`), as CI does, it fails instead.

use std::env;
use std::sync::LazyLock;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

use crate::vm;

/// The right to load programs and change links.
pub fn root() -> bool {
    have("root", geteuid().is_root().then_some(()).ok_or("this needs root").as_ref().err())
}

/// Network namespaces of our own.
pub fn netns() -> bool {
    // On a thread that ends at once: the namespace goes with it.
    let tried = std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET)).join();
    have("netns", (!matches!(tried, Ok(Ok(())))).then_some(&"no network namespace can be made here"))
}

/// The guests of [`crate::vm`]. Fetches their kernels when they are not in the cache.
pub fn vm() -> bool {
    static MISSING: LazyLock<Option<String>> =
        LazyLock::new(|| vm::probe().err().map(|error| format!("{error:#}")));
    have("vm", MISSING.as_ref())
}

fn have(need: &str, missing: Option<&impl ToString>) -> bool {
    let Some(why) = missing.map(ToString::to_string) else { return true };
    let required = env::var("ROUTER_TEST_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|one| one == need), "ROUTER_TEST_REQUIRE names {need}, but {why}");
    eprintln!("skipped: {why}");
    false
}
