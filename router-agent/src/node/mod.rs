//! The node as input and as ground: its devices and what the kernel says of them, the `kube-svc` pair, kernel
//! settings, the CNI file, and the host's own firewall.

pub(crate) mod cni_file;
pub(crate) mod firewall;
pub(crate) mod hooks;
pub(crate) mod links;
pub(crate) mod prepare;
pub(crate) mod service_link;
