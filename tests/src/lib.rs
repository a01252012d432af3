//! What the tests and the lab are made of.

pub mod binaries;
pub mod enter;
pub mod kubelet;
pub mod packets;
pub mod probe;
pub mod sandbox;
pub mod serve;
