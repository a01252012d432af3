//! Word of changes to nftables tables of one name in this namespace, whoever made them.
//!
//! Only that something has changed: what, is read with `sys/nft.rs`. Every message names its table in its first
//! attribute, which `NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE`, `NFTA_RULE_TABLE` and so on have in common.

use std::io;

use netlink_packet_core::NetlinkBuffer;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_NETFILTER;
use tokio::io::unix::AsyncFd;

use super::events::{listen, receive};
use super::messages;

/// The events of all tables, of which those of one name are told.
#[derive(Debug)]
pub(crate) struct TableEvents {
    socket: AsyncFd<Socket>,
    table: &'static str,
}

impl TableEvents {
    /// In the network namespace of the calling thread, which must be inside a tokio runtime.
    pub(crate) fn open(table: &'static str) -> io::Result<Self> {
        /// `NFNLGRP_NFTABLES` of linux/netfilter/nfnetlink.h.
        const GROUPS: [u32; 1] = [7];
        Ok(Self { socket: listen(NETLINK_NETFILTER, &GROUPS, false)?, table })
    }

    /// Waits for a change, and takes in all that have come. Can be dropped while it waits and loses nothing.
    pub(crate) async fn changed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            let changed = self.drain()?;
            ready.clear_ready();
            if changed {
                return Ok(());
            }
        }
    }

    fn drain(&self) -> io::Result<bool> {
        let mut changed = false;
        let mut buffer = vec![0; BUFFER];
        loop {
            match receive(self.socket.get_ref(), &mut buffer) {
                Ok((length, _)) => {
                    let datagram = buffer.get(..length).unwrap_or(&[]);
                    changed |=
                        messages(datagram).any(|message| table_of(message) == Some(self.table.as_bytes()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changed),
                // Events were lost, perhaps of our table.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changed = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// In bytes; the kernel sends no datagram above its own page-sized buffers.
const BUFFER: usize = 64 << 10;

/// The first attribute's text, after struct nfgenmsg (4 bytes) and the attribute's length and type.
fn table_of(message: &[u8]) -> Option<&[u8]> {
    let (_, attributes) = NetlinkBuffer::new(message).payload().split_first_chunk::<4>()?;
    let ([a, b, c, d], text) = attributes.split_first_chunk()?;
    let length = usize::from(u16::from_ne_bytes([*a, *b])).checked_sub(4)?;
    let text = text.get(..length)?.strip_suffix(&[0])?;
    (u16::from_ne_bytes([*c, *d]) == 1).then_some(text)
}
