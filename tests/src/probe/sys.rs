//! The two socket calls that no safe wrapper has.

#![expect(unsafe_code, reason = "libc calls")]

use std::{
    io, mem,
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use nix::{
    net::if_::if_nametoindex,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

/// Never fragments what leaves this socket; what is too long fails with `EMSGSIZE` once the path's MTU is known.
pub(super) fn forbid_fragments(socket: &OwnedFd) -> io::Result<()> {
    let value = libc::IP_PMTUDISC_DO;
    // SAFETY: the pointer and the length are those of a live integer, which is what the option takes.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const value).cast(),
            length_of(&value),
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A socket that sends whole Ethernet frames on one link. It receives nothing.
pub(super) fn frame_socket(device: &str) -> Result<OwnedFd> {
    let index = if_nametoindex(device).with_context(|| format!("find the link {device}"))?;
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)
        .context("open a packet socket")?;
    // SAFETY: `sockaddr_ll` is integers and bytes, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).context("AF_PACKET is small")?;
    address.sll_ifindex = i32::try_from(index).context("a link's index is positive")?;
    // SAFETY: the pointer and the length are those of a live `sockaddr_ll`.
    let outcome = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length_of(&address)) };
    if outcome != 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("bind a packet socket to {device}"));
    }
    Ok(socket)
}

fn length_of<T>(value: &T) -> libc::socklen_t {
    libc::socklen_t::try_from(mem::size_of_val(value)).expect("a socket option is small")
}
