//! The integration tests, in one binary.

#[cfg(test)]
mod all {
    mod apiserver;
    mod flows;
    mod hosts;
    mod kubelet;
    mod mtu;
    mod packets;
    mod paths;
    mod pods;
    mod vm;
    mod world;
}
