//! One host and the nodes of a game: what the host asks of them happens at once, unless the test says
//! otherwise. Whether a key ever has two lives is looked at where they live.

mod asks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use maitred_protocol::{Incarnation, NodeEpoch, ProcessKey, Request, Response, TypeName, TypeSpec};
use maitred_registry::decide::{Answer, Choose, Offer, Trace, Verdict, decide};
use maitred_registry::feature::{Ask, Manifest};
use maitred_replica::{Effect, Input, Spawned};

use crate::support::Host;
pub(crate) use crate::support::{key, name};

/// Microseconds of a step.
const STEP_US: u64 = 20_000;

/// A node, and what really runs on it.
#[derive(Debug, Default)]
pub(crate) struct Game {
    pub(crate) epoch: u64,
    pub(crate) running: BTreeMap<ProcessKey, Incarnation>,
    /// It answers nothing, and sends no keep-alives.
    pub(crate) dead: bool,
    /// Stops that it has heard of are not carried out yet.
    pub(crate) slow_stops: bool,
    /// Spawns that it has heard of are not carried out yet.
    pub(crate) slow_spawns: bool,
    stops: Vec<(ProcessKey, Incarnation)>,
    spawns: Vec<(ProcessKey, Incarnation)>,
}

/// See the head of this file.
pub(crate) struct World {
    host: Host,
    pub(crate) games: BTreeMap<String, Game>,
    pub(crate) traces: BTreeMap<Incarnation, Arc<Trace>>,
    /// What happened on nodes: `stop player/1 on a`, `start player/1 on b`.
    pub(crate) diary: Vec<String>,
    /// Nodes on which nothing can be started.
    pub(crate) refuses: BTreeSet<String>,
    /// What the selector says; the fallback decides when there is none.
    pub(crate) says: Option<fn(&Offer<'_>) -> Verdict>,
    /// Decisions are made and not told.
    pub(crate) hold_select: bool,
    held: Vec<Input>,
}

struct Says(Manifest, fn(&Offer<'_>) -> Verdict);

impl Says {
    fn new(says: fn(&Offer<'_>) -> Verdict) -> Self {
        let manifest = Manifest {
            title: String::new(),
            features: Vec::new(),
            terms: Vec::new(),
            ask: Ask::All,
        };
        Self(manifest, says)
    }
}

impl Choose for Says {
    fn manifest(&self) -> &Manifest {
        &self.0
    }

    fn choose(&mut self, offer: Offer<'_>) -> Result<Answer, String> {
        Ok((self.1)(&offer).into())
    }
}

pub(crate) fn player() -> TypeSpec {
    TypeSpec::new(TypeName::new("player").unwrap())
}

impl std::ops::Deref for World {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl std::ops::DerefMut for World {
    fn deref_mut(&mut self) -> &mut Host {
        &mut self.host
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let mut world = Self {
            host: Host::new(1_000_000_000),
            games: BTreeMap::new(),
            traces: BTreeMap::new(),
            diary: Vec::new(),
            refuses: BTreeSet::new(),
            says: None,
            hold_select: false,
            held: Vec::new(),
        };
        world.restart();
        match world.ask(Request::OpenSession) {
            Response::Session(client) => world.client = client,
            other => panic!("{other:?}"),
        }
        world
    }

    /// Nodes with these names and a capacity.
    pub(crate) fn with(nodes: &[&str], capacity: u32) -> Self {
        let mut world = Self::new();
        for node in nodes {
            world.join(node, capacity);
        }
        world
    }

    /// The host starts again, and leads in a new term.
    pub(crate) fn restart(&mut self) {
        self.host.start(|_| {});
        self.run();
        for node in self.games.keys().cloned().collect::<Vec<_>>() {
            self.keep_alive(&node);
        }
    }

    pub(crate) fn run(&mut self) {
        loop {
            let effects = self.effects();
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                if let Some(other) = self.carry_out_own(effect) {
                    self.carry_out(other);
                }
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Select { lane, mut batch } => {
                let selector = batch.selector.clone();
                let mut says = self.says.map(Says::new);
                let decisions = batch.jobs.iter().map(|job| {
                    let chooser = says.as_mut().map(|says| says as &mut dyn Choose);
                    let chooser = chooser.ok_or_else(|| "no selector is there".to_owned());
                    let time_s = batch.time_s;
                    decide(&mut batch.fleet, job, &selector, chooser, time_s, || 1)
                });
                let decisions = decisions.collect();
                let selected = Input::Selected { lane, decisions };
                match self.hold_select {
                    true => self.held.push(selected),
                    false => self.step(selected),
                }
            }
            Effect::Record(incarnation, trace) => {
                self.traces.insert(incarnation, trace);
            }
            Effect::Spawn(job) => {
                let node = job.node.name.as_str();
                let game = self.games.get_mut(node).unwrap();
                let life = (job.key, job.incarnation);
                // A node starts a life once, however often it is told.
                if !game.spawns.contains(&life) {
                    game.spawns.push(life);
                }
                self.spawn_all(node);
            }
            Effect::Stop {
                node,
                key,
                incarnation,
                ..
            } => {
                if let Some(game) = self.games.get_mut(node.as_str()) {
                    // A tombstone: what has not begun never does.
                    game.spawns
                        .retain(|spawn| *spawn != (key.clone(), incarnation));
                    game.stops.push((key, incarnation));
                    self.stop_all(node.as_str());
                }
            }
            _ => {}
        }
    }

    fn spawn_all(&mut self, node: &str) {
        let game = self.games.get_mut(node).unwrap();
        if game.dead || game.slow_spawns {
            return;
        }
        let fails = self.refuses.contains(node);
        for (key, incarnation) in std::mem::take(&mut game.spawns) {
            let result = if fails {
                Spawned::Elsewhere("it would not start".to_owned())
            } else {
                let others = self.games.iter();
                let mut others = others.filter(|(_, game)| game.running.contains_key(&key));
                assert!(others.next().is_none(), "{key} has two lives");
                let game = self.games.get_mut(node).unwrap();
                game.running.insert(key.clone(), incarnation);
                self.diary.push(format!("start {key} on {node}"));
                Spawned::Started {
                    pid: format!("pid-{key}"),
                    share: Vec::new(),
                }
            };
            self.step(Input::Spawned {
                key,
                incarnation,
                result,
                over: fails,
            });
        }
    }

    fn stop_all(&mut self, node: &str) {
        let game = self.games.get_mut(node).unwrap();
        if game.dead || game.slow_stops {
            return;
        }
        for (key, incarnation) in std::mem::take(&mut game.stops) {
            let game = self.games.get_mut(node).unwrap();
            if game.running.get(&key) == Some(&incarnation) {
                game.running.remove(&key);
                self.diary.push(format!("stop {key} on {node}"));
            }
            self.step(Input::Stopped { key, incarnation });
        }
    }

    /// What a slow node has put off happens now.
    pub(crate) fn go_on(&mut self, node: &str) {
        let game = self.games.get_mut(node).unwrap();
        (game.slow_stops, game.slow_spawns) = (false, false);
        self.stop_all(node);
        self.spawn_all(node);
        self.run();
    }

    /// The decisions that were held back are told.
    pub(crate) fn tell_decisions(&mut self) {
        self.hold_select = false;
        for selected in std::mem::take(&mut self.held) {
            self.step(selected);
        }
        self.run();
    }

    fn keep_alive(&mut self, node: &str) {
        let game = &self.games[node];
        if !game.dead {
            let epoch = NodeEpoch(game.epoch);
            self.renew(epoch);
        }
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(STEP_US / 1_000) {
            self.now.mono_us += STEP_US;
            self.now.wall_ms += STEP_US / 1_000;
            if self.now.mono_us.is_multiple_of(200_000) {
                for node in self.games.keys().cloned().collect::<Vec<_>>() {
                    self.keep_alive(&node);
                }
            }
            self.step(Input::Tick);
            self.run();
        }
    }
}
