//! One process on a node: how far its life is, and who waits for what of it.

use maitred_protocol::{Incarnation, NodeAnswer, NodeEpoch, ProcessKey};

use super::{Effect, Spawned, answer_all};

/// Who waits for the same start, or the same stop; older ones have been given up by the host.
const WAITERS_MAX: usize = 8;

#[derive(Debug)]
pub(super) enum Life {
    Starting,
    /// Still starting, to be stopped as soon as it has started.
    Cancelled,
    /// Still starting as far as its handler says, but has ended.
    Stillborn,
    Running(Spawned),
    Stopping,
}

/// A start that waits for the life before it to end.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) incarnation: Incarnation,
    /// The highest try of it that was asked for.
    pub(super) try_number: u32,
    pub(super) payload: Vec<u8>,
    /// After this nobody waits for it.
    pub(super) until_us: u64,
    pub(super) waiters: Vec<u64>,
}

impl Next {
    /// Whether it has waited so long that nobody waits for it any more.
    pub(super) fn is_late(&self, now_us: u64) -> bool {
        now_us > self.until_us
    }

    /// Milliseconds that are left of its time.
    pub(super) fn left_ms(&self, now_us: u64) -> u32 {
        let left_us = self.until_us.saturating_sub(now_us);
        u32::try_from(left_us / 1_000).unwrap_or(u32::MAX)
    }
}

/// A life is being registered anew, in this session, after so many enrolments.
#[derive(Debug)]
pub(super) struct Adoption {
    pub(super) epoch: NodeEpoch,
    pub(super) number: u64,
}

#[derive(Debug)]
pub(super) struct Process {
    pub(super) incarnation: Incarnation,
    /// What it was called before it was adopted.
    pub(super) earlier: Option<Incarnation>,
    pub(super) life: Life,
    /// Starts up to here are refused; at least the incarnation once it is being stopped.
    pub(super) buried: Incarnation,
    /// The highest try of its start that was asked for.
    pub(super) tries: u32,
    /// Commands that wait for the start.
    pub(super) starters: Vec<u64>,
    /// What they are told once it has been stopped, when its start came to nothing; else fenced.
    pub(super) failed: Option<NodeAnswer>,
    /// Commands that wait for the end.
    pub(super) stoppers: Vec<u64>,
    pub(super) next: Option<Box<Next>>,
    /// Whether the registry still has it when it has been stopped.
    pub(super) delete: bool,
    /// What the game said of its end, when its callback is to say what becomes of it.
    pub(super) reason: Option<String>,
    pub(super) adoption: Option<Adoption>,
    /// The incarnation under which the registry has it, if it has got another one while stopping.
    pub(super) registered: Option<Incarnation>,
}

impl Process {
    pub(super) fn new(incarnation: Incarnation, life: Life, starters: Vec<u64>) -> Self {
        Self {
            incarnation,
            earlier: None,
            life,
            buried: Incarnation(0),
            tries: 0,
            starters,
            failed: None,
            stoppers: Vec::new(),
            next: None,
            delete: false,
            reason: None,
            adoption: None,
            registered: None,
        }
    }

    /// Has it stopped, or seen to it that it will be.
    pub(super) fn stop(&mut self, key: &ProcessKey, out: &mut Vec<Effect>) {
        self.buried = self.buried.max(self.incarnation);
        match self.life {
            Life::Running(_) => {
                self.life = Life::Stopping;
                out.push(Effect::Stop(key.clone(), self.incarnation));
            }
            Life::Starting => self.life = Life::Cancelled,
            Life::Cancelled | Life::Stillborn | Life::Stopping => {}
        }
    }
}

pub(super) fn wait(waiters: &mut Vec<u64>, tag: u64, out: &mut Vec<Effect>) {
    if waiters.len() == WAITERS_MAX {
        // Not busy, nor stopped: it may run all the same, or go on running.
        out.push(Effect::Answer(waiters.remove(0), NodeAnswer::Fenced));
    }
    waiters.push(tag);
}

/// Puts `start` behind the life that is there; of two that wait, the higher incarnation stays.
pub(super) fn supersede(process: &mut Process, start: Next, out: &mut Vec<Effect>) {
    match &mut process.next {
        Some(next) if next.incarnation == start.incarnation => {
            next.try_number = next.try_number.max(start.try_number);
            for tag in start.waiters {
                wait(&mut next.waiters, tag, out);
            }
        }
        Some(next) if next.incarnation > start.incarnation => {
            answer_all(start.waiters, &NodeAnswer::Fenced, out);
        }
        waiting => {
            if let Some(older) = waiting.replace(Box::new(start)) {
                answer_all(older.waiters, &NodeAnswer::Fenced, out);
            }
        }
    }
}
