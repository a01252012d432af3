//! The BGP speaker's surroundings: what of it touches the world. The speaker itself is the crate `router-bgp`.

mod answer;
mod gobgp_v3;
mod gobgp_v4;
pub(crate) mod grpc;
mod policies;
mod session;
mod sockets;
pub(crate) mod speaker;
pub(crate) mod view;
