//! The integration tests, in one binary.

mod all {
    mod apiserver;
    mod hosts;
    mod packets;
    mod pods;
}
