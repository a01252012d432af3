//! The cluster in kube-router's words, and every decision about it.
//!
//! Events go in ([`cluster::Cluster::absorb`]), dirty owners come out, and a plane plans each of them
//! ([`plan::Plane`]): what the kernel should hold, less what it holds. The same functions run in the agent and
//! in the property tests that hold their laws.
//!
//! Deliberately absent: sockets, files, clocks, threads, Kubernetes' own types, netlink's own types. Time is a
//! `Duration` that the caller passes in, and every map is ordered, so a run can be repeated.

pub mod cluster;
pub mod cni;
pub mod endpoints;
pub mod model;
pub mod peering;
pub mod plan;
pub mod problem;
