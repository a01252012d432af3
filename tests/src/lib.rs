//! What the tests and the lab are made of.

pub mod binaries;
pub mod node;
pub mod packets;
pub mod topology;
