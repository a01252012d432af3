//! Packets of the cases, built by etherparse, checksums included.

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
