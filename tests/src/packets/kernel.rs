//! Cases in the kernel: the object that the agent embeds, its maps filled, one packet through
//! `BPF_PROG_TEST_RUN`. The program leaves verdict and detail in `__sk_buff.cb`.

#![expect(unsafe_code, reason = "rows are carried into aya's maps as bytes")]

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader};
use router_common::abi::{Counter, DeviceKey, Fragment, FragmentKey, PodKey, Row as Layout, maps};
use router_common::verdict::{DropReason, Verdict};

use super::{Case, Hook, Outcome, World};

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

/// The programs and maps.
#[derive(Debug)]
pub struct Loaded {
    ebpf: Ebpf,
}

impl Loaded {
    /// Loads the object. Its programs load when they run first: the verifier takes its time in a guest, so many
    /// cases share them.
    pub fn open(path: &Path) -> Result<Self> {
        let ebpf =
            EbpfLoader::new().load_file(path).with_context(|| format!("cannot load {}", path.display()))?;
        Ok(Self { ebpf })
    }

    /// Loads the object and fills its maps.
    pub fn new(path: &Path, world: &World) -> Result<Self> {
        let mut loaded = Self::open(path)?;
        loaded.fill(world)?;
        Ok(loaded)
    }

    /// What is loaded.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Makes the maps hold what a world holds and nothing else.
    pub fn fill(&mut self, world: &World) -> Result<()> {
        let ebpf = &mut self.ebpf;
        let mut meta: Array<_, Row<_>> = Array::try_from(ebpf.map_mut("META").context("META")?)?;
        meta.set(0, carry(world.meta), 0)?;
        fill(ebpf, "FRONTENDS4", world.frontends.iter().copied())?;
        fill(ebpf, "SLOTS", world.slots.iter().copied())?;
        fill(ebpf, "PODS4", world.pods.iter().map(|(address, pod)| (PodKey { address: *address }, *pod)))?;
        fill(
            ebpf,
            "DEVICES",
            world.devices.iter().map(|(ifindex, device)| (DeviceKey { ifindex: *ifindex }, *device)),
        )?;
        for confirmed in [true, false] {
            let rows = world.flows.iter().filter(|row| row.2 == confirmed).map(|row| (row.0, row.1));
            fill(ebpf, if confirmed { "FLOWS4" } else { "FLOWS_NEW4" }, rows)?;
        }
        fill(ebpf, "FRAGMENTS4", std::iter::empty::<(FragmentKey<super::V4>, Fragment)>())?;
        let mut backends: HashMap<&mut MapData, u32, Row<_>> =
            HashMap::try_from(ebpf.map_mut("BACKENDS4").context("BACKENDS4")?)?;
        for id in backends.keys().collect::<Result<Vec<_>, _>>()? {
            backends.remove(&id)?;
        }
        for (id, backend) in &world.backends {
            backends.insert(id, carry(*backend), 0)?;
        }
        for (_, frontend) in &world.frontends {
            set_all(ebpf, "CURSORS", frontend.service % u32::try_from(maps::CURSORS)?, 0_u32)?;
        }
        for bucket in 0..2 {
            set_all(ebpf, "BUCKETS", bucket, carry(Counter { packets: 0, bytes: 0 }))?;
        }
        Ok(())
    }

    /// Runs one packet through a hook.
    pub fn run(&mut self, hook: Hook, packet: &[u8]) -> Result<Outcome> {
        let program: &mut SchedClassifier =
            self.ebpf.program_mut(hook.program()).context(hook.program())?.try_into()?;
        if program.fd().is_err() {
            program.load().with_context(|| format!("{} does not load", hook.program()))?;
        }
        let mut out = vec![0; 4096];
        let mut context = vec![0; sk_buff::SIZE];
        let result = program.test_run(TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ctx_in: Some(&[0; sk_buff::SIZE]),
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

/// Sets one row of a per-CPU array on every CPU.
fn set_all<T: aya::Pod>(ebpf: &mut Ebpf, name: &str, index: u32, value: T) -> Result<()> {
    let map = ebpf.map_mut(name).with_context(|| format!("no map {name}"))?;
    let mut map: PerCpuArray<&mut MapData, T> = PerCpuArray::try_from(map)?;
    let values = vec![value; nr_cpus().map_err(|(_, error)| error)?];
    map.set(index, PerCpuValues::try_from(values)?, 0)?;
    Ok(())
}

/// Runs a case.
pub fn run(case: &Case) -> Result<Outcome> {
    Loaded::new(&object_path()?, &case.world)?.run(case.hook, &case.packet)
}
