//! Ctrl-C, `kill` and the end of the terminal: a wish to end, which we follow at the next step.
//!
//! The signals are blocked and waited for by one thread, so no step is cut short in the middle. A second one ends
//! us at once; the holders of our hosts then see that we are gone, and take everything away by themselves.

use std::process;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, atomic::AtomicBool, atomic::Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{SigSet, Signal};

/// The exit code of a program that was interrupted.
pub(super) const INTERRUPTED: u8 = 130;

pub(super) struct Interrupt {
    wished: Arc<AtomicBool>,
    wish: Receiver<()>,
}

impl Interrupt {
    /// To be called before any other thread is started, so that all of them block the signals.
    pub(super) fn install() -> Result<Self> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        signals.thread_block().context("cannot block signals")?;
        let (tell, wish) = mpsc::channel();
        let wished = Arc::new(AtomicBool::new(false));
        let flag = wished.clone();
        thread::spawn(move || {
            while signals.wait().is_ok() {
                if flag.swap(true, Ordering::Relaxed) {
                    process::exit(i32::from(INTERRUPTED));
                }
                if tell.send(()).is_err() {
                    return;
                }
            }
        });
        Ok(Self { wished, wish })
    }

    pub(super) fn check(&self) -> Result<()> {
        ensure!(!self.is_wished(), "interrupted");
        Ok(())
    }

    pub(super) fn is_wished(&self) -> bool {
        self.wished.load(Ordering::Relaxed)
    }

    /// Returns once somebody wants us to end.
    pub(super) fn wait(&self) {
        let _ = self.wish.recv();
    }
}
