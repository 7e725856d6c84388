//! **Property: a key has at most one life at a time**, by what really runs: for types that restart `safe`
//! or `strict`, and for every cause: a lost lease, a delete, an attempt that failed, a move, a newer
//! session. A life counts from when the game has begun it until it is gone.
//!
//! What the assumptions leave out is left out here, and nothing else. A node's process that was stopped
//! as a whole while its lease ended does nothing meanwhile: its lives do not count then; when it wakes they
//! are told to stop before anything else happens, and for `safe` do not count from there on either. For
//! `strict` they do: nobody was to believe that they are gone. Where two processes have one name, the
//! lives of the older one do not count once the other one has registered.
//!
//! Besides: when an expiry is applied, its node holds no lease of that session by its own clock, and runs
//! nothing that it was not told to stop. And whoever says that a life is over, or a node dead, is right.

use maitred_protocol::{Incarnation, NodeEpoch, NodeName, Restart};

use super::agreement::Kind;
use crate::sim::actor::Role;
use crate::sim::client::TYPES;
use crate::sim::game::{Life, Truth};
use crate::sim::node::Node;
use crate::sim::world::World;

impl World {
    fn processes(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.actors
            .iter()
            .enumerate()
            .filter_map(|(at, actor)| match &actor.role {
                Role::Node(node) if actor.up => Some((at, &**node)),
                _ => None,
            })
    }

    fn nodes(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.processes().filter(|(at, _)| !self.actors[*at].paused)
    }

    /// Entries are applied for the first time.
    pub fn check_applied(&mut self, fresh: &[(u64, Kind)]) {
        for (index, kind) in fresh {
            if let Kind::Register(name, instance) = kind {
                let found = self.check_register(*index, name, *instance);
                self.verify("needless", found);
            }
            self.checks.needless.learn(*index, kind);
            let found = self.check_need(kind);
            self.verify("needless", found);
            let found = self.check_word(kind);
            self.verify("truth", found);
            if let Kind::Expire(name, epoch) = kind {
                self.cover.count("lease expired");
                let found = self.check_expiry(name, *epoch);
                self.verify("truth", found);
            }
        }
    }

    /// Somebody has said that lives are over.
    ///
    /// # Errors
    /// One of them goes on.
    pub fn check_word(&mut self, kind: &Kind) -> Result<(), String> {
        let who = format!("{kind:?}");
        let why = move |text: String| format!("{text} ({who})");
        self.check_word_of(kind).map_err(why)
    }

    fn check_word_of(&mut self, kind: &Kind) -> Result<(), String> {
        match kind {
            Kind::Released(lives) => {
                self.cover.count("hold released by its node");
                lives.iter().try_for_each(|life| self.is_over(life))
            }
            Kind::Unplace { life, over, .. } | Kind::Abort { life, over } => match over {
                true => self.is_over(life),
                false => {
                    self.cover.count("attempt of unknown outcome");
                    Ok(())
                }
            },
            Kind::Exited(life) => self.is_over(life),
            Kind::Delete {
                key,
                only: Some(incarnation),
                ended: true,
                ..
            } => self.is_over(&(key.clone(), *incarnation)),
            Kind::Leave(epoch) => self.check_dead(*epoch, "has left"),
            Kind::Dead(_, Some(epoch)) => {
                self.cover.count("session confirmed dead");
                let instance = self.checks.needless.instance_of(*epoch);
                let alive = self
                    .processes()
                    .find(|(_, node)| Some(node.instance) == instance);
                alive.map_or(Ok(()), |(at, _)| {
                    Err(format!(
                        "session {epoch} is said to be dead, and is that of a{at}"
                    ))
                })
            }
            Kind::KillBound(epoch) => {
                self.cover.count("kill bound passed");
                self.check_dead(*epoch, "has had its kill bound")
            }
            _ => Ok(()),
        }
    }

    /// Nobody runs this life.
    fn is_over(&self, life: &Life) -> Result<(), String> {
        let (key, incarnation) = life;
        for (at, node) in self.processes() {
            let truth = node.truth.get(life);
            if truth.is_some_and(|truth| truth.since_us <= self.now) {
                return Err(format!(
                    "{key}@{incarnation} is said to be over, and runs on a{at}"
                ));
            }
        }
        Ok(())
    }

    /// Nothing of a session goes on, except what cannot be helped.
    fn check_dead(&self, epoch: NodeEpoch, why: &str) -> Result<(), String> {
        for (at, node) in self.nodes() {
            let mut left = node.truth.iter().filter(|(life, truth)| {
                let waits = self.is_safe(life) && !self.checks.needless.is_strict(life);
                let began = truth.since_us <= self.now;
                began && waits && truth.session == Some(epoch) && !truth.overslept
            });
            if let Some(((key, incarnation), _)) = left.next() {
                return Err(format!(
                    "session {epoch} {why}, and {key}@{incarnation} goes on on a{at}"
                ));
            }
        }
        Ok(())
    }

    /// An expiry is applied.
    ///
    /// # Errors
    /// The node still believes in its lease.
    pub fn check_expiry(&self, name: &NodeName, epoch: NodeEpoch) -> Result<(), String> {
        for (at, node) in self.nodes() {
            if node.name != *name || node.agent.epoch() != Some(epoch) {
                continue;
            }
            let now_us = self.actors[at].clock.mono_us(self.now);
            let left_us = node.agent.lease_until_us().saturating_sub(now_us);
            if left_us > 0 {
                return Err(format!(
                    "session {epoch} of {name} is expired, and the node holds its lease for another {} ms",
                    left_us / 1_000
                ));
            }
        }
        for (_, node) in self.nodes().filter(|(_, node)| node.name == *name) {
            let ended = node.agent.epoch().is_none();
            let going_on = node.truth.iter().find(|(_, truth)| !truth.stopping);
            if let Some(((key, incarnation), _)) = going_on.filter(|_| ended) {
                return Err(format!(
                    "session {epoch} of {name} is expired, and {key}@{incarnation} goes on there"
                ));
            }
        }
        Ok(())
    }

    /// Whether the lives of this key's type are to be one at a time.
    fn is_safe(&self, (key, _): &Life) -> bool {
        let at = TYPES
            .iter()
            .position(|name| *name == key.type_name.as_str());
        let manner = at.map(|at| self.scenario.knobs.types[at]);
        manner.is_some_and(|manner| manner.restart != Restart::Fast)
    }

    /// Whether a life counts as going on.
    fn counts(&self, node: &Node, life: &Life, truth: &Truth) -> bool {
        let forgiven = truth.overslept && truth.stopping && !self.checks.needless.is_strict(life);
        let last = self.checks.needless.last_session(&node.name);
        let replaced = self.scenario.twins && last.is_some() && node.agent.epoch() != last;
        truth.since_us <= self.now && !forgiven && !replaced
    }

    /// A node has begun a life, or goes on after a pause.
    ///
    /// # Errors
    /// A life of the same key goes on elsewhere.
    pub fn check_lives_of(&self, actor: usize) -> Result<(), String> {
        let Some((_, here)) = self.nodes().find(|(at, _)| *at == actor) else {
            return Ok(());
        };
        for (life, truth) in &here.truth {
            if !self.is_safe(life) || !self.counts(here, life, truth) {
                continue;
            }
            for (at, node) in self.nodes() {
                let other = |((key, incarnation), other): &(&Life, &Truth)| {
                    // What a game begins by itself it may begin beside its own.
                    let beside = at == actor && (truth.own || other.own);
                    let two = (at, *incarnation) != (actor, life.1);
                    *key == life.0 && two && !beside
                };
                let found = node
                    .truth
                    .iter()
                    .find(|one| other(one) && self.counts(node, one.0, one.1));
                if let Some(((key, incarnation), _)) = found {
                    return Err(two_lives(key, (actor, life.1), (at, *incarnation)));
                }
            }
        }
        Ok(())
    }
}

fn two_lives(
    key: &maitred_protocol::ProcessKey,
    one: (usize, Incarnation),
    other: (usize, Incarnation),
) -> String {
    format!(
        "{key}@{} runs on a{}, and {key}@{} on a{}",
        one.1, one.0, other.1, other.0
    )
}
