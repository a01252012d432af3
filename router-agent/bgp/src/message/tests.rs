//! What the codec promises, tested at its edge: streams in, messages or errors out.

mod malformed;
mod oracle;
mod properties;
mod vectors;

use std::net::{IpAddr, Ipv4Addr};

use crate::family::{Families, Family};
use crate::message::header::MAX_LEN;
use crate::message::update::Context;

/// A session with an external peer that knows everything.
pub(crate) fn external() -> Context {
    Context {
        four_octet: true,
        internal: false,
        families: Families::from_iter(Family::ALL),
        extended_next_hop: true,
        max_len: MAX_LEN,
        local: Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
    }
}

pub(crate) fn internal() -> Context {
    Context { internal: true, ..external() }
}

pub(crate) fn two_octet() -> Context {
    Context { four_octet: false, ..external() }
}

/// Hexadecimal with spaces wherever they help.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    assert_eq!(digits.len() % 2, 0, "{text}");
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}
