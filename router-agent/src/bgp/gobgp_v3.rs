//! The API of GoBGP 3 (`apipb.GobgpApi`), which Debian's client and those of older images speak.

use prost::Message as _;

use super::grpc::{Generation, Typed};
use super::view::Capability;

pub(crate) enum V3 {}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

impl Generation for V3 {
    const SERVICE: &'static str = "apipb.GobgpApi";
    const SHIFT: i32 = 0;
    const TELLS_WHY_DOWN: bool = false;

    fn capability(capability: &Capability) -> Vec<u8> {
        let typed = match capability {
            // Named only by later clients.
            Capability::ExtendedMessage => Typed::of(&Capability::Unknown { code: 6, value: Vec::new() }),
            capability => Typed::of(capability),
        };
        let any = Any { type_url: format!("type.googleapis.com/apipb.{}", typed.name), value: typed.body };
        any.encode_to_vec()
    }
}
