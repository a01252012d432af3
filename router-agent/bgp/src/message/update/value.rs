//! Values inside attributes: paths, next hops, words.

use std::net::{IpAddr, Ipv6Addr};

use super::Context;
use crate::asn::Asn;
use crate::family::FamilyCode;
use crate::message::attribute::{AsPath, Segment, SegmentKind};
use crate::message::wire::{Reader, rows};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Confederations {
    Malformed,
    /// RFC 6793 §6, for `AS4_PATH`.
    Skipped,
}

pub(super) fn as_path(
    value: &[u8],
    four_octet: bool,
    confederations: Confederations,
) -> Result<AsPath, &'static str> {
    let mut reader = Reader(value);
    let mut segments = Vec::new();
    while !reader.is_empty() {
        let [code, count] = reader.array().ok_or("path segment is cut off")?;
        if count == 0 {
            return Err("path segment is empty");
        }
        let width = if four_octet { 4 } else { 2 };
        let numbers = reader.take(usize::from(count) * width).ok_or("path segment overruns")?;
        let kind = match code {
            1 => SegmentKind::Set,
            2 => SegmentKind::Sequence,
            3 | 4 if confederations == Confederations::Skipped => continue,
            _ => return Err("path segment is of a kind not for us"),
        };
        let asns: Box<[Asn]> = if four_octet {
            numbers.as_chunks().0.iter().map(|number| Asn(u32::from_be_bytes(*number))).collect()
        } else {
            numbers.as_chunks().0.iter().map(|number| Asn(u16::from_be_bytes(*number).into())).collect()
        };
        // RFC 7607.
        if asns.iter().any(|asn| asn.is_reserved()) {
            return Err("path names AS 0");
        }
        segments.push(Segment { kind, asns });
    }
    Ok(AsPath(segments.into()))
}

pub(super) fn word(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

pub(super) fn family_code(reader: &mut Reader<'_>) -> Option<FamilyCode> {
    Some(FamilyCode { afi: reader.u16()?, safi: reader.u8()? })
}

/// The global address; the link-local one only where the other is left out (RFC 2545 §3).
pub(super) fn ipv6_next_hop(field: &[u8]) -> Option<IpAddr> {
    let mut addresses = rows::<16>(field)?.map(Ipv6Addr::from);
    let global = addresses.next()?;
    let link_local = addresses.next().filter(|_| global.is_unspecified());
    Some(link_local.unwrap_or(global).into())
}

/// Whether the address can be a neighbour's (RFC 4271 §6.3).
pub(super) fn is_next_hop(address: IpAddr, context: &Context) -> bool {
    if context.local == Some(address) {
        return false;
    }
    match address {
        IpAddr::V4(address) => {
            let [first, ..] = address.octets();
            !(first == 0 || first == 127 || first >= 224)
        }
        IpAddr::V6(address) => !(address.is_unspecified() || address.is_loopback() || address.is_multicast()),
    }
}
