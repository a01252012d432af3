//! Prefixes on the wire (RFC 4271 §4.3): a length in bits and as many octets as it takes.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::wire::Reader;
use crate::family::{Family, Prefix};

/// `None` if a length is impossible or the last prefix is cut off. Bits past the length are ignored.
pub(crate) fn decode(family: Family, field: &[u8]) -> Option<Vec<Prefix>> {
    let mut reader = Reader(field);
    let mut prefixes = Vec::new();
    while !reader.is_empty() {
        let len = reader.u8()?;
        let octets = reader.take(usize::from(len.div_ceil(8)))?;
        prefixes.push(match family {
            Family::Ipv4Unicast => Ipv4Net::new(Ipv4Addr::from(padded(octets)?), len).ok()?.trunc().into(),
            Family::Ipv6Unicast => Ipv6Net::new(Ipv6Addr::from(padded(octets)?), len).ok()?.trunc().into(),
        });
    }
    Some(prefixes)
}

fn padded<const N: usize>(octets: &[u8]) -> Option<[u8; N]> {
    let mut address = [0; N];
    address.get_mut(..octets.len())?.copy_from_slice(octets);
    Some(address)
}

/// Whether a unicast route to the prefix can mean anything; if not it is ignored (RFC 4271 §6.3). 240.0.0.0/4 is in
/// use as unicast and stays.
pub(crate) fn is_routable(prefix: &Prefix) -> bool {
    match prefix {
        Prefix::V4(net) => {
            let [first, ..] = net.addr().octets();
            net.prefix_len() == 0 || !(first == 0 || first == 127 || (224..240).contains(&first))
        }
        Prefix::V6(net) => {
            let address = net.addr();
            let loopback = net.prefix_len() == 128 && (address.is_loopback() || address.is_unspecified());
            !(address.is_multicast() || address.is_unicast_link_local() || loopback)
        }
    }
}

pub(crate) fn encoded_len(prefix: &Prefix) -> usize {
    1 + usize::from(prefix.prefix_len().div_ceil(8))
}

pub(crate) fn encode(prefixes: &[Prefix], out: &mut Vec<u8>) {
    for prefix in prefixes {
        encode_one(prefix, out);
    }
}

fn encode_one(prefix: &Prefix, out: &mut Vec<u8>) {
    let len = prefix.prefix_len();
    let octets = usize::from(len.div_ceil(8));
    out.push(len);
    match prefix {
        Prefix::V4(net) => out.extend(net.network().octets().iter().take(octets)),
        Prefix::V6(net) => out.extend(net.network().octets().iter().take(octets)),
    }
}
