//! The bytes for one group, and for the admin API. What the codec cannot say to it never gets into its Adj-RIB-Out.

use std::sync::Arc;

use super::export::GroupKey;
use crate::family::{Families, Family, Prefix};
use crate::message::attribute::{Attributes, flag};
use crate::message::header::{EXTENDED_MAX_LEN, HEADER_LEN, MAX_LEN};
use crate::message::nlri;
use crate::message::update::{self, Context};

/// What sessions agreed on, as far as it shows in the bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Encoding {
    /// RFC 6793.
    pub(super) four_octet: bool,
    /// RFC 8654.
    pub(super) extended_messages: bool,
    /// IPv4 prefixes may have an IPv6 next hop (RFC 8950).
    pub(super) extended_next_hop: bool,
}

impl Encoding {
    fn context(self, family: Family, internal: bool) -> Context {
        let Self { four_octet, extended_messages, extended_next_hop } = self;
        let max_len = if extended_messages { EXTENDED_MAX_LEN } else { MAX_LEN };
        let families = Families::NONE.with(family);
        Context { four_octet, internal, families, extended_next_hop, max_len, local: None }
    }
}

fn context(key: &GroupKey) -> Context {
    key.encoding.context(key.family, !key.external)
}

/// Whether a route with these attributes can be told to the group at all (RFC 8654 §4, RFC 8950).
pub(super) fn can_announce(key: &GroupKey, attributes: &Attributes) -> bool {
    update::announce(attributes, key.family, &[], &context(key)).is_ok()
}

pub(super) fn announce(key: &GroupKey, attributes: &Attributes, prefixes: &[Prefix]) -> Vec<Arc<[u8]>> {
    let messages = update::announce(attributes, key.family, prefixes, &context(key));
    shared(messages.expect("the exporter passes only what can be announced"))
}

pub(super) fn withdraw(key: &GroupKey, prefixes: &[Prefix]) -> Vec<Arc<[u8]>> {
    shared(update::withdraw(key.family, prefixes, &context(key)))
}

pub(super) fn end_of_rib(key: &GroupKey) -> Arc<[u8]> {
    update::end_of_rib(key.family).into()
}

fn shared(messages: Vec<Vec<u8>>) -> Vec<Arc<[u8]>> {
    messages.into_iter().map(Arc::from).collect()
}

/// Each attribute of a route as it would stand in an UPDATE, header and all, with four-octet AS numbers; for IPv6 that
/// includes `MP_REACH_NLRI` with the prefix.
pub fn attribute_bytes(attributes: &Attributes, prefix: &Prefix) -> Vec<Vec<u8>> {
    let family = Family::of(prefix);
    let all = Encoding { four_octet: true, extended_messages: true, extended_next_hop: true };
    let context = all.context(family, true);
    let messages = update::announce(attributes, family, std::slice::from_ref(prefix), &context);
    let message = messages.ok().and_then(|messages| messages.into_iter().next()).unwrap_or_default();
    attributes_of(&message).map(<[u8]>::to_vec).collect()
}

pub fn nlri_bytes(prefix: &Prefix) -> Vec<u8> {
    let mut bytes = Vec::new();
    nlri::encode(std::slice::from_ref(prefix), &mut bytes);
    bytes
}

/// The attributes of an UPDATE that we encoded, which withdraws nothing.
fn attributes_of(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    let block = match message.get(HEADER_LEN..) {
        Some([0, 0, high, low, rest @ ..]) => rest.get(..usize::from(u16::from_be_bytes([*high, *low]))),
        _ => None,
    };
    let mut block = block.unwrap_or_default();
    std::iter::from_fn(move || {
        let len = match block {
            [flags, _, high, low, ..] if flags & flag::EXTENDED_LENGTH != 0 => {
                4 + usize::from(u16::from_be_bytes([*high, *low]))
            }
            [_, _, len, ..] => 3 + usize::from(*len),
            _ => return None,
        };
        let (attribute, rest) = block.split_at_checked(len)?;
        block = rest;
        Some(attribute)
    })
}
