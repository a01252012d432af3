//! The kernel's events, as what to ask for again.

#![expect(
    unsafe_code,
    reason = "the namespace of an event comes in a control message that only recvmsg(2) shows"
)]

use std::collections::BTreeSet;
use std::io;
use std::mem;
use std::os::fd::AsRawFd as _;

use netlink_packet_core::NetlinkBuffer;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use tokio::io::unix::AsyncFd;

use super::filter::leave_out_routes;
use super::messages;

/// What has changed since the last time, as coarsely as the answer is asked for again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Links, addresses or queueing disciplines of this namespace.
    pub own: bool,
    /// Routes of this namespace.
    pub routes: bool,
    /// Links or addresses of the namespaces with these ids.
    pub namespaces: BTreeSet<i32>,
    /// Events were lost: anything may have changed.
    pub overrun: bool,
}

/// The kernel's events: of this namespace, and of every namespace that has an id here.
#[derive(Debug)]
pub(crate) struct Events {
    socket: AsyncFd<Socket>,
}

impl Events {
    /// In the network namespace of the calling thread, which must be inside a tokio runtime. Routes that `unheard`
    /// installs are not told of: a routing daemon's come and go by the thousand.
    pub(crate) fn open(unheard: u8) -> io::Result<Self> {
        /// `RTNLGRP_*` of linux/rtnetlink.h: links, queueing disciplines, addresses, IPv4 routes.
        const GROUPS: [u32; 5] = [1, 4, 5, 9, 7];
        let socket = listen(NETLINK_ROUTE, &GROUPS, true)?;
        leave_out_routes(socket.get_ref(), unheard)?;
        Ok(Self { socket })
    }

    /// Waits for a change, and returns all that have come in. Can be dropped while it waits and loses nothing.
    pub(crate) async fn changes(&self) -> io::Result<Changes> {
        loop {
            let mut ready = self.socket.readable().await?;
            let changes = drain(self.socket.get_ref())?;
            ready.clear_ready();
            if changes != Changes::default() {
                return Ok(changes);
            }
        }
    }
}

/// A socket that hears these groups of a protocol, of this namespace or of every one that has an id here too.
pub(super) fn listen(protocol: isize, groups: &[u32], all_namespaces: bool) -> io::Result<AsyncFd<Socket>> {
    /// A burst of a hundred pods starting at once; beyond it we read everything again.
    const BUFFER: i32 = 1 << 20;
    let mut socket = Socket::new(protocol)?;
    socket.set_rx_buf_sz(BUFFER)?;
    socket.set_listen_all_namespaces(all_namespaces)?;
    socket.bind_auto()?;
    for group in groups {
        socket.add_membership(*group)?;
    }
    socket.set_non_blocking(true)?;
    // SAFETY: the socket owns its descriptor and gives it to nobody, so it stays this one until both are dropped.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

fn drain(socket: &Socket) -> io::Result<Changes> {
    let mut changes = Changes::default();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match receive(socket, &mut buffer) {
            Ok((length, namespace)) => {
                for message in messages(buffer.get(..length).unwrap_or(&[])) {
                    changes.note(NetlinkBuffer::new(message).message_type(), namespace);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changes),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changes.overrun = true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl Changes {
    fn note(&mut self, kind: u16, namespace: Option<i32>) {
        match (kind, namespace) {
            (libc::RTM_NEWLINK | libc::RTM_DELLINK | libc::RTM_NEWADDR | libc::RTM_DELADDR, Some(id)) => {
                self.namespaces.insert(id);
            }
            (libc::RTM_NEWROUTE | libc::RTM_DELROUTE, None) => self.routes = true,
            (_, None) => self.own = true,
            (_, Some(_)) => {}
        }
    }

    /// Adds what came later.
    pub(crate) fn merge(&mut self, other: Self) {
        let Self { own, routes, namespaces, overrun } = other;
        self.own |= own;
        self.routes |= routes;
        self.namespaces.extend(namespaces);
        self.overrun |= overrun;
    }
}

/// One datagram, and the id of the namespace it comes from if that is not ours.
pub(super) fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<(usize, Option<i32>)> {
    // Aligned as control messages have to be, and room for more of them than netlink sends.
    let mut control = [0u64; 32];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all zeroes is a valid msghdr.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: `message` points at `buffer` and `control` with their lengths, and both outlive the call.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let mut namespace = None;
    // SAFETY: the kernel has filled `control` and said in `message` how far.
    let mut entry = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !entry.is_null() {
        // SAFETY: not null, so the macros found a whole header in `control`.
        let header = unsafe { *entry };
        if header.cmsg_level == libc::SOL_NETLINK && header.cmsg_type == libc::NETLINK_LISTEN_ALL_NSID {
            // SAFETY: the data of this message is an int.
            namespace = Some(unsafe { libc::CMSG_DATA(entry).cast::<i32>().read_unaligned() });
        }
        // SAFETY: as for the first.
        entry = unsafe { libc::CMSG_NXTHDR(&raw const message, entry) };
    }
    Ok((length, namespace.filter(|id| *id >= 0)))
}
