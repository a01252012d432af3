//! What a guest finds when it boots: an initramfs of busybox, programs with the shared libraries that `ldd`
//! names, tools of this machine, and kernel modules.
//!
//! The archive is not compressed: to unpack it costs the guest more than to read it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::cpio::{Source, Tree};
use super::kernel::{Kernel, module_name};
use super::run::{output, which};

const INIT: &str = include_str!("init.sh");
/// Folders that merged into `/usr`.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// The tree of one guest.
#[derive(Debug)]
pub struct Image {
    tree: Tree,
    /// Stripped copies of programs.
    scratch: tempfile::TempDir,
}

impl Image {
    /// Busybox and the guest's first process.
    pub fn new() -> Result<Self> {
        let mut image = Self { tree: Tree::default(), scratch: tempfile::tempdir()? };
        for name in MERGED {
            image.tree.link(Path::new(name), &Path::new("usr").join(name));
            image.tree.folder(&Path::new("usr").join(name));
        }
        for folder in ["proc", "sys", "dev", "run", "tmp", "root", "etc", "var/lib", "var/log"] {
            image.tree.folder(Path::new(folder));
        }
        image.program("/usr/bin/busybox", &which("busybox")?)?;
        // Busybox' own takes its applets for the tools of the same names.
        image.program("/usr/bin/sh", &which("sh")?)?;
        image.text("/init", INIT);
        image.text("/etc/modules", "");
        image.text("/etc/passwd", "root:x:0:0:root:/root:/usr/bin/sh\n");
        image.text("/etc/group", "root:x:0:\n");
        image.text("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n");
        Ok(image)
    }

    /// A file of this text.
    pub fn text(&mut self, at: &str, text: &str) {
        self.tree.file(&merged(Path::new(at)), Source::Bytes(text.as_bytes().to_vec()));
    }

    /// A copy of a file, as it is when the image is written.
    pub fn file(&mut self, at: &str, from: &Path) {
        self.tree.file(&merged(Path::new(at)), Source::Path(from.to_path_buf()));
    }

    /// A copy of a program, without its debug information, and the libraries that it is linked to.
    pub fn program(&mut self, at: &str, from: &Path) -> Result<()> {
        let stripped = self.scratch.path().join(at.replace('/', "_"));
        let strip = Command::new("strip").arg("-o").arg(&stripped).arg(from).output();
        let bare = strip.is_ok_and(|out| out.status.success());
        self.file(at, if bare { &stripped } else { from });
        self.libraries(from)
    }

    fn libraries(&mut self, program: &Path) -> Result<()> {
        // It fails for a script or a static program, which need none.
        let Ok(text) = output(Command::new("ldd").arg(program)) else { return Ok(()) };
        for path in text.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new) {
            let at = merged(path);
            if !self.tree.has(&at) {
                let from = fs::canonicalize(path).with_context(|| format!("{} is gone", path.display()))?;
                self.tree.file(&at, Source::Path(from));
            }
        }
        Ok(())
    }

    /// A program of this machine's `PATH`, under its own name.
    pub fn tool(&mut self, name: &str) -> Result<()> {
        let called = which(name)?;
        // Some tell by their name what to do, so the links to them must stay links.
        let real = fs::canonicalize(&called)?;
        let at = merged(&called);
        if real.file_name() != called.file_name() {
            self.tree.link(&at, &real);
        }
        let place = merged(&real);
        if self.tree.has(&place) {
            return Ok(());
        }
        self.file(&place.to_string_lossy(), &real);
        self.libraries(&real)
    }

    /// Everything in a folder of this machine, with the libraries that its files are linked to.
    pub fn folder(&mut self, folder: &Path) -> Result<()> {
        let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            let at = merged(&path);
            if path.is_symlink() {
                self.tree.link(&at, &fs::read_link(&path)?);
            } else if path.is_file() {
                self.tree.file(&at, Source::Path(path.clone()));
                self.libraries(&path)?;
            }
        }
        Ok(())
    }

    /// What path tests work with: iproute2, nftables, both iptables, ethtool, conntrack, bpftool and CNI plugins.
    pub fn network_tools(&mut self) -> Result<()> {
        for tool in
            ["ip", "tc", "bridge", "ss", "nft", "ethtool", "bpftool", "conntrack", "sysctl", "nsenter"]
        {
            self.tool(tool)?;
        }
        for kind in ["iptables", "iptables-legacy", "iptables-nft", "ip6tables"] {
            for verb in ["", "-save", "-restore"] {
                self.tool(&format!("{kind}{verb}"))?;
            }
        }
        self.xtables()?;
        for plugin in ["bridge", "host-local", "portmap", "loopback"] {
            let path = Path::new("/usr/lib/cni").join(plugin);
            self.program(&path.to_string_lossy(), &path)?;
        }
        for table in ["/etc/protocols", "/etc/services"] {
            if Path::new(table).exists() {
                self.file(table, Path::new(table));
            }
        }
        Ok(())
    }

    /// The matches and targets of iptables.
    pub fn xtables(&mut self) -> Result<()> {
        let extensions =
            output(Command::new("find").args(["/usr/lib", "-maxdepth", "2", "-name", "xtables"]))?;
        for folder in extensions.lines() {
            self.folder(Path::new(folder))?;
        }
        Ok(())
    }

    /// These modules, loaded in this order before the command runs.
    pub fn modules(&mut self, kernel: &Kernel, names: &[&str]) -> Result<()> {
        let folder = kernel.modules_folder();
        let at = PathBuf::from("/usr/lib/modules").join(&kernel.release);
        let mut dependencies = String::new();
        let closure = kernel.closure(names)?;
        for (file, needs) in &closure {
            self.tree.file(&at.join(file), Source::Path(folder.join(file)));
            dependencies.extend([file, ": ", &needs.join(" "), "\n"]);
        }
        self.text(&at.join("modules.dep").to_string_lossy(), &dependencies);
        let loaded = names
            .iter()
            .map(|name| name.replace('-', "_"))
            .filter(|name| closure.keys().any(|file| module_name(file) == *name));
        self.text("/etc/modules", &loaded.map(|name| name + "\n").collect::<String>());
        Ok(())
    }

    /// The command that the guest is for.
    pub(super) fn command(&mut self, words: &[&str]) {
        let quoted = words.iter().map(|word| format!(" '{}'", word.replace('\'', r"'\''")));
        self.text("/etc/command", &format!("#!/usr/bin/sh\nexec{}\n", quoted.collect::<String>()));
    }

    pub(super) fn write(&self, to: &Path) -> Result<()> {
        self.tree.write(to).with_context(|| format!("cannot write {}", to.display()))
    }
}

/// `/bin/x` is `/usr/bin/x`.
fn merged(path: &Path) -> PathBuf {
    let path = path.strip_prefix("/").unwrap_or(path);
    let old = MERGED.iter().any(|name| path.starts_with(name));
    if old { Path::new("/usr").join(path) } else { Path::new("/").join(path) }
}
