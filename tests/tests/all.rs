//! The integration tests, in one binary.

#[cfg(test)]
mod all {
    mod agent;
    mod apiserver;
    mod bgp;
    mod bgp_hostile;
    mod bgp_restart;
    mod changes;
    mod corners;
    mod flows;
    mod hosts;
    mod icmp;
    mod input;
    mod kubelet;
    mod lab;
    mod laws;
    mod mtu;
    mod packets;
    mod paths;
    mod pods;
    mod spoof;
    mod vm;
    mod world;
}
