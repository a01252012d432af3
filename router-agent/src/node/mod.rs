//! The node as input and as ground: its devices and what the kernel says of them, the `kube-svc` pair, kernel
//! settings, and the host's own firewall.

pub mod firewall;
pub mod hooks;
pub mod links;
pub mod prepare;
pub mod service_link;
