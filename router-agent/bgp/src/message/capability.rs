//! Capabilities (RFC 5492): what each side can do, as values where we or the admin API read them.

use super::wire::Reader;
use crate::asn::Asn;
use crate::family::FamilyCode;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Capability {
    /// RFC 4760.
    Multiprotocol(FamilyCode),
    /// RFC 2918.
    RouteRefresh,
    /// RFC 8950: routes of the family may have a next hop of the address family with that number.
    ExtendedNextHop(Box<[(FamilyCode, u16)]>),
    /// RFC 8654.
    ExtendedMessage,
    /// RFC 4724, and RFC 8538's N bit.
    GracefulRestart(GracefulRestart),
    /// RFC 6793.
    FourOctetAs(Asn),
    /// RFC 7911: 1 receive, 2 send, 3 both.
    AddPath(Box<[(FamilyCode, u8)]>),
    /// RFC 7313.
    EnhancedRefresh,
    /// draft-walton-bgp-hostname-capability.
    Fqdn {
        host: Box<str>,
        domain: Box<str>,
    },
    /// draft-abraitis-bgp-version-capability.
    SoftwareVersion(Box<str>),
    Unknown {
        code: u8,
        value: Box<[u8]>,
    },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct GracefulRestart {
    /// R: the sender has just restarted.
    pub restarting: bool,
    /// N: a NOTIFICATION does not end forwarding either.
    pub notification: bool,
    /// Seconds, 12 bits.
    pub restart_time: u16,
    /// The families, and whether forwarding state was kept (F).
    pub families: Box<[(FamilyCode, bool)]>,
}

const MULTIPROTOCOL: u8 = 1;
const ROUTE_REFRESH: u8 = 2;
const EXTENDED_NEXT_HOP: u8 = 5;
const EXTENDED_MESSAGE: u8 = 6;
const GRACEFUL_RESTART: u8 = 64;
const FOUR_OCTET_AS: u8 = 65;
const ADD_PATH: u8 = 69;
const ENHANCED_REFRESH: u8 = 70;
const FQDN: u8 = 73;
const SOFTWARE_VERSION: u8 = 75;

impl Capability {
    /// `None` if a known capability has an impossible value. Those that only inform are kept unknown instead: a
    /// misspelt host name is no reason to refuse a session.
    pub(crate) fn decode(code: u8, value: &[u8]) -> Option<Self> {
        let mut reader = Reader(value);
        let capability = match code {
            MULTIPROTOCOL => {
                let afi = reader.u16()?;
                let [_, safi] = reader.array()?;
                Self::Multiprotocol(FamilyCode { afi, safi })
            }
            ROUTE_REFRESH => Self::RouteRefresh,
            EXTENDED_MESSAGE => Self::ExtendedMessage,
            ENHANCED_REFRESH => Self::EnhancedRefresh,
            FOUR_OCTET_AS => Self::FourOctetAs(Asn(reader.u32()?)),
            EXTENDED_NEXT_HOP => Self::ExtendedNextHop(tuples(&mut reader, |reader| {
                let family = FamilyCode { afi: reader.u16()?, safi: u8::try_from(reader.u16()?).ok()? };
                Some((family, reader.u16()?))
            })?),
            ADD_PATH => Self::AddPath(tuples(&mut reader, |reader| Some((family(reader)?, reader.u8()?)))?),
            GRACEFUL_RESTART => {
                let head = reader.u16()?;
                Self::GracefulRestart(GracefulRestart {
                    restarting: head & 0x8000 != 0,
                    notification: head & 0x4000 != 0,
                    restart_time: head & 0x0fff,
                    families: tuples(&mut reader, |reader| {
                        Some((family(reader)?, reader.u8()? & 0x80 != 0))
                    })?,
                })
            }
            FQDN => return Some(fqdn(reader).unwrap_or_else(|| Self::unknown(code, value))),
            SOFTWARE_VERSION => {
                return Some(software_version(reader).unwrap_or_else(|| Self::unknown(code, value)));
            }
            _ => return Some(Self::unknown(code, value)),
        };
        reader.is_empty().then_some(capability)
    }

    fn unknown(code: u8, value: &[u8]) -> Self {
        Self::Unknown { code, value: value.into() }
    }

    /// Appends code, length and value; nothing if the value cannot be said in 255 octets.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut value = Vec::new();
        let code = self.fill(&mut value);
        let Some((code, len)) = code.zip(u8::try_from(value.len()).ok()) else { return };
        out.extend_from_slice(&[code, len]);
        out.extend_from_slice(&value);
    }

    fn fill(&self, out: &mut Vec<u8>) -> Option<u8> {
        Some(match self {
            Self::Multiprotocol(family) => {
                out.extend_from_slice(&family.afi.to_be_bytes());
                out.extend_from_slice(&[0, family.safi]);
                MULTIPROTOCOL
            }
            Self::RouteRefresh => ROUTE_REFRESH,
            Self::ExtendedNextHop(tuples) => {
                for (family, next_hop) in tuples {
                    out.extend_from_slice(&family.afi.to_be_bytes());
                    out.extend_from_slice(&u16::from(family.safi).to_be_bytes());
                    out.extend_from_slice(&next_hop.to_be_bytes());
                }
                EXTENDED_NEXT_HOP
            }
            Self::ExtendedMessage => EXTENDED_MESSAGE,
            Self::GracefulRestart(GracefulRestart { restarting, notification, restart_time, families }) => {
                let flags = u16::from(*restarting) << 15 | u16::from(*notification) << 14;
                out.extend_from_slice(&(flags | restart_time & 0x0fff).to_be_bytes());
                for (family, forwarding) in families {
                    out.extend_from_slice(&family.afi.to_be_bytes());
                    out.extend_from_slice(&[family.safi, u8::from(*forwarding) << 7]);
                }
                GRACEFUL_RESTART
            }
            Self::FourOctetAs(asn) => {
                out.extend_from_slice(&asn.0.to_be_bytes());
                FOUR_OCTET_AS
            }
            Self::AddPath(tuples) => {
                for (family, mode) in tuples {
                    out.extend_from_slice(&family.afi.to_be_bytes());
                    out.extend_from_slice(&[family.safi, *mode]);
                }
                ADD_PATH
            }
            Self::EnhancedRefresh => ENHANCED_REFRESH,
            Self::Fqdn { host, domain } => {
                for text in [host, domain] {
                    out.push(u8::try_from(text.len()).ok()?);
                    out.extend_from_slice(text.as_bytes());
                }
                FQDN
            }
            Self::SoftwareVersion(text) => {
                out.push(u8::try_from(text.len()).ok()?);
                out.extend_from_slice(text.as_bytes());
                SOFTWARE_VERSION
            }
            Self::Unknown { code, value } => {
                out.extend_from_slice(value);
                *code
            }
        })
    }
}

fn family(reader: &mut Reader<'_>) -> Option<FamilyCode> {
    Some(FamilyCode { afi: reader.u16()?, safi: reader.u8()? })
}

fn tuples<T>(
    reader: &mut Reader<'_>,
    mut next: impl FnMut(&mut Reader<'_>) -> Option<T>,
) -> Option<Box<[T]>> {
    let mut tuples = Vec::new();
    while !reader.is_empty() {
        tuples.push(next(reader)?);
    }
    Some(tuples.into())
}

fn text(reader: &mut Reader<'_>) -> Option<Box<str>> {
    let len = usize::from(reader.u8()?);
    str::from_utf8(reader.take(len)?).ok().map(Box::from)
}

fn fqdn(mut reader: Reader<'_>) -> Option<Capability> {
    let (host, domain) = (text(&mut reader)?, text(&mut reader)?);
    reader.is_empty().then_some(Capability::Fqdn { host, domain })
}

fn software_version(mut reader: Reader<'_>) -> Option<Capability> {
    let version = text(&mut reader)?;
    reader.is_empty().then_some(Capability::SoftwareVersion(version))
}
