//! The model.
pub mod link;
