//! The BGP speaker's surroundings: what of it touches the world. The speaker itself is the crate `router-bgp`.

mod answer;
mod policies;
mod session;
mod sockets;
pub(crate) mod speaker;
pub(crate) mod view;
