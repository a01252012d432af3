//! Programs that tests run but do not build.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Every kubectl to test with, the newest first: the one on the PATH where there is one (Debian packages none that is
/// newer), and Debian's 1.20.
pub fn kubectls() -> Result<Vec<PathBuf>> {
    let old = cached("kubectl-1.20/usr/bin/kubectl")?;
    if let Ok(present) = on_path("kubectl") {
        return Ok(vec![present, old]);
    }
    eprintln!("there is no kubectl on the PATH: only {} is tested", old.display());
    Ok(vec![old])
}

/// Debian's BIRD, of which `xtask setup` unpacks two programs, and where their libraries are.
#[derive(Clone, Debug)]
pub struct Bird {
    pub bird: PathBuf,
    pub birdc: PathBuf,
    pub libraries: PathBuf,
}

/// BIRD.
pub fn bird() -> Result<Bird> {
    let library = format!("bird2/usr/lib/{}-linux-gnu/libssh-gcrypt.so.4", std::env::consts::ARCH);
    let mut libraries = cached(&library)?;
    libraries.pop();
    Ok(Bird { bird: cached("bird2/usr/sbin/bird")?, birdc: cached("bird2/usr/sbin/birdc")?, libraries })
}

/// Every `gobgp` to test with: the newest that we answer, and Debian 12's 3.10.
pub fn gobgps() -> Result<[PathBuf; 2]> {
    Ok([cached("gobgp-4.8/gobgp")?, cached("gobgp-3.10/usr/bin/gobgp")?])
}

/// What `xtask setup` has put into the cache directory.
fn cached(path: &str) -> Result<PathBuf> {
    let path = cache_directory()?.join("kube-router").join(path);
    if !path.is_file() {
        bail!("{} is missing: run `cargo xtask setup`", path.display());
    }
    Ok(path)
}

/// The full path of a program on the PATH.
pub fn on_path(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").context("no PATH is set")?;
    let found =
        std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file());
    found.with_context(|| format!("{program} is not on the PATH: run `cargo xtask setup`"))
}

fn cache_directory() -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os("XDG_CACHE_HOME").filter(|text| !text.is_empty()) {
        return Ok(directory.into());
    }
    let home = std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(Path::new(&home).join(".cache"))
}
