//! Many flows that live as long as standard input: a summary once all are open, then one for each line, which every
//! flow is asked in turn.

use std::{
    io::{self, BufRead as _},
    net::{Ipv4Addr, SocketAddrV4},
};

use anyhow::{Context as _, Result};

use super::{
    Summary,
    arguments::Arguments,
    conversation::{Call, Conversation},
    print, timeout,
};
use crate::serve::{SILENT, Transport, raise_file_limit};

/// The first of the ports they come from, one after the other.
const FIRST_PORT: u16 = 10_000;

struct Member {
    conversation: Conversation,
    /// Who answered first.
    backend: Option<String>,
}

pub(super) fn main(mut arguments: Arguments) -> Result<()> {
    let from = arguments.option("--from")?.unwrap_or(Ipv4Addr::UNSPECIFIED);
    let timeout = timeout(&mut arguments)?;
    let count: u16 = arguments.required("--count")?;
    let to = arguments.word("ADDR")?;
    let transport: Transport = arguments.word("tcp or udp")?;
    arguments.end()?;
    raise_file_limit()?;
    let mut summary = Summary::default();
    let mut members = Vec::new();
    for number in 0..count {
        let from = Some(SocketAddrV4::new(from, FIRST_PORT + number));
        match (Call { transport, from, to, timeout, reset: true }).open() {
            Ok(conversation) => members.push(Member { conversation, backend: None }),
            Err(failure) => summary.fail(failure.to_string()),
        }
    }
    summary.ok = members.len() as u64;
    print(&summary)?;
    for line in io::stdin().lock().lines() {
        let line = line.context("read what to send")?;
        let mut summary = Summary::default();
        for member in &mut members {
            member.take_part(&line, &mut summary);
        }
        print(&summary)?;
    }
    Ok(())
}

impl Member {
    /// Sends a line. An answer by another than the first is a failure.
    fn take_part(&mut self, line: &str, summary: &mut Summary) {
        if line == SILENT {
            match self.conversation.tell(format!("{line}\n").as_bytes()) {
                Ok(()) => summary.ok += 1,
                Err(failure) => summary.fail(failure.to_string()),
            }
            return;
        }
        let answer = match self.conversation.ask(line) {
            Ok(answer) => answer,
            Err(failure) => return summary.fail(failure.to_string()),
        };
        let name = answer.split_whitespace().next().unwrap_or_default().to_owned();
        *summary.backends.entry(name.clone()).or_default() += 1;
        if *self.backend.get_or_insert_with(|| name.clone()) == name {
            summary.ok += 1;
        } else {
            summary.fail("another backend".to_owned());
        }
    }
}
