//! First packets of very many flows, as whole frames: each comes from another port, and nobody waits for an answer.

use std::{net::SocketAddrV4, os::fd::AsRawFd as _};

use anyhow::{Context as _, Result};
use etherparse::PacketBuilder;
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, send},
};

use super::{
    Summary,
    arguments::Arguments,
    frame::{address_of, gateway_mac, mac_of},
    print, sys,
};
use crate::serve::Transport;

/// The ports that flows come from.
const FIRST_PORT: u32 = 1_024;
const PORTS: u32 = 64_000;

/// From the link's own address to a port, or to several that follow one another: beyond 64,000 flows the next.
pub(super) fn main(mut arguments: Arguments) -> Result<()> {
    let device: String = arguments.required("--device")?;
    let count: u32 = arguments.required("--count")?;
    let to: SocketAddrV4 = arguments.word("ADDR")?;
    let transport: Transport = arguments.word("tcp or udp")?;
    arguments.end()?;
    let (mac, gateway, source) = (mac_of(&device)?, gateway_mac(&device)?, address_of(&device)?);
    let socket = sys::frame_socket(&device)?;
    let mut summary = Summary::default();
    let mut frame = Vec::new();
    for number in 0..count {
        let from = u16::try_from(FIRST_PORT + number % PORTS).context("a port is small")?;
        let port = to.port() + u16::try_from(number / PORTS).context("too many flows")?;
        let builder = PacketBuilder::ethernet2(mac.0, gateway.0).ipv4(source.octets(), to.ip().octets(), 64);
        frame.clear();
        match transport {
            Transport::Tcp => builder.tcp(from, port, number, 64_000).syn().write(&mut frame, &[]),
            Transport::Udp => builder.udp(from, port).write(&mut frame, b"silent\n"),
        }
        .context("write the packet")?;
        loop {
            match send(socket.as_raw_fd(), &frame, MsgFlags::empty()) {
                Ok(_) => break summary.ok += 1,
                // The link's queue is full.
                Err(Errno::ENOBUFS | Errno::EAGAIN) => std::thread::yield_now(),
                Err(errno) => break summary.fail(errno.desc().to_lowercase()),
            }
        }
    }
    print(&summary)
}
