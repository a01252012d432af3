//! The first packets of a flow, sent at once by as many threads, each on a CPU of its own: over UDP nothing orders
//! them, and still they must all go to one backend.

use std::{
    collections::BTreeSet,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use super::{
    Summary,
    arguments::Arguments,
    conversation::{Call, Conversation},
    failure::Failure,
    print, timeout,
};
use crate::serve::Transport;

/// Threads, and packets of each flow.
const RACERS: usize = 2;

/// A flow counts as `ok` if each of its packets was answered, by one backend seeing one address.
pub(super) fn main(mut arguments: Arguments) -> Result<()> {
    let timeout = timeout(&mut arguments)?;
    let count = arguments.required("--count")?;
    let to = arguments.word("ADDR")?;
    arguments.end()?;
    let call = Call { transport: Transport::Udp, from: None, to, timeout, reset: false };
    let mut summary = Summary::default();
    // Every source port once: an open socket keeps its own.
    let mut flows = Vec::new();
    for _ in 0..count {
        flows.push(call.open().map_err(anyhow::Error::msg)?);
    }
    run(&flows, &AtomicBool::new(true))?;
    for mut flow in flows {
        judge(&mut flow, &mut summary);
    }
    print(&summary)
}

fn run(flows: &[Conversation], sent: &AtomicBool) -> Result<()> {
    let start = Barrier::new(RACERS);
    let pinned = thread::scope(|scope| {
        let racers: Vec<_> = (0..RACERS)
            .map(|cpu| {
                scope.spawn({
                    let start = &start;
                    move || {
                        let pinned = pin(cpu);
                        for flow in flows {
                            start.wait();
                            if flow.tell(b"race\n").is_err() {
                                sent.store(false, Ordering::Relaxed);
                            }
                        }
                        pinned
                    }
                })
            })
            .collect();
        racers.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    for outcome in pinned {
        outcome.map_err(|_| anyhow::anyhow!("a racer panicked"))??;
    }
    anyhow::ensure!(sent.load(Ordering::Relaxed), "a packet could not be sent");
    Ok(())
}

fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu).context("no such CPU")?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("run on CPU {cpu}"))
}

fn judge(flow: &mut Conversation, summary: &mut Summary) {
    let answers: Result<Vec<String>, Failure> = (0..RACERS).map(|_| flow.answer()).collect();
    match answers {
        Err(failure) => summary.fail(failure.to_string()),
        Ok(answers) => {
            if let Some(name) = answers.first().and_then(|answer| answer.split_whitespace().next()) {
                *summary.backends.entry(name.to_owned()).or_default() += 1;
            }
            if answers.iter().collect::<BTreeSet<_>>().len() == 1 {
                summary.ok += 1;
            } else {
                summary.fail("more than one answer".to_owned());
            }
        }
    }
}
