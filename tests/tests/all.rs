//! The integration tests, in one binary.

mod all {
    mod packets;
    mod vm;
}
