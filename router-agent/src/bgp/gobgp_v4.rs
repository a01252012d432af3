//! The API of GoBGP 4 (`api.GoBgpService`), which kube-router has had since 2.7.

use prost::encoding;
use router_bgp::message::capability::Capability;

use super::grpc::{Generation, Typed};

pub(crate) enum V4 {}

impl Generation for V4 {
    const SERVICE: &'static str = "api.GoBgpService";
    /// Zero is "unspecified", so that what was zero is one.
    const SHIFT: i32 = 1;
    const TELLS_WHY_DOWN: bool = true;

    fn capability(capability: &Capability) -> Vec<u8> {
        let Typed { tag, body, .. } = Typed::of(capability);
        let mut wrapped = Vec::with_capacity(body.len() + 4);
        encoding::bytes::encode(tag, &body, &mut wrapped);
        wrapped
    }
}
