//! One host and its nodes. Time passes from one wake to the next, so that what is due between two
//! ticks happens when it is due. Everything that the host asks of others happens at once.

use std::collections::BTreeMap;

use maitred_protocol::{
    CreateOptions, Incarnation, NodeEpoch, OnNodeLost, PendingProcess, ProcessKey, ProcessState,
    RegisterNode, Request, Response, Restart, Switch, TypeName, TypeSpec, Waits,
};
use maitred_registry::Record;
use maitred_registry::decide::{Answer, Choose, Offer, Verdict, decide};
use maitred_registry::feature::{Ask, Manifest};
use maitred_replica::{Advice, Compensation, Config, Effect, Input, Question, Spawned};

use crate::support::{Host, comer};
pub(crate) use crate::support::{key, name};

const TICK_US: u64 = 20_000;

/// Keep-alives come at this pace: a quarter of [`TTL_MS`].
const KEEP_ALIVE_US: u64 = 250_000;
pub(crate) const TTL_MS: u32 = 1_000;

/// Milliseconds after which a node that was fine is lost for sure.
pub(crate) const LOST_MS: u64 = 1_100;

/// What a process was given to, when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) at_ms: u64,
    pub(crate) key: ProcessKey,
    pub(crate) node: String,
}

#[derive(Debug, Default)]
pub(crate) struct Game {
    epoch: u64,
    /// It answers nothing, and sends no keep-alives.
    pub(crate) dead: bool,
    /// Nothing can be started on it.
    pub(crate) refuses: bool,
    /// What it says then, if anything else than usual.
    pub(crate) says: Option<&'static str>,
}

/// See the head of this file.
pub(crate) struct World {
    change: fn(&mut Config),
    host: Host,
    pub(crate) games: BTreeMap<String, Game>,
    /// Everything that was started again, in order.
    pub(crate) starts: Vec<Start>,
    /// How many decisions were asked for processes of lost nodes.
    pub(crate) asked: usize,
    /// The largest number of those in one turn.
    pub(crate) asked_at_once: usize,
    /// Decisions are made and not told.
    pub(crate) hold_select: bool,
    held: Vec<Input>,
    /// The selector takes no node.
    pub(crate) picky: bool,
    /// Fence modules that were asked, in order.
    pub(crate) examined: Vec<String>,
    /// What a callback was asked, in order.
    pub(crate) questions: Vec<Question>,
    /// What it answers at once; none when it does not answer yet.
    pub(crate) advice: Option<Advice>,
    /// Callbacks that were not asked for a while, and how many waited for them.
    pub(crate) unasked: Vec<(String, usize)>,
    /// What it was told of lives that were given up.
    pub(crate) compensations: Vec<Compensation>,
    /// By how much the wall clock was set back.
    back_ms: u64,
}

struct Picky(Manifest);

impl Choose for Picky {
    fn manifest(&self) -> &Manifest {
        &self.0
    }

    fn choose(&mut self, _: Offer<'_>) -> Result<Answer, String> {
        Ok(Verdict::None.into())
    }
}

/// A type whose processes come back, at once after their node is lost.
pub(crate) fn spec(type_name: &str) -> TypeSpec {
    TypeSpec {
        on_node_lost: OnNodeLost::Recreate,
        restart: Restart::Fast,
        ..TypeSpec::new(TypeName::new(type_name).unwrap())
    }
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
    pub(crate) fn new(change: fn(&mut Config)) -> Self {
        let mut world = Self {
            change,
            host: Host::new(1_000_001_000),
            games: BTreeMap::new(),
            starts: Vec::new(),
            asked: 0,
            asked_at_once: 0,
            hold_select: false,
            held: Vec::new(),
            picky: false,
            examined: Vec::new(),
            questions: Vec::new(),
            advice: None,
            unasked: Vec::new(),
            compensations: Vec::new(),
            back_ms: 0,
        };
        world.restart();
        match world.ask(Request::OpenSession) {
            Response::Session(client) => world.client = client,
            other => panic!("{other:?}"),
        }
        world.put_type(spec("player"));
        world
    }

    /// The host starts again, and leads in a new term.
    pub(crate) fn restart(&mut self) {
        self.held.clear();
        self.host.start(self.change);
        self.run();
        self.keep_alives();
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
                let again = batch.jobs.iter().filter(|job| job.request.again).count();
                self.asked += again;
                self.asked_at_once = self.asked_at_once.max(again);
                let selector = batch.selector.clone();
                let mut picky = Picky(Manifest {
                    title: String::new(),
                    features: Vec::new(),
                    terms: Vec::new(),
                    ask: Ask::All,
                });
                let decisions = batch.jobs.iter().map(|job| {
                    let chooser: Result<&mut dyn Choose, String> = match self.picky {
                        true => Ok(&mut picky),
                        false => Err("no selector is there".to_owned()),
                    };
                    decide(
                        &mut batch.fleet,
                        job,
                        &selector,
                        chooser,
                        batch.time_s,
                        || 1,
                    )
                });
                let decisions = decisions.collect();
                let selected = Input::Selected { lane, decisions };
                match self.hold_select {
                    true => self.held.push(selected),
                    false => self.step(selected),
                }
            }
            Effect::Spawn(job) => {
                let node = job.node.name.as_str().to_owned();
                if job.spec.confirmed {
                    let (at_ms, key) = (self.now.mono_us / 1_000, job.key.clone());
                    let node = node.clone();
                    self.starts.push(Start { at_ms, key, node });
                }
                let game = &self.games[&node];
                if game.dead {
                    return;
                }
                let result = if game.refuses {
                    Spawned::Elsewhere(game.says.unwrap_or("it would not start").to_owned())
                } else {
                    Spawned::Started {
                        pid: "p".to_owned(),
                        share: Vec::new(),
                    }
                };
                let over = game.refuses;
                let (key, incarnation) = (job.key, job.incarnation);
                self.step(Input::Spawned {
                    key,
                    incarnation,
                    result,
                    over,
                });
            }
            Effect::Examine(examination) => {
                self.examined.push(examination.fence.as_str().to_owned());
            }
            Effect::Advise(question) => {
                let (key, incarnation) = (question.key.clone(), question.incarnation);
                self.questions.push(*question);
                if let Some(advice) = self.advice {
                    self.advise(key, incarnation, advice);
                }
            }
            Effect::Unasked {
                callback, waiting, ..
            } => self.unasked.push((callback.as_str().to_owned(), waiting)),
            Effect::Compensate(compensation) => self.compensations.push(*compensation),
            Effect::Stop {
                node,
                epoch,
                key,
                incarnation,
                ..
            } => {
                let game = self.games.get(node.as_str());
                let stops = game.is_some_and(|game| !game.dead && game.epoch == epoch.0);
                if stops {
                    self.step(Input::Stopped { key, incarnation });
                }
            }
            _ => {}
        }
    }

    /// A callback answers.
    pub(crate) fn advise(&mut self, key: ProcessKey, incarnation: Incarnation, advice: Advice) {
        self.step(Input::Advised {
            key,
            incarnation,
            advice,
        });
    }

    fn keep_alives(&mut self) {
        let alive = self.games.values().filter(|game| !game.dead);
        let epochs: Vec<u64> = alive.map(|game| game.epoch).collect();
        for epoch in epochs {
            self.renew(NodeEpoch(epoch));
        }
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, ms: u64) {
        let end_us = self.now.mono_us + ms * 1_000;
        while self.now.mono_us < end_us {
            let tick_us = (self.now.mono_us / TICK_US + 1) * TICK_US;
            let wake_us = self.replica().next_wake_us();
            let wake_us = wake_us.unwrap_or(u64::MAX).max(self.now.mono_us + 1);
            let keep_alive_us = (self.now.mono_us / KEEP_ALIVE_US + 1) * KEEP_ALIVE_US;
            let at_us = tick_us.min(keep_alive_us).min(wake_us).min(end_us);
            self.now.mono_us = at_us;
            self.now.wall_ms = 1_000_000_000 + at_us / 1_000 - self.back_ms;
            if at_us == keep_alive_us {
                self.keep_alives();
            }
            if at_us == tick_us {
                self.step(Input::Tick);
            }
            self.run();
        }
    }

    /// The decisions that were held back are told.
    pub(crate) fn tell_decisions(&mut self) {
        self.hold_select = false;
        for selected in std::mem::take(&mut self.held) {
            self.step(selected);
        }
        self.run();
    }

    /// The wall clock is set back.
    pub(crate) fn step_back_ms(&mut self, ms: u64) {
        self.back_ms += ms;
    }

    /// Asks; the answer must come without any time passing.
    pub(crate) fn ask(&mut self, request: Request) -> Response {
        let ticket = self.send(request);
        self.run();
        self.answered(ticket).expect("an answer at once")
    }

    pub(crate) fn done(&mut self, request: Request) {
        let answer = self.ask(request);
        assert!(matches!(answer, Response::Done(_)), "{answer:?}");
    }

    pub(crate) fn join(&mut self, node: &str, capacity: u32) {
        self.join_as(node, capacity, (1, None));
    }

    /// The same of a process of the node, given its last session.
    pub(crate) fn join_as(
        &mut self,
        node: &str,
        capacity: u32,
        (instance, last_epoch): (u64, Option<NodeEpoch>),
    ) {
        let register = RegisterNode {
            instance,
            last_epoch,
            ..comer(node, capacity, TTL_MS)
        };
        self.games.insert(node.to_owned(), Game::default());
        let request = Request::RegisterNode(self.client, Box::new(register));
        match self.ask(request) {
            Response::Registered { epoch, .. } => {
                self.games.get_mut(node).unwrap().epoch = epoch.0;
                self.keep_alives();
            }
            other => panic!("{other:?}"),
        }
    }

    /// Whether the registry has a session of it.
    pub(crate) fn is_there(&self, node: &str) -> bool {
        self.replica().registry().node(&name(node)).is_some()
    }

    pub(crate) fn epoch(&self, node: &str) -> NodeEpoch {
        NodeEpoch(self.games[node].epoch)
    }

    pub(crate) fn game(&mut self, node: &str) -> &mut Game {
        self.games.get_mut(node).unwrap()
    }

    /// A node dies, and its lease runs out.
    pub(crate) fn lose(&mut self, nodes: &[&str]) {
        for node in nodes {
            self.game(node).dead = true;
        }
        self.pass(LOST_MS);
        for node in nodes {
            let gone = self.replica().registry().node(&name(node)).is_none();
            assert!(gone, "{node} is still there");
        }
    }

    pub(crate) fn put_type(&mut self, spec: TypeSpec) {
        let answer = self.ask(Request::PutType(self.client, Box::new(spec)));
        assert!(matches!(answer, Response::Type(_)), "{answer:?}");
    }

    pub(crate) fn create(&mut self, key: &ProcessKey, change: impl FnOnce(&mut CreateOptions)) {
        let create = self.create_of(key, change);
        match self.ask(create) {
            Response::Created { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    /// Creates many at once.
    pub(crate) fn fill(&mut self, ids: std::ops::Range<u32>) {
        let tickets: Vec<u64> = ids
            .map(|id| {
                let create = self.create_of(&key(id), |_| {});
                self.send(create)
            })
            .collect();
        self.run();
        for ticket in tickets {
            let answer = self.answered(ticket);
            assert!(
                matches!(answer, Some(Response::Created { .. })),
                "{answer:?}"
            );
        }
    }

    pub(crate) fn delete(&mut self, key: &ProcessKey) {
        self.done(Request::DelProcess {
            client: self.client,
            key: key.clone(),
            incarnation: None,
            ended: false,
        });
    }

    pub(crate) fn cordon(&mut self, node: &str, cordoned: bool) {
        self.done(Request::CordonNode {
            client: self.client,
            name: name(node),
            cordoned,
        });
    }

    pub(crate) fn suspend(&mut self, suspended: bool) {
        self.done(Request::Suspend {
            client: self.client,
            what: Switch::Recreation,
            suspended,
        });
    }

    /// Why re-creation is paused, as status says.
    pub(crate) fn paused(&mut self) -> Option<String> {
        match self.ask(Request::Status) {
            Response::Status(status) => status.recreation_paused,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn record(&self, key: &ProcessKey) -> Option<&Record> {
        self.replica()
            .registry()
            .process(key)
            .map(|record| &**record)
    }

    pub(crate) fn runs(&self, key: &ProcessKey) -> bool {
        let record = self.record(key);
        record.is_some_and(|record| record.state == ProcessState::Running)
    }

    /// How many processes the registry has on a node; no node ever has more than it can carry.
    pub(crate) fn on(&self, node: &str) -> u32 {
        let node = self.replica().registry().node(&name(node)).unwrap();
        assert!(node.used <= node.facts.capacity, "{node:?}");
        node.processes()
    }

    pub(crate) fn pending(&self) -> u64 {
        self.replica().registry().counts().pending
    }

    /// All pages of pending processes.
    pub(crate) fn list(&mut self, limit: u32) -> Vec<PendingProcess> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            match self.ask(Request::ListPending { after, limit }) {
                Response::Pending { items, next } => {
                    assert!(!items.is_empty() || next.is_none());
                    all.extend(items);
                    if next.is_none() {
                        return all;
                    }
                    after = next;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) fn waits(&mut self, key: &ProcessKey) -> Waits {
        let listed = self.list(0);
        let found = listed.into_iter().find(|item| item.record.key == *key);
        found.expect("is pending").waits
    }

    /// Which processes were started again so far.
    pub(crate) fn started(&self) -> Vec<String> {
        let ids = self
            .starts
            .iter()
            .map(|start| start.key.id.as_str().to_owned());
        ids.collect()
    }
}
