//! Datagrams that must not be fragmented, and what the path's MTU is then known to be.

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use nix::sys::socket::{getsockopt, sockopt};

use super::{
    ProbeResult,
    arguments::Arguments,
    conversation::{Call, Conversation},
    failure::Failure,
    print, sys, timeout,
};
use crate::serve::Transport;

/// Bytes of the IPv4 and the UDP header.
const HEADERS: usize = 20 + 8;

/// SIZE is that of the whole IPv4 packet.
pub(super) fn main(mut arguments: Arguments) -> Result<()> {
    let from = arguments.option("--from")?;
    let timeout = timeout(&mut arguments)?;
    let count = arguments.option("--count")?.unwrap_or(1);
    let size: usize = arguments.word("SIZE")?;
    let to = arguments.word("ADDR")?;
    arguments.end()?;
    let Some(payload) = size.checked_sub(HEADERS) else {
        bail!("a UDP packet has at least {HEADERS} bytes, not {size}")
    };
    let call = Call { transport: Transport::Udp, from, to, timeout, reset: false };
    let mut conversation = call.open().map_err(anyhow::Error::msg)?;
    sys::forbid_fragments(&conversation.socket).context("forbid fragments")?;
    for _ in 0..count {
        let start = Instant::now();
        let outcome = exchange(&mut conversation, payload);
        let report = ProbeResult::new(outcome, conversation.source(), start.elapsed());
        print(&ProbeResult { mtu: learned(&conversation), ..report })?;
    }
    Ok(())
}

fn exchange(conversation: &mut Conversation, payload: usize) -> Result<String, Failure> {
    conversation.tell(&vec![b'.'; payload])?;
    conversation.answer()
}

fn learned(conversation: &Conversation) -> Option<u32> {
    getsockopt(&conversation.socket, sockopt::IpMtu).ok()?.try_into().ok()
}
