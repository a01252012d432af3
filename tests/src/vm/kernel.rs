//! Debian's cloud kernels: unpacked once into `${XDG_CACHE_HOME:-~/.cache}/kube-router/kernels/PACKAGE`, with
//! the modules that a router may need decompressed and their dependencies computed.
//!
//! A package is never named here: security updates replace it and the old one leaves the archive. The meta
//! packages name today's.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};

use super::run::{output, which};

/// How long a kernel in the cache is taken for today's.
const FRESH: Duration = Duration::from_hours(24);

/// A kernel series that we promise to run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Series {
    V6_1,
    V6_12,
}

impl Series {
    /// Every one, oldest first.
    pub const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];

    /// As in a release: `6.1`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    /// Today's package. What the plain meta package depends on differs between Debian's releases.
    fn package(self) -> Result<String> {
        let wanted = format!("linux-image-{}.", self.name());
        let named = format!("linux-image-{}-cloud-amd64", self.name());
        for meta in [named.as_str(), "linux-image-cloud-amd64"] {
            let Ok(text) = output(Command::new("apt-cache").args(["depends", meta])) else { continue };
            let depends = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
            if let Some(package) = depends.into_iter().find(|package| package.starts_with(&wanted)) {
                return Ok(package.to_owned());
            }
        }
        bail!("apt knows no {} cloud kernel (is this Debian? `apt-get update` fills its lists)", self.name())
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An unpacked kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub series: Series,
    /// What `uname -r` says in it.
    pub release: String,
    folder: PathBuf,
}

impl Kernel {
    /// Today's kernel of a series: from the cache when that was asked for within a day, else what apt names,
    /// fetched when the cache lacks it. An older one from the cache when it cannot be fetched.
    pub fn find(series: Series) -> Result<Self> {
        // Apt takes seconds to answer, so it is asked once.
        static FOUND: Mutex<BTreeMap<Series, Kernel>> = Mutex::new(BTreeMap::new());
        let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = found.get(&series) {
            return Ok(kernel.clone());
        }
        let folder = folder(series, &cache()?)?;
        let kernel = Self { series, release: only_entry(&folder.join("lib/modules"))?, folder };
        found.insert(series, kernel.clone());
        Ok(kernel)
    }

    /// The image to boot.
    pub fn image(&self) -> PathBuf {
        self.folder.join("boot").join(format!("vmlinuz-{}", self.release))
    }

    fn modules_file(&self, name: &str) -> Result<String> {
        let path = self.modules_folder().join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Where the modules are.
    pub fn modules_folder(&self) -> PathBuf {
        self.folder.join("lib/modules").join(&self.release)
    }

    /// The modules' files, with those they need, relative to [`Self::modules_folder`], in the form of
    /// `modules.dep`: a file, then what it needs. What is built into the kernel has none.
    pub fn closure(&self, names: &[&str]) -> Result<BTreeMap<String, Vec<String>>> {
        let text = self.modules_file("modules.dep")?;
        let dependencies: BTreeMap<&str, Vec<&str>> = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(file, needs)| (file, needs.split_whitespace().collect()))
            .collect();
        let builtin = self.modules_file("modules.builtin")?;
        let builtin: BTreeSet<String> = builtin.lines().map(module_name).collect();
        let mut closure = BTreeMap::new();
        for name in names {
            let wanted = name.replace('-', "_");
            if builtin.contains(&wanted) {
                continue;
            }
            let (file, needs) = dependencies
                .iter()
                .find(|(file, _)| module_name(file) == wanted)
                .with_context(|| format!("kernel {} has no module {name}", self.release))?;
            // depmod lists what is needed in full, so one step closes it.
            for one in std::iter::once(file).chain(needs) {
                let needs = dependencies.get(one).into_iter().flatten().map(|need| (*need).to_owned());
                closure.insert((*one).to_owned(), needs.collect());
            }
        }
        Ok(closure)
    }
}

/// `kernel/net/bridge/br-netfilter.ko` is `br_netfilter`.
pub(super) fn module_name(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

fn cache() -> Result<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(base.join("kube-router/kernels"))
}

fn folder(series: Series, cache: &Path) -> Result<PathBuf> {
    let old = cached(cache, series);
    if let Some((confirmed, folder)) = &old
        && confirmed.elapsed().is_ok_and(|age| age < FRESH)
    {
        return Ok(folder.clone());
    }
    let today = series.package().and_then(|package| {
        let folder = cache.join(&package);
        if !folder.exists() {
            fetch(&package, cache)?;
        }
        File::open(&folder)?.set_modified(SystemTime::now())?;
        Ok(folder)
    });
    match (today, old) {
        (Ok(folder), _) => Ok(folder),
        (Err(error), Some((_, folder))) => {
            eprintln!("{} may be out of date: {error:#}", folder.display());
            Ok(folder)
        }
        (Err(error), None) => Err(error),
    }
}

/// The one of a series in the cache that was last confirmed to be today's, and when.
fn cached(cache: &Path, series: Series) -> Option<(SystemTime, PathBuf)> {
    let prefix = format!("linux-image-{}.", series.name());
    fs::read_dir(cache)
        .ok()?
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .max()
}

fn only_entry(folder: &Path) -> Result<String> {
    let entry = fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .next()
        .with_context(|| format!("{} is empty", folder.display()))??;
    Ok(entry.file_name().to_string_lossy().into_owned())
}

fn fetch(package: &str, cache: &Path) -> Result<()> {
    eprintln!("fetching {package} into {}", cache.display());
    fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
    // Beside its final place, so that a rename completes it and nobody sees half of one.
    let work = tempfile::Builder::new().prefix(".fetch-").tempdir_in(cache)?;
    output(Command::new("apt-get").args(["download", "--quiet", package]).current_dir(work.path()))?;
    let archive = fs::read_dir(work.path())?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get downloaded no {package}"))?;
    let tree = work.path().join("tree");
    output(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&tree))?;
    if !tree.join("lib").exists() {
        fs::rename(tree.join("usr/lib"), tree.join("lib"))?;
    }
    prepare_modules(&tree)?;
    let place = cache.join(package);
    match fs::rename(&tree, &place) {
        // Another test was faster.
        Err(_) if place.exists() => Ok(()),
        renamed => renamed.with_context(|| format!("cannot make {}", place.display())),
    }
}

/// Decompresses the modules that a router may need and drops the rest.
fn prepare_modules(tree: &Path) -> Result<()> {
    let modules = tree.join("lib/modules");
    let release = only_entry(&modules)?;
    let kernel = modules.join(&release).join("kernel");
    let mut wanted = Vec::new();
    for folder in ["net", "lib", "crypto", "arch"] {
        find_modules(&kernel.join(folder), true, &mut wanted)?;
    }
    find_modules(&kernel.join("drivers/net"), false, &mut wanted)?;
    let packed: Vec<_> =
        wanted.iter().filter(|path| path.extension().is_some_and(|kind| kind == "xz")).collect();
    if !packed.is_empty() {
        output(Command::new("xz").arg("--decompress").args(&packed))?;
    }
    let mut all = Vec::new();
    find_modules(&kernel, true, &mut all)?;
    for path in all.iter().filter(|path| path.extension().is_some_and(|kind| kind == "xz")) {
        fs::remove_file(path)?;
    }
    output(Command::new(which("depmod")?).arg("-b").arg(tree).arg(&release))?;
    Ok(())
}

fn find_modules(folder: &Path, below: bool, found: &mut Vec<PathBuf>) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && below {
            find_modules(&path, below, found)?;
        } else if path.to_string_lossy().contains(".ko") {
            found.push(path);
        }
    }
    Ok(())
}
