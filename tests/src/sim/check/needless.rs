//! **Properties: nothing is taken from a node without need, and no wanted process is dropped.** A process
//! that runs loses its place only when its session ends, its node says that it is gone, it is deleted, or
//! an operator has asked for moves; never because a node that holds its lease was misunderstood. One that
//! is to be created again is removed only by a delete, or when it is given up. And what is placed on a
//! node by decisions never exceeds its capacity.

use std::collections::{BTreeMap, BTreeSet};

use maitred_protocol::{Incarnation, NodeEpoch, NodeName, ProcessKey, TypeName};
use maitred_registry::{Change, Event, Record, Registry};

use super::agreement::Kind;
use crate::sim::actor::Role;
use crate::sim::world::World;

type Life = (ProcessKey, Incarnation);

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Needless {
    /// Whether an operator has asked for moves.
    pub moves_asked: bool,
    /// Which process asked for a session.
    instances: BTreeMap<NodeEpoch, u64>,
    /// The last session of each name.
    last: BTreeMap<NodeName, NodeEpoch>,
    /// Lives that are known to have been running.
    ran: BTreeSet<Life>,
    /// Since which entry a type's processes are created again.
    wanted: BTreeMap<TypeName, u64>,
    /// Since which entry proof is needed that a type's processes are dead.
    strict: BTreeMap<TypeName, u64>,
}

impl Needless {
    /// Which process has registered this session.
    pub fn instance_of(&self, epoch: NodeEpoch) -> Option<u64> {
        self.instances.get(&epoch).copied()
    }

    /// The last session that a name has had.
    pub fn last_session(&self, name: &NodeName) -> Option<NodeEpoch> {
        self.last.get(name).copied()
    }

    /// Whether proof is needed for this life.
    pub fn is_strict(&self, (key, incarnation): &Life) -> bool {
        let since = self.strict.get(&key.type_name);
        since.is_some_and(|since| *since < incarnation.0)
    }

    /// Whether a process has run since this index.
    pub fn ran_since(&self, key: &ProcessKey, index: u64) -> bool {
        let from = (key.clone(), Incarnation(index));
        let mut since = self.ran.range(from..);
        since.next().is_some_and(|(of, _)| of == key)
    }

    /// What a host tells of changes.
    ///
    /// # Errors
    /// A node has more than it has room for, or a wanted process is dropped.
    pub fn told(
        &mut self,
        event: &Event,
        registry: &Registry,
        kinds: &[&Kind],
    ) -> Result<(), String> {
        match event {
            Event::NodeUp { name, epoch, .. } => {
                let last = self.last.entry(name.clone()).or_insert(*epoch);
                *last = (*last).max(*epoch);
                Ok(())
            }
            Event::Process(Change::Reserved, record) => fits(registry, record),
            Event::Process(Change::Running, record) => {
                if record.spec.is_some() {
                    self.ran.insert((record.key(), record.incarnation));
                }
                Ok(())
            }
            Event::Process(Change::Removed, record) => self.removed(record, kinds),
            _ => Ok(()),
        }
    }

    fn removed(&self, record: &Record, kinds: &[&Kind]) -> Result<(), String> {
        let since = self.wanted.get(&*record.type_name);
        let confirmed = record.spec.as_ref().is_some_and(|spec| spec.confirmed);
        if !confirmed || since.is_none_or(|since| *since >= record.incarnation.0) {
            return Ok(());
        }
        let meant = kinds
            .iter()
            .any(|kind| matches!(kind, Kind::Delete { .. } | Kind::GiveUp | Kind::Exited(_)));
        if meant || kinds.is_empty() {
            return Ok(());
        }
        Err(format!(
            "{}@{} is to be created again when it is lost, and is removed by {kinds:?}",
            record.key(),
            record.incarnation
        ))
    }

    /// An entry is applied for the first time.
    pub fn learn(&mut self, index: u64, kind: &Kind) {
        match kind {
            Kind::Register(_, instance) => {
                self.instances.insert(NodeEpoch(index), *instance);
            }
            Kind::Type {
                name,
                recreate,
                strict,
            } => {
                if *recreate {
                    self.wanted.entry(name.clone()).or_insert(index);
                }
                if *strict {
                    self.strict.entry(name.clone()).or_insert(index);
                }
            }
            _ => {}
        }
    }
}

/// A node that was given a process has room for it.
fn fits(registry: &Registry, record: &Record) -> Result<(), String> {
    let Some(node) = registry.node(&record.node) else {
        return Ok(());
    };
    let here = registry.processes_of(&record.node, node.epoch());
    let given: u32 = here
        .filter(|one| one.spec.is_some())
        .map(|one| one.demand)
        .sum();
    if given <= node.facts.capacity {
        return Ok(());
    }
    Err(format!(
        "{} has {given} units of {} after {}@{}",
        record.node,
        node.facts.capacity,
        record.key(),
        record.incarnation
    ))
}

impl World {
    /// The node whose process registered this session, if that process is still there.
    fn process_of(&self, epoch: NodeEpoch) -> Option<usize> {
        let instance = self.checks.needless.instance_of(epoch)?;
        self.actors.iter().position(|actor| {
            actor.up && matches!(&actor.role, Role::Node(node) if node.instance == instance)
        })
    }

    /// Whether a life goes on, by the word of a node that is sure of its session.
    fn goes_on(&self, actor: usize, life: &Life) -> bool {
        let Role::Node(node) = &self.actors[actor].role else {
            return false;
        };
        let now_us = self.actors[actor].clock.mono_us(self.now);
        let valid = node.agent.epoch().is_some() && node.agent.lease_until_us() > now_us;
        valid && node.truth.get(life).is_some_and(|truth| !truth.stopping)
    }

    /// An entry is applied for the first time.
    ///
    /// # Errors
    /// It takes something away for no good reason.
    pub fn check_need(&self, kind: &Kind) -> Result<(), String> {
        match kind {
            Kind::Missing(epoch, lives) => {
                let Some(actor) = self.process_of(*epoch) else {
                    return Ok(());
                };
                let lost = lives.iter().find(|life| self.goes_on(actor, life));
                lost.map_or(Ok(()), |(key, life)| {
                    Err(format!(
                        "{key}@{life} counts as missing, and runs on a{actor}"
                    ))
                })
            }
            Kind::Unplace { life, cause, .. } => {
                let ran = self.checks.needless.ran.contains(life);
                let moved = self.checks.needless.moves_asked && cause.starts_with("moved");
                if !ran || moved {
                    return Ok(());
                }
                let (key, incarnation) = life;
                Err(format!(
                    "{key}@{incarnation} runs, and is taken off its node: {cause}"
                ))
            }
            _ => Ok(()),
        }
    }

    /// A node is about to lose its session to one that is asked for by the same process.
    ///
    /// # Errors
    /// That has a session, and a lease that holds.
    pub fn check_register(&self, index: u64, name: &NodeName, instance: u64) -> Result<(), String> {
        let old = self.checks.needless.last_session(name);
        let same = old.filter(|old| old.0 < index);
        let same = same.filter(|old| self.checks.needless.instance_of(*old) == Some(instance));
        let Some((old, actor)) = same.and_then(|old| Some((old, self.process_of(old)?))) else {
            return Ok(());
        };
        let Role::Node(node) = &self.actors[actor].role else {
            return Ok(());
        };
        if node.agent.epoch() != Some(old) {
            return Ok(());
        }
        let lost = node.truth.keys().find(|life| self.goes_on(actor, life));
        lost.map_or(Ok(()), |(key, life)| {
            Err(format!(
                "session {old} of {name} is replaced by one that its own process had asked for before, and {key}@{life} goes on there"
            ))
        })
    }
}
