//! One binary for all tests that need more than the code under test.

#[cfg(test)]
#[path = "all/apiserver.rs"]
mod apiserver;
