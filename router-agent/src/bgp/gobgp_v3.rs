//! The API of GoBGP 3 (`apipb.GobgpApi`), which Debian's client and those of older images speak.

use prost::Message as _;
use router_bgp::message::capability::Capability;

use super::grpc::{Generation, Typed};

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
        let unknown = |code| Typed::of(&Capability::Unknown { code, value: Box::default() });
        let typed = match capability {
            // Clients name these only since 3.11 (the version) and 4.7; 3.10 fails on a type that it does not know.
            Capability::ExtendedMessage => unknown(6),
            Capability::SoftwareVersion(_) => unknown(75),
            capability => Typed::of(capability),
        };
        let any = Any { type_url: format!("type.googleapis.com/apipb.{}", typed.name), value: typed.body };
        any.encode_to_vec()
    }
}
