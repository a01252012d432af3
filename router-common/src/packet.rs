//! Headers as values: IPv4 (RFC 791), TCP (RFC 9293), UDP (RFC 768), ICMP (RFC 792), ARP (RFC 826), read from
//! words as they lie in the packet. Nothing here writes; [`crate::nat`] says what to write.
//!
//! Absent: IPv6, whose packets pass untouched; and every protocol whose ports lie elsewhere (SCTP).

use crate::abi::{Address, protocol};
use crate::kernel::Kernel;

/// Bytes of an Ethernet header; where the IP header begins.
pub const ETHERNET: usize = 14;
/// Bytes of an IPv4 header without options.
pub const IPV4: usize = 20;

/// Values of the `EtherType` field, of the IEEE registry, that a pod may send.
pub mod ethertype {
    pub const IPV4: u16 = 0x0800;
    pub const ARP: u16 = 0x0806;
    pub const IPV6: u16 = 0x86dd;
}

/// TCP control bits.
pub mod tcp {
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const PSH: u8 = 8;
    pub const ACK: u8 = 16;
}

/// ICMP types of RFC 792.
pub mod icmp {
    pub const ECHO_REPLY: u8 = 0;
    pub const UNREACHABLE: u8 = 3;
    pub const ECHO: u8 = 8;
    pub const TIME_EXCEEDED: u8 = 11;
    pub const PARAMETER_PROBLEM: u8 = 12;
    /// Codes of [`UNREACHABLE`].
    pub const PORT_UNREACHABLE: u8 = 3;
    pub const FRAGMENTATION_NEEDED: u8 = 4;
}

/// An IP header, as far as a hook looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<A> {
    pub source: A,
    pub destination: A,
    pub protocol: u8,
    /// Hop limit.
    pub ttl: u8,
    /// Length of the IP packet in bytes, this header included.
    pub length: u16,
    /// Where its payload begins, counted from the Ethernet header.
    pub payload: usize,
    pub identification: u16,
    pub fragment: Position,
    pub dont_fragment: bool,
    /// Its checksum, as it lies in memory.
    pub checksum: u16,
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    Whole,
    /// Carries the ports; more follow.
    First,
    Later,
}

/// The ports, and for TCP the control bits (else 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    pub source: u16,
    pub destination: u16,
    pub control: u8,
}

impl Ports {
    /// A SYN that opens a connection, or a protocol that has none.
    #[inline(always)]
    pub const fn opens(self, protocol: u8) -> bool {
        protocol != protocol::TCP || self.control & (tcp::SYN | tcp::ACK | tcp::RST) == tcp::SYN
    }
}

/// The `EtherType` field.
#[inline(always)]
pub fn ethertype<A: Address, K: Kernel<A>>(kernel: &K) -> Option<u16> {
    let [word] = kernel.words::<1>(12)?;
    let [high, low, ..] = word.to_ne_bytes();
    Some(u16::from_be_bytes([high, low]))
}

/// Reads the IPv4 header. `None`: it is not one.
#[inline(always)]
pub fn ipv4<K: Kernel<[u8; 4]>>(kernel: &K) -> Option<Header<[u8; 4]>> {
    header_from_words(kernel.words::<5>(ETHERNET)?, ETHERNET)
}

/// Reads an IPv4 header that an ICMP error quotes at `offset`.
#[inline(always)]
pub fn quoted_ipv4<K: Kernel<[u8; 4]>>(kernel: &K, offset: usize) -> Option<Header<[u8; 4]>> {
    let bytes = kernel.bytes::<IPV4>(offset)?;
    let mut words = [0; 5];
    for (word, octets) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*octets);
    }
    header_from_words(words, offset)
}

#[inline(always)]
fn header_from_words(words: [u32; 5], offset: usize) -> Option<Header<[u8; 4]>> {
    let [version, _, length_high, length_low] = words[0].to_ne_bytes();
    let header_words = usize::from(version & 15);
    if version >> 4 != 4 || header_words < 5 {
        return None;
    }
    let [id_high, id_low, fragment_high, fragment_low] = words[1].to_ne_bytes();
    let fragment = u16::from_be_bytes([fragment_high, fragment_low]);
    let [ttl, protocol, checksum_high, checksum_low] = words[2].to_ne_bytes();
    Some(Header {
        source: words[3].to_ne_bytes(),
        destination: words[4].to_ne_bytes(),
        protocol,
        ttl,
        length: u16::from_be_bytes([length_high, length_low]),
        payload: offset + header_words * 4,
        identification: u16::from_be_bytes([id_high, id_low]),
        fragment: if fragment & 0x1fff != 0 {
            Position::Later
        } else if fragment & 0x2000 != 0 {
            Position::First
        } else {
            Position::Whole
        },
        dont_fragment: fragment & 0x4000 != 0,
        checksum: u16::from_ne_bytes([checksum_high, checksum_low]),
    })
}

/// Reads the ports of TCP or UDP. `None`: the header is cut.
#[inline(always)]
pub fn ports<A: Address, K: Kernel<A>>(kernel: &K, header: &Header<A>) -> Option<Ports> {
    let (ports, control) = if header.payload == ETHERNET + IPV4 {
        let [ports] = kernel.words::<1>(ETHERNET + IPV4)?;
        let control = if header.protocol == protocol::TCP {
            let [word] = kernel.words::<1>(ETHERNET + IPV4 + 12)?;
            word.to_ne_bytes()[1]
        } else {
            0
        };
        (ports.to_ne_bytes(), control)
    } else {
        let ports = kernel.bytes::<4>(header.payload)?;
        let control =
            if header.protocol == protocol::TCP { kernel.bytes::<1>(header.payload + 13)?[0] } else { 0 };
        (ports, control)
    };
    Some(Ports {
        source: u16::from_be_bytes([ports[0], ports[1]]),
        destination: u16::from_be_bytes([ports[2], ports[3]]),
        control,
    })
}

/// Where the checksum of a transport lies, counted from its header.
#[inline(always)]
pub const fn checksum_offset(protocol: u8) -> usize {
    if protocol == protocol::TCP { 16 } else { 6 }
}

/// What a pod announces by ARP for IPv4 over Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Source of the frame.
    pub frame_mac: [u8; 6],
    pub sender_mac: [u8; 6],
    pub sender: [u8; 4],
}

/// Reads an ARP packet. `None`: it is not one for IPv4 over Ethernet.
#[inline(always)]
pub fn arp<K: Kernel<[u8; 4]>>(kernel: &K) -> Option<Announcement> {
    // Hardware type 1, protocol type IPv4, lengths 6 and 4; the operation does not matter.
    if kernel.bytes::<6>(ETHERNET)? != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    Some(Announcement {
        frame_mac: kernel.bytes::<6>(6)?,
        sender_mac: kernel.bytes::<6>(ETHERNET + 8)?,
        sender: kernel.bytes::<4>(ETHERNET + 14)?,
    })
}
