//! The integration tests, in one binary.

mod all {
    mod hosts;
    mod packets;
    mod pods;
}
