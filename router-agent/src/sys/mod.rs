//! Thin calls into the kernel and its tools that carry out and report; nothing here knows services or pods.
//!
//! `unsafe` stands in these files only.

pub mod attach;
pub mod batch;
pub mod bpf;
pub mod iptables;
pub mod netlink;
pub mod sysctl;
#[cfg(test)]
pub mod testing;
