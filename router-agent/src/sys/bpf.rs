//! The object with the kernel programs: loaded, its maps pinned or adopted, its rows carried as `abi` has them.
//!
//! Maps live under `<bpffs>/kube-router/v<LAYOUT>/`, so rows of another layout are never adopted; all of them are
//! adopted together or none. Absent: attaching (`attach.rs`) and what the rows mean (`planes/`).

#![expect(unsafe_code, reason = "rows cross into the kernel as plain bytes")]

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::maps::{Array, HashMap, Map, MapData, MapError, MapInfo, PerCpuArray, RingBuf};
use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader};
use router_common::abi::{self, LAYOUT, maps};
use router_common::verdict::COUNTERS;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::adopt::{self, Shelter};
use super::batch::{self, Cursor};

/// The programs, compiled by `build.rs`.
pub(crate) const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/kube-router.bpf.o"));

/// Where a bpffs stands if it outlives us. We never mount one.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Rows a batch call moves at most: what fits well in the cache, and keeps a call below a millisecond.
const BATCH: u32 = 1024;

type V4 = [u8; 4];

/// Carries a row of `abi` into aya's maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub(crate) struct Row<T>(T);

// SAFETY: a value can only be made by `Row::new` or by the kernel. The former has compared the size of `T` with the
// sum of its fields, so there is no padding in it; and any bytes are a value of `T` (`FromBytes`).
unsafe impl<T: abi::Row> aya::Pod for Row<T> {}

impl<T: abi::Row> Row<T> {
    /// Does not compile for a type with hidden padding.
    pub(crate) const fn new(row: T) -> Self {
        const { assert!(size_of::<T>() == T::PACKED_SIZE) }
        Self(row)
    }

    pub(crate) const fn into_inner(self) -> T {
        self.0
    }
}

/// A map whose rows outlive a restart: its name, and what must agree for it to be adopted.
#[derive(Clone, Copy, Debug)]
struct Shape {
    name: &'static str,
    key: usize,
    value: usize,
    capacity: usize,
}

const fn shape<K, V>(name: &'static str, capacity: usize) -> Shape {
    Shape { name, key: size_of::<K>(), value: size_of::<V>(), capacity }
}

const SHAPES: &[Shape] = &[
    shape::<u32, abi::Meta>("META", 1),
    shape::<abi::FrontendKey<V4>, abi::Frontend>("FRONTENDS4", maps::FRONTENDS),
    shape::<abi::SlotKey, abi::Slot>("SLOTS", maps::SLOTS),
    shape::<u32, abi::Backend<V4>>("BACKENDS4", maps::BACKENDS),
    shape::<abi::FlowKey<V4>, abi::Flow<V4>>("FLOWS4", maps::FLOWS),
    shape::<abi::FlowKey<V4>, abi::Flow<V4>>("FLOWS_NEW4", maps::FLOWS_NEW),
    shape::<abi::PodKey<V4>, abi::Pod>("PODS4", maps::PODS),
    shape::<abi::DeviceKey, abi::Device>("DEVICES", maps::DEVICES),
    shape::<abi::FragmentKey<V4>, abi::Fragment>("FRAGMENTS4", maps::FRAGMENTS),
    shape::<u32, abi::Counter>("COUNTERS", COUNTERS as usize),
    shape::<u32, u32>("CURSORS", maps::CURSORS),
    shape::<(), ()>("EVENTS", maps::EVENTS),
];

/// Whether a bpffs is mounted at `path`.
pub(crate) fn is_bpffs(path: &Path) -> bool {
    nix::sys::statfs::statfs(path).is_ok_and(|found| found.filesystem_type().0 == BPF_FS_MAGIC)
}

/// The folder of our pins on a bpffs.
pub(crate) fn pin_folder(bpffs: &Path) -> PathBuf {
    bpffs.join("kube-router").join(format!("v{LAYOUT}"))
}

/// Loads every program of `object` into the kernel. With `pins`, maps found there are adopted, and others pinned.
pub(crate) fn load(object: &[u8], pins: Option<&Path>) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    if let Some(folder) = pins {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        make_adoptable(folder)?;
        for shape in SHAPES {
            loader.map_pin_path(shape.name, folder.join(shape.name));
        }
    }
    let mut ebpf = loader.load(object).context("the kernel refused a map of kube-router's BPF object")?;
    for (name, program) in ebpf.programs_mut() {
        let program: &mut SchedClassifier = program.try_into()?;
        program.load().with_context(|| format!("the kernel refused the program {name}"))?;
    }
    Ok(ebpf)
}

/// Loads every program, adopting the maps that `filters` (the programs that our filters hold) lead to, where no pins do.
/// A failure to adopt costs what the maps held, not the start.
pub(crate) fn load_after(filters: &[u32], object: &[u8], pins: Option<&Path>) -> Result<Ebpf> {
    let has_pins = pins.is_some_and(|folder| SHAPES.iter().any(|shape| folder.join(shape.name).exists()));
    if filters.is_empty() || has_pins {
        return load(object, pins);
    }
    match gather(filters, pins) {
        Ok(gathered) => {
            tracing::info!("adopting the maps of the agent before this one");
            load(object, Some(&gathered.folder))
        }
        Err(error) => {
            tracing::warn!(
                "cannot adopt the maps of the agent before this one, so flows begin anew: {error:#}"
            );
            load(object, pins)
        }
    }
}

/// Maps under their names, and what keeps them there.
struct Gathered {
    folder: PathBuf,
    _shelter: Option<Shelter>,
}

fn gather(filters: &[u32], pins: Option<&Path>) -> Result<Gathered> {
    let (folder, shelter) = if let Some(folder) = pins {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        (folder.to_path_buf(), None)
    } else {
        let shelter = Shelter::make()?;
        (shelter.folder(), Some(shelter))
    };
    adopt::pin_maps(filters, |name| SHAPES.iter().any(|shape| shape.name == name), &folder)?;
    Ok(Gathered { folder, _shelter: shelter })
}

/// Unpins everything in `folder` unless all maps are there and of our shape.
fn make_adoptable(folder: &Path) -> Result<()> {
    let strangers: Vec<&str> =
        SHAPES.iter().filter(|shape| !shape.is_at(folder)).map(|shape| shape.name).collect();
    if strangers.is_empty() {
        return Ok(());
    }
    let mut removed = 0;
    for shape in SHAPES {
        match fs::remove_file(folder.join(shape.name)) {
            Ok(()) => removed += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot unpin {}", shape.name)),
        }
    }
    if removed > 0 {
        tracing::warn!(maps = ?strangers, "pinned maps are missing or of another shape: starting with empty ones");
    }
    Ok(())
}

impl Shape {
    fn is_at(&self, folder: &Path) -> bool {
        MapInfo::from_pin(folder.join(self.name)).is_ok_and(|info| {
            info.key_size() as usize == self.key
                && info.value_size() as usize == self.value
                && info.max_entries() as usize == self.capacity
        })
    }
}

/// Takes a map out of a loaded object.
pub(crate) fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map> {
    ebpf.take_map(name).with_context(|| format!("the BPF object has no map {name}"))
}

/// A row that found no place: the one reason to fail that others can mend by going.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("map {map} is full: it holds {capacity} rows")]
pub(crate) struct Full {
    map: &'static str,
    capacity: u32,
}

/// A row that could not be written or deleted.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Its place in what was given.
    pub index: usize,
    pub error: anyhow::Error,
}

/// A hash map of the kernel, many rows at a time where the kernel can, and one by one where not.
#[derive(Debug)]
pub(crate) struct Table<K: aya::Pod, V: aya::Pod> {
    name: &'static str,
    capacity: u32,
    map: HashMap<MapData, K, V>,
    descriptor: aya::maps::MapFd,
    batches: bool,
}

impl<K: aya::Pod, V: aya::Pod> Table<K, V> {
    /// Takes the map `name` out of a loaded object.
    pub(crate) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self> {
        Self::open(take(ebpf, name)?, name)
    }

    /// Opens one that is pinned in `folder`; `None` if there is none.
    pub(crate) fn pinned(folder: &Path, name: &'static str) -> Result<Option<Self>> {
        let path = folder.join(name);
        if !path.exists() {
            return Ok(None);
        }
        let data = MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
        Self::open(Map::from_map_data(data)?, name).map(Some)
    }

    /// The same map once more.
    pub(crate) fn share(&self) -> Result<Self> {
        let descriptor = self.descriptor.as_fd().try_clone_to_owned().context("cannot share a map")?;
        Self::open(Map::from_map_data(MapData::from_fd(descriptor)?)?, self.name)
    }

    fn open(map: Map, name: &'static str) -> Result<Self> {
        let (capacity, descriptor) = match &map {
            Map::HashMap(data) | Map::LruHashMap(data) => {
                let info = data.info()?;
                (info.max_entries(), info.fd()?)
            }
            _ => anyhow::bail!("{name} is no hash map"),
        };
        let map = HashMap::try_from(map).with_context(|| format!("{name} has rows of another size"))?;
        Ok(Self { name, capacity, map, descriptor, batches: true })
    }

    /// Makes every call one row at a time, as on a kernel without batches.
    #[cfg(test)]
    pub(crate) fn one_by_one(&mut self) {
        self.batches = false;
    }

    /// The row at `key`.
    pub(crate) fn get(&self, key: &K) -> Result<Option<V>> {
        match self.map.get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(self.explain(error)),
        }
    }

    /// Writes every row, in order, and goes on behind one that fails.
    pub(crate) fn put(&mut self, rows: &[(K, V)]) -> Vec<Failure> {
        let (keys, values): (Vec<K>, Vec<V>) = rows.iter().copied().unzip();
        self.write(
            rows.len(),
            |table, from| {
                let (keys, values) = (keys.get(from..).unwrap_or(&[]), values.get(from..).unwrap_or(&[]));
                batch::update(table.descriptor.as_fd(), keys, values)
            },
            |table, index| match rows.get(index) {
                Some((key, value)) => table.map.insert(key, value, 0),
                None => Ok(()),
            },
        )
    }

    /// Deletes every key, in order; one that is not there counts as deleted.
    pub(crate) fn delete(&mut self, keys: &[K]) -> Vec<Failure> {
        self.write(
            keys.len(),
            |table, from| batch::delete(table.descriptor.as_fd(), keys.get(from..).unwrap_or(&[])),
            |table, index| match keys.get(index).map(|key| table.map.remove(key)) {
                Some(Err(MapError::KeyNotFound)) | None => Ok(()),
                Some(Err(MapError::SyscallError(error)))
                    if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
                {
                    Ok(())
                }
                Some(done) => done,
            },
        )
    }

    /// `many` writes from a place on; where it stops, `one` says of that row what is wrong with it.
    ///
    /// A map that allocates as it grows takes memory without waiting for it, so many writes in a row can find the
    /// kernel's small stock empty although there is memory: a row that finds none is tried again after a pause.
    fn write(
        &mut self,
        len: usize,
        many: impl Fn(&Self, usize) -> Result<(), batch::Stopped>,
        one: impl Fn(&mut Self, usize) -> Result<(), MapError>,
    ) -> Vec<Failure> {
        let mut failures = Vec::new();
        let mut pauses = 0..PAUSES;
        let mut next = 0;
        while next < len {
            if self.batches {
                match many(self, next) {
                    Ok(()) => break,
                    Err(stopped) => {
                        self.batches = !unsupported(&stopped.error);
                        next += stopped.done;
                    }
                }
            }
            match one(self, next) {
                Err(error) if code(&error) == Some(libc::ENOMEM) && pauses.next().is_some() => {
                    std::thread::sleep(PAUSE);
                    continue;
                }
                Err(error) => failures.push(Failure { index: next, error: self.explain(error) }),
                Ok(()) => {}
            }
            next += 1;
        }
        failures
    }

    /// Every row, a batch at a time, so that the caller can pause between them. A row that is written or deleted
    /// meanwhile may be seen or not; the others are seen.
    pub(crate) fn scan(&self) -> Scan<'_, K, V> {
        Scan { table: self, state: State::Start, limit: BATCH }
    }

    /// Every row at once.
    pub(crate) fn all(&self) -> Result<Vec<(K, V)>> {
        let mut rows = Vec::new();
        for batch in self.scan() {
            rows.extend(batch?);
        }
        Ok(rows)
    }

    fn rows_one_by_one(&self) -> Result<Vec<(K, V)>> {
        self.map.iter().collect::<Result<_, _>>().map_err(|error| self.explain(error))
    }

    /// An error of this map, in the words of who has to act.
    fn explain(&self, error: MapError) -> anyhow::Error {
        let Self { name, capacity, .. } = self;
        match code(&error) {
            Some(libc::E2BIG) => anyhow::Error::new(Full { map: name, capacity: *capacity }),
            Some(libc::ENOMEM) => anyhow::anyhow!("no memory for another row of map {name}"),
            _ => anyhow::Error::new(error).context(format!("map {name}")),
        }
    }
}

fn code(error: &MapError) -> Option<i32> {
    match error {
        MapError::SyscallError(error) => error.io_error.raw_os_error(),
        MapError::IoError(error) => error.raw_os_error(),
        _ => None,
    }
}

/// How often one call may wait for memory, however many rows find none, and for how long each time: 64 ms in all.
const PAUSES: u32 = 32;
const PAUSE: Duration = Duration::from_millis(2);

/// The kernel has no batches for this kind of map, or at all.
fn unsupported(error: &io::Error) -> bool {
    /// `ENOTSUPP` of linux/errno.h: meant to stay inside the kernel, and does not.
    const ENOTSUPP: i32 = 524;
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | ENOTSUPP))
}

/// See [`Table::scan`].
#[derive(Debug)]
pub(crate) struct Scan<'a, K: aya::Pod, V: aya::Pod> {
    table: &'a Table<K, V>,
    state: State,
    limit: u32,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Start,
    From(Cursor),
    End,
}

impl<K: aya::Pod, V: aya::Pod> Iterator for Scan<'_, K, V> {
    type Item = Result<Vec<(K, V)>>;

    fn next(&mut self) -> Option<Self::Item> {
        let started = match self.state {
            State::End => return None,
            State::Start if !self.table.batches => {
                self.state = State::End;
                return Some(self.table.rows_one_by_one());
            }
            State::Start => None,
            State::From(cursor) => Some(cursor),
        };
        loop {
            match batch::lookup(self.table.descriptor.as_fd(), started.as_ref(), self.limit) {
                Ok(found) => {
                    self.state = found.next.map_or(State::End, State::From);
                    return Some(Ok(found.rows));
                }
                Err(error)
                    if error.raw_os_error() == Some(libc::ENOSPC) && self.limit < self.table.capacity =>
                {
                    self.limit = self.limit.saturating_mul(2);
                }
                Err(error) => {
                    self.state = State::End;
                    return Some(if started.is_none() && unsupported(&error) {
                        self.table.rows_one_by_one()
                    } else {
                        Err(self.table.explain(MapError::IoError(error)))
                    });
                }
            }
        }
    }
}

/// Makes a ring buffer awaitable. Must be called inside a tokio runtime.
pub(crate) fn watch_ring(ring: RingBuf<MapData>) -> Result<AsyncFd<RingBuf<MapData>>> {
    // SAFETY: the ring owns the descriptor of its map and gives it to nobody, so it stays this one until both go.
    let watched = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
    watched.map_err(|error| io::Error::from(error).into())
}

/// The one row of `META`, read and written as a whole by one process.
pub(crate) struct MetaRow {
    map: Array<MapData, Row<abi::Meta>>,
}

impl std::fmt::Debug for MetaRow {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("MetaRow").finish_non_exhaustive()
    }
}

impl MetaRow {
    /// Takes it out of a loaded object.
    pub(crate) fn take(ebpf: &mut Ebpf) -> Result<Self> {
        Ok(Self { map: Array::try_from(take(ebpf, "META")?)? })
    }

    pub(crate) fn get(&self) -> Result<abi::Meta> {
        Ok(self.map.get(&0, 0).context("map META")?.into_inner())
    }

    pub(crate) fn set(&mut self, row: abi::Meta) -> Result<()> {
        self.map.set(0, Row::new(row), 0).context("map META")
    }
}

/// `COUNTERS`: what was dropped, by the number of the reason.
pub(crate) struct Counters {
    map: PerCpuArray<MapData, Row<abi::Counter>>,
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Counters").finish_non_exhaustive()
    }
}

impl Counters {
    /// Takes it out of a loaded object.
    pub(crate) fn take(ebpf: &mut Ebpf) -> Result<Self> {
        Ok(Self { map: PerCpuArray::try_from(take(ebpf, "COUNTERS")?)? })
    }

    /// One row, over all CPUs.
    pub(crate) fn get(&self, index: u32) -> Result<abi::Counter> {
        let rows = self.map.get(&index, 0).context("map COUNTERS")?;
        let mut sum = abi::Counter { packets: 0, bytes: 0 };
        for row in rows.iter() {
            let row = row.into_inner();
            sum.packets += row.packets;
            sum.bytes += row.bytes;
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::in_namespace_with_bpffs;

    fn slots(one_by_one: bool) -> Table<Row<abi::SlotKey>, Row<abi::Slot>> {
        let mut table = Table::take(&mut load(OBJECT, None).unwrap(), "SLOTS").unwrap();
        if one_by_one {
            table.one_by_one();
        }
        table
    }

    fn rows(count: u32) -> Vec<(Row<abi::SlotKey>, Row<abi::Slot>)> {
        (0..count)
            .map(|index| {
                (Row::new(abi::SlotKey { service: 1, index }), Row::new(abi::Slot { backend: index + 1 }))
            })
            .collect()
    }

    #[test]
    fn many_rows_are_written_read_in_slices_and_deleted_with_batches_and_without() {
        for one_by_one in [false, true] {
            let mut table = slots(one_by_one);
            let rows = rows(5000);
            assert!(table.put(&rows).is_empty());
            let mut found = table.all().unwrap();
            found.sort_unstable();
            assert_eq!(found, rows);
            assert_eq!(table.scan().count() > 1, !one_by_one);
            assert_eq!(table.get(&rows[7].0).unwrap(), Some(rows[7].1));
            // Some are gone already: deleting is idempotent.
            let keys: Vec<_> = rows.iter().map(|row| row.0).collect();
            assert!(table.delete(&keys[1000..1010]).is_empty());
            assert!(table.delete(&keys).is_empty());
            assert_eq!(table.all().unwrap(), []);
            assert_eq!(table.get(&keys[7]).unwrap(), None);
        }
    }

    #[test]
    fn a_full_map_fails_the_rows_that_do_not_fit_and_no_other() {
        for one_by_one in [false, true] {
            let mut table: Table<Row<abi::PodKey<V4>>, Row<abi::Pod>> =
                Table::take(&mut load(OBJECT, None).unwrap(), "PODS4").unwrap();
            if one_by_one {
                table.one_by_one();
            }
            let capacity = u32::try_from(maps::PODS).unwrap();
            let row = |number: u32, ifindex| {
                let key = abi::PodKey { address: number.to_be_bytes() };
                (Row::new(key), Row::new(abi::Pod { ifindex, mac: [0; 6], flags: 0 }))
            };
            let mut rows: Vec<_> = (0..capacity + 3).map(|number| row(number, 1)).collect();
            rows.push(row(0, 2));
            let failures = table.put(&rows);
            let failed: Vec<usize> = failures.iter().map(|failure| failure.index).collect();
            assert_eq!(failed, [maps::PODS, maps::PODS + 1, maps::PODS + 2]);
            assert_eq!(failures[0].error.to_string(), "map PODS4 is full: it holds 4096 rows");
            let last = table.get(&rows[0].0).unwrap().unwrap().into_inner();
            assert_eq!(last.ifindex, 2, "a row behind those that failed was not written");
        }
    }

    #[test]
    fn maps_are_adopted_together_or_not_at_all() {
        in_namespace_with_bpffs(|| {
            let bpffs = Path::new(BPFFS);
            assert!(is_bpffs(bpffs) && !is_bpffs(Path::new("/proc")));
            let folder = pin_folder(bpffs);
            let open = || {
                let mut ebpf = load(OBJECT, Some(&folder)).unwrap();
                Table::<Row<abi::SlotKey>, Row<abi::Slot>>::take(&mut ebpf, "SLOTS").unwrap()
            };
            assert!(open().put(&rows(3)).is_empty());
            assert_eq!(open().all().unwrap().len(), 3);
            fs::remove_file(folder.join("FLOWS4")).unwrap();
            assert_eq!(open().all().unwrap().len(), 0);
            // A map of another shape under one of the names.
            assert!(open().put(&rows(3)).is_empty());
            fs::rename(folder.join("DEVICES"), folder.join("PODS4")).unwrap();
            assert_eq!(open().all().unwrap().len(), 0);
            assert_eq!(open().all().unwrap().len(), 0);
        });
    }
}
