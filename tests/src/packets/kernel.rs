//! Cases in the kernel: the object that the agent embeds, its maps filled, one packet through
//! `BPF_PROG_TEST_RUN`. The program leaves verdict and detail in `__sk_buff.cb`.

#![expect(unsafe_code, reason = "rows are carried into aya's maps as bytes")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, HashMap, MapData};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use router_common::abi::{Backend, DeviceKey, Fragment, FragmentKey, PodKey, Row as Layout};
use router_common::verdict::{DropReason, Verdict};

use super::{Case, Hook, Outcome, V4, World};

/// Carries a row into a map.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Row<T>(T);

// SAFETY: a `Layout` is plain bytes without padding (compared in `carry`), any of which are a value of it.
unsafe impl<T: Layout> aya::Pod for Row<T> {}

const fn carry<T: Layout>(row: T) -> Row<T> {
    const { assert!(size_of::<T>() == T::PACKED_SIZE) }
    Row(row)
}

/// Offsets in `struct __sk_buff` of linux/bpf.h, and its size.
mod sk_buff {
    pub(super) const MARK: usize = 8;
    pub(super) const CB: usize = 48;
    pub(super) const SIZE: usize = 192;
}

/// The object beside the test executables.
pub fn object_path() -> Result<PathBuf> {
    let executable = std::env::current_exe()?;
    let folder = executable
        .ancestors()
        .find(|folder| folder.join("bpf/kube-router.bpf.o").exists())
        .context("target/bpf/kube-router.bpf.o is missing: run `cargo build` first")?;
    Ok(folder.join("bpf/kube-router.bpf.o"))
}

/// The programs and maps, loaded once for many cases.
#[derive(Debug)]
pub struct Loaded {
    ebpf: Ebpf,
}

impl Loaded {
    /// Loads the object, and every program of it.
    pub fn new(path: &Path) -> Result<Self> {
        let mut loaded = Self::maps(path)?;
        for hook in Hook::ALL {
            let program: &mut SchedClassifier =
                loaded.ebpf.program_mut(hook.program()).context(hook.program())?.try_into()?;
            program.load().with_context(|| format!("{} does not load", hook.program()))?;
        }
        Ok(loaded)
    }

    /// Loads the object's maps, for one who loads the programs one by one.
    pub fn maps(path: &Path) -> Result<Self> {
        let ebpf =
            EbpfLoader::new().load_file(path).with_context(|| format!("cannot load {}", path.display()))?;
        Ok(Self { ebpf })
    }

    /// What is loaded.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Makes the maps hold what a world holds, and nothing else.
    pub fn hold(&mut self, world: &World) -> Result<()> {
        let ebpf = &mut self.ebpf;
        let mut meta: Array<_, Row<_>> = Array::try_from(ebpf.map_mut("META").context("META")?)?;
        meta.set(0, carry(world.meta), 0)?;
        fill(ebpf, "FRONTENDS4", world.frontends.iter().copied())?;
        fill(ebpf, "SLOTS", world.slots.iter().copied())?;
        fill(ebpf, "PODS4", world.pods.iter().map(|(address, pod)| (PodKey { address: *address }, *pod)))?;
        let devices =
            world.devices.iter().map(|(ifindex, device)| (DeviceKey { ifindex: *ifindex }, *device));
        fill(ebpf, "DEVICES", devices)?;
        fill(ebpf, "FRAGMENTS4", std::iter::empty::<(FragmentKey<V4>, Fragment)>())?;
        for confirmed in [true, false] {
            let rows = world.flows.iter().filter(|row| row.2 == confirmed).map(|row| (row.0, row.1));
            fill(ebpf, if confirmed { "FLOWS4" } else { "FLOWS_NEW4" }, rows)?;
        }
        let backends = ebpf.map_mut("BACKENDS4").context("BACKENDS4")?;
        let mut backends: HashMap<&mut MapData, u32, Row<Backend<V4>>> = HashMap::try_from(backends)?;
        for id in backends.keys().collect::<Result<Vec<_>, _>>()? {
            backends.remove(&id)?;
        }
        for (id, backend) in &world.backends {
            backends.insert(id, carry(*backend), 0)?;
        }
        Ok(())
    }

    /// What one run of a packet through a hook takes, by the kernel's own clock.
    pub fn cost(&mut self, hook: Hook, packet: &[u8]) -> Result<Duration> {
        let program: &mut SchedClassifier =
            self.ebpf.program_mut(hook.program()).context(hook.program())?.try_into()?;
        let options = TestRunOptions {
            data_in: Some(packet),
            ctx_in: Some(&[0; sk_buff::SIZE]),
            ..TestRunOptions::default()
        };
        Ok(program.test_run(options)?.duration)
    }

    /// Runs one packet through a hook.
    pub fn run(&mut self, hook: Hook, packet: &[u8], mark: u32) -> Result<Outcome> {
        let program: &mut SchedClassifier =
            self.ebpf.program_mut(hook.program()).context(hook.program())?.try_into()?;
        let mut out = vec![0; 4096];
        let mut context = vec![0; sk_buff::SIZE];
        let mut marked = [0; sk_buff::SIZE];
        if let Some(place) = marked.get_mut(sk_buff::MARK..sk_buff::MARK + 4) {
            place.copy_from_slice(&mark.to_ne_bytes());
        }
        let result = program.test_run(TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ctx_in: Some(&marked),
            ctx_out: Some(&mut context),
            ..TestRunOptions::default()
        })?;
        out.truncate(usize::try_from(result.data_size_out)?);
        let word = |offset: usize| {
            context
                .get(offset..)
                .and_then(|bytes| bytes.first_chunk::<4>())
                .map_or(0, |bytes| u32::from_ne_bytes(*bytes))
        };
        let detail = word(sk_buff::CB + 4);
        let verdict = match word(sk_buff::CB) {
            0 => Verdict::Pass,
            1 => Verdict::Drop(
                *DropReason::ALL
                    .iter()
                    .find(|reason| **reason as u32 == detail)
                    .context("unknown drop reason")?,
            ),
            2 => Verdict::Peer(detail),
            3 => Verdict::Neighbour(detail),
            4 => Verdict::Out(detail),
            5 => Verdict::Ingress(detail),
            kind => anyhow::bail!("verdict {kind} has no meaning"),
        };
        let code = result.return_value.cast_signed();
        let expected = match verdict {
            Verdict::Pass => -1,
            Verdict::Drop(_) => 2,
            _ => 7,
        };
        ensure!(code == expected, "{verdict:?} returned {code}, not {expected}");
        Ok(Outcome { verdict, packet: out, mark: word(sk_buff::MARK) })
    }
}

fn fill<K: Layout, V: Layout>(ebpf: &mut Ebpf, name: &str, rows: impl Iterator<Item = (K, V)>) -> Result<()> {
    let map = ebpf.map_mut(name).with_context(|| format!("no map {name}"))?;
    let mut map: HashMap<&mut MapData, Row<K>, Row<V>> = HashMap::try_from(map)?;
    for key in map.keys().collect::<Result<Vec<_>, _>>()? {
        map.remove(&key)?;
    }
    for (key, value) in rows {
        map.insert(carry(key), carry(value), 0)?;
    }
    Ok(())
}

/// Runs a case.
pub fn run(loaded: &mut Loaded, case: &Case) -> Result<Outcome> {
    loaded.hold(&case.world)?;
    for (hook, packet) in &case.before {
        loaded.run(*hook, packet, 0)?;
    }
    loaded.run(case.hook, &case.packet, case.mark)
}
