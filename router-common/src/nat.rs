//! How a translation changes a packet: addresses, ports, TTL and checksums, computed as differences of ones'
//! complement sums (RFC 1624).
//!
//! The transport checksum takes two differences: with checksum offload it covers the pseudo-header only, so an
//! address difference must enter it and a port difference must not ([`Covered`]).

use crate::abi::{Address, protocol};
use crate::kernel::{Covered, Kernel};
use crate::packet::{ETHERNET, Header, IPV4, Ports, checksum_offset};

/// Both ends of a packet, as they shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<A> {
    pub source: A,
    pub destination: A,
    pub source_port: u16,
    pub destination_port: u16,
}

/// Folds a ones' complement sum to 16 bits.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// `to - from` in ones' complement, both given as sums of 16-bit words in host order.
#[inline(always)]
pub const fn difference(from: u32, to: u32) -> u32 {
    fold(to) as u32 + (!fold(from)) as u32
}

/// A checksum in host order after its data changed by `difference`.
#[inline(always)]
pub const fn adjusted(checksum: u16, difference: u32) -> u16 {
    !fold((!checksum) as u32 + difference)
}

/// Writes a tuple and a TTL over those of a packet with the given header and ports. False: the kernel refused,
/// and the packet must be dropped.
#[inline(always)]
#[must_use]
pub fn translate<K: Kernel<[u8; 4]>>(
    kernel: &mut K,
    header: &Header<[u8; 4]>,
    ports: Option<&Ports>,
    to: &Tuple<[u8; 4]>,
    ttl: u8,
) -> bool {
    let addresses =
        difference(header.source.sum() + header.destination.sum(), to.source.sum() + to.destination.sum());
    if let Some(ports) = ports {
        let udp = header.protocol == protocol::UDP;
        let checksum = header.payload + checksum_offset(header.protocol);
        if !kernel.adjust_checksum(checksum, addresses, Covered::PseudoHeader, udp) {
            return false;
        }
        if (ports.source, ports.destination) != (to.source_port, to.destination_port) {
            let changed = difference(
                u32::from(ports.source) + u32::from(ports.destination),
                u32::from(to.source_port) + u32::from(to.destination_port),
            );
            let [a, b] = to.source_port.to_be_bytes();
            let [c, d] = to.destination_port.to_be_bytes();
            if !kernel.adjust_checksum(checksum, changed, Covered::Payload, udp) {
                return false;
            }
            let written = if header.payload == ETHERNET + IPV4 {
                kernel.set_words(ETHERNET + IPV4, [u32::from_ne_bytes([a, b, c, d])])
            } else {
                kernel.set_bytes(header.payload, [a, b, c, d])
            };
            if !written {
                return false;
            }
        }
    }
    let hops = difference(
        u32::from(u16::from_be_bytes([header.ttl, header.protocol])),
        u32::from(u16::from_be_bytes([ttl, header.protocol])),
    );
    let checksum = adjusted(u16::from_be(header.checksum), addresses + hops).to_be_bytes();
    kernel.set_words(
        ETHERNET + 8,
        [
            u32::from_ne_bytes([ttl, header.protocol, checksum[0], checksum[1]]),
            u32::from_ne_bytes(to.source),
            u32::from_ne_bytes(to.destination),
        ],
    )
}

/// Writes the destination MAC of a frame. By words: storing six bytes is a helper's call, this is none.
#[inline(always)]
#[must_use]
pub fn send_to<A: Address, K: Kernel<A>>(kernel: &mut K, destination: [u8; 6]) -> bool {
    let [a, b, c, d, e, f] = destination;
    let Some([word]) = kernel.words::<1>(4) else { return false };
    let [_, _, g, h] = word.to_ne_bytes();
    kernel.set_words(0, [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])])
}

/// Writes the MACs of a frame.
#[inline(always)]
#[must_use]
pub fn address_frame<A: Address, K: Kernel<A>>(
    kernel: &mut K,
    destination: [u8; 6],
    source: [u8; 6],
) -> bool {
    let [a, b, c, d, e, f] = destination;
    let [g, h, i, j, k, l] = source;
    kernel.set_words(
        0,
        [
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_moves_a_checksum_to_that_of_the_new_data() {
        // RFC 1624 section 4: checksum 0xDD2F, word 0x5555 becomes 0x3285, result 0x0000.
        assert_eq!(adjusted(0xdd2f, difference(0x5555, 0x3285)), 0x0000);
    }

    #[test]
    fn no_change_is_no_difference() {
        for checksum in [0u16, 1, 0x1234, 0xfffe] {
            assert_eq!(adjusted(checksum, difference(0x1_2345, 0x1_2345)), checksum);
        }
    }
}
