//! Connections from distinct ports, as fast as they go.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use nix::errno::Errno;

use super::{
    ProbeResult, Summary, arguments::Arguments, ask, conversation::Call, failure::Failure, print, timeout,
};
use crate::serve::raise_file_limit;

/// The ports that are tried in turn. Beyond their number they repeat.
const FIRST_PORT: u64 = 10_000;
const PORTS: u64 = 55_000;

struct Work {
    call: Call,
    from: Ipv4Addr,
    count: u64,
    end: Option<Instant>,
    next: AtomicU64,
    next_port: AtomicU64,
}

pub(super) fn main(mut arguments: Arguments) -> Result<()> {
    let from = arguments.option("--from")?.unwrap_or(Ipv4Addr::UNSPECIFIED);
    let timeout = timeout(&mut arguments)?;
    let count = arguments.required("--count")?;
    let parallel: usize = arguments.option("--parallel")?.unwrap_or(16);
    let seconds = arguments.option("--seconds")?;
    let to = arguments.word("ADDR")?;
    let transport = arguments.word("tcp or udp")?;
    arguments.end()?;
    raise_file_limit()?;
    let work = Work {
        // Ports that come again must not be found in TIME_WAIT.
        call: Call { transport, from: None, to, timeout, reset: count > PORTS },
        from,
        count,
        end: seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds)),
        next: AtomicU64::new(0),
        next_port: AtomicU64::new(0),
    };
    print(&work.run(parallel))
}

impl Work {
    fn run(&self, parallel: usize) -> Summary {
        let results = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..parallel {
                scope.spawn(|| {
                    let mut own = self.take_part();
                    results.lock().unwrap_or_else(PoisonError::into_inner).append(&mut own);
                });
            }
        });
        summarize(results.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// One thread's share.
    fn take_part(&self) -> Vec<ProbeResult> {
        let mut results = Vec::new();
        while self.next.fetch_add(1, Ordering::Relaxed) < self.count && !self.is_over() {
            results.push(self.attempt());
        }
        results
    }

    fn is_over(&self) -> bool {
        self.end.is_some_and(|end| Instant::now() >= end)
    }

    /// From the next port that is free: another program may hold some of them.
    fn attempt(&self) -> ProbeResult {
        let start = Instant::now();
        loop {
            let at = self.next_port.fetch_add(1, Ordering::Relaxed);
            let port = u16::try_from(FIRST_PORT + at % PORTS).expect("the ports end below 65,536");
            let call = Call { from: Some(SocketAddrV4::new(self.from, port)), ..self.call };
            match call.open() {
                Err(Failure::Other(Errno::EADDRINUSE | Errno::EADDRNOTAVAIL)) if at < self.count + PORTS => {}
                Err(failure) => return ProbeResult::new(Err(failure), call.from, start.elapsed()),
                Ok(mut conversation) => return ask(&mut conversation, "many", start),
            }
        }
    }
}

fn summarize(results: Vec<ProbeResult>) -> Summary {
    let mut summary = Summary::default();
    let mut times = Vec::new();
    for result in results {
        if let Some(backend) = result.backend() {
            *summary.backends.entry(backend.to_owned()).or_default() += 1;
        }
        if let Some(error) = result.error {
            summary.failed += 1;
            *summary.errors.entry(error).or_default() += 1;
        } else {
            summary.ok += 1;
            times.push(result.micros);
        }
    }
    times.sort_unstable();
    summary.p50_micros = percentile(&times, 50);
    summary.p99_micros = percentile(&times, 99);
    summary
}

/// The smallest time that `percent` of all do not exceed; zero if there are none.
pub(crate) fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_nearest_rank() {
        let times: Vec<u64> = (1..=200).collect();
        assert_eq!((percentile(&times, 50), percentile(&times, 99)), (100, 198));
        assert_eq!((percentile(&[7], 50), percentile(&[7], 99)), (7, 7));
        assert_eq!(percentile(&[], 99), 0);
    }

    #[test]
    fn a_summary_counts_by_backend_and_by_error() {
        let answered = |name: &str, micros| ProbeResult {
            ok: true,
            answer: Some(format!("{name} 10.0.0.1:1")),
            micros,
            ..ProbeResult::default()
        };
        let refused = ProbeResult { error: Some("refused".into()), ..ProbeResult::default() };
        let summary = summarize(vec![answered("a", 3), answered("b", 1), answered("a", 2), refused]);
        assert_eq!((summary.ok, summary.failed, summary.p50_micros, summary.p99_micros), (3, 1, 2, 3));
        assert_eq!(summary.backends, [("a".to_owned(), 2), ("b".to_owned(), 1)].into());
        assert_eq!(summary.errors, [("refused".to_owned(), 1)].into());
    }
}
