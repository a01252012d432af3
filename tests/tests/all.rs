//! The integration tests, in one binary.

#[cfg(test)]
mod all {
    mod packets;
    mod vm;
}
