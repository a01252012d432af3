//! Drivers: each reads one plane's tables from the kernel and applies planned writes to them.

pub(crate) mod ebpf;
pub(crate) mod fib;
