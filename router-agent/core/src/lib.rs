//! The cluster, and every decision about it.
pub mod model;
pub mod plan;
