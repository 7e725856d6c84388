//! The node's session: which host it belongs to, registering and attaching, and what comes of either.
//!
//! Holds: a session that the registry has forgotten (it was restored from an older snapshot) is
//! registered anew while its lease holds, and nothing is stopped for that; one that has ended is
//! fenced first; a node whose name another process has taken never registers again.

use std::collections::BTreeSet;

use maitred_protocol::limits::INVENTORY_MAX;
use maitred_protocol::{Incarnation, NodeAnswer, NodeEpoch, ProcessKey, Verdict};

use super::lease::Phase;
use super::process::Life;
use super::{Agent, Effect, Refused, answer_all};

/// Pause after a failed registration, and after failing to attach: then a lease is running out.
const RETRY_US: u64 = 500_000;
const ATTACH_RETRY_US: u64 = 100_000;

impl Agent {
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
            Phase::Enrolling(_) if host.is_some() && lease.is_attachable() => {
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
            self.lease.begin(epoch, sent_us);
        }
        self.lease.keep_alive_now(now_us);
        for ((key, incarnation), verdict) in inventory.iter().zip(verdicts) {
            self.judge(key, *incarnation, *verdict, out);
        }
        self.check_lease(now_us, out);
    }

    fn judge(
        &mut self,
        key: &ProcessKey,
        incarnation: Incarnation,
        verdict: Verdict,
        out: &mut Vec<Effect>,
    ) {
        let process = self.processes.get_mut(key);
        let process = process.filter(|known| known.incarnation == incarnation);
        match (process, verdict) {
            (Some(process), Verdict::Stop) => {
                let asked = process.adoption.as_ref();
                // Its adoption may be why the old incarnation is not the current one.
                if asked.is_none_or(|asked| Some(asked.epoch) != self.lease.epoch) {
                    process.stop(key, out);
                }
            }
            // It is stopped on our own account, and the registry believes that it runs.
            (Some(process), Verdict::Keep) => {
                process.delete = matches!(process.life, Life::Stopping);
            }
            (Some(_), Verdict::Adopt) => self.adopt(key, incarnation, out),
            // Likewise, and it has ended while the answer was on its way.
            (None, Verdict::Keep) if self.tombstones.has_run(key, incarnation) => {
                if !self.ending.has(key, incarnation) {
                    out.push(Effect::Delete(key.clone(), incarnation));
                }
            }
            (None, _) => {}
        }
    }

    pub(super) fn enroll_failed(
        &mut self,
        now_us: u64,
        number: u64,
        refused: Refused,
        out: &mut Vec<Effect>,
    ) {
        if number != self.lease.number || !matches!(self.lease.phase, Phase::Enrolling(_)) {
            return;
        }
        let attaching = self.lease.is_attachable();
        let pause_us = if attaching { ATTACH_RETRY_US } else { RETRY_US };
        self.lease.phase = Phase::Wanting(now_us.saturating_add(pause_us));
        match refused {
            Refused::Superseded => {
                if self.lease.epoch.is_some() {
                    self.fence(now_us, out);
                }
                self.shut_down(now_us, out);
            }
            Refused::Ended if attaching => self.fence(now_us, out),
            Refused::Forgotten if attaching => {
                self.lease.forget();
                self.lease.phase = Phase::Wanting(now_us);
            }
            Refused::Unavailable | Refused::Ended | Refused::Forgotten => {}
        }
    }

    /// Everything that runs here, or may: also what is being stopped beside a newer life of its key.
    fn inventory(&self) -> Vec<(ProcessKey, Incarnation)> {
        let all = self.processes.iter();
        let mut inventory: Vec<_> = all
            .map(|(key, process)| (key.clone(), process.incarnation))
            .collect();
        let beside = self.ending.lives().filter(|(key, incarnation)| {
            let at = self.processes.get(key);
            at.is_none_or(|process| process.incarnation != *incarnation)
        });
        let room = INVENTORY_MAX.saturating_sub(inventory.len());
        inventory.extend(beside.take(room).cloned());
        inventory
    }

    pub(super) fn enroll(&mut self, out: &mut Vec<Effect>) {
        self.lease.number += 1;
        // A life that waits for the one before is in no inventory, and may be over by the time that it
        // could begin. Whoever still wants it asks again once the node is attached.
        for process in self.processes.values_mut() {
            if let Some(next) = process.next.take() {
                process.buried = process.buried.max(next.incarnation);
                let busy = "the node is attaching to a host anew".to_owned();
                answer_all(next.waiters, &NodeAnswer::Busy(busy), out);
            }
        }
        let inventory = self.inventory();
        out.push(Effect::Enroll {
            number: self.lease.number,
            epoch: self.lease.epoch.filter(|_| !self.lease.forgotten),
            last_epoch: self.lease.last_epoch,
            inventory: inventory.clone(),
        });
        self.lease.phase = Phase::Enrolling(inventory);
    }
}
