//! What a socket need not hear, left out by the kernel: what is never queued takes no room, so that a hundred thousand
//! routes of ours are no reason to lose an event of somebody else's.
//!
//! Classic BPF on a message from its header on; it loads big-endian, and netlink is in the host's order.

#![expect(unsafe_code, reason = "setsockopt(2) takes a program by pointer")]

use std::io;
use std::os::fd::AsRawFd as _;

use libc::sock_filter;
use netlink_sys::Socket;

/// Offsets into struct nlmsghdr and, for a route, the struct rtmsg after it.
const TYPE: u32 = 4;
const PORT: u32 = 12;
const ROUTE_PROTOCOL: u32 = 16 + 5;

const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF: u16 = 0x28;
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// Leaves out what the requests of the netlink socket with this port have caused. The kernel names it: no sender can
/// claim to be another.
pub(super) fn leave_out_port(socket: &Socket, port: u32) -> io::Result<()> {
    let port = u32::from_be_bytes(port.to_ne_bytes());
    attach(socket, &mut [load(LOAD_WORD, PORT), skip_unless(port, 1), verdict(false), verdict(true)])
}

/// Leaves out what happens to routes that `protocol` installed.
pub(super) fn leave_out_routes(socket: &Socket, protocol: u8) -> io::Result<()> {
    let kind = |kind: u16| u32::from(u16::from_be_bytes(kind.to_ne_bytes()));
    attach(
        socket,
        &mut [
            load(LOAD_HALF, TYPE),
            skip_if(kind(libc::RTM_NEWROUTE), 1),
            skip_unless(kind(libc::RTM_DELROUTE), 3),
            load(LOAD_BYTE, ROUTE_PROTOCOL),
            skip_unless(u32::from(protocol), 1),
            verdict(false),
            verdict(true),
        ],
    )
}

const fn load(code: u16, at: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k: at }
}

const fn skip_if(value: u32, over: u8) -> sock_filter {
    sock_filter { code: JUMP_IF_EQUAL, jt: over, jf: 0, k: value }
}

const fn skip_unless(value: u32, over: u8) -> sock_filter {
    sock_filter { code: JUMP_IF_EQUAL, jt: 0, jf: over, k: value }
}

const fn verdict(heard: bool) -> sock_filter {
    sock_filter { code: RETURN, jt: 0, jf: 0, k: if heard { u32::MAX } else { 0 } }
}

fn attach(socket: &Socket, program: &mut [sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    let size = u32::try_from(size_of_val(&program)).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the option takes a sock_fprog, which with the instructions it points at outlives the call; the kernel
    // copies both.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
