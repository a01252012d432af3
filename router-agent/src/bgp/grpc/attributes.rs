//! A path's prefix and attributes as they stand in an UPDATE, one by one: clients decode these themselves. AS numbers
//! have four octets here, whatever the session agreed on.

use std::net::IpAddr;

use router_bgp::family::{Family, Prefix};
use router_bgp::message::attribute::{AsPath, Attributes, flag, kind};

const WELL_KNOWN: u8 = flag::TRANSITIVE;
const OPTIONAL: u8 = flag::OPTIONAL;
const OPTIONAL_TRANSITIVE: u8 = flag::OPTIONAL | flag::TRANSITIVE;

/// Length, then as many octets as it needs.
pub(super) fn nlri(prefix: &Prefix) -> Vec<u8> {
    let length = prefix.prefix_len();
    let octets = match prefix.addr() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let needed = usize::from(length).div_ceil(8);
    std::iter::once(length).chain(octets.into_iter().take(needed)).collect()
}

/// Every attribute, in ascending order of types.
pub(super) fn attributes(attributes: &Attributes, prefix: &Prefix) -> Vec<Vec<u8>> {
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
    let mut all = vec![
        attribute(WELL_KNOWN, kind::ORIGIN, &[*origin as u8]),
        attribute(WELL_KNOWN, kind::AS_PATH, &path(as_path)),
    ];
    match (Family::of(prefix), next_hop) {
        (Family::Ipv4Unicast, IpAddr::V4(address)) => {
            all.push(attribute(WELL_KNOWN, kind::NEXT_HOP, &address.octets()));
        }
        (family, address) => {
            all.push(attribute(OPTIONAL, kind::MP_REACH_NLRI, &reach(family, *address, prefix)));
        }
    }
    if let Some(med) = med {
        all.push(attribute(OPTIONAL, kind::MULTI_EXIT_DISC, &med.to_be_bytes()));
    }
    if let Some(preference) = local_pref {
        all.push(attribute(WELL_KNOWN, kind::LOCAL_PREF, &preference.to_be_bytes()));
    }
    if !communities.is_empty() {
        let value: Vec<u8> = communities.iter().flat_map(|community| community.to_be_bytes()).collect();
        all.push(attribute(OPTIONAL_TRANSITIVE, kind::COMMUNITIES, &value));
    }
    if let Some(id) = originator_id {
        all.push(attribute(OPTIONAL, kind::ORIGINATOR_ID, &id.octets()));
    }
    if !cluster_list.is_empty() {
        let value: Vec<u8> = cluster_list.iter().flat_map(std::net::Ipv4Addr::octets).collect();
        all.push(attribute(OPTIONAL, kind::CLUSTER_LIST, &value));
    }
    all.extend(others.iter().map(|other| attribute(other.flags, other.kind, &other.value)));
    all.sort_by_key(|bytes| bytes.get(1).copied());
    all
}

fn attribute(flags: u8, kind: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(value.len() + 4);
    if let Ok(length) = u8::try_from(value.len()) {
        bytes.extend([flags & !flag::EXTENDED_LENGTH, kind, length]);
    } else {
        // No attribute of a message that was received is longer; one of ours neither.
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        bytes.extend([flags | flag::EXTENDED_LENGTH, kind]);
        bytes.extend(length.to_be_bytes());
    }
    bytes.extend_from_slice(value.get(..usize::from(u16::MAX)).unwrap_or(value));
    bytes
}

fn path(path: &AsPath) -> Vec<u8> {
    let mut value = Vec::new();
    for segment in &path.0 {
        for part in segment.asns.chunks(255) {
            value.push(segment.kind as u8);
            value.extend(u8::try_from(part.len()));
            value.extend(part.iter().flat_map(|asn| asn.0.to_be_bytes()));
        }
    }
    value
}

/// `MP_REACH_NLRI` (RFC 4760 §3) of this prefix alone.
fn reach(family: Family, next_hop: IpAddr, prefix: &Prefix) -> Vec<u8> {
    let code = family.code();
    let mut value = code.afi.to_be_bytes().to_vec();
    value.push(code.safi);
    match next_hop {
        IpAddr::V4(address) => {
            value.push(4);
            value.extend(address.octets());
        }
        IpAddr::V6(address) => {
            value.push(16);
            value.extend(address.octets());
        }
    }
    value.push(0);
    value.extend(nlri(prefix));
    value
}

#[cfg(test)]
mod tests {
    use router_bgp::asn::Asn;
    use router_bgp::message::attribute::RawAttribute;

    use super::*;

    #[test]
    fn a_prefix_takes_the_octets_that_its_length_needs() {
        for (text, bytes) in [
            ("0.0.0.0/0", &[0][..]),
            ("10.128.0.0/9", &[9, 10, 128]),
            ("10.1.0.0/24", &[24, 10, 1, 0]),
            ("192.0.2.1/32", &[32, 192, 0, 2, 1]),
            ("2001:db8::/32", &[32, 0x20, 1, 0xd, 0xb8]),
        ] {
            assert_eq!(nlri(&text.parse().unwrap()), bytes, "{text}");
        }
    }

    #[test]
    fn attributes_stand_in_ascending_order_with_their_flags() {
        let mut all = Attributes::originated("192.0.2.1".parse().unwrap());
        all.as_path = AsPath::sequence([Asn(65001), Asn(4_200_000_000)]);
        all.local_pref = Some(100);
        all.communities = Box::new([0xffff_ff01]);
        all.others = Box::new([RawAttribute { flags: 0xe0, kind: 99, value: vec![7; 300].into() }]);
        let bytes = attributes(&all, &"10.1.0.0/24".parse().unwrap());
        assert_eq!(bytes[0], [0x40, 1, 1, 0]);
        assert_eq!(bytes[1], [0x40, 2, 10, 2, 2, 0, 0, 0xfd, 0xe9, 0xfa, 0x56, 0xea, 0]);
        assert_eq!(bytes[2], [0x40, 3, 4, 192, 0, 2, 1]);
        assert_eq!(bytes[3], [0x40, 5, 4, 0, 0, 0, 100]);
        assert_eq!(bytes[4], [0xc0, 8, 4, 0xff, 0xff, 0xff, 1]);
        assert_eq!(bytes[5][..4], [0xf0, 99, 1, 44]);
        assert_eq!(bytes.len(), 6);
    }

    #[test]
    fn a_next_hop_of_the_other_family_goes_into_mp_reach() {
        let all = Attributes::originated("2001:db8::1".parse().unwrap());
        let bytes = attributes(&all, &"10.1.0.0/24".parse().unwrap());
        let kinds: Vec<u8> = bytes.iter().map(|bytes| bytes[1]).collect();
        assert_eq!(kinds, [1, 2, 14]);
        assert_eq!(bytes[2][..7], [0x80, 14, 25, 0, 1, 1, 16]);
        assert_eq!(bytes[2][23..], [0, 24, 10, 1, 0]);
    }
}
