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
    mod egress;
    mod flows;
    mod hosts;
    mod icmp;
    mod input;
    mod kubelet;
    mod lab;
    mod laws;
    mod mtu;
    mod node_ports;
    mod packets;
    mod paths;
    mod pods;
    mod seen;
    mod spoof;
    mod survived;
    mod three_nodes;
    mod vm;
    mod world;
}
