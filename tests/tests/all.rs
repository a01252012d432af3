//! The integration tests, in one binary.

#[cfg(test)]
mod all {
    mod apiserver;
    mod hosts;
    mod packets;
    mod pods;
    mod vm;
}
