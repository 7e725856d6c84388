//! The node's session and lease: enrolling, keeping alive, and what happens when the lease ends.

use std::collections::{BTreeSet, VecDeque};

use maitred_protocol::{Incarnation, KeepAliveAck, NodeAnswer, NodeEpoch, ProcessKey, Verdict};

use super::{Agent, Effect, Life};

/// How far clocks may run apart, in thousandths: ρ = 0.02.
const DRIFT_PER_MILLE: u64 = 20;
/// What is kept back from a lease for timers that fire late.
const MARGIN_US: u64 = 50_000;
/// Longest between two keep-alives.
const KEEP_ALIVE_MAX_US: u64 = 2_000_000;
/// Keep-alives whose send time is remembered.
const SENT_MAX: usize = 64;
/// Pause after a failed registration, and after failing to attach: then a lease is running out.
const RETRY_US: u64 = 500_000;
const ATTACH_RETRY_US: u64 = 100_000;
/// Longest that stopping may take before the node registers again, or leaves, with what still runs.
const STOP_GRACE_US: u64 = 5_000_000;

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

#[derive(Debug)]
pub(super) struct Lease {
    ttl_us: u64,
    pub(super) epoch: Option<NodeEpoch>,
    pub(super) until_us: u64,
    pub(super) phase: Phase,
    /// Numbers the enrolments, so that a late answer is known as one.
    number: u64,
    sequence: u64,
    /// Sequence and send time of keep-alives not acknowledged yet, oldest first.
    sent: VecDeque<(u64, u64)>,
    keep_alive_us: u64,
    /// When a host was last heard of.
    heard_us: u64,
    /// The leader, and the highest term that any host has named.
    pub(super) leader: Option<u64>,
    leader_term: u64,
    /// The host that the last enrolment was answered by, and the term that it led in if known.
    pub(super) attached: Option<u64>,
    attached_term: Option<u64>,
}

impl Lease {
    pub(super) fn new(ttl_us: u64) -> Self {
        Self {
            ttl_us,
            epoch: None,
            until_us: 0,
            phase: Phase::Wanting(0),
            number: 0,
            sequence: 0,
            sent: VecDeque::new(),
            keep_alive_us: 0,
            heard_us: 0,
            leader: None,
            leader_term: 0,
            attached: None,
            attached_term: None,
        }
    }

    /// Why no process may be started; none when it may.
    pub(super) fn refuses_starts(&self) -> Option<&'static str> {
        match self.phase {
            Phase::Leaving(_) | Phase::Left => Some("the node is shutting down"),
            _ if self.epoch.is_none() => Some("the node has lost its lease"),
            _ => None,
        }
    }

    fn ends_us(&self, sent_us: u64) -> u64 {
        let safe = self.ttl_us - self.ttl_us / 1_000 * DRIFT_PER_MILLE;
        sent_us.saturating_add(safe.saturating_sub(MARGIN_US))
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
    pub(super) fn check_lease(&mut self, now_us: u64, out: &mut Vec<Effect>) {
        if self.lease.epoch.is_some() && now_us >= self.lease.until_us {
            self.fence(now_us, out);
        }
    }

    /// The lease is lost, or was taken away: stop everything, then register anew.
    fn fence(&mut self, now_us: u64, out: &mut Vec<Effect>) {
        self.lease.epoch = None;
        self.lease.sent.clear();
        out.push(Effect::LeaseLost);
        self.stop_all(out);
        if !matches!(self.lease.phase, Phase::Leaving(_) | Phase::Left) {
            self.lease.phase = Phase::Fenced(now_us.saturating_add(STOP_GRACE_US));
        }
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

    pub(super) fn shut_down(&mut self, now_us: u64, out: &mut Vec<Effect>) {
        if !matches!(self.lease.phase, Phase::Leaving(_) | Phase::Left) {
            self.lease.phase = Phase::Leaving(now_us.saturating_add(STOP_GRACE_US));
            self.stop_all(out);
        }
    }

    /// Host `from` says that `host` leads in `term`. A node belongs to the leader, and its lease
    /// runs on while there is none, so it loses no time.
    pub(super) fn heard(&mut self, now_us: u64, from: u64, host: Option<u64>, term: u64) {
        let lease = &mut self.lease;
        let newer = term > lease.leader_term;
        // One that knows of no leader may have lost sight of it, unless it led itself.
        let led = lease.leader == Some(from) || lease.attached == Some(from);
        let counts = host.is_some() || newer || led;
        if term < lease.leader_term || !counts || (!newer && lease.leader == host) {
            return;
        }
        lease.leader_term = term;
        lease.leader = host;
        if host.is_some() {
            self.term = self.term.max(term);
        }
        let attached = lease.attached.is_some() && lease.attached == host;
        if attached && lease.attached_term.is_none() {
            // The answer came before the notice.
            lease.attached_term = Some(term);
        }
        let moved = match host {
            Some(_) => !attached || lease.attached_term != Some(term),
            None => lease.attached == Some(from),
        };
        match lease.phase {
            Phase::Serving if moved => {
                lease.attached = None;
                lease.phase = Phase::Wanting(now_us);
            }
            // It may have been asked of a host that does not lead any more.
            Phase::Enrolling(_) if host.is_some() && lease.epoch.is_some() => {
                lease.attached = None;
                lease.phase = Phase::Wanting(now_us);
            }
            // An attempt that failed just now may do better with this one.
            Phase::Wanting(at) if host.is_some() && lease.epoch.is_some() => {
                lease.phase = Phase::Wanting(at.min(now_us));
            }
            _ => {}
        }
    }

    pub(super) fn disconnected(&mut self, now_us: u64) {
        self.lease.attached = None;
        if matches!(self.lease.phase, Phase::Serving) {
            self.lease.phase = Phase::Wanting(now_us);
        }
    }

    /// Attaches once more, where the node is attached; also when it is attaching with an inventory
    /// that lacks what runs by now.
    pub(super) fn reconcile(&mut self, now_us: u64) {
        let again = match &self.lease.phase {
            Phase::Serving => true,
            Phase::Enrolling(inventory) if self.lease.epoch.is_some() => {
                let told: BTreeSet<_> = inventory.iter().map(|(key, life)| (key, *life)).collect();
                self.running().any(|life| !told.contains(&life))
            }
            _ => false,
        };
        if again {
            self.lease.phase = Phase::Wanting(now_us);
        }
    }

    /// Registrations and attachments begun so far.
    #[must_use]
    pub fn enrolments(&self) -> u64 {
        self.lease.number
    }

    pub(super) fn acknowledged(&mut self, now_us: u64, ack: KeepAliveAck, out: &mut Vec<Effect>) {
        if self.lease.epoch != Some(ack.epoch) {
            return;
        }
        if !ack.alive {
            self.fence(now_us, out);
            return;
        }
        let known = self
            .lease
            .sent
            .iter()
            .find(|(sequence, _)| *sequence == ack.sequence);
        if let Some(&(sequence, sent_us)) = known {
            self.lease.until_us = self.lease.until_us.max(self.lease.ends_us(sent_us));
            self.lease.heard_us = now_us;
            self.lease.sent.retain(|(older, _)| *older > sequence);
        }
    }

    pub(super) fn enrolled(
        &mut self,
        now_us: u64,
        (number, host): (u64, u64),
        epoch: NodeEpoch,
        verdicts: &[Verdict],
        sent_us: u64,
        out: &mut Vec<Effect>,
    ) {
        if number != self.lease.number {
            return;
        }
        let Phase::Enrolling(inventory) = &mut self.lease.phase else {
            return;
        };
        let inventory = std::mem::take(inventory);
        self.lease.phase = Phase::Serving;
        self.lease.heard_us = now_us;
        self.lease.attached = Some(host);
        let leads = self.lease.leader == Some(host);
        self.lease.attached_term = leads.then_some(self.lease.leader_term);
        if self.lease.epoch != Some(epoch) {
            // Registered, not attached: the lease begins when the request was sent.
            self.lease.epoch = Some(epoch);
            self.lease.until_us = self.lease.ends_us(sent_us);
            self.lease.sequence = 0;
            self.lease.sent.clear();
        }
        self.lease.keep_alive_us = now_us;
        for ((key, incarnation), verdict) in inventory.iter().zip(verdicts) {
            let process = self.processes.get_mut(key);
            let process = process.filter(|known| known.incarnation == *incarnation);
            match (process, verdict) {
                (Some(process), Verdict::Stop) => process.stop(key, out),
                // It is stopped on our own account, and the registry believes that it runs.
                (Some(process), Verdict::Keep) => {
                    process.delete = matches!(process.life, Life::Stopping);
                }
                // Likewise, and it has ended while the answer was on its way.
                (None, Verdict::Keep) if self.tombstones.has_run(key, *incarnation) => {
                    out.push(Effect::Delete(key.clone(), *incarnation));
                }
                (None, _) => {}
            }
        }
        self.check_lease(now_us, out);
    }

    pub(super) fn enroll_failed(
        &mut self,
        now_us: u64,
        number: u64,
        over: bool,
        out: &mut Vec<Effect>,
    ) {
        if number != self.lease.number || !matches!(self.lease.phase, Phase::Enrolling(_)) {
            return;
        }
        let attaching = self.lease.epoch.is_some();
        let pause_us = if attaching { ATTACH_RETRY_US } else { RETRY_US };
        self.lease.phase = Phase::Wanting(now_us.saturating_add(pause_us));
        if over && self.lease.epoch.is_some() {
            self.fence(now_us, out);
        }
    }

    /// Does what has become due.
    pub(super) fn advance(&mut self, now_us: u64, out: &mut Vec<Effect>) {
        let idle = self.processes.is_empty();
        let lease = &mut self.lease;
        match lease.phase {
            Phase::Fenced(until_us) if idle || now_us >= until_us => {
                lease.phase = Phase::Wanting(now_us);
            }
            Phase::Leaving(until_us) if idle || now_us >= until_us => {
                lease.phase = Phase::Left;
                out.push(Effect::Leave(lease.epoch.take()));
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

    fn enroll(&mut self, out: &mut Vec<Effect>) {
        self.lease.number += 1;
        // A life that waits for the one before is in no inventory, and may be over by the time that it
        // could begin. Whoever still wants it asks again once the node is attached.
        for process in self.processes.values_mut() {
            if let Some(next) = process.next.take() {
                let busy = "the node is attaching to a host anew".to_owned();
                super::answer_all(next.waiters, &NodeAnswer::Busy(busy), out);
            }
        }
        let all = self.processes.iter();
        let inventory: Vec<_> = all
            .map(|(key, process)| (key.clone(), process.incarnation))
            .collect();
        out.push(Effect::Enroll {
            number: self.lease.number,
            epoch: self.lease.epoch,
            inventory: inventory.clone(),
        });
        self.lease.phase = Phase::Enrolling(inventory);
    }

    fn keep_alive(&mut self, now_us: u64, out: &mut Vec<Effect>) {
        let lease = &mut self.lease;
        let Some(epoch) = lease.epoch else { return };
        if now_us < lease.keep_alive_us || matches!(lease.phase, Phase::Left) {
            return;
        }
        lease.sequence += 1;
        if lease.sent.len() == SENT_MAX {
            lease.sent.pop_front();
        }
        lease.sent.push_back((lease.sequence, now_us));
        lease.keep_alive_us = now_us.saturating_add((lease.ttl_us / 4).min(KEEP_ALIVE_MAX_US));
        out.push(Effect::KeepAlive(epoch, lease.sequence));
    }
}
