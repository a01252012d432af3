//! Compiles `router-ebpf` with a compiler that has the BPF target, strips it of debug sections, and leaves it
//! where `include_bytes!` and the tests find it. Without such a compiler or a linker it fails with the exact lines
//! that install one.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use object::build::elf::{Builder, SectionData};

const TARGET: &str = "bpfel-unknown-none";
const HOW_TO_INSTALL: &str = "\
kube-router's kernel programs need a Rust compiler with the BPF target, and bpf-linker.

    cargo xtask setup

installs both on Debian 12 or later. By hand, as root:

    apt-get install -y --no-install-recommends rustc-web libstd-rust-web-dev-bpf
    mkdir -p ~/.cache/kube-router/llvm/lib
    ln -sf /usr/lib/$(uname -m)-linux-gnu/libLLVM.so.22.1 ~/.cache/kube-router/llvm/lib/libLLVM.so
    LLVM_PREFIX=~/.cache/kube-router/llvm cargo install --locked bpf-linker --version 0.13.0 \\
        --no-default-features --features llvm-22 --root ~/.cache/kube-router

elsewhere, with rustup:

    rustup toolchain install nightly --component rust-src
    cargo install --locked bpf-linker

EBPF_RUSTC=/path/to/rustc and BPF_LINKER=/path/to/bpf-linker choose others.";

fn main() -> Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?)
        .parent()
        .context("router-agent has no parent folder")?
        .to_path_buf();
    for path in ["router-ebpf", "router-common", "Cargo.lock", "router-agent/build.rs"] {
        println!("cargo:rerun-if-changed={}", root.join(path).display());
    }
    for variable in ["EBPF_RUSTC", "BPF_LINKER"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    name_the_build()?;
    let target = target_folder(&out);
    let built = compile(&root, &target.join("bpf"))?;
    let object = strip(&built)?;
    let name = "kube-router.bpf.o";
    fs::write(out.join(name), &object).context("cannot write the stripped object")?;
    // For the tests, which run programs one packet at a time. Written aside and moved, so that nobody reads half.
    let shared = target.join("bpf").join(name);
    let aside = shared.with_extension(format!("{}", std::process::id()));
    fs::write(&aside, &object)?;
    fs::rename(&aside, &shared)?;
    Ok(())
}

/// What `--version` says, unless the environment says it. With `SOURCE_DATE_EPOCH` the same sources and compiler
/// give the same words.
fn name_the_build() -> Result<()> {
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let date = || {
        let seconds = env::var("SOURCE_DATE_EPOCH").map_or_else(|_| "now".to_owned(), |at| format!("@{at}"));
        says("date".as_ref(), &["--utc", &format!("--date={seconds}"), "+%Y-%m-%dT%H:%M:%SZ"])
            .context("SOURCE_DATE_EPOCH is a number of seconds, or absent")
    };
    let rustc = env::var_os("RUSTC").context("RUSTC is not set")?;
    let facts: [(&str, &dyn Fn() -> Result<String>); 3] = [
        ("VERSION", &|| Ok(format!("v{}", env::var("CARGO_PKG_VERSION")?))),
        ("BUILD_DATE", &date),
        ("TOOLCHAIN", &|| says(&rustc, &["--version"])),
    ];
    for (name, fact) in facts {
        let variable = format!("KUBE_ROUTER_{name}");
        println!("cargo:rerun-if-env-changed={variable}");
        let given = env::var(&variable).ok().filter(|given| !given.is_empty());
        println!("cargo:rustc-env={variable}={}", given.map_or_else(fact, Ok)?);
    }
    Ok(())
}

/// The one line that a program prints.
fn says(program: &OsStr, arguments: &[&str]) -> Result<String> {
    let doing = || format!("{} {}", program.display(), arguments.join(" "));
    let output = Command::new(program).args(arguments).output().with_context(doing)?;
    ensure!(output.status.success(), "{} ended with {}", doing(), output.status);
    Ok(String::from_utf8(output.stdout).with_context(doing)?.trim().to_owned())
}

/// The target folder, so that debug and release builds share one BPF build.
fn target_folder(out: &Path) -> PathBuf {
    out.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists()).unwrap_or(out).to_path_buf()
}

enum Compiler {
    /// Has the target's core library.
    WithTarget(PathBuf),
    /// `rustup run nightly`, building core from source.
    Nightly,
}

fn compile(root: &Path, folder: &Path) -> Result<PathBuf> {
    let compiler = find_compiler()?;
    let linker = find_linker()?;
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    let mut cargo = match &compiler {
        Compiler::WithTarget(rustc) => {
            let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            cargo.env("RUSTC", rustc);
            cargo
        }
        Compiler::Nightly => {
            let mut rustup = Command::new("rustup");
            rustup.args(["run", "nightly", "cargo"]).env_remove("RUSTC").env_remove("RUSTUP_TOOLCHAIN");
            rustup
        }
    };
    cargo
        .current_dir(root)
        .args(["build", "--quiet", "--locked", "--release", "--package", "router-ebpf", "--target", TARGET])
        .arg("--target-dir")
        .arg(folder);
    if matches!(compiler, Compiler::Nightly) {
        cargo.arg("-Zbuild-std=core");
    }
    for variable in [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_BUILD_TARGET",
    ] {
        cargo.env_remove(variable);
    }
    cargo
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS", flags(root, &home));
    let status = cargo.status().context("cannot run cargo for the kernel programs")?;
    ensure!(status.success(), "the kernel programs do not compile (the compiler's own words are above)");
    Ok(folder.join(TARGET).join("release/router-ebpf"))
}

/// Full debug information, out of which the linker makes BTF; and no path of this machine in it, so that the same
/// sources give the same bytes anywhere. The last prefix that matches wins.
fn flags(root: &Path, home: &Path) -> OsString {
    let mut flags = OsString::from("-Cdebuginfo=2 -Clink-arg=--btf");
    let mut remap = |from: &Path, to: &str| {
        flags.push(" --remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    };
    remap(root, ".");
    remap(home, "/cargo");
    if let Ok(indexes) = fs::read_dir(home.join("registry/src")) {
        for index in indexes.flatten() {
            remap(&index.path(), "/crates");
        }
    }
    flags
}

fn find_compiler() -> Result<Compiler> {
    if let Some(rustc) = env::var_os("EBPF_RUSTC") {
        return Ok(Compiler::WithTarget(rustc.into()));
    }
    let own = env::var_os("RUSTC").map(PathBuf::from);
    for rustc in own.into_iter().chain([PathBuf::from("/usr/bin/rustc")]) {
        if has(&rustc, &[], &format!("lib/rustlib/{TARGET}/lib")) {
            return Ok(Compiler::WithTarget(rustc));
        }
    }
    if has(Path::new("rustup"), &["run", "nightly", "rustc"], "lib/rustlib/src/rust/library") {
        return Ok(Compiler::Nightly);
    }
    bail!("{HOW_TO_INSTALL}")
}

/// Whether a compiler's sysroot holds a path.
fn has(program: &Path, arguments: &[&str], path: &str) -> bool {
    let Ok(output) = Command::new(program).args(arguments).args(["--print", "sysroot"]).output() else {
        return false;
    };
    output.status.success() && Path::new(String::from_utf8_lossy(&output.stdout).trim()).join(path).exists()
}

fn find_linker() -> Result<PathBuf> {
    if let Some(linker) = env::var_os("BPF_LINKER") {
        return Ok(linker.into());
    }
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let kept = cache.map(|cache| cache.join("kube-router/bin/bpf-linker"));
    for linker in kept.into_iter().chain([PathBuf::from("bpf-linker")]) {
        if Command::new(&linker).arg("--version").output().is_ok_and(|output| output.status.success()) {
            return Ok(linker);
        }
    }
    bail!("{HOW_TO_INSTALL}")
}

/// Drops debug sections (BTF stays) and refuses an object in which a panic is reachable: old verifiers reject it.
fn strip(path: &Path) -> Result<Vec<u8>> {
    let data = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut builder = Builder::read(&*data).context("the linker's output is no ELF object")?;
    for symbol in &builder.symbols {
        let name = String::from_utf8_lossy(&symbol.name);
        ensure!(!name.contains("panic"), "a panic is reachable in the kernel programs: {name}");
    }
    for section in &mut builder.sections {
        if section.name.starts_with(b".debug") || section.name.starts_with(b".rel.debug") {
            section.delete = true;
        }
    }
    // The linker writes one table for all strings; the writer wants section names apart.
    let names = builder.sections.add();
    names.name = b".shstrtab".as_slice().into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    builder.write(&mut stripped).context("cannot write the stripped object")?;
    Ok(stripped)
}
