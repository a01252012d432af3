//! The integration tests, in one binary.

#[cfg(test)]
mod all {
    mod apiserver;
    mod hosts;
    mod kubelet;
    mod lab;
    mod packets;
    mod paths;
    mod pods;
    mod vm;
}
