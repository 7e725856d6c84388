//! Ends the whole process when what a node has started is not gone in time.
//!
//! After a lease and the kill bound the registry gives the keys to others; a game that is stuck then
//! would be a second life of each. So a thread of its own looks at nothing but the clock, which counts
//! suspends, and a number that the node keeps up to date; it waits for no lock and no other thread.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::{self, Builder, Thread};
use std::time::Duration;

use maitred_protocol::NodeName;

use crate::clock::Clock;

/// Longest between two looks at the clock: sleeps do not count suspends.
const LOOK_MAX: Duration = Duration::from_millis(250);
/// Longest that the last words may take; whoever reads them may be stuck too.
const WORDS_MAX: Duration = Duration::from_millis(200);
/// Nothing runs that would have to be gone.
const NEVER_US: u64 = u64::MAX;

/// What is done when something still runs a kill bound after the lease has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Watchdog {
    /// Nothing. The game must see to it that `stop` does not take longer than the kill bound.
    #[default]
    Off,
    /// The process is aborted, after one line to stderr. Right where no life may ever run twice, and
    /// the process has nothing else to do.
    Abort,
}

/// What the watchdog looks at.
#[derive(Debug)]
pub(crate) struct Watch {
    clock: Arc<Clock>,
    gone_by_us: AtomicU64,
    ended: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Watch {
    pub(crate) fn new(clock: Arc<Clock>) -> Self {
        Self {
            clock,
            gone_by_us: AtomicU64::new(NEVER_US),
            ended: AtomicBool::new(false),
            thread: OnceLock::new(),
        }
    }

    /// By when everything must be gone; none when nothing runs.
    pub(crate) fn expect(&self, gone_by_us: Option<u64>) {
        let gone_by_us = gone_by_us.unwrap_or(NEVER_US);
        let earlier_us = self.gone_by_us.swap(gone_by_us, Ordering::AcqRel);
        if gone_by_us < earlier_us {
            self.wake();
        }
    }

    /// Ends the watch.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Whether there is a watchdog.
    pub(crate) fn is_kept(&self) -> bool {
        self.thread.get().is_some()
    }

    /// Starts the thread; does nothing the second time.
    pub(crate) fn start(self: &Arc<Self>, node: &NodeName) -> std::io::Result<()> {
        let (watch, node) = (Arc::clone(self), node.clone());
        let thread = Builder::new().name("maitred-watchdog".to_owned());
        let thread = thread.spawn(move || watch.keep(&node))?;
        let _ = self.thread.set(thread.thread().clone());
        Ok(())
    }

    fn keep(&self, node: &NodeName) {
        while !self.ended.load(Ordering::Acquire) {
            match self.left() {
                None => thread::park(),
                Some(Duration::ZERO) => abort(node),
                Some(left) => thread::park_timeout(left.min(LOOK_MAX)),
            }
        }
    }

    /// What is left until everything must be gone; none when nothing runs.
    fn left(&self) -> Option<Duration> {
        let gone_by_us = self.gone_by_us.load(Ordering::Acquire);
        let left_us = gone_by_us.saturating_sub(self.clock.now_us());
        (gone_by_us != NEVER_US).then(|| Duration::from_micros(left_us))
    }
}

fn abort(node: &NodeName) -> ! {
    let line = format!(
        "maitred: node {node} lost its lease, and its kill bound has passed with something still running; aborting\n"
    );
    let (done, said) = mpsc::channel();
    let speaker = Builder::new().spawn(move || {
        let _ = std::io::stderr().write_all(line.as_bytes());
        let _ = done.send(());
    });
    if speaker.is_ok() {
        let _ = said.recv_timeout(WORDS_MAX);
    }
    std::process::abort()
}
