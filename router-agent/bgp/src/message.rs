//! The messages of BGP-4 and their bytes.

pub mod attribute;
pub mod capability;
pub mod header;
pub(crate) mod nlri;
pub mod notification;
pub mod open;
pub mod refresh;
pub mod update;
mod wire;

#[cfg(test)]
mod tests;
