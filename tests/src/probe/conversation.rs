//! One client socket: opened from a chosen port, asked lines, timed.

use std::{
    net::SocketAddrV4,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, bind, connect, getsockname, getsockopt,
        recv, send, setsockopt, socket, sockopt,
    },
};

use super::failure::Failure;
use crate::serve::Transport;

/// Where from, where to, and how long to wait for each answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) transport: Transport,
    pub(super) from: Option<SocketAddrV4>,
    pub(super) to: SocketAddrV4,
    pub(super) timeout: Duration,
    /// Close a TCP connection with a reset, which leaves no `TIME_WAIT`: its port can be used again at once.
    pub(super) reset: bool,
}

pub(super) struct Conversation {
    call: Call,
    pub(super) socket: OwnedFd,
    /// What came after the last line.
    rest: Vec<u8>,
}

impl Call {
    /// Connected (TCP) or with its destination fixed (UDP), so that ICMP errors find the socket.
    pub(super) fn open(self) -> Result<Conversation, Failure> {
        let kind = match self.transport {
            Transport::Tcp => SockType::Stream,
            Transport::Udp => SockType::Datagram,
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Inet, kind, flags, None).map_err(Failure::Other)?;
        self.prepare(&socket).map_err(Failure::Other)?;
        let conversation = Conversation { call: self, socket, rest: Vec::new() };
        conversation.connect()?;
        Ok(conversation)
    }

    fn prepare(&self, socket: &OwnedFd) -> nix::Result<()> {
        setsockopt(socket, sockopt::Ipv4RecvErr, &true)?;
        if self.reset && self.transport == Transport::Tcp {
            setsockopt(socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
        }
        let Some(from) = self.from else { return Ok(()) };
        // One port towards several destinations at once.
        setsockopt(socket, sockopt::ReuseAddr, &true)?;
        bind(socket.as_raw_fd(), &SockaddrIn::from(from))
    }
}

impl Conversation {
    fn connect(&self) -> Result<(), Failure> {
        match connect(self.socket.as_raw_fd(), &SockaddrIn::from(self.call.to)) {
            Ok(()) => {}
            Err(Errno::EINPROGRESS) => {
                self.wait(PollFlags::POLLOUT, Instant::now() + self.call.timeout)?;
                match getsockopt(&self.socket, sockopt::SocketError).map_err(Failure::Other)? {
                    0 => {}
                    raw => return Err(self.failure(Errno::from_raw(raw))),
                }
            }
            Err(errno) => return Err(self.failure(errno)),
        }
        if self.call.transport == Transport::Tcp {
            // With IP_RECVERR an ICMP error would end an established connection that TCP itself keeps.
            setsockopt(&self.socket, sockopt::Ipv4RecvErr, &false).map_err(Failure::Other)?;
            setsockopt(&self.socket, sockopt::TcpNoDelay, &true).map_err(Failure::Other)?;
        }
        Ok(())
    }

    /// Sends one line and waits for one, which comes back without its end.
    pub(super) fn ask(&mut self, line: &str) -> Result<String, Failure> {
        self.tell(format!("{line}\n").as_bytes())?;
        self.answer()
    }

    pub(super) fn tell(&self, bytes: &[u8]) -> Result<(), Failure> {
        let deadline = Instant::now() + self.call.timeout;
        let mut left = bytes;
        while !left.is_empty() {
            match send(self.socket.as_raw_fd(), left, MsgFlags::MSG_NOSIGNAL) {
                Ok(sent) => left = left.get(sent..).unwrap_or_default(),
                Err(Errno::EAGAIN) => self.wait(PollFlags::POLLOUT, deadline)?,
                Err(errno) => return Err(self.failure(errno)),
            }
        }
        Ok(())
    }

    pub(super) fn answer(&mut self) -> Result<String, Failure> {
        let deadline = Instant::now() + self.call.timeout;
        let mut buffer = vec![0; 1 << 16];
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(line.trim_ascii_end()).into_owned());
            }
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(0) if self.call.transport == Transport::Tcp => return Err(Failure::Closed),
                Ok(length) => self.rest.extend(buffer.iter().take(length)),
                Err(Errno::EAGAIN) => self.wait(PollFlags::POLLIN, deadline)?,
                Err(errno) => return Err(self.failure(errno)),
            }
        }
    }

    /// The address and port the kernel sends from.
    pub(super) fn source(&self) -> Option<SocketAddrV4> {
        getsockname::<SockaddrIn>(self.socket.as_raw_fd()).ok().map(SocketAddrV4::from)
    }

    fn failure(&self, errno: Errno) -> Failure {
        Failure::of(&self.socket, errno)
    }

    fn wait(&self, events: PollFlags, deadline: Instant) -> Result<(), Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::TimedOut);
        }
        // Rounded up: a wait of less than a millisecond must not become a busy loop.
        let timeout = PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
        let mut polled = [PollFd::new(self.socket.as_fd(), events)];
        match poll(&mut polled, timeout) {
            Ok(0) => Err(Failure::TimedOut),
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(Failure::Other(errno)),
        }
    }
}
