//! The node's half of the lease and spawn protocol, as a pure state machine.
//!
//! It takes inputs with the time and returns effects; it owns no clock, socket or task, so that a
//! simulator can drive it. What holds:
//! - of a key at most one life runs here, and incarnations only grow; a repeated start of the same
//!   one is answered the same; a life that is over never begins again (`tombstones.rs`): only one whose
//!   start came to nothing, and only as a later try than any that was told so;
//! - a command of a Raft term lower than one seen is refused;
//! - the node is attached to the leader: it attaches anew as soon as it hears of another one;
//! - the lease ends at `send time of the last acknowledged keep-alive + ttl·(1−ρ) − margin`, and
//!   then everything is stopped before anything new is started;
//! - a start that was cancelled is never answered as started.

use std::collections::BTreeMap;

use maitred_protocol::limits::{PID_BYTES_MAX, REASON_BYTES_MAX, SHARE_BYTES_MAX};
use maitred_protocol::{Incarnation, NodeAnswer, NodeEpoch, ProcessKey};

use crate::tombstones::Tombstones;

mod adopt;
mod command;
mod ending;
mod inventory;
mod io;
mod lease;
mod owned;
mod process;
mod session;

use ending::Ending;
use inventory::Inventory;
pub use io::{Effect, Input, Refused, SpawnError, Spawned};
use lease::Lease;
pub(crate) use lease::STOP_GRACE_US;
use process::{Life, Process};

/// The state machine of one node.
#[derive(Debug)]
pub struct Agent {
    lease: Lease,
    /// The highest Raft term seen.
    term: u64,
    /// Ordered, so that the same inputs always give the same effects.
    processes: BTreeMap<ProcessKey, Process>,
    /// How much of an inventory they are.
    inventory: Inventory,
    tombstones: Tombstones,
    ending: Ending,
}

fn answer_all(tags: Vec<u64>, answer: &NodeAnswer, out: &mut Vec<Effect>) {
    let answers = tags
        .into_iter()
        .map(|tag| Effect::Answer(tag, answer.clone()));
    out.extend(answers);
}

fn cut(mut reason: String) -> String {
    while reason.len() > REASON_BYTES_MAX {
        reason.pop();
    }
    reason
}

impl Agent {
    /// A node that is not registered yet, with a lease of `ttl_us` microseconds, and `kill_bound_us`
    /// more in which all is stopped that it ran. The first [`Input::Tick`] makes it register.
    #[must_use]
    pub fn new(ttl_us: u64, kill_bound_us: u64) -> Self {
        Self {
            lease: Lease::new(ttl_us, kill_bound_us),
            term: 0,
            processes: BTreeMap::new(),
            inventory: Inventory::default(),
            tombstones: Tombstones::default(),
            ending: Ending::default(),
        }
    }

    /// The leader, as the hosts' notices say.
    #[must_use]
    pub fn leader(&self) -> Option<u64> {
        self.lease.leader
    }

    /// The host that commands the node, and that its keep-alives go to; when there is none they go
    /// to the leader.
    #[must_use]
    pub fn attached(&self) -> Option<u64> {
        self.lease.attached
    }

    /// The highest Raft term seen: in commands, and in notices that name a leader.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.term
    }

    /// The session, while there is one.
    #[must_use]
    pub fn epoch(&self) -> Option<NodeEpoch> {
        self.lease.epoch
    }

    /// When the lease ends unless a keep-alive is acknowledged; 0 when there is none.
    #[must_use]
    pub fn lease_until_us(&self) -> u64 {
        self.lease.epoch.map_or(0, |_| self.lease.until_us)
    }

    /// When the next [`Input::Tick`] is due.
    #[must_use]
    pub fn next_us(&self) -> u64 {
        self.lease.next_us()
    }

    /// Processes that run, in the order of their keys.
    pub fn running(&self) -> impl Iterator<Item = (&ProcessKey, Incarnation)> {
        let running = |process: &Process| matches!(process.life, Life::Running(_));
        let all = self.processes.iter();
        all.filter_map(move |(key, process)| running(process).then_some((key, process.incarnation)))
    }

    /// The life of `key` that runs here.
    #[must_use]
    pub fn running_incarnation(&self, key: &ProcessKey) -> Option<Incarnation> {
        let process = self.processes.get(key)?;
        matches!(process.life, Life::Running(_)).then_some(process.incarnation)
    }

    /// Whether this life is being started, and nobody has had it stopped since.
    #[must_use]
    pub fn is_starting(&self, key: &ProcessKey, incarnation: Incarnation) -> bool {
        let process = self.processes.get(key);
        process.is_some_and(|process| {
            process.incarnation == incarnation && matches!(process.life, Life::Starting)
        })
    }

    /// Why `key` cannot be one process more here; none when it can, or runs here already.
    #[must_use]
    pub fn has_no_room_for(&self, key: &ProcessKey) -> Option<&'static str> {
        let known = self.processes.contains_key(key);
        let full = !known && !self.inventory.has_room_for(key);
        full.then_some(inventory::FULL)
    }

    /// Takes an input at `now_us` microseconds of a clock that never goes back, and appends what is
    /// to be done to `out`, in order.
    pub fn step(&mut self, now_us: u64, input: Input, out: &mut Vec<Effect>) {
        let earlier = out.len();
        self.check_lease(now_us, out);
        match input {
            Input::Tick => {}
            Input::Command(tag, command) => self.command(now_us, tag, command, out),
            Input::SpawnEnded(key, incarnation, result) => {
                self.spawn_ended(now_us, key, incarnation, result, out);
            }
            Input::StopEnded(key, incarnation) => self.stop_ended(now_us, &key, incarnation, out),
            Input::Exited(key, incarnation) => self.exited(now_us, &key, incarnation, None, out),
            Input::ExitedBecause(key, incarnation, reason) => {
                self.exited(now_us, &key, incarnation, Some(cut(reason)), out);
            }
            Input::Owned(epoch, key, incarnation, spawned) => {
                self.owned(now_us, (epoch, key, incarnation), spawned, out);
            }
            Input::Acknowledged(ack) => self.acknowledged(now_us, ack, out),
            Input::Leader { from, host, term } => self.heard(now_us, from, host, term),
            Input::Enrolled {
                number,
                host,
                epoch,
                verdicts,
                sent_us,
            } => self.enrolled(now_us, (number, host), epoch, &verdicts, sent_us, out),
            Input::EnrollFailed { number, refused } => {
                self.enroll_failed(now_us, number, refused, out);
            }
            Input::Adopted {
                epoch,
                key,
                incarnation,
                new,
            } => self.adopted(now_us, (epoch, key, incarnation), new, out),
            Input::Reconcile => self.reconcile(now_us),
            Input::Disconnected => self.disconnected(now_us),
            Input::Shutdown => self.shut_down(now_us, out),
        }
        for effect in out.iter().skip(earlier) {
            if let Effect::Stop(key, incarnation) = effect {
                self.ending.stop(now_us, key, *incarnation);
            }
        }
        self.advance(now_us, out);
    }

    fn spawn_ended(
        &mut self,
        now_us: u64,
        key: ProcessKey,
        incarnation: Incarnation,
        result: Result<Spawned, SpawnError>,
        out: &mut Vec<Effect>,
    ) {
        self.ending.started(&key, incarnation);
        if result.is_err() {
            self.ending.gone(now_us, &key, incarnation, out);
        }
        let process = self.processes.get_mut(&key);
        let Some(process) = process.filter(|process| process.incarnation == incarnation) else {
            // The node began a life of its own while this one was starting; nobody else would end
            // it.
            if result.is_ok() {
                out.push(Effect::Stop(key, incarnation));
            }
            return;
        };
        let starters = std::mem::take(&mut process.starters);
        let answer = match (&process.life, result) {
            (Life::Starting, Ok(spawned)) if within_bounds(&spawned) => {
                let Spawned { pid, share } = spawned.clone();
                process.life = Life::Running(spawned);
                answer_all(starters, &NodeAnswer::Started { pid, share }, out);
                return;
            }
            (Life::Starting | Life::Cancelled, Ok(_)) => {
                // Nobody may hear that it has started.
                let fenced = matches!(process.life, Life::Cancelled);
                process.life = Life::Stopping;
                process.buried = process.buried.max(incarnation);
                if fenced {
                    answer_all(starters, &NodeAnswer::Fenced, out);
                } else {
                    // A failure says that nothing runs.
                    let too_long = "its pid is over 256 bytes, or its share over 4,096";
                    process.failed = Some(NodeAnswer::Failed(too_long.to_owned()));
                    process.starters = starters;
                }
                out.push(Effect::Stop(key, incarnation));
                return;
            }
            (Life::Starting, Err(SpawnError::Busy(why))) => NodeAnswer::Busy(cut(why)),
            (Life::Starting, Err(SpawnError::Failed(why))) => NodeAnswer::Failed(cut(why)),
            (Life::Stillborn, _) => NodeAnswer::Failed("it ended while it was starting".to_owned()),
            (Life::Cancelled, Err(_)) => NodeAnswer::Fenced,
            (Life::Running(_) | Life::Stopping, _) => {
                process.starters = starters;
                return;
            }
        };
        answer_all(starters, &answer, out);
        self.bury(now_us, &key, Some(answer), out);
    }

    fn stop_ended(
        &mut self,
        now_us: u64,
        key: &ProcessKey,
        incarnation: Incarnation,
        out: &mut Vec<Effect>,
    ) {
        self.ending.gone(now_us, key, incarnation, out);
        let stopping = self.processes.get(key).filter(|process| {
            process.incarnation == incarnation && matches!(process.life, Life::Stopping)
        });
        if stopping.is_some() {
            self.bury(now_us, key, None, out);
        }
    }

    fn exited(
        &mut self,
        now_us: u64,
        key: &ProcessKey,
        incarnation: Incarnation,
        reason: Option<String>,
        out: &mut Vec<Effect>,
    ) {
        // The game may not have heard yet what it is called since it was adopted.
        let known = self.processes.get(key);
        let renamed = known.filter(|process| process.earlier == Some(incarnation));
        let incarnation = renamed.map_or(incarnation, |process| process.incarnation);
        self.ending.gone(now_us, key, incarnation, out);
        let process = self.processes.get_mut(key);
        let Some(process) = process.filter(|process| process.incarnation == incarnation) else {
            return;
        };
        match process.life {
            Life::Starting | Life::Cancelled => process.life = Life::Stillborn,
            Life::Stillborn => {}
            Life::Running(_) => {
                process.delete = true;
                process.reason = reason;
                self.bury(now_us, key, None, out);
            }
            Life::Stopping => self.bury(now_us, key, None, out),
        }
    }

    /// Forgets a process that is gone, but not that it was; begins the life that waited for that.
    pub(super) fn bury(
        &mut self,
        now_us: u64,
        key: &ProcessKey,
        answer: Option<NodeAnswer>,
        out: &mut Vec<Effect>,
    ) {
        let Some(process) = self.processes.remove(key) else {
            return;
        };
        self.inventory.remove(key);
        let incarnation = process.incarnation;
        let answer = answer.or(process.failed);
        let started = answer.clone().unwrap_or(NodeAnswer::Fenced);
        if let Some(answer) = answer {
            let told = (answer, process.tries);
            self.tombstones
                .bury_answered(now_us, key, incarnation, told);
        } else {
            self.tombstones.bury(now_us, key, incarnation);
        }
        // Whoever is told that it has stopped counts on its never beginning again.
        if process.buried > incarnation || !process.stoppers.is_empty() {
            let last = process.buried.max(incarnation);
            self.tombstones.bury(now_us, key, last);
        }
        answer_all(process.starters, &started, out);
        answer_all(process.stoppers, &NodeAnswer::Stopped, out);
        if process.delete {
            let registered = process.registered.unwrap_or(incarnation);
            out.push(match process.reason {
                None => Effect::Delete(key.clone(), registered),
                Some(reason) => Effect::Report(key.clone(), registered, reason),
            });
        }
        if let Some(next) = process.next {
            self.start(now_us, key.clone(), *next, out);
        }
    }
}

fn within_bounds(spawned: &Spawned) -> bool {
    spawned.pid.len() <= PID_BYTES_MAX && spawned.share.len() <= SHARE_BYTES_MAX
}

#[cfg(test)]
mod tests;
