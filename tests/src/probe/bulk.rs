//! Much at once: a line of any length, answered with one as long. Over TCP it fills many segments each way, over UDP
//! one datagram in as many fragments as it takes.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::errno::Errno;

use super::{
    ProbeResult,
    arguments::Arguments,
    conversation::{Call, Conversation},
    failure::Failure,
    print,
};
use crate::serve::{ECHO, Transport};

/// How long everything may take: a path that loses every full-sized segment is not found out by waiting longer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// SIZE is that of the line with its end.
pub(super) fn main(mut arguments: Arguments) -> Result<()> {
    let from = arguments.option("--from")?;
    let size: usize = arguments.word("SIZE")?;
    let to = arguments.word("ADDR")?;
    let transport: Transport = arguments.word("tcp or udp")?;
    arguments.end()?;
    ensure!(size > 64, "a line of {size} bytes has no room for its answer");
    let call = Call { transport, from, to, timeout: TIMEOUT, reset: false };
    let start = Instant::now();
    let mut conversation = match call.open() {
        Ok(conversation) => conversation,
        Err(failure) => return print(&ProbeResult::new(Err(failure), from, start.elapsed())),
    };
    let outcome = exchange(&mut conversation, size);
    print(&ProbeResult::new(outcome, conversation.source(), start.elapsed()))
}

/// The answer without what fills it.
fn exchange(conversation: &mut Conversation, size: usize) -> Result<String, Failure> {
    let line = format!("{ECHO}{}\n", ".".repeat(size - ECHO.len() - 1));
    conversation.tell(line.as_bytes())?;
    let answer = conversation.answer()?;
    if answer.len() + 1 != size {
        return Err(Failure::Other(Errno::EBADMSG));
    }
    Ok(answer.trim_end_matches('.').trim_end().to_owned())
}
