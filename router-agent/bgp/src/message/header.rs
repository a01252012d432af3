//! The header (RFC 4271 §4.1, errors §6.1) and framing: which message begins a stream of bytes. Nothing of a body
//! is looked at before marker, length and type are right.

use super::notification::{Notification, error};

pub const HEADER_LEN: usize = 19;
pub const MAX_LEN: usize = 4096;
/// With RFC 8654 agreed; never for OPEN and KEEPALIVE.
pub const EXTENDED_MAX_LEN: usize = 65535;
const MARKER: [u8; 16] = [0xff; 16];

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    Open = 1,
    Update = 2,
    Notification = 3,
    KeepAlive = 4,
    RouteRefresh = 5,
}

impl Kind {
    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Open),
            2 => Some(Self::Update),
            3 => Some(Self::Notification),
            4 => Some(Self::KeepAlive),
            5 => Some(Self::RouteRefresh),
            _ => None,
        }
    }

    /// Whether a message of this kind can be that long, header included. A ROUTE-REFRESH of a wrong length is judged
    /// with its subtype (RFC 7313 §5).
    const fn admits(self, len: usize, extended: bool) -> bool {
        let max = if extended { EXTENDED_MAX_LEN } else { MAX_LEN };
        match self {
            Self::Open => len >= 29 && len <= MAX_LEN,
            Self::Update | Self::RouteRefresh => len >= 23 && len <= max,
            Self::Notification => len >= 21 && len <= max,
            Self::KeepAlive => len == HEADER_LEN,
        }
    }
}

/// One whole message at the front of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    pub kind: Kind,
    /// Header included: some errors quote it.
    pub bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// `None` as long as the message has not arrived in full; an error as soon as it shows.
    pub fn next(stream: &'a [u8], extended: bool) -> Result<Option<Self>, Notification> {
        if stream.iter().zip(&MARKER).any(|(have, want)| have != want) {
            return Err(Notification::new(error::NOT_SYNCHRONIZED, &[]));
        }
        let Some((header, _)) = stream.split_first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let [.., high, low, code] = *header;
        let len = usize::from(u16::from_be_bytes([high, low]));
        let bad_length = || Notification::new(error::BAD_MESSAGE_LENGTH, &[high, low]);
        if len < HEADER_LEN || len > if extended { EXTENDED_MAX_LEN } else { MAX_LEN } {
            return Err(bad_length());
        }
        let kind =
            Kind::from_code(code).ok_or_else(|| Notification::new(error::BAD_MESSAGE_TYPE, &[code]))?;
        if !kind.admits(len, extended) {
            return Err(bad_length());
        }
        Ok(stream.get(..len).map(|bytes| Self { kind, bytes }))
    }

    pub fn body(&self) -> &'a [u8] {
        self.bytes.get(HEADER_LEN..).unwrap_or_default()
    }
}

/// Puts the header in front of a body. The body fits: each encoder keeps within the peer's limit.
pub(crate) fn message(kind: Kind, fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(&MARKER);
    out.extend_from_slice(&[0, 0, kind as u8]);
    fill(&mut out);
    let len = u16::try_from(out.len()).expect("encoders stay within 65535 octets");
    if let Some(field) = out.get_mut(16..18) {
        field.copy_from_slice(&len.to_be_bytes());
    }
    out
}

pub fn keepalive() -> Vec<u8> {
    message(Kind::KeepAlive, |_| {})
}
