//! The node as input and as ground: its devices and what the kernel says of them, the `kube-svc` pair, kernel
//! settings, the CNI file, the host's own firewall, and pods' way out.

pub(crate) mod cni_file;
pub(crate) mod egress;
pub(crate) mod firewall;
pub(crate) mod forwarding;
pub(crate) mod hooks;
pub(crate) mod links;
pub(crate) mod pod_network;
pub(crate) mod prepare;
pub(crate) mod service_link;
