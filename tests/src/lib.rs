//! What the tests and the lab are made of.

pub mod packets;
