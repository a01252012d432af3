//! ICMP echo, by a raw socket: ping sockets are closed even to root until a sysctl opens them.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    process,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Ipv4HeaderSlice};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, connect, getsockname, recv,
        send, setsockopt, socket, sockopt,
    },
};

use super::{ProbeResult, arguments::Arguments, failure::Failure, print, timeout};

/// The answer is the address that replied.
pub(super) fn main(mut arguments: Arguments) -> Result<()> {
    let timeout = timeout(&mut arguments)?;
    let count: u16 = arguments.option("--count")?.unwrap_or(1);
    let to: Ipv4Addr = arguments.word("ADDR")?;
    arguments.end()?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Icmp)
        .context("open a raw ICMP socket")?;
    setsockopt(&socket, sockopt::Ipv4RecvErr, &true).context("ask for ICMP errors")?;
    for sequence in 1..=count {
        let start = Instant::now();
        let outcome = exchange(&socket, to, sequence, start + timeout);
        let source = getsockname::<SockaddrIn>(socket.as_raw_fd()).ok().map(SocketAddrV4::from);
        let report = ProbeResult::new(outcome, None, start.elapsed());
        print(&ProbeResult { source: source.map(|source| source.ip().to_string()), ..report })?;
    }
    Ok(())
}

fn exchange(socket: &OwnedFd, to: Ipv4Addr, sequence: u16, deadline: Instant) -> Result<String, Failure> {
    let failure = |errno| Failure::of(socket, errno);
    connect(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(to, 0))).map_err(failure)?;
    let echo = IcmpEchoHeader { id: own_id(), seq: sequence };
    let payload = b"lab probe";
    let mut packet = Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(echo), payload).to_bytes().to_vec();
    packet.extend_from_slice(payload);
    send(socket.as_raw_fd(), &packet, MsgFlags::empty()).map_err(failure)?;
    let mut buffer = [0; 2048];
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => {
                if let Some(from) = buffer.get(..length).and_then(|bytes| replied(bytes, echo)) {
                    return Ok(from.to_string());
                }
            }
            Err(Errno::EAGAIN) => wait(socket, deadline)?,
            Err(errno) => return Err(failure(errno)),
        }
    }
}

/// Who sent this packet, if it is the reply to `echo`.
fn replied(packet: &[u8], echo: IcmpEchoHeader) -> Option<Ipv4Addr> {
    let header = Ipv4HeaderSlice::from_slice(packet).ok()?;
    let (icmp, _) = Icmpv4Header::from_slice(packet.get(header.slice().len()..)?).ok()?;
    (icmp.icmp_type == Icmpv4Type::EchoReply(echo)).then(|| header.source_addr())
}

fn wait(socket: &OwnedFd, deadline: Instant) -> Result<(), Failure> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Failure::TimedOut);
    }
    let timeout = PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(Failure::Other(errno)),
    }
}

/// Tells our replies from those of another ping on this host.
fn own_id() -> u16 {
    let [low, high, ..] = process::id().to_le_bytes();
    u16::from_le_bytes([low, high])
}
