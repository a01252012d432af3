//! A BGP speaker without sockets or clock; it knows no Kubernetes.
