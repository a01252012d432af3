//! What the kernel programs and the agent must agree on.
//!
//! [`abi`] is every row of every map, byte for byte. [`packet`] reads headers as values, [`nat`] says how a
//! translation changes them, [`balance`] picks a backend. [`hook`] decides what happens to a packet; it reaches
//! maps, clock and packet only through [`kernel::Kernel`], so the same lines run inside the kernel (crate
//! `router-ebpf`) and on the host, where the tests drive them byte for byte.
//!
//! Deliberately absent: `std`, `alloc`, `unsafe`, cargo features, and any dependency but `zerocopy`.

#![no_std]
#![expect(
    clippy::cast_possible_truncation,
    clippy::many_single_char_names,
    reason = "header fields and folded sums: the high bits are known to be zero, and octets have no names"
)]
#![expect(
    clippy::inline_always,
    reason = "a frame that is not inlined costs BPF stack, of which there are 512 bytes"
)]

pub mod abi;
pub mod balance;
pub mod hook;
pub mod kernel;
pub mod nat;
pub mod packet;
pub mod verdict;
