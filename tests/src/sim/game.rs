//! A node's game: the truth about what runs. It begins and ends the lives that the agent says, and takes
//! its time for that.
//!
//! A game keeps the node's kill bound: whatever is to be gone by the agent's word (`kill_by_us`) is gone
//! by then on the node's own clock, unless the whole process was paused; or, in some scenarios, unless
//! a watchdog ends the process then, as the library's does. It must not know what the registry believes.

use maitred_client::agent::{Input, SpawnError, Spawned};
use maitred_protocol::{Incarnation, NodeEpoch, ProcessKey};

use super::actor::ActorEvent;
use super::node::NodeEvent;
use super::plan::Mend;
use super::queue::What;
use super::world::{Phase, World, say};

/// How late a timer of a node may be.
pub const LATE_US: u64 = 5_000;
/// How long a process is down that its watchdog has ended.
const DOWN_US: u64 = 300_000;

/// One life of a key.
pub type Life = (ProcessKey, Incarnation);

/// A life that really runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truth {
    /// Whether it was told to stop.
    pub stopping: bool,
    /// Since when.
    pub since_us: u64,
    /// The session that it is run under, as far as the node knows.
    pub session: Option<NodeEpoch>,
    /// The node's process was stopped while its lease ended: it could not stop this in time.
    pub overslept: bool,
    /// The game began it by itself.
    pub own: bool,
}

impl World {
    /// A process is to be started.
    pub(super) fn game_start(&mut self, actor: usize, key: ProcessKey, incarnation: Incarnation) {
        say!(self, "a{actor}: is starting {key}@{incarnation}");
        let life = (key.clone(), incarnation);
        let node = self.node(actor);
        node.owned.insert(life.clone());
        let session = node.agent.epoch();
        node.starting.insert(life, session);
        let knobs = self.scenario.knobs;
        // Without a watchdog a start and the stop after it keep the kill bound together.
        let most_us = match knobs.watchdog {
            true => 1_500_000,
            false => knobs.kill_bound_ms * 400,
        };
        let chaos = self.phase == Phase::Chaos;
        let random = &mut self.actors[actor].random;
        let slow = random.below(20) == 0;
        let took = 500 + u64::from(random.below(if slow { most_us } else { 20_000 }));
        let result = match random.below(20) {
            0 if chaos => Err(SpawnError::Busy("not now".to_owned())),
            1 if chaos => Err(SpawnError::Failed("it went wrong".to_owned())),
            _ => Ok(Spawned {
                pid: format!("{actor}-{incarnation}"),
                share: vec![1, 2, 3],
            }),
        };
        let event = NodeEvent::Started(key, incarnation, result);
        self.actor_later(actor, took, ActorEvent::Node(event));
    }

    /// A start has come to its end.
    pub(super) fn game_started(
        &mut self,
        actor: usize,
        (key, incarnation): Life,
        result: Result<Spawned, SpawnError>,
    ) {
        let life = (key.clone(), incarnation);
        let node = self.node(actor);
        let session = node.starting.remove(&life).flatten();
        let overslept = node.overslept.remove(&life);
        if result.is_ok() {
            let truth = Truth {
                stopping: false,
                since_us: self.now,
                session,
                overslept,
                own: false,
            };
            self.node(actor).truth.insert(life, truth);
            say!(self, "a{actor}: {key}@{incarnation} runs");
            self.checks.parties.begins((key.clone(), incarnation));
            self.cover.count("process started");
        }
        self.agent_step(actor, Input::SpawnEnded(key, incarnation, result));
        let found = self.check_lives_of(actor);
        self.verify("truth", found);
    }

    /// A process is to be stopped.
    pub(super) fn game_stop(&mut self, actor: usize, key: ProcessKey, incarnation: Incarnation) {
        say!(self, "a{actor}: is stopping {key}@{incarnation}");
        let fenced = self.node(actor).agent.epoch().is_none();
        if fenced && self.mutant("node-no-fence") {
            return;
        }
        let life = (key.clone(), incarnation);
        if let Some(truth) = self.node(actor).truth.get_mut(&life) {
            truth.stopping = true;
        }
        let knobs = self.scenario.knobs;
        let bound_us = u64::from(knobs.kill_bound_ms) * 1_000;
        let now_us = self.actors[actor].clock.mono_us(self.now);
        let kill_by_us = self.node(actor).agent.kill_by_us();
        let left_us = kill_by_us.map_or(bound_us, |at_us| at_us.saturating_sub(now_us));
        let most_us = left_us.min(bound_us).saturating_sub(2 * LATE_US);
        let random = &mut self.actors[actor].random;
        let quick_us = 200 + u64::from(random.below(5_000));
        let mut took_us = match random.below(40) {
            0 | 1 => most_us * u64::from(random.below(100)) / 100,
            2 => most_us,
            3 if knobs.watchdog => bound_us * 3 / 2,
            _ => quick_us,
        };
        if !knobs.watchdog && most_us > 0 {
            took_us = took_us.min(most_us);
        }
        if fenced && self.mutant("node-fence-late") {
            took_us += 2 * bound_us + 3_000_000;
        }
        let clock = &self.actors[actor].clock;
        let at = clock.true_us(now_us + took_us.max(quick_us.min(1_000)));
        let event = ActorEvent::Node(NodeEvent::Stopped(key, incarnation));
        self.actor_later(actor, at - self.now.min(at), event);
    }

    /// A process is gone.
    pub(super) fn game_stopped(&mut self, actor: usize, key: ProcessKey, incarnation: Incarnation) {
        self.node(actor).truth.remove(&(key.clone(), incarnation));
        say!(self, "a{actor}: {key}@{incarnation} is gone");
        self.agent_step(actor, Input::StopEnded(key, incarnation));
    }

    /// The watchdog looks again when something must be gone.
    pub(super) fn set_watchdog(&mut self, actor: usize) {
        if !self.scenario.knobs.watchdog {
            return;
        }
        let Some(kill_by_us) = self.node(actor).agent.kill_by_us() else {
            return;
        };
        let at = self.actors[actor].clock.true_us(kill_by_us).max(self.now) + 1_000;
        let node = self.node(actor);
        if at < node.watchdog_at {
            node.watchdog_at = at;
            let life = self.actors[actor].life;
            let event = ActorEvent::Node(NodeEvent::Watchdog);
            self.queue.push(at, What::Actor(actor, life, event));
        }
    }

    /// The watchdog looks.
    pub(super) fn watchdog(&mut self, actor: usize) {
        let now_us = self.actors[actor].clock.mono_us(self.now);
        let node = self.node(actor);
        node.watchdog_at = u64::MAX;
        let late = node.agent.kill_by_us().is_some_and(|at_us| at_us <= now_us);
        if !late {
            return self.set_watchdog(actor);
        }
        self.cover.count("watchdog ended a node");
        self.kill_node(actor);
        let start = Mend::NodeStart(actor, self.actors[actor].life);
        self.queue.push(self.now + DOWN_US, What::Mend(start));
    }

    /// A node's process goes on after a while in which it did nothing. What it could not stop in time
    /// meanwhile is known.
    pub(super) fn node_wakes(&mut self, actor: usize) -> bool {
        let now_us = self.actors[actor].clock.mono_us(self.now);
        let node = self.node(actor);
        let over = node.agent.epoch().is_none() || node.agent.lease_until_us() <= now_us;
        if over {
            for truth in node.truth.values_mut() {
                truth.overslept = true;
            }
            let starting = node.starting.keys().cloned();
            node.overslept.extend(starting);
        }
        over && !node.truth.is_empty()
    }

    /// It has taken all that had come meanwhile.
    pub(super) fn node_is_awake(&mut self, actor: usize, overslept: bool) {
        if !self.actors[actor].up {
            return;
        }
        if overslept {
            self.cover.count("node woke after its lease");
        }
        let node = self.node(actor);
        let mut serves = node.truth.iter().filter(|(_, truth)| !truth.stopping);
        let found = match serves.next() {
            Some(((key, incarnation), _)) if overslept => Err(format!(
                "{key}@{incarnation} goes on after its node woke without a lease"
            )),
            _ => self.check_lives_of(actor),
        };
        self.verify("truth", found);
    }
}
