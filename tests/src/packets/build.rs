//! Packets of the cases, built by etherparse, checksums included.

#![expect(clippy::indexing_slicing, reason = "the frames are our own, and long enough")]

use etherparse::PacketBuilder;

use super::V4;

/// A frame's MACs.
#[derive(Clone, Copy, Debug)]
pub struct Macs {
    pub source: [u8; 6],
    pub destination: [u8; 6],
}

/// One end of a packet.
pub type End = (V4, u16);

/// Control bits and numbers of a TCP segment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Segment {
    pub syn: bool,
    pub ack: Option<u32>,
    pub fin: bool,
    pub rst: bool,
    pub sequence: u32,
    pub window: u16,
}

impl Segment {
    /// The one that opens a connection.
    pub const SYN: Self =
        Self { syn: true, ack: None, fin: false, rst: false, sequence: 1000, window: 64_240 };
    /// One in its midst.
    pub const DATA: Self =
        Self { syn: false, ack: Some(2000), fin: false, rst: false, sequence: 1001, window: 64_240 };
}

/// A TCP packet.
pub fn tcp(macs: Macs, from: End, to: End, ttl: u8, segment: Segment, payload: &[u8]) -> Vec<u8> {
    let mut builder = PacketBuilder::ethernet2(macs.source, macs.destination).ipv4(from.0, to.0, ttl).tcp(
        from.1,
        to.1,
        segment.sequence,
        segment.window,
    );
    if segment.syn {
        builder = builder.syn();
    }
    if let Some(number) = segment.ack {
        builder = builder.ack(number);
    }
    if segment.fin {
        builder = builder.fin();
    }
    if segment.rst {
        builder = builder.rst();
    }
    let mut packet = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut packet, payload).expect("writing to memory cannot fail");
    packet
}

/// A UDP packet.
pub fn udp(macs: Macs, from: End, to: End, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let builder =
        PacketBuilder::ethernet2(macs.source, macs.destination).ipv4(from.0, to.0, ttl).udp(from.1, to.1);
    let mut packet = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut packet, payload).expect("writing to memory cannot fail");
    packet
}

/// An ICMP packet: type, code, the four bytes after the checksum, and what follows.
pub fn icmp(macs: Macs, from: V4, to: V4, ttl: u8, kind: (u8, u8), rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(macs.source, macs.destination)
        .ipv4(from, to, ttl)
        .icmpv4_raw(kind.0, kind.1, rest);
    let mut packet = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut packet, payload).expect("writing to memory cannot fail");
    packet
}

/// An ARP request or announcement.
pub fn arp(frame: [u8; 6], sender_mac: [u8; 6], sender: V4, target: V4) -> Vec<u8> {
    let mut packet = vec![0xff; 6];
    packet.extend(frame);
    packet.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    packet.extend(sender_mac);
    packet.extend(sender);
    packet.extend([0; 6]);
    packet.extend(target);
    packet
}

/// The IP packet of a frame, its identification and flags replaced, its checksum made right.
#[must_use]
pub fn with_fragment(mut frame: Vec<u8>, identification: u16, flags_and_offset: u16) -> Vec<u8> {
    frame[18..20].copy_from_slice(&identification.to_be_bytes());
    frame[20..22].copy_from_slice(&flags_and_offset.to_be_bytes());
    let length = usize::from(frame[14] & 15) * 4;
    right(&mut frame, length);
    frame
}

/// The frame with four bytes of IP options (no operation, thrice, and end of list) in its header.
#[must_use]
pub fn with_options(mut frame: Vec<u8>) -> Vec<u8> {
    frame.splice(34..34, [1, 1, 1, 0]);
    frame[14] = 0x46;
    let length = u16::from_be_bytes([frame[16], frame[17]]) + 4;
    frame[16..18].copy_from_slice(&length.to_be_bytes());
    right(&mut frame, 24);
    frame
}

fn right(frame: &mut [u8], length: usize) {
    frame[24..26].copy_from_slice(&[0, 0]);
    let sum = frame[14..14 + length]
        .as_chunks::<2>()
        .0
        .iter()
        .fold(0, |sum, pair| sum + u32::from(u16::from_be_bytes(*pair)));
    let checksum = !router_common::nat::fold(sum);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
}
