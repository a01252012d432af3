//! Kernel settings under `/proc/sys`, in the network namespace of the calling thread.
//!
//! A path is given with slashes, so that an interface called `eth0.100` stays one step of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

/// The value, without its line end.
pub(crate) fn read(name: &str) -> io::Result<String> {
    fs::read_to_string(path(name)).map(|text| text.trim_end().to_owned())
}

/// Whether the kernel has this setting.
pub(crate) fn exists(name: &str) -> bool {
    path(name).exists()
}

/// Writes a value unless it stands there already. Says what stood there before, if that was another.
pub(crate) fn set(name: &str, value: &str) -> io::Result<Option<String>> {
    let found = read(name)?;
    if found == value {
        return Ok(None);
    }
    fs::write(path(name), value)?;
    Ok(Some(found))
}
