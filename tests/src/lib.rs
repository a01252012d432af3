//! What the tests and the lab are made of.

pub mod packets;
pub mod require;
pub mod verifier;
pub mod vm;
