//! What the tests and the lab are made of.

pub mod apiserver;
pub mod bench;
pub mod binaries;
pub mod cluster;
pub mod enter;
pub mod kubelet;
pub mod lab;
pub mod node;
pub mod packets;
pub mod patience;
pub mod peers;
pub mod probe;
pub mod require;
pub mod sandbox;
pub mod serve;
pub mod tools;
pub mod topology;
pub mod verifier;
pub mod vm;
