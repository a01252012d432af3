//! The clock of the kernel programs.

#![expect(unsafe_code, reason = "std reads this clock, but does not say what it shows")]

use std::io;
use std::time::Duration;

/// `CLOCK_MONOTONIC`, which `bpf_ktime_get_ns` reads.
pub(crate) fn monotonic() -> io::Result<Duration> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec where `now` is.
    if unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let (seconds, nanoseconds) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    Ok(Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds))
}
