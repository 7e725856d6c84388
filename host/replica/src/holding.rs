//! Lives that may still go on: nodes are told to stop them, what they answer is recorded, and lost
//! nodes are waited for.
//!
//! The registry keeps who holds what ([`maitred_registry::Hold`]); here is what the leader does about
//! it. The kill bound of a lost node is measured on the leader's own monotonic clock from when the
//! loss is applied, and a new leader waits all of it again: no clock of another machine counts.
//! Whether a node is dead for sure is asked of the fence modules of the types that need to know.

use std::collections::BTreeMap;

use maitred_protocol::{
    Incarnation, KeepAlive, LostNode, ModuleKind, ModuleName, NodeEpoch, NodeName, ProcessKey,
    TypeName, limits as wire,
};
use maitred_registry::{Command, Node};

use crate::effect::{Effect, Examination};
use crate::input::Verdict;
use crate::mutants;
use crate::proposals::Waiter;
use crate::replica::Replica;
use crate::saga::Step;
use crate::timer::Due;

/// Lives in one entry that says that they are over: some 300 KiB at most.
const RELEASED_MAX: usize = 1_000;

/// How much longer the leader waits than the kill bound, in parts of it: its own clock may run fast by
/// one part in fifty, and the node's, by which it ends what does not stop, slow by as much.
const DRIFT_PART: u64 = 24;

/// The least kill bound that is written down: bounds are rounded up to this, doubled as often as it
/// takes, so that a node that slows down little by little costs a few entries at most.
const KILL_BOUND_STEP_MS: u32 = 250;

/// Milliseconds that a fence module may take for an answer.
const EXAMINE_WITHIN_MS: u32 = 10_000;

/// Milliseconds after which a module that failed is asked again, at first and at most.
const EXAMINE_AGAIN_MS: u32 = 500;
const EXAMINE_AGAIN_MS_MAX: u32 = 60_000;

/// What the leader is doing about holds.
#[derive(Debug, Default)]
pub(crate) struct Holding {
    /// Lives that nodes said are over, to be proposed.
    stopped: Vec<(ProcessKey, Incarnation)>,
    /// When the kill bound of each lost session passes.
    bounds_us: BTreeMap<NodeEpoch, u64>,
    /// Examinations: of which session, by which module, how often so far.
    examined: BTreeMap<(NodeEpoch, ModuleName), u32>,
}

impl Replica {
    /// A leader begins: it goes on with what the one before had begun.
    pub(crate) fn take_up_holds(&mut self) {
        let sessions: Vec<NodeEpoch> = self.registry.holding().collect();
        for epoch in sessions {
            if self.registry.lost_session(epoch).is_some() {
                self.session_lost(epoch);
            } else {
                self.stop_held(epoch);
            }
        }
    }

    /// Tells a live session to stop all that it holds, once more.
    pub(crate) fn stop_held(&mut self, epoch: NodeEpoch) {
        let lives: Vec<_> = self.registry.held_by(epoch).collect();
        for (key, incarnation) in lives {
            let holds = self.registry.holds(&key).iter();
            let mut own = holds.filter(|hold| hold.epoch == epoch);
            if let Some(node) = own.next().map(|hold| (*hold.node).clone()) {
                self.stop(&node, epoch, (key, incarnation));
            }
        }
    }

    /// A session was lost, and something of it may go on.
    pub(crate) fn session_lost(&mut self, epoch: NodeEpoch) {
        let Some(lost) = self.registry.lost_session(epoch) else {
            return;
        };
        let bound_us = u64::from(lost.kill_bound_ms) * 1_000;
        let bound_us = if mutants::on("hold-too-short") {
            0
        } else {
            bound_us + bound_us / DRIFT_PART + 1_000
        };
        let at_us = self.now.mono_us + bound_us;
        self.holding.bounds_us.insert(epoch, at_us);
        self.timers.set(at_us, Due::KillBound(epoch));
        for module in self.fences_of(epoch).into_keys() {
            self.examine(epoch, &module);
        }
    }

    /// The fence modules of the types that wait for proof, and which types those are.
    fn fences_of(&self, epoch: NodeEpoch) -> BTreeMap<ModuleName, Vec<TypeName>> {
        let mut fences: BTreeMap<ModuleName, Vec<TypeName>> = BTreeMap::new();
        for name in self.registry.strict_types(epoch) {
            let spec = self.registry.described_type(name);
            if let Some(fence) = spec.and_then(|spec| spec.fence.clone()) {
                fences.entry(fence).or_default().push(name.clone());
            }
        }
        fences
    }

    /// Types have changed: those that wait for proof may have a fence module now that was not asked.
    pub(crate) fn fences_changed(&mut self) {
        let lost: Vec<NodeEpoch> = self.registry.lost().map(|(epoch, _)| epoch).collect();
        for epoch in lost {
            for module in self.fences_of(epoch).into_keys() {
                let asked = (epoch, module);
                if !self.holding.examined.contains_key(&asked) {
                    self.examine(epoch, &asked.1);
                }
            }
        }
    }

    pub(crate) fn kill_bound_due(&mut self, epoch: NodeEpoch) {
        if mutants::on("strict-released-by-bound")
            && let Some(lost) = self.registry.lost_session(epoch)
        {
            let command = Command::ConfirmDead {
                name: (*lost.name).clone(),
                epoch: Some(epoch),
                types: Vec::new(),
                proof: String::new(),
            };
            return self.queue(None, command, Waiter::Nobody);
        }
        if self.registry.held_counts(epoch).0 > 0 {
            let command = Command::KillBoundPassed(epoch);
            self.queue(None, command, Waiter::Nobody);
        }
    }

    fn examine(&mut self, epoch: NodeEpoch, module: &ModuleName) {
        let Some(lost) = self.registry.lost_session(epoch) else {
            return;
        };
        let asked = (epoch, module.clone());
        let attempt = *self.holding.examined.entry(asked).or_insert(1);
        let examination = Examination {
            epoch,
            name: (*lost.name).clone(),
            address: lost.address.to_string(),
            labels: lost.labels.to_vec(),
            lost_for_ms: u32::try_from(self.now.wall_ms.saturating_sub(lost.lost_ms))
                .unwrap_or(u32::MAX),
            attempt,
            seed: self.random.next_u32(),
            within_ms: EXAMINE_WITHIN_MS,
            fence: module.clone(),
            module: self.registry.active_module(module, ModuleKind::Fence),
        };
        self.effects.push(Effect::Examine(Box::new(examination)));
    }

    /// A fence module has answered.
    pub(crate) fn examined(&mut self, epoch: NodeEpoch, fence: ModuleName, verdict: Verdict) {
        let asked = (epoch, fence);
        let Some(attempts) = self.holding.examined.get_mut(&asked) else {
            return;
        };
        let again_ms = match verdict {
            Verdict::Dead(mut proof) => {
                let types = self.fences_of(epoch).remove(&asked.1);
                self.holding.examined.remove(&asked);
                let Some((lost, types)) = self.registry.lost_session(epoch).zip(types) else {
                    return;
                };
                while proof.len() > wire::REASON_BYTES_MAX {
                    proof.pop();
                }
                let command = Command::ConfirmDead {
                    name: (*lost.name).clone(),
                    epoch: Some(epoch),
                    types,
                    proof,
                };
                return self.queue(None, command, Waiter::Nobody);
            }
            Verdict::Unknown { again_ms } => again_ms.clamp(100, EXAMINE_AGAIN_MS_MAX),
            Verdict::Failed => {
                let doubled = EXAMINE_AGAIN_MS << (*attempts).min(16).saturating_sub(1);
                doubled.min(EXAMINE_AGAIN_MS_MAX)
            }
        };
        *attempts = attempts.saturating_add(1);
        let at_us = self.now.mono_us + u64::from(again_ms) * 1_000;
        self.timers.set(at_us, Due::Examine(epoch, asked.1));
    }

    pub(crate) fn examine_due(&mut self, epoch: NodeEpoch, fence: &ModuleName) {
        if self.fences_of(epoch).contains_key(fence) {
            self.examine(epoch, fence);
        } else {
            self.holding.examined.remove(&(epoch, fence.clone()));
        }
    }

    /// A node has answered that a life does not go on.
    pub(crate) fn stopped(&mut self, key: ProcessKey, incarnation: Incarnation) {
        if self.serving.is_none() {
            return;
        }
        let mut holds = self.registry.holds(&key).iter();
        if holds.any(|hold| hold.incarnation == incarnation) {
            self.holding.stopped.push((key, incarnation));
        }
    }

    /// Proposes what has stopped since.
    pub(crate) fn propose_released(&mut self) {
        if self.holding.stopped.is_empty() {
            return;
        }
        let mut stopped = std::mem::take(&mut self.holding.stopped);
        while !stopped.is_empty() {
            let rest = stopped.split_off(stopped.len().min(RELEASED_MAX));
            let command = Command::Released(stopped);
            self.queue(None, command, Waiter::Nobody);
            stopped = rest;
        }
    }

    /// No earlier life of a key goes on any more: whoever waited for that goes on.
    pub(crate) fn key_released(&mut self, key: &ProcessKey) {
        let saga = self.sagas.all.get(key);
        if saga.is_some_and(|saga| saga.step == Step::Held) {
            self.select(key);
        }
    }

    /// A node says how long stopping takes it: what others wait for must not be less. None when it is
    /// not.
    pub(crate) fn raised_bound(&self, name: &NodeName, keep_alive: &KeepAlive) -> Option<Command> {
        let node = self.registry.node(name)?;
        let most = wire::KILL_BOUND_MS_MAX;
        let is_more = keep_alive.stop_ms > node.kill_bound_ms && node.kill_bound_ms < most;
        if node.epoch() != keep_alive.epoch || !is_more {
            return None;
        }
        let mut bound_ms = KILL_BOUND_STEP_MS;
        while bound_ms < keep_alive.stop_ms && bound_ms < most {
            bound_ms *= 2;
        }
        Some(Command::RaiseKillBound {
            name: name.clone(),
            epoch: keep_alive.epoch,
            kill_bound_ms: bound_ms.min(most),
        })
    }

    /// Milliseconds until the kill bound of a lost session has passed.
    pub(crate) fn bound_left_ms(&self, epoch: NodeEpoch) -> Option<u32> {
        let at_us = self.holding.bounds_us.get(&epoch)?;
        let left_us = at_us.saturating_sub(self.now.mono_us);
        Some((left_us / 1_000) as u32)
    }

    /// Where earlier lives of a key may still go on, and what would end that; for people.
    pub(crate) fn who_holds(&self, key: &ProcessKey) -> String {
        let where_to = self.registry.holds(key).iter().map(|hold| {
            let node = &hold.node;
            match (self.registry.lost_session(hold.epoch), hold.strict) {
                (None, _) => format!("on node {node}, which has not said yet that it stopped it"),
                (Some(_), false) => format!("on node {node}, which is lost, until its kill bound has passed"),
                (Some(_), true) => format!(
                    "on node {node}, which is lost; its key waits until the node registers anew, its type's fence module says that it is dead, or an operator does with `maitred node confirm-dead {node}`"
                ),
            }
        });
        where_to.collect::<Vec<_>>().join("; ")
    }

    /// Forgets what belongs to sessions of which nothing is held any more.
    pub(crate) fn forget_released(&mut self) {
        let registry = &self.registry;
        let is_lost = |epoch: &NodeEpoch| registry.lost_session(*epoch).is_some();
        self.holding.bounds_us.retain(|epoch, _| is_lost(epoch));
        self.holding.examined.retain(|(epoch, _), _| is_lost(epoch));
    }

    /// Sessions that were lost and have holds.
    pub(crate) fn lost_nodes(&self) -> Vec<LostNode> {
        let lost = self.registry.lost().map(|(epoch, lost)| {
            let (safe, strict) = self.registry.held_counts(epoch);
            LostNode {
                name: (*lost.name).clone(),
                epoch,
                lost_ms: lost.lost_ms,
                kill_bound_ms: lost.kill_bound_ms,
                safe,
                strict,
            }
        });
        lost.collect()
    }

    /// Has a node told that a life of a process must not run there. A node that has registered again
    /// may still be starting what was asked of its session before: it is the new session that can
    /// be told. Unless the life is held by a session that was lost and has not been succeeded: another
    /// process of the name had that, and what this one answers says nothing of it.
    pub(crate) fn stop(
        &mut self,
        node: &NodeName,
        epoch: NodeEpoch,
        life: (ProcessKey, Incarnation),
    ) {
        let current = self.registry.node(node).map(Node::epoch);
        let (key, incarnation) = life;
        let mut holds = self.registry.holds(&key).iter();
        let hold = holds.find(|hold| hold.incarnation == incarnation);
        let lost = hold.filter(|hold| self.registry.lost_session(hold.epoch).is_some());
        let to = lost.map(|lost| lost.epoch).or(current).unwrap_or(epoch);
        if mutants::on("released-without-answer") {
            self.stopped(key.clone(), incarnation);
        }
        self.effects.push(Effect::Stop {
            node: node.clone(),
            epoch: to,
            term: self.consensus.standing().term,
            key,
            incarnation,
        });
    }
}
