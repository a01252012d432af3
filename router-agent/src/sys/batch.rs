//! Many rows of a map in one call: `BPF_MAP_{LOOKUP,UPDATE,DELETE}_BATCH` on the descriptor of a map.
//!
//! The calls carry out and report, nothing more: how many rows were done before the kernel stopped, and why it
//! did. What follows from that (go on behind the row that failed, one key at a time where the kernel has no
//! batches) is decided in [`super::bpf::Table`].

#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper that knows batches")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use aya::Pod;

/// Commands of bpf(2).
const LOOKUP_BATCH: libc::c_long = 24;
const UPDATE_BATCH: libc::c_long = 26;
const DELETE_BATCH: libc::c_long = 27;

/// The part of `union bpf_attr` that the batch commands read and write.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    element_flags: u64,
    flags: u64,
}

/// Where a look-up goes on: opaque, at most a key of ours long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor([u64; 8]);

/// What a look-up brought.
#[derive(Debug)]
pub(crate) struct Found<K, V> {
    pub rows: Vec<(K, V)>,
    /// `None`: that was the end of the map.
    pub next: Option<Cursor>,
}

/// A write that stopped early: `done` rows were written, the one behind them failed with `error`.
#[derive(Debug)]
pub(crate) struct Stopped {
    pub done: usize,
    pub error: io::Error,
}

/// At most `limit` rows from `from` on, or from the start. `ENOSPC`: one bucket of the map holds more than that.
pub(crate) fn lookup<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    from: Option<&Cursor>,
    limit: u32,
) -> io::Result<Found<K, V>> {
    const { assert!(size_of::<K>() <= size_of::<Cursor>()) }
    let mut keys: Vec<K> = Vec::with_capacity(limit as usize);
    let mut values: Vec<V> = Vec::with_capacity(limit as usize);
    let mut next = Cursor([0; 8]);
    let mut attributes = Attributes {
        in_batch: from.map_or(0, |cursor| cursor.0.as_ptr().expose_provenance() as u64),
        out_batch: next.0.as_mut_ptr().expose_provenance() as u64,
        keys: keys.as_mut_ptr().expose_provenance() as u64,
        values: values.as_mut_ptr().expose_provenance() as u64,
        count: limit,
        ..Attributes::default()
    };
    // SAFETY: keys and values have room for `limit` rows of the sizes the map was checked for when it was opened,
    // both cursors are 64 bytes, more than any key, and all of them outlive the call.
    let end = match unsafe { call(LOOKUP_BATCH, map, &mut attributes) } {
        Ok(()) => false,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
        Err(error) => return Err(error),
    };
    let count = attributes.count.min(limit) as usize;
    // SAFETY: the kernel wrote `count` keys and values, at most the capacity; any bytes are a value of a Pod.
    unsafe {
        keys.set_len(count);
        values.set_len(count);
    }
    Ok(Found { rows: keys.into_iter().zip(values).collect(), next: (!end).then_some(next) })
}

/// Writes `values[i]` at `keys[i]`, in order.
pub(crate) fn update<K: Pod, V: Pod>(map: BorrowedFd<'_>, keys: &[K], values: &[V]) -> Result<(), Stopped> {
    assert_eq!(keys.len(), values.len(), "a value for each key");
    let attributes = Attributes {
        keys: keys.as_ptr().expose_provenance() as u64,
        values: values.as_ptr().expose_provenance() as u64,
        ..Attributes::default()
    };
    write(UPDATE_BATCH, map, attributes, keys.len())
}

/// Deletes each of `keys`, in order.
pub(crate) fn delete<K: Pod>(map: BorrowedFd<'_>, keys: &[K]) -> Result<(), Stopped> {
    let attributes = Attributes { keys: keys.as_ptr().expose_provenance() as u64, ..Attributes::default() };
    write(DELETE_BATCH, map, attributes, keys.len())
}

fn write(
    command: libc::c_long,
    map: BorrowedFd<'_>,
    mut attributes: Attributes,
    len: usize,
) -> Result<(), Stopped> {
    let Ok(count) = u32::try_from(len) else {
        return Err(Stopped { done: 0, error: io::ErrorKind::InvalidInput.into() });
    };
    attributes.count = count;
    if count == 0 {
        return Ok(());
    }
    // SAFETY: the kernel reads `count` rows of the sizes the map was checked for from slices that outlive the call.
    unsafe { call(command, map, &mut attributes) }.map_err(|error| {
        // A kernel that refuses the whole call leaves the count as it was.
        let done = if attributes.count >= count { 0 } else { attributes.count as usize };
        Stopped { done, error }
    })
}

/// # Safety
/// The addresses in `attributes` must be valid for what `command` reads and writes there.
unsafe fn call(command: libc::c_long, map: BorrowedFd<'_>, attributes: &mut Attributes) -> io::Result<()> {
    attributes.map_fd = map.as_raw_fd().unsigned_abs();
    // SAFETY: by the caller; `attributes` is as long as we say.
    let done = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<Attributes>())
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
