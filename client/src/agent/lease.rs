//! The node's lease: when it ends, how it is kept alive, and what happens when it ends.
//!
//! Holds: it ends a TTL after the *send* of the last acknowledged keep-alive, less what clocks may
//! differ and timers be late; what was started under it must be gone a kill bound after that.

use std::collections::VecDeque;

use maitred_protocol::{Incarnation, KeepAliveAck, NodeAnswer, NodeEpoch, ProcessKey};

use super::{Agent, Effect};

/// How far clocks may run apart, in thousandths: ρ = 0.02.
const DRIFT_PER_MILLE: u64 = 20;
/// What is kept back from a lease for timers that fire late.
const MARGIN_US: u64 = 50_000;
/// Keep-alives in a TTL; more in a short one, of which a few may be lost before anybody is suspected.
const KEEP_ALIVES: u64 = 4;
const KEEP_ALIVES_SHORT: u64 = 6;
/// A TTL below this is a short one.
const SHORT_TTL_US: u64 = 3_000_000;
/// Longest between two keep-alives.
const KEEP_ALIVE_MAX_US: u64 = 2_000_000;
/// Keep-alives in a row without an answer after which they go by the stream.
const UNANSWERED_MAX: usize = 2;
/// Of keep-alives that go by the stream, one in so many tries whether datagrams come through again.
const DATAGRAM_EVERY: u64 = 8;
/// Keep-alives whose send time is remembered.
const SENT_MAX: usize = 64;
/// Longest that stopping may take before the node registers again, or leaves, with what still runs;
/// the kill bound when that is longer.
pub(crate) const STOP_GRACE_US: u64 = 5_000_000;

#[derive(Debug)]
pub(super) enum Phase {
    /// To be registered, or attached, at this time.
    Wanting(u64),
    /// Registering or attaching; what was said to run here.
    Enrolling(Vec<(ProcessKey, Incarnation)>),
    /// Registered, attached, in service.
    Serving,
    /// The lease is lost; everything is being stopped, until this time at most.
    Fenced(u64),
    /// The node is leaving, likewise.
    Leaving(u64),
    Left,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    sequence: u64,
    at_us: u64,
    by_stream: bool,
}

#[derive(Debug)]
pub(super) struct Lease {
    ttl_us: u64,
    kill_bound_us: u64,
    pub(super) epoch: Option<NodeEpoch>,
    /// The last session that there was, or is.
    pub(super) last_epoch: Option<NodeEpoch>,
    /// The registry does not know the session any more: it is not attached to, nor kept alive.
    pub(super) forgotten: bool,
    pub(super) until_us: u64,
    pub(super) phase: Phase,
    /// Numbers the enrolments, so that a late answer is known as one.
    pub(super) number: u64,
    sequence: u64,
    /// Keep-alives not acknowledged yet, oldest first.
    sent: VecDeque<Sent>,
    /// Datagrams do not come through.
    streaming: bool,
    keep_alive_us: u64,
    /// When a host was last heard of.
    pub(super) heard_us: u64,
    /// The leader, and the highest term that any host has named.
    pub(super) leader: Option<u64>,
    pub(super) leader_term: u64,
    /// The host that the last enrolment was answered by, and the term that it led in if known.
    pub(super) attached: Option<u64>,
    pub(super) attached_term: Option<u64>,
}

impl Lease {
    pub(super) fn new(ttl_us: u64, kill_bound_us: u64) -> Self {
        Self {
            ttl_us,
            kill_bound_us,
            epoch: None,
            last_epoch: None,
            forgotten: false,
            until_us: 0,
            phase: Phase::Wanting(0),
            number: 0,
            sequence: 0,
            sent: VecDeque::new(),
            streaming: false,
            keep_alive_us: 0,
            heard_us: 0,
            leader: None,
            leader_term: 0,
            attached: None,
            attached_term: None,
        }
    }

    /// Whether the node registers no more.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Leaving(_) | Phase::Left)
    }

    /// Why no process may be started; none when it may.
    pub(super) fn refuses_starts(&self) -> Option<&'static str> {
        match self.phase {
            Phase::Leaving(_) | Phase::Left => Some("the node is shutting down"),
            _ if self.epoch.is_none() => Some("the node has lost its lease"),
            // What began now would be missing in the inventory that is on its way.
            Phase::Enrolling(_) => Some("the node is attaching to a host anew"),
            _ => None,
        }
    }

    fn ends_us(&self, sent_us: u64) -> u64 {
        let safe = self.ttl_us - self.ttl_us / 1_000 * DRIFT_PER_MILLE;
        sent_us.saturating_add(safe.saturating_sub(MARGIN_US))
    }

    /// Begins a session that was asked for at that time.
    pub(super) fn begin(&mut self, epoch: NodeEpoch, sent_us: u64) {
        self.epoch = Some(epoch);
        self.last_epoch = Some(epoch);
        self.forgotten = false;
        self.until_us = self.ends_us(sent_us);
        self.sequence = 0;
        self.sent.clear();
    }

    /// The session is not known any more. What runs goes on until its lease ends; there is nothing
    /// left to renew.
    pub(super) fn forget(&mut self) {
        self.forgotten = true;
        self.keep_alive_us = u64::MAX;
    }

    /// Whether there is a session to attach to.
    pub(super) fn is_attachable(&self) -> bool {
        self.epoch.is_some() && !self.forgotten
    }

    /// The next keep-alive is due at once, so that a new leader hears of the node.
    pub(super) fn keep_alive_now(&mut self, now_us: u64) {
        self.keep_alive_us = now_us;
    }

    /// When what is to be stopped at that time must be gone.
    pub(super) fn gone_by_us(&self, stopped_us: u64) -> u64 {
        stopped_us.saturating_add(self.kill_bound_us)
    }

    /// Until when stopping everything is waited for.
    pub(super) fn grace_us(&self, now_us: u64) -> u64 {
        now_us.saturating_add(STOP_GRACE_US.max(self.kill_bound_us))
    }

    fn period_us(&self) -> u64 {
        let short = self.ttl_us < SHORT_TTL_US;
        let count = if short {
            KEEP_ALIVES_SHORT
        } else {
            KEEP_ALIVES
        };
        (self.ttl_us / count).min(KEEP_ALIVE_MAX_US)
    }

    /// How the next keep-alive goes out.
    fn goes_by_stream(&mut self) -> bool {
        let unanswered = self.sent.len() >= UNANSWERED_MAX;
        self.streaming |= unanswered;
        unanswered || (self.streaming && !self.sequence.is_multiple_of(DATAGRAM_EVERY))
    }

    pub(super) fn next_us(&self) -> u64 {
        let phase = match self.phase {
            Phase::Wanting(at) | Phase::Fenced(at) | Phase::Leaving(at) => at,
            Phase::Serving => self.heard_us.saturating_add(self.ttl_us / 2),
            Phase::Enrolling(_) | Phase::Left => u64::MAX,
        };
        match (&self.phase, self.epoch) {
            (Phase::Left, _) | (_, None) => phase,
            (_, Some(_)) => phase.min(self.until_us).min(self.keep_alive_us),
        }
    }
}

impl Agent {
    /// When all must be gone that a session has started which is over, or will be unless a keep-alive
    /// is acknowledged; none when nothing runs. What a watchdog goes by.
    #[must_use]
    pub fn kill_by_us(&self) -> Option<u64> {
        let live = self.lease.epoch.filter(|_| !self.is_idle());
        let live = live.map(|_| self.lease.gone_by_us(self.lease.until_us));
        self.ending.gone_by_us().into_iter().chain(live).min()
    }

    /// Whether nothing runs, is starting or is being stopped.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.processes.is_empty() && self.ending.is_empty()
    }

    /// Whether the node has ended, or does nothing any more but end its session.
    #[must_use]
    pub fn has_left(&self) -> bool {
        matches!(self.lease.phase, Phase::Left)
    }

    pub(super) fn check_lease(&mut self, now_us: u64, out: &mut Vec<Effect>) {
        if self.lease.epoch.is_some() && now_us >= self.lease.until_us {
            self.fence(now_us, out);
        }
    }

    /// The lease is lost, or was taken away: stop everything, then register anew.
    pub(super) fn fence(&mut self, now_us: u64, out: &mut Vec<Effect>) {
        self.lease.until_us = self.lease.until_us.min(now_us);
        self.end_session();
        self.lease.sent.clear();
        out.push(Effect::LeaseLost);
        self.stop_all(out);
        if !self.lease.is_leaving() {
            self.lease.phase = Phase::Fenced(self.lease.grace_us(now_us));
        }
    }

    fn end_session(&mut self) -> Option<NodeEpoch> {
        let lives = self.processes.iter();
        let lives = lives.map(|(key, process)| (key.clone(), process.incarnation));
        let gone_by_us = self.lease.gone_by_us(self.lease.until_us);
        self.lease.forgotten = false;
        let ended = self.lease.epoch.take();
        if ended.is_some() {
            self.ending.end_session(gone_by_us, lives);
        }
        ended
    }

    fn stop_all(&mut self, out: &mut Vec<Effect>) {
        let mut dropped = Vec::new();
        for (key, process) in &mut self.processes {
            process.delete = false;
            dropped.extend(process.next.take().map(|next| next.waiters));
            process.stop(key, out);
        }
        for waiters in dropped {
            super::answer_all(waiters, &NodeAnswer::Fenced, out);
        }
    }

    /// The node ends: stop everything, and register no more.
    pub(super) fn shut_down(&mut self, now_us: u64, out: &mut Vec<Effect>) {
        if !self.lease.is_leaving() {
            self.lease.phase = Phase::Leaving(self.lease.grace_us(now_us));
            self.stop_all(out);
        }
    }

    pub(super) fn acknowledged(&mut self, now_us: u64, ack: KeepAliveAck, out: &mut Vec<Effect>) {
        if self.lease.epoch != Some(ack.epoch) {
            return;
        }
        if !ack.alive {
            // While it attaches the answer to that is the better one: it tells a session that has
            // ended from one that is forgotten. Should none come, the lease ends in time.
            let attaching = matches!(self.lease.phase, Phase::Wanting(_) | Phase::Enrolling(_));
            if !attaching {
                self.fence(now_us, out);
            }
            return;
        }
        let mut known = self.lease.sent.iter();
        let known = known.find(|sent| sent.sequence == ack.sequence);
        if let Some(&answered) = known {
            let lease = &mut self.lease;
            lease.until_us = lease.until_us.max(lease.ends_us(answered.at_us));
            lease.heard_us = now_us;
            lease.streaming &= answered.by_stream;
            lease.sent.retain(|sent| sent.sequence > answered.sequence);
        }
    }

    /// Does what has become due.
    pub(super) fn advance(&mut self, now_us: u64, out: &mut Vec<Effect>) {
        let idle = self.is_idle();
        let lease = &mut self.lease;
        match lease.phase {
            Phase::Fenced(until_us) if idle || now_us >= until_us => {
                lease.phase = Phase::Wanting(now_us);
            }
            Phase::Leaving(until_us) if idle || now_us >= until_us => {
                lease.phase = Phase::Left;
                let ended = self.end_session();
                // With something left the session is not given up: the registry would give its keys
                // to others.
                out.push(Effect::Leave(ended.filter(|_| idle)));
            }
            // Connected, but the host has gone deaf, or is no longer the leader.
            Phase::Serving if now_us >= lease.heard_us.saturating_add(lease.ttl_us / 2) => {
                lease.phase = Phase::Wanting(now_us);
            }
            _ => {}
        }
        if matches!(self.lease.phase, Phase::Wanting(at_us) if now_us >= at_us) {
            self.enroll(out);
        }
        self.keep_alive(now_us, out);
    }

    fn keep_alive(&mut self, now_us: u64, out: &mut Vec<Effect>) {
        let lease = &mut self.lease;
        let Some(epoch) = lease.epoch else { return };
        if now_us < lease.keep_alive_us {
            return;
        }
        lease.sequence += 1;
        let by_stream = lease.goes_by_stream();
        let sequence = lease.sequence;
        if lease.sent.len() == SENT_MAX {
            lease.sent.pop_front();
        }
        lease.sent.push_back(Sent {
            sequence,
            at_us: now_us,
            by_stream,
        });
        lease.keep_alive_us = now_us.saturating_add(lease.period_us());
        out.push(Effect::KeepAlive {
            epoch,
            sequence,
            stop_ms: self.ending.longest_ms(now_us),
            by_stream,
        });
    }
}
