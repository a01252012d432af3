//! Why a probe got no answer, told apart as far as the kernel tells.
//!
//! An errno alone says little: a dozen ICMP codes become `EHOSTUNREACH`. With `IP_RECVERR` the kernel keeps the ICMP
//! message itself in the socket's error queue.

use std::{
    fmt,
    io::IoSliceMut,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    cmsg_space,
    errno::Errno,
    libc::{SO_EE_ORIGIN_ICMP, sock_extended_err, sockaddr_in},
    sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg},
};

/// ICMP time exceeded.
const TIME_EXCEEDED: u8 = 11;
/// ICMP destination unreachable, and its codes that have a meaning of their own here.
const UNREACHABLE: u8 = 3;
const PORT_UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// A TCP reset in answer to the SYN, or an ICMP port unreachable.
    Refused,
    TimedOut,
    /// An ICMP destination unreachable, with its code.
    Unreachable(u8),
    /// An ICMP time exceeded: the packet ran out of hops.
    Expired,
    /// No route, or no neighbour, or an ICMP whose code was lost.
    NoPath(Errno),
    /// The path takes no more than this.
    FragNeeded(u32),
    /// The other side ended the connection before it answered.
    Closed,
    Reset,
    Other(Errno),
}

impl Failure {
    /// What the error queue says about the error, or else the error itself.
    pub(super) fn of(socket: &OwnedFd, errno: Errno) -> Self {
        queued(socket).and_then(|error| Self::of_extended(&error)).unwrap_or_else(|| Self::of_errno(errno))
    }

    fn of_errno(errno: Errno) -> Self {
        match errno {
            Errno::ECONNREFUSED => Self::Refused,
            Errno::ETIMEDOUT | Errno::EAGAIN => Self::TimedOut,
            Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::EHOSTDOWN => Self::NoPath(errno),
            Errno::ECONNRESET => Self::Reset,
            Errno::EPIPE => Self::Closed,
            other => Self::Other(other),
        }
    }

    fn of_extended(error: &sock_extended_err) -> Option<Self> {
        if Errno::from_raw(i32::try_from(error.ee_errno).ok()?) == Errno::EMSGSIZE {
            return Some(Self::FragNeeded(error.ee_info));
        }
        match (error.ee_origin, error.ee_type, error.ee_code) {
            (SO_EE_ORIGIN_ICMP, UNREACHABLE, PORT_UNREACHABLE) => Some(Self::Refused),
            (SO_EE_ORIGIN_ICMP, UNREACHABLE, FRAGMENTATION_NEEDED) => Some(Self::FragNeeded(error.ee_info)),
            (SO_EE_ORIGIN_ICMP, TIME_EXCEEDED, _) => Some(Self::Expired),
            (SO_EE_ORIGIN_ICMP, UNREACHABLE, code) => Some(Self::Unreachable(code)),
            _ => None,
        }
    }
}

/// The oldest message in the error queue.
fn queued(socket: &OwnedFd) -> Option<sock_extended_err> {
    let mut payload = [0; 2048];
    let mut slices = [IoSliceMut::new(&mut payload)];
    let mut space = cmsg_space!(sock_extended_err, sockaddr_in);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let received = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags).ok()?;
    received.cmsgs().ok()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4RecvErr(error, _) => Some(error),
        _ => None,
    })
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("refused"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Unreachable(code) => write!(f, "unreachable (icmp code {code})"),
            Self::Expired => f.write_str("time exceeded"),
            Self::NoPath(errno) => write!(f, "unreachable ({})", errno.desc().to_lowercase()),
            Self::FragNeeded(mtu) => write!(f, "frag-needed (mtu {mtu})"),
            Self::Closed => f.write_str("closed without an answer"),
            Self::Reset => f.write_str("reset"),
            Self::Other(errno) => f.write_str(&errno.desc().to_lowercase()),
        }
    }
}
