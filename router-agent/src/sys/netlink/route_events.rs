//! What happens to this namespace's main table, links and addresses behind our back: events with what they say, less
//! those that we caused ourselves.

use std::io;

use netlink_packet_core::NetlinkBuffer;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use tokio::io::unix::AsyncFd;

use super::events::{listen, receive};
use super::filter::leave_out_port;
use super::messages;
use super::routes::{Entry, each_route};

/// Something changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A route came, changed or went.
    Route(Entry),
    /// A device as it is now.
    Link { index: u32, up: bool },
    /// A device went.
    LinkGone { index: u32 },
    /// An address of a device came or went.
    Address { link: u32 },
    /// Events were lost: anything may have changed.
    Overrun,
}

/// The events.
#[derive(Debug)]
pub(crate) struct RouteEvents {
    socket: AsyncFd<Socket>,
}

impl RouteEvents {
    /// In the network namespace of the calling thread, which must be inside a tokio runtime. What the netlink
    /// socket with the port `own_port` causes is left out.
    pub(crate) fn open(own_port: u32) -> io::Result<Self> {
        Self::of(&[LINKS, ADDRESSES, ROUTES], own_port)
    }

    /// The same of links and addresses alone.
    pub(crate) fn without_routes(own_port: u32) -> io::Result<Self> {
        Self::of(&[LINKS, ADDRESSES], own_port)
    }

    fn of(groups: &[u32], own_port: u32) -> io::Result<Self> {
        let socket = listen(NETLINK_ROUTE, groups, false)?;
        leave_out_port(socket.get_ref(), own_port)?;
        Ok(Self { socket })
    }

    /// Waits for something to happen, and returns what has. Can be dropped while it waits and loses nothing.
    pub(crate) async fn notices(&self) -> io::Result<Vec<Notice>> {
        loop {
            let mut ready = self.socket.readable().await?;
            let mut notices = Vec::new();
            if self.drain(&mut notices)? {
                ready.clear_ready();
            }
            if !notices.is_empty() {
                return Ok(notices);
            }
        }
    }

    /// Takes in what has come, up to a limit: whoever writes faster than we read must not keep us here. Whether that
    /// was all.
    fn drain(&self, notices: &mut Vec<Notice>) -> io::Result<bool> {
        let mut buffer = vec![0; BUFFER];
        for _ in 0..AT_ONCE {
            match receive(self.socket.get_ref(), &mut buffer) {
                Ok((length, _)) => {
                    let datagram = buffer.get(..length).unwrap_or(&[]);
                    messages(datagram).for_each(|message| note(message, notices));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => notices.push(Notice::Overrun),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

/// `RTNLGRP_*` of linux/rtnetlink.h; addresses and routes are those of IPv4.
const LINKS: u32 = 1;
const ADDRESSES: u32 = 5;
const ROUTES: u32 = 7;

/// In bytes; an event is a few hundred, or a few thousand for a device with many virtual functions.
const BUFFER: usize = 32 << 10;
/// Events taken in before anybody else gets a turn.
const AT_ONCE: usize = 1_024;

fn note(message: &[u8], notices: &mut Vec<Notice>) {
    let header = NetlinkBuffer::new(message);
    let payload = header.payload();
    match header.message_type() {
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
            each_route(payload, &mut |entry| notices.push(Notice::Route(entry)));
        }
        libc::RTM_NEWLINK => {
            notices
                .extend(link_of(payload).map(|(index, flags)| Notice::Link { index, up: flags & UP != 0 }));
        }
        libc::RTM_DELLINK => {
            notices.extend(link_of(payload).map(|(index, _)| Notice::LinkGone { index }));
        }
        libc::RTM_NEWADDR | libc::RTM_DELADDR => {
            notices.extend(index_of(payload).map(|link| Notice::Address { link }));
        }
        _ => {}
    }
}

/// `IFF_UP`.
const UP: u32 = 1;

/// Index and flags out of a struct ifinfomsg: family, padding, type, index, flags. A bridge's word on one of its ports
/// is of another family and says nothing of the device.
fn link_of(payload: &[u8]) -> Option<(u32, u32)> {
    let ([family, _, _, _, a, b, c, d, flags @ ..], _) = payload.split_first_chunk::<12>()?;
    let index = u32::from_ne_bytes([*a, *b, *c, *d]);
    (*family == 0).then(|| (index, u32::from_ne_bytes(*flags)))
}

/// The index out of a struct ifaddrmsg: family, prefix length, flags, scope, index.
fn index_of(payload: &[u8]) -> Option<u32> {
    let ([_, _, _, _, index @ ..], _) = payload.split_first_chunk::<8>()?;
    Some(u32::from_ne_bytes(*index))
}
