//! [`Attributes`] and prefixes to bytes: as many prefixes in a message as fit, attributes in ascending order, except
//! that the multiprotocol ones come first (RFC 7606 §5.1).

use std::net::IpAddr;

use thiserror::Error;

use super::Context;
use crate::asn::Asn;
use crate::family::{Family, Prefix};
use crate::message::attribute::{AsPath, Attributes, RawAttribute, SegmentKind, flag, kind};
use crate::message::header::{HEADER_LEN, Kind, message};
use crate::message::nlri;
use crate::message::wire::with_len_u16;

/// Why routes cannot be told to a peer: they are to be withheld from it (RFC 8654 §4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum EncodeError {
    #[error("an {family} route with next hop {next_hop} cannot be said on this session")]
    NextHop { family: Family, next_hop: IpAddr },
    #[error("{len} octets of attributes do not fit a message")]
    TooLong { len: usize },
}

/// Flags, type, two octets of length; family; next hop's length; reserved octet.
const MP_REACH_FIXED: usize = 4 + 3 + 1 + 1;
const MP_UNREACH_FIXED: usize = 4 + 3;
/// The two length fields of an UPDATE.
const LENGTHS: usize = 4;

/// Messages that announce `prefixes`, all of `family`.
pub fn announce(
    attributes: &Attributes,
    family: Family,
    prefixes: &[Prefix],
    context: &Context,
) -> Result<Vec<Vec<u8>>, EncodeError> {
    let mut block = Vec::with_capacity(64);
    let next_hop = match (family, attributes.next_hop) {
        (Family::Ipv4Unicast, IpAddr::V4(_)) => None,
        (Family::Ipv4Unicast, IpAddr::V6(address)) if context.extended_next_hop => Some(address),
        (Family::Ipv6Unicast, IpAddr::V6(address)) => Some(address),
        (family, next_hop) => return Err(EncodeError::NextHop { family, next_hop }),
    };
    push_attributes(&mut block, attributes, next_hop.is_none(), context);
    let fixed = if next_hop.is_some() { MP_REACH_FIXED + 16 } else { 0 };
    let used = HEADER_LEN + LENGTHS + block.len() + fixed;
    let longest = 1 + usize::from(family.max_prefix_len() / 8);
    let room = context.max_len.checked_sub(used).filter(|room| *room >= longest);
    let room = room.ok_or(EncodeError::TooLong { len: block.len() })?;

    let messages = chunks(prefixes, room).map(|chunk| {
        update(|out| {
            out.extend_from_slice(&[0, 0]);
            with_len_u16(out, |out| {
                if let Some(next_hop) = next_hop {
                    push_multiprotocol(out, kind::MP_REACH_NLRI, family, |out| {
                        out.push(16);
                        out.extend_from_slice(&next_hop.octets());
                        out.push(0);
                        nlri::encode(chunk, out);
                    });
                }
                out.extend_from_slice(&block);
            });
            if next_hop.is_none() {
                nlri::encode(chunk, out);
            }
        })
    });
    Ok(messages.collect())
}

/// Messages that withdraw `prefixes`, all of `family`.
pub fn withdraw(family: Family, prefixes: &[Prefix], context: &Context) -> Vec<Vec<u8>> {
    let room = context.max_len.saturating_sub(HEADER_LEN + LENGTHS + MP_UNREACH_FIXED);
    let messages = chunks(prefixes, room).map(|chunk| match family {
        Family::Ipv4Unicast => update(|out| {
            with_len_u16(out, |out| nlri::encode(chunk, out));
            out.extend_from_slice(&[0, 0]);
        }),
        Family::Ipv6Unicast => unreach(family, chunk),
    });
    messages.collect()
}

/// RFC 4724 §2.
pub fn end_of_rib(family: Family) -> Vec<u8> {
    match family {
        Family::Ipv4Unicast => update(|out| out.extend_from_slice(&[0; LENGTHS])),
        Family::Ipv6Unicast => unreach(family, &[]),
    }
}

fn update(fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    message(Kind::Update, fill)
}

fn unreach(family: Family, prefixes: &[Prefix]) -> Vec<u8> {
    update(|out| {
        out.extend_from_slice(&[0, 0]);
        with_len_u16(out, |out| {
            push_multiprotocol(out, kind::MP_UNREACH_NLRI, family, |out| nlri::encode(prefixes, out));
        });
    })
}

fn push_multiprotocol(out: &mut Vec<u8>, kind: u8, family: Family, fill: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&[flag::OPTIONAL | flag::EXTENDED_LENGTH, kind]);
    with_len_u16(out, |out| {
        let code = family.code();
        out.extend_from_slice(&code.afi.to_be_bytes());
        out.push(code.safi);
        fill(out);
    });
}

/// Runs of prefixes that take at most `room` octets each.
fn chunks(mut prefixes: &[Prefix], room: usize) -> impl Iterator<Item = &[Prefix]> {
    std::iter::from_fn(move || {
        let mut taken = 0;
        let count = prefixes
            .iter()
            .take_while(|prefix| {
                taken += nlri::encoded_len(prefix);
                taken <= room
            })
            .count();
        let (chunk, rest) = prefixes.split_at_checked(count)?;
        prefixes = rest;
        (!chunk.is_empty()).then_some(chunk)
    })
}

fn push_attributes(out: &mut Vec<u8>, attributes: &Attributes, with_next_hop: bool, context: &Context) {
    const WELL_KNOWN: u8 = flag::TRANSITIVE;
    const LOCAL: u8 = flag::OPTIONAL;
    const TRANSITIVE: u8 = flag::OPTIONAL | flag::TRANSITIVE;
    let Attributes {
        origin,
        as_path,
        next_hop,
        med,
        local_pref,
        communities,
        originator_id,
        cluster_list,
        others,
    } = attributes;
    let short = !context.four_octet;
    // What a two-octet path cannot say goes beside it (RFC 6793 §4.2.2).
    let as4_path = short && as_path.0.iter().any(|segment| segment.asns.iter().any(|asn| asn.0 > 0xffff));
    let mut others = others.iter().peekable();
    let mut before = |out: &mut Vec<u8>, kind: u8| {
        while let Some(other) = others.next_if(|other| other.kind < kind) {
            push_other(out, other, short);
        }
    };

    push(out, WELL_KNOWN, kind::ORIGIN, &[*origin as u8]);
    push(out, WELL_KNOWN, kind::AS_PATH, &path_bytes(as_path, short));
    if let (true, IpAddr::V4(next_hop)) = (with_next_hop, next_hop) {
        push(out, WELL_KNOWN, kind::NEXT_HOP, &next_hop.octets());
    }
    if let Some(med) = med {
        push(out, LOCAL, kind::MULTI_EXIT_DISC, &med.to_be_bytes());
    }
    if let Some(local_pref) = local_pref {
        push(out, WELL_KNOWN, kind::LOCAL_PREF, &local_pref.to_be_bytes());
    }
    before(out, kind::COMMUNITIES);
    if !communities.is_empty() {
        let value: Vec<u8> = communities.iter().flat_map(|community| community.to_be_bytes()).collect();
        push(out, TRANSITIVE, kind::COMMUNITIES, &value);
    }
    if let Some(originator_id) = originator_id {
        push(out, LOCAL, kind::ORIGINATOR_ID, &originator_id.octets());
    }
    if !cluster_list.is_empty() {
        let value: Vec<u8> = cluster_list.iter().flat_map(std::net::Ipv4Addr::octets).collect();
        push(out, LOCAL, kind::CLUSTER_LIST, &value);
    }
    before(out, kind::AS4_PATH);
    if as4_path {
        push(out, TRANSITIVE, kind::AS4_PATH, &path_bytes(as_path, false));
    }
    let aggregator = attributes.others.iter().find(|other| other.kind == kind::AGGREGATOR);
    if let Some(aggregator) = aggregator.filter(|other| short && !other.value.starts_with(&[0, 0])) {
        push(out, TRANSITIVE, kind::AS4_AGGREGATOR, &aggregator.value);
    }
    before(out, u8::MAX);
}

/// A non-transitive attribute that we do not know ends here; a transitive one goes on, marked as not understood by
/// everyone on its way (RFC 4271 §5).
fn push_other(out: &mut Vec<u8>, other: &RawAttribute, short: bool) {
    let RawAttribute { flags, kind, value } = other;
    if other.is_recognized() {
        match value.split_first_chunk::<4>() {
            Some((asn, address)) if short && *kind == kind::AGGREGATOR => {
                let asn = Asn(u32::from_be_bytes(*asn)).two_octet().to_be_bytes();
                push(out, *flags, *kind, &[&asn, address].concat());
            }
            _ => push(out, *flags, *kind, value),
        }
    } else if other.is_transitive() {
        push(out, *flags | flag::PARTIAL, *kind, value);
    }
}

fn push(out: &mut Vec<u8>, flags: u8, kind: u8, value: &[u8]) {
    if let Ok(len) = u8::try_from(value.len()) {
        out.extend_from_slice(&[flags, kind, len]);
    } else {
        out.extend_from_slice(&[flags | flag::EXTENDED_LENGTH, kind]);
        // One longer than that makes the block too long for any message, which the caller finds.
        out.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    }
    out.extend_from_slice(value);
}

fn path_bytes(path: &AsPath, short: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for segment in &path.0 {
        // A set cannot be cut in two without counting twice, but none longer than 255 can have arrived.
        for asns in segment.asns.chunks(255) {
            let kind = match segment.kind {
                SegmentKind::Set => 1,
                SegmentKind::Sequence => 2,
            };
            out.extend_from_slice(&[kind, u8::try_from(asns.len()).unwrap_or(u8::MAX)]);
            for asn in asns {
                if short {
                    out.extend_from_slice(&asn.two_octet().to_be_bytes());
                } else {
                    out.extend_from_slice(&asn.0.to_be_bytes());
                }
            }
        }
    }
    out
}
