//! A BGP speaker without sockets or clock; it knows no Kubernetes.

pub mod asn;
pub mod bestpath;
pub mod collision;
pub mod family;
pub mod message;
pub mod policy;
pub mod restart;
pub mod rib;
pub mod session;
