//! OPEN (RFC 4271 §4.2, errors §6.2). Read here: what is wrong whoever the peer is; whether it is the peer we
//! expect, the session asks.

use std::net::Ipv4Addr;

use super::capability::Capability;
use super::header::{Kind, message};
use super::notification::{Notification, error};
use super::wire::Reader;
use crate::asn::Asn;

const VERSION: u8 = 4;
const PARAMETER_CAPABILITIES: u8 = 2;
/// RFC 9072: the parameters' length, and each parameter's, have two octets.
const PARAMETER_EXTENDED: u8 = 255;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Open {
    /// From the four-octet capability where there is one (RFC 6793 §4.1).
    pub asn: Asn,
    /// Seconds; 0 or at least 3.
    pub hold_time: u16,
    pub router_id: Ipv4Addr,
    pub capabilities: Vec<Capability>,
}

impl Open {
    pub fn decode(body: &[u8]) -> Result<Self, Notification> {
        let malformed = || Notification::new(error::OPEN_UNSPECIFIC, &[]);
        let mut reader = Reader(body);
        let version = reader.u8().ok_or_else(malformed)?;
        if version != VERSION {
            // The data is the version we would speak (RFC 4271 §6.2).
            return Err(Notification::new(error::UNSUPPORTED_VERSION, &u16::from(VERSION).to_be_bytes()));
        }
        let short_as = reader.u16().ok_or_else(malformed)?;
        let hold_time = reader.u16().ok_or_else(malformed)?;
        let router_id = Ipv4Addr::from(reader.u32().ok_or_else(malformed)?);
        let capabilities = parameters(reader)?;

        let four_octet = capabilities.iter().find_map(|capability| match capability {
            Capability::FourOctetAs(asn) => Some(*asn),
            _ => None,
        });
        let asn = four_octet.unwrap_or(Asn(u32::from(short_as)));
        if asn.is_reserved() || short_as == 0 {
            return Err(Notification::new(error::BAD_PEER_AS, &[]));
        }
        if matches!(hold_time, 1 | 2) {
            return Err(Notification::new(error::UNACCEPTABLE_HOLD_TIME, &[]));
        }
        if router_id.is_unspecified() {
            return Err(Notification::new(error::BAD_ROUTER_ID, &[]));
        }
        Ok(Self { asn, hold_time, router_id, capabilities })
    }

    /// All capabilities in one parameter, extended (RFC 9072) only if they do not fit otherwise.
    pub fn encode(&self) -> Vec<u8> {
        let mut capabilities = Vec::new();
        for capability in &self.capabilities {
            capability.encode(&mut capabilities);
        }
        message(Kind::Open, |out| {
            out.push(VERSION);
            out.extend_from_slice(&self.asn.two_octet().to_be_bytes());
            out.extend_from_slice(&self.hold_time.to_be_bytes());
            out.extend_from_slice(&self.router_id.octets());
            match u8::try_from(capabilities.len()) {
                Ok(0) => out.push(0),
                Ok(len) if len <= 253 => out.extend_from_slice(&[len + 2, PARAMETER_CAPABILITIES, len]),
                _ => {
                    let len = u16::try_from(capabilities.len()).expect("a handful of capabilities");
                    out.extend_from_slice(&[255, PARAMETER_EXTENDED]);
                    out.extend_from_slice(&(len + 3).to_be_bytes());
                    out.push(PARAMETER_CAPABILITIES);
                    out.extend_from_slice(&len.to_be_bytes());
                }
            }
            out.extend_from_slice(&capabilities);
        })
    }
}

/// The optional parameters; peers put capabilities into one each, or all into one.
fn parameters(mut reader: Reader<'_>) -> Result<Vec<Capability>, Notification> {
    let malformed = || Notification::new(error::OPEN_UNSPECIFIC, &[]);
    let len = usize::from(reader.u8().ok_or_else(malformed)?);
    // RFC 9072 §2: the type decides, whatever the length says, as long as it is not zero.
    let extended = len != 0 && reader.0.first() == Some(&PARAMETER_EXTENDED);
    let len = if extended {
        reader.u8().and_then(|_| reader.u16()).map(usize::from).ok_or_else(malformed)?
    } else {
        len
    };
    if reader.0.len() != len {
        return Err(malformed());
    }
    let mut capabilities = Vec::new();
    while !reader.is_empty() {
        let kind = reader.u8().ok_or_else(malformed)?;
        let len = if extended { reader.u16().map(usize::from) } else { reader.u8().map(usize::from) };
        let value = len.and_then(|len| reader.take(len)).ok_or_else(malformed)?;
        if kind != PARAMETER_CAPABILITIES {
            return Err(Notification::new(error::UNSUPPORTED_PARAMETER, &[]));
        }
        let mut inner = Reader(value);
        while !inner.is_empty() {
            let code = inner.u8().ok_or_else(malformed)?;
            let len = inner.u8().map(usize::from);
            let value = len.and_then(|len| inner.take(len)).ok_or_else(malformed)?;
            capabilities.push(Capability::decode(code, value).ok_or_else(malformed)?);
        }
    }
    Ok(capabilities)
}
