//! `setup`: what building, the lab and the tests need, found by trying and installed where missing. Idempotent.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::run::{Outcome, cache, must, on_path, output, says_yes};

const BPF_LINKER: &str = "0.13.0";

/// A Debian package, what it is for, and how to see that it is there.
struct Package {
    name: &'static str,
    why: &'static str,
    there: fn() -> bool,
}

const PACKAGES: &[Package] = &[
    Package { name: "gcc", why: "links Rust programs", there: || on_path("cc") },
    Package {
        name: "libc6-dev",
        why: "links Rust programs",
        there: || Path::new("/usr/include/stdio.h").exists(),
    },
    Package { name: "iproute2", why: "namespaces, links and routes of the lab", there: || on_path("ip") },
    Package { name: "procps", why: "sysctl of the lab's hosts", there: || on_path("sysctl") },
    Package { name: "nftables", why: "the hostile host's firewall", there: || on_path("nft") },
    Package { name: "iptables", why: "accept rules, and CNI's portmap", there: || on_path("iptables") },
    Package { name: "ipvsadm", why: "IPVS, to compare with", there: || on_path("ipvsadm") },
    Package { name: "bpftool", why: "shows the agent's maps", there: || on_path("bpftool") },
    Package { name: "ethtool", why: "checksum offload of the lab's links", there: || on_path("ethtool") },
    Package {
        name: "containernetworking-plugins",
        why: "pods of the lab",
        there: || Path::new("/usr/lib/cni/bridge").exists(),
    },
    Package { name: "qemu-system-x86", why: "other kernels", there: || on_path("qemu-system-x86_64") },
    Package { name: "busybox-static", why: "user space of the other kernels", there: || on_path("busybox") },
    Package { name: "kmod", why: "modules of the other kernels", there: || on_path("depmod") },
    Package { name: "cpio", why: "initramfs of the other kernels", there: || on_path("cpio") },
    Package { name: "xz-utils", why: "modules of the other kernels", there: || on_path("xz") },
    Package { name: "binutils", why: "strips programs for the other kernels", there: || on_path("strip") },
    Package { name: "conntrack", why: "shows what the stack tracks", there: || on_path("conntrack") },
    Package { name: "ipvsadm", why: "the peer that benchmarks compare with", there: || on_path("ipvsadm") },
    Package { name: "curl", why: "asks the API server as a stranger would", there: || on_path("curl") },
];

/// Programs that are not to be installed, since they would start daemons or stand beside newer ones: unpacked into a
/// folder of the cache.
struct Unpacked {
    packages: &'static [&'static str],
    folder: &'static str,
    /// There once it is unpacked.
    file: &'static str,
    why: &'static str,
}

const UNPACKED: &[Unpacked] = &[
    Unpacked {
        packages: &["kubernetes-client"],
        folder: "kubectl-1.20",
        file: "usr/bin/kubectl",
        why: "the oldest kubectl that is served",
    },
    Unpacked {
        packages: &["bird2", "libssh-gcrypt-4"],
        folder: "bird2",
        file: "usr/sbin/bird",
        why: "a router to speak BGP with",
    },
    Unpacked {
        packages: &["gobgpd"],
        folder: "gobgp-3.10",
        file: "usr/bin/gobgp",
        why: "the oldest gobgp that is answered, and a peer",
    },
];

/// The newest gobgp that is answered; Debian has none that new.
const GOBGP: &str = "4.8.0";

fn gobgp() -> std::path::PathBuf {
    cache().join("gobgp-4.8/gobgp")
}

fn install_gobgp() -> Outcome {
    if !on_path("go") {
        apt_install(&["golang-go"])?;
    }
    println!("setup: go install gobgp {GOBGP}");
    let folder = cache().join("gobgp-4.8");
    std::fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    let package = format!("github.com/osrg/gobgp/v4/cmd/gobgp@v{GOBGP}");
    let mut install = Command::new("go");
    install.env("GOBIN", &folder).args(["install", &package]);
    // What was fetched stays: another try goes on where one broke off.
    must(&mut install).or_else(|_| must(&mut install)).or_else(|_| must(&mut install))
}

/// Installs what is missing, or only says what is.
pub(crate) fn run(install: bool, loud: bool) -> Outcome {
    let start = Instant::now();
    let mut missing = Vec::new();
    let packages: Vec<&Package> = PACKAGES.iter().filter(|package| !(package.there)()).collect();
    for package in &packages {
        missing.push(format!("{:<28} {}", package.name, package.why));
    }
    let compiler = has_compiler();
    if !compiler {
        missing.push(format!("{:<28} compiles the kernel programs", "rustc-web, libstd-…-bpf"));
    }
    let linker = has_linker();
    if !linker {
        missing.push(format!("{:<28} links the kernel programs", format!("bpf-linker {BPF_LINKER}")));
    }
    let unpacked: Vec<&Unpacked> =
        UNPACKED.iter().filter(|it| !cache().join(it.folder).join(it.file).exists()).collect();
    for it in &unpacked {
        missing.push(format!("{:<28} {}", format!("{}, unpacked", it.packages.join(", ")), it.why));
    }
    let new_gobgp = gobgp().exists();
    if !new_gobgp {
        missing.push(format!("{:<28} the newest gobgp that is answered", format!("gobgp {GOBGP}")));
    }
    if missing.is_empty() {
        if loud {
            println!("setup: nothing is missing ({:.1} s)", start.elapsed().as_secs_f32());
        }
        return Ok(());
    }
    println!("setup: missing here");
    for line in &missing {
        println!("  {line}");
    }
    if !install {
        return Err("--no-install: install these, or run without it".into());
    }
    must_be_root()?;
    must(Command::new("apt-get").args(["update", "-qq"]))?;
    if !packages.is_empty() {
        apt_install(&packages.iter().map(|package| package.name).collect::<Vec<_>>())?;
    }
    if !compiler {
        install_compiler()?;
    }
    if !linker {
        install_linker()?;
    }
    for it in unpacked {
        unpack(it.packages, &cache().join(it.folder))?;
    }
    if !new_gobgp {
        install_gobgp()?;
    }
    println!("setup: done ({:.0} s)", start.elapsed().as_secs_f32());
    Ok(())
}

fn must_be_root() -> Outcome {
    match output(Command::new("id").arg("-u")) {
        Some(id) if id.trim() == "0" => Ok(()),
        _ => Err("installing needs root: run this once as root, or install the list above yourself".into()),
    }
}

fn apt_install(packages: &[&str]) -> Outcome {
    println!("setup: apt-get install {}", packages.join(" "));
    must(
        Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(packages),
    )
}

/// As `router-agent/build.rs` looks for one.
fn has_compiler() -> bool {
    if std::env::var_os("EBPF_RUSTC").is_some() {
        return true;
    }
    let has = |program: &str, arguments: &[&str], path: &str| {
        output(Command::new(program).args(arguments).args(["--print", "sysroot"]))
            .is_some_and(|sysroot| Path::new(sysroot.trim()).join(path).exists())
    };
    has("/usr/bin/rustc", &[], "lib/rustlib/bpfel-unknown-none/lib")
        || has("rustc", &[], "lib/rustlib/bpfel-unknown-none/lib")
        || has("rustup", &["run", "nightly", "rustc"], "lib/rustlib/src/rust/library")
}

fn install_compiler() -> Outcome {
    for package in ["rustc", "rustup"] {
        let state = output(Command::new("dpkg-query").args(["-W", "-f=${Status}", package]));
        if state.is_some_and(|state| state.contains("ok installed")) {
            return Err(format!(
                "Debian's package {package} excludes rustc-web, which has the BPF target. Remove it, or name \
                 another compiler that has the target in EBPF_RUSTC"
            ));
        }
    }
    apt_install(&["rustc-web", "libstd-rust-web-dev-bpf"])
}

fn has_linker() -> bool {
    std::env::var_os("BPF_LINKER").is_some()
        || says_yes(Command::new(cache().join("bin/bpf-linker")).arg("--version"))
        || says_yes(Command::new("bpf-linker").arg("--version"))
}

/// Builds bpf-linker against the LLVM that the compiler brought: it wants a prefix with `lib/libLLVM.so` and
/// nothing else of LLVM.
fn install_linker() -> Outcome {
    let prefix = cache().join("llvm");
    let library = find_llvm().ok_or("libLLVM.so.22.1 is missing, which rustc-web brings")?;
    let failed = |error: std::io::Error| format!("cannot prepare {}: {error}", prefix.display());
    std::fs::create_dir_all(prefix.join("lib")).map_err(failed)?;
    let link = prefix.join("lib/libLLVM.so");
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(library, &link).map_err(failed)?;
    println!("setup: cargo install bpf-linker {BPF_LINKER} (about a minute)");
    must(
        Command::new("cargo")
            .env("LLVM_PREFIX", &prefix)
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env_remove("CARGO_TARGET_DIR")
            .args(["install", "--quiet", "--locked", "bpf-linker", "--version", BPF_LINKER])
            .args(["--no-default-features", "--features", "llvm-22", "--root"])
            .arg(cache()),
    )
}

fn find_llvm() -> Option<String> {
    let folder = format!("/usr/lib/{}-linux-gnu/libLLVM.so.22.1", std::env::consts::ARCH);
    Path::new(&folder).exists().then_some(folder)
}

/// Unpacks a package without installing it: another package may own the same file.
fn unpack(packages: &[&str], folder: &Path) -> Outcome {
    println!("setup: unpacking {} into {}", packages.join(", "), folder.display());
    let aside = folder.with_extension("deb");
    std::fs::create_dir_all(&aside).map_err(|error| format!("cannot make {}: {error}", aside.display()))?;
    must(Command::new("apt-get").current_dir(&aside).args(["download", "-qq"]).args(packages))?;
    let archives = std::fs::read_dir(&aside).map_err(|error| error.to_string())?;
    for archive in archives.flatten() {
        must(Command::new("dpkg-deb").arg("-x").arg(archive.path()).arg(folder))?;
    }
    std::fs::remove_dir_all(&aside).map_err(|error| format!("cannot remove {}: {error}", aside.display()))
}
