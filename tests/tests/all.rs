//! The integration tests, in one binary.

mod all {
    mod kubelet;
    mod packets;
    mod pods;
}
