//! The BGP speaker's surroundings: what of it touches the world. The speaker itself is the crate `router-bgp`.

mod gobgp_v3;
mod gobgp_v4;
pub(crate) mod grpc;
pub(crate) mod view;
