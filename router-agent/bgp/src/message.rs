//! The messages of BGP-4 and their bytes.

pub mod attribute;
pub mod update;
