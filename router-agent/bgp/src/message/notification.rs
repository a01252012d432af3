//! NOTIFICATION (RFC 4271 §4.5, §6): how a session ends, and GoBGP's words for it, which users grep for.

use std::fmt;

use super::header::{Kind, message};

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Notification {
    pub code: u8,
    pub subcode: u8,
    pub data: Box<[u8]>,
}

/// Code and subcode.
pub type ErrorCode = (u8, u8);

/// The errors that we send.
pub mod error {
    use super::ErrorCode;

    pub const NOT_SYNCHRONIZED: ErrorCode = (1, 1);
    pub const BAD_MESSAGE_LENGTH: ErrorCode = (1, 2);
    pub const BAD_MESSAGE_TYPE: ErrorCode = (1, 3);
    pub const OPEN_UNSPECIFIC: ErrorCode = (2, 0);
    pub const UNSUPPORTED_VERSION: ErrorCode = (2, 1);
    pub const BAD_PEER_AS: ErrorCode = (2, 2);
    pub const BAD_ROUTER_ID: ErrorCode = (2, 3);
    pub const UNSUPPORTED_PARAMETER: ErrorCode = (2, 4);
    pub const UNACCEPTABLE_HOLD_TIME: ErrorCode = (2, 6);
    pub const MALFORMED_ATTRIBUTE_LIST: ErrorCode = (3, 1);
    pub const UNRECOGNIZED_WELL_KNOWN: ErrorCode = (3, 2);
    pub const MISSING_WELL_KNOWN: ErrorCode = (3, 3);
    pub const ATTRIBUTE_FLAGS: ErrorCode = (3, 4);
    pub const ATTRIBUTE_LENGTH: ErrorCode = (3, 5);
    pub const INVALID_ORIGIN: ErrorCode = (3, 6);
    pub const INVALID_NEXT_HOP: ErrorCode = (3, 8);
    pub const OPTIONAL_ATTRIBUTE: ErrorCode = (3, 9);
    pub const INVALID_NETWORK: ErrorCode = (3, 10);
    pub const MALFORMED_AS_PATH: ErrorCode = (3, 11);
    pub const HOLD_TIMER_EXPIRED: ErrorCode = (4, 0);
    /// RFC 6608.
    pub const UNEXPECTED_IN_OPEN_SENT: ErrorCode = (5, 1);
    pub const UNEXPECTED_IN_OPEN_CONFIRM: ErrorCode = (5, 2);
    pub const UNEXPECTED_IN_ESTABLISHED: ErrorCode = (5, 3);
    /// RFC 4486.
    pub const ADMIN_SHUTDOWN: ErrorCode = (6, 2);
    pub const PEER_DECONFIGURED: ErrorCode = (6, 3);
    pub const ADMIN_RESET: ErrorCode = (6, 4);
    pub const CONNECTION_REJECTED: ErrorCode = (6, 5);
    pub const COLLISION: ErrorCode = (6, 7);
    /// RFC 7313 §5.
    pub const REFRESH_LENGTH: ErrorCode = (7, 1);
    /// RFC 9687 §5.
    pub const SEND_HOLD_TIMER_EXPIRED: ErrorCode = (8, 0);
}

impl Notification {
    pub fn new((code, subcode): ErrorCode, data: &[u8]) -> Self {
        Self { code, subcode, data: data.into() }
    }

    /// With a shutdown communication (RFC 9003), cut to the 255 octets that fit; an empty one is none.
    pub fn with_communication(error: ErrorCode, text: &str) -> Self {
        let cut = text.floor_char_boundary(255);
        let text = text.get(..cut).unwrap_or_default();
        let Some(len) = u8::try_from(text.len()).ok().filter(|len| *len > 0) else {
            return Self::new(error, &[]);
        };
        let mut data = vec![len];
        data.extend_from_slice(text.as_bytes());
        Self::new(error, &data)
    }

    pub const fn error(&self) -> ErrorCode {
        (self.code, self.subcode)
    }

    /// What the peer's operator wrote, without control characters: it ends up in logs and terminals.
    pub fn communication(&self) -> Option<String> {
        if !matches!(self.error(), error::ADMIN_SHUTDOWN | error::ADMIN_RESET) {
            return None;
        }
        let (len, rest) = self.data.split_first()?;
        let text = str::from_utf8(rest.get(..usize::from(*len))?).ok()?;
        let text: String = text.chars().filter(|character| !character.is_control()).collect();
        (!text.is_empty()).then_some(text)
    }

    /// `None` for a body that framing would not have let through.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let (error, data) = body.split_first_chunk::<2>()?;
        Some(Self::new((*error).into(), data))
    }

    pub fn encode(&self) -> Vec<u8> {
        message(Kind::Notification, |out| {
            out.extend_from_slice(&[self.code, self.subcode]);
            // Data quotes a message at most, but never outgrows one.
            let fits = self.data.len().min(super::header::MAX_LEN - 21);
            out.extend_from_slice(self.data.get(..fits).unwrap_or_default());
        })
    }
}

/// `code 6(cease) subcode 4(administrative reset)`, as GoBGP prints it.
impl fmt::Display for Notification {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, subcodes) = names(self.code);
        let subcode = subcodes.get(usize::from(self.subcode)).copied().unwrap_or("undefined");
        write!(out, "code {}({code}) subcode {}({subcode})", self.code, self.subcode)
    }
}

impl std::error::Error for Notification {}

/// A code's name and its subcodes', from zero. Codes and subcodes that GoBGP does not name follow its manner.
const fn names(code: u8) -> (&'static str, &'static [&'static str]) {
    match code {
        1 => (
            "header",
            &["undefined", "connection not synchronized", "bad message length", "bad message type"],
        ),
        2 => (
            "open",
            &[
                "undefined",
                "unsupported version number",
                "bad peer as",
                "bad bgp identifier",
                "unsupported optional parameter",
                "deprecated authentication failure",
                "unacceptable hold time",
                "unsupported capability",
            ],
        ),
        3 => (
            "update",
            &[
                "undefined",
                "malformed attribute list",
                "unrecognized well known attribute",
                "missing well known attribute",
                "attribute flags error",
                "attribute length error",
                "invalid origin attribute",
                "deprecated routing loop",
                "invalid next hop attribute",
                "optional attribute error",
                "invalid network field",
                "sub malformed as path",
            ],
        ),
        4 => ("hold timer expired", &["undefined", "hold timer expired"]),
        5 => (
            "fsm",
            &[
                "undefined",
                "receive unexpected message in opensent state",
                "receive unexpected message in openconfirm state",
                "receive unexpected message in established state",
            ],
        ),
        6 => (
            "cease",
            &[
                "undefined",
                "maximum number of prefixes reached",
                "administrative shutdown",
                "peer deconfigured",
                "administrative reset",
                "connection rejected",
                "other configuration change",
                "connection collision resolution",
                "out of resources",
                "hard reset",
                "bfd down",
            ],
        ),
        7 => ("route refresh", &["undefined", "invalid message length"]),
        8 => ("send hold timer expired", &["undefined"]),
        _ => ("undefined", &[]),
    }
}
