//! Capabilities as messages. They have no form in bytes, so every one that a client should name has its own message.

use prost::Message;
use router_bgp::family::FamilyCode;
use router_bgp::message::capability::{Capability, GracefulRestart};

use super::convert::family_code;
use super::messages::{
    AddPathCapability, Empty, ExtendedNexthopCapability, ExtendedNexthopTuple, FamilyFlags,
    FourOctetAsnCapability, FqdnCapability, GracefulRestartCapability, LongLivedGracefulRestartCapability,
    LongLivedTuple, MultiProtocolCapability, SoftwareVersionCapability, UnknownCapability,
};

/// A message of which the generations agree on the body, but not on how it says its type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Typed {
    /// The type's name, without package.
    pub(crate) name: &'static str,
    /// Its field in the `oneof`.
    pub(crate) tag: u32,
    pub(crate) body: Vec<u8>,
}

/// Flags of the graceful restart capability as they stand above its time (RFC 4724 §3, RFC 8538 §2).
const RESTARTING: u32 = 0x8;
const NOTIFICATION: u32 = 0x4;
/// Long-lived graceful restart (RFC 9494 §3.1), of which the speaker knows nothing; clients crash on it if it comes as a
/// capability that nobody knows.
const LONG_LIVED: u8 = 71;
/// Of a family in it.
const FORWARDING: u32 = 0x80;

impl Typed {
    pub(crate) fn of(capability: &Capability) -> Self {
        match capability {
            Capability::Multiprotocol(family) => Self::new(
                "MultiProtocolCapability",
                2,
                &MultiProtocolCapability { family: Some(family_code(*family)) },
            ),
            Capability::RouteRefresh => Self::new("RouteRefreshCapability", 3, &Empty {}),
            Capability::ExtendedNextHop(tuples) => Self::new(
                "ExtendedNexthopCapability",
                5,
                &ExtendedNexthopCapability {
                    tuples: tuples.iter().map(|(family, afi)| next_hop_tuple(*family, *afi)).collect(),
                },
            ),
            Capability::ExtendedMessage => Self::new("ExtendedMessageCapability", 14, &Empty {}),
            Capability::GracefulRestart(GracefulRestart {
                restarting,
                notification,
                restart_time,
                families,
            }) => Self::new(
                "GracefulRestartCapability",
                6,
                &GracefulRestartCapability {
                    flags: u32::from(*restarting) * RESTARTING + u32::from(*notification) * NOTIFICATION,
                    time: u32::from(*restart_time),
                    tuples: families
                        .iter()
                        .map(|(family, forwarding)| flagged(*family, u32::from(*forwarding) * FORWARDING))
                        .collect(),
                },
            ),
            Capability::FourOctetAs(asn) => {
                Self::new("FourOctetASNCapability", 7, &FourOctetAsnCapability { asn: asn.0 })
            }
            Capability::AddPath(families) => Self::new(
                "AddPathCapability",
                8,
                &AddPathCapability {
                    tuples: families
                        .iter()
                        .map(|(family, mode)| flagged(*family, u32::from(*mode)))
                        .collect(),
                },
            ),
            Capability::EnhancedRefresh => Self::new("EnhancedRouteRefreshCapability", 9, &Empty {}),
            Capability::Fqdn { host, domain } => Self::new(
                "FqdnCapability",
                12,
                &FqdnCapability { host_name: host.to_string(), domain_name: domain.to_string() },
            ),
            Capability::SoftwareVersion(version) => Self::new(
                "SoftwareVersionCapability",
                13,
                &SoftwareVersionCapability { software_version: version.to_string() },
            ),
            Capability::Unknown { code: LONG_LIVED, value } => Self::new(
                "LongLivedGracefulRestartCapability",
                10,
                &LongLivedGracefulRestartCapability {
                    tuples: value.chunks_exact(7).map(long_lived).collect(),
                },
            ),
            Capability::Unknown { code, value } => Self::new(
                "UnknownCapability",
                1,
                &UnknownCapability { code: u32::from(*code), value: value.to_vec() },
            ),
        }
    }

    fn new(name: &'static str, tag: u32, body: &impl Message) -> Self {
        Self { name, tag, body: body.encode_to_vec() }
    }
}

fn flagged(family: FamilyCode, flags: u32) -> FamilyFlags {
    FamilyFlags { family: Some(family_code(family)), flags }
}

/// AFI, SAFI, flags, and 24 bits of seconds.
fn long_lived(tuple: &[u8]) -> LongLivedTuple {
    let number = |range: std::ops::Range<usize>| {
        let octets = tuple.get(range).unwrap_or_default();
        octets.iter().fold(0u32, |sum, octet| (sum << 8) | u32::from(*octet))
    };
    let family = FamilyCode {
        afi: u16::try_from(number(0..2)).unwrap_or_default(),
        safi: u8::try_from(number(2..3)).unwrap_or_default(),
    };
    LongLivedTuple { family: Some(family_code(family)), flags: number(3..4), time: number(4..7) }
}

fn next_hop_tuple(family: FamilyCode, afi: u16) -> ExtendedNexthopTuple {
    ExtendedNexthopTuple {
        nlri_family: Some(family_code(family)),
        nexthop_family: Some(family_code(FamilyCode { afi, safi: 1 })),
    }
}
