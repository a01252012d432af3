//! The lab and its parts: what the tests run the agent against.

pub mod apiserver;
pub mod tools;
