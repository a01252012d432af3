//! Thin calls into the kernel and its tools that carry out and report; nothing here knows services or pods.
//!
//! `unsafe` stands in these files only.

pub(crate) mod adopt;
pub(crate) mod attach;
pub(crate) mod batch;
pub(crate) mod bpf;
pub(crate) mod clock;
pub(crate) mod iptables;
pub(crate) mod netlink;
pub(crate) mod nft;
pub(crate) mod sysctl;
#[cfg(test)]
pub(crate) mod testing;
