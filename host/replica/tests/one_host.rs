//! A replica alone in its group, driven by hand: the life of creates, nodes and sessions.
//!
//! The harness carries effects out at once and in order: what is to be durable is, decisions are
//! made by the least-loaded of the candidates, and spawns end as the test says. Time moves only
//! when the test moves it.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop here"
)]

use std::collections::{BTreeMap, VecDeque};

use maitred_protocol::{
    ClientId, CreateOptions, CreateProcess, Digest, Incarnation, KeepAlive, ModuleKind, ModuleName,
    NodeEpoch, NodeName, OnConflict, OnNodeLost, ProcessKey, ProcessRecord, ProcessState,
    RegisterNode, Rejection, Request, Response, SetProcess, TypeName, TypeSpec, Unavailable,
};
use maitred_registry::Loader;
use maitred_registry::candidates::Slot;
use maitred_registry::decide::{Choose, Offer, decide};
use maitred_registry::feature::{Ask, Feature, Manifest};
use maitred_replica::{
    Config, Disk, Effect, Input, Now, Push, Recovered, RecoveredSnapshot, Replica, SpawnJob,
    Spawned, Ticket,
};
use raft::eraftpb::{Entry, HardState};

struct LeastLoaded(Manifest);

impl LeastLoaded {
    fn new() -> Self {
        let features = vec![Feature::Processes];
        Self(Manifest {
            title: "test".to_owned(),
            features,
            ask: Ask::All,
        })
    }
}

impl Choose for LeastLoaded {
    fn manifest(&self) -> &Manifest {
        &self.0
    }

    fn choose(&mut self, offer: Offer<'_>) -> Result<Option<Slot>, String> {
        let best = offer
            .slots
            .iter()
            .zip(offer.features)
            .min_by(|a, b| a.1.total_cmp(b.1));
        Ok(best.map(|(slot, _)| *slot))
    }
}

/// What a disk would have.
#[derive(Default)]
struct Disc {
    hard_state: HardState,
    entries: Vec<Entry>,
    start: (u64, u64),
    snapshot: Option<(u64, u64, raft::eraftpb::ConfState, Vec<Vec<u8>>)>,
}

struct Harness {
    replica: Replica,
    now: Now,
    disc: Disc,
    answers: BTreeMap<u64, Response>,
    spawns: VecDeque<SpawnJob>,
    stops: Vec<(ProcessKey, Incarnation)>,
    acks: Vec<(NodeEpoch, u64, bool)>,
    /// Holds decisions back until the test lets them go.
    hold_select: bool,
    held: Vec<Input>,
    hold_persist: bool,
    next: u64,
    client: ClientId,
}

impl Harness {
    fn new() -> Self {
        let mut harness = Self::start(
            Disc::default(),
            Now {
                mono_us: 1_000_000,
                wall_ms: 1_000,
            },
        );
        let Response::Session(client) = harness.ask(Request::OpenSession) else {
            panic!("no session")
        };
        harness.client = client;
        harness.module("least-loaded", ModuleKind::Selector);
        harness.module("start", ModuleKind::Callback);
        harness
    }

    fn start(disc: Disc, now: Now) -> Self {
        let snapshot = disc
            .snapshot
            .as_ref()
            .map(|(index, term, conf_state, chunks)| {
                let mut loader = Loader::new();
                chunks.iter().for_each(|chunk| loader.chunk(chunk).unwrap());
                let registry = loader.finish().unwrap();
                RecoveredSnapshot {
                    index: *index,
                    term: *term,
                    conf_state: conf_state.clone(),
                    registry,
                }
            });
        let recovered = Recovered {
            hard_state: disc.hard_state.clone(),
            entries: disc.entries.clone(),
            start_index: disc.start.0,
            start_term: disc.start.1,
            snapshot,
        };
        let config = Config {
            snapshot_entries: 50,
            ..Config::new(1)
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let replica = Replica::new(config, recovered, now, &logger).unwrap();
        let mut harness = Self {
            replica,
            now,
            disc,
            answers: BTreeMap::new(),
            spawns: VecDeque::new(),
            stops: Vec::new(),
            acks: Vec::new(),
            hold_select: false,
            held: Vec::new(),
            hold_persist: false,
            next: 0,
            client: ClientId(0),
        };
        harness.run();
        harness
    }

    /// The host dies and starts again with what was durable.
    fn crash(self) -> Self {
        let (client, next) = (self.client, self.next);
        let mut harness = Self::start(self.disc, self.now);
        (harness.client, harness.next) = (client, next);
        harness
    }

    fn run(&mut self) {
        loop {
            let mut effects = Vec::new();
            self.replica.effects(self.now, &mut effects);
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                self.carry_out(effect);
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(persist) => {
                if self.hold_persist {
                    return;
                }
                if let Some(first) = persist.entries.first() {
                    let keep = (first.index - self.disc.start.0 - 1) as usize;
                    self.disc.entries.truncate(keep);
                    self.disc.entries.extend(persist.entries.clone());
                }
                if let Some(hard_state) = persist.hard_state {
                    self.disc.hard_state = hard_state;
                }
                self.replica
                    .step(self.now, Input::Persisted(persist.number));
            }
            Effect::Reply(ticket, answer) => {
                let twice = self.answers.insert(ticket.0, answer.into_response());
                assert!(twice.is_none(), "ticket {} answered twice", ticket.0);
            }
            Effect::Select { lane, mut batch } => {
                let mut chooser = LeastLoaded::new();
                let selector = batch.selector.clone();
                let decisions = batch.jobs.iter().map(|job| {
                    let chooser: Result<&mut dyn Choose, String> = match &selector {
                        Ok(_) => Ok(&mut chooser),
                        Err((_, cause)) => Err(cause.clone()),
                    };
                    decide(
                        &mut batch.fleet,
                        job,
                        &selector,
                        chooser,
                        batch.time_s,
                        || 7,
                    )
                });
                let input = Input::Selected {
                    lane,
                    decisions: decisions.collect(),
                };
                if self.hold_select {
                    self.held.push(input);
                } else {
                    self.replica.step(self.now, input);
                }
            }
            Effect::Spawn(job) => self.spawns.push_back(*job),
            Effect::Stop {
                key, incarnation, ..
            } => self.stops.push((key, incarnation)),
            Effect::KeepAliveAck { ack, .. } => {
                self.acks.push((ack.epoch, ack.sequence, ack.alive))
            }
            Effect::Snapshot(take) => {
                let mut chunks = Vec::new();
                take.state
                    .encode(|chunk| {
                        chunks.push(chunk);
                        Ok::<(), ()>(())
                    })
                    .unwrap();
                let floor = self.disc.snapshot.as_ref().map_or(0, |(index, ..)| *index);
                self.disc.snapshot = Some((take.index, take.term, take.conf_state, chunks));
                let input = Input::SnapshotSaved {
                    index: Some(take.index),
                    floor,
                };
                self.replica.step(self.now, input);
            }
            Effect::Compact(index) => {
                let cut = index.saturating_sub(self.disc.start.0) as usize;
                let gone: Vec<Entry> = self.disc.entries.drain(..cut).collect();
                if let Some(last) = gone.last() {
                    self.disc.start = (last.index, last.term);
                }
            }
            Effect::Explain(ticket, record) => {
                let explanation = maitred_protocol::Explanation {
                    record: *record,
                    evidence: None,
                };
                self.answers
                    .insert(ticket.0, Response::Explained(Box::new(explanation)));
            }
            Effect::Modules(_) | Effect::Record(..) | Effect::Events(..) => {}
        }
    }

    fn send_as(&mut self, sequence: u64, request: Request) -> u64 {
        self.next += 1;
        let ticket = self.next;
        let input = Input::Request {
            ticket: Ticket(ticket),
            sequence,
            request,
        };
        self.replica.step(self.now, input);
        self.run();
        ticket
    }

    fn send(&mut self, request: Request) -> u64 {
        let sequence = self.next + 1;
        self.send_as(sequence, request)
    }

    fn ask(&mut self, request: Request) -> Response {
        let ticket = self.send(request);
        self.answers
            .get(&ticket)
            .cloned()
            .expect("an answer at once")
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(10) {
            self.now.mono_us += 10_000;
            self.now.wall_ms += 10;
            self.replica.step(self.now, Input::Tick);
            self.run();
        }
    }

    fn module(&mut self, name: &str, kind: ModuleKind) {
        let name = ModuleName::new(name).unwrap();
        self.next += 1;
        let push = Push {
            client: self.client,
            name: name.clone(),
            kind,
            digest: Digest::of(name.as_str().as_bytes()),
            bytes: 1,
            title: "test 1".to_owned(),
            features: vec!["processes".to_owned()],
        };
        let (ticket, sequence) = (Ticket(self.next), self.next);
        self.replica.step(
            self.now,
            Input::Push {
                ticket,
                sequence,
                push,
            },
        );
        self.run();
        let client = self.client;
        let response = self.ask(Request::ActivateModule {
            client,
            name,
            version: 0,
            config: None,
        });
        assert!(matches!(response, Response::Module(_)), "{response:?}");
    }

    fn node(&mut self, name: &str, capacity: u32) -> NodeEpoch {
        let register = register(name, capacity, Vec::new());
        match self.ask(Request::RegisterNode(self.client, Box::new(register))) {
            Response::Registered { epoch, .. } => epoch,
            other => panic!("{other:?}"),
        }
    }

    fn put_type(&mut self, change: impl FnOnce(&mut TypeSpec)) {
        let mut spec = TypeSpec::new(TypeName::new("player").unwrap());
        change(&mut spec);
        let response = self.ask(Request::PutType(self.client, Box::new(spec)));
        assert!(matches!(response, Response::Type(_)), "{response:?}");
    }

    fn create(&mut self, id: &str, change: impl FnOnce(&mut CreateOptions)) -> u64 {
        let request = create(self.client, id, change);
        self.send(request)
    }

    /// Ends the oldest spawn that is under way.
    fn spawned(&mut self, result: Spawned) -> SpawnJob {
        let job = self.spawns.pop_front().expect("a spawn under way");
        let (key, incarnation) = (job.key.clone(), job.incarnation);
        self.replica.step(
            self.now,
            Input::Spawned {
                key,
                incarnation,
                result,
            },
        );
        self.run();
        job
    }

    fn start_ok(&mut self) -> SpawnJob {
        self.spawned(Spawned::Started {
            pid: "pid".to_owned(),
            share: vec![1],
        })
    }

    fn get(&mut self, id: &str) -> Option<ProcessRecord> {
        match self.ask(Request::GetProcess {
            key: key(id),
            stale: false,
        }) {
            Response::Process { record, .. } => Some(*record),
            Response::Rejected(Rejection::NotFound(_)) => None,
            other => panic!("{other:?}"),
        }
    }

    fn alive(&mut self, epoch: NodeEpoch, sequence: u64) {
        let keep_alive = KeepAlive {
            epoch,
            sequence,
            load: None,
        };
        self.replica.step(
            self.now,
            Input::KeepAlive {
                link: 0,
                keep_alive,
            },
        );
        self.run();
    }
}

fn key(id: &str) -> ProcessKey {
    ProcessKey::new("player", id).unwrap()
}

fn register(name: &str, capacity: u32, inventory: Vec<(ProcessKey, Incarnation)>) -> RegisterNode {
    RegisterNode {
        name: NodeName::new(name).unwrap(),
        types: Vec::new(),
        address: format!("{name}:7000"),
        labels: Vec::new(),
        capacity,
        share: Vec::new(),
        ttl_ms: 3_000,
        inventory,
    }
}

fn create(client: ClientId, id: &str, change: impl FnOnce(&mut CreateOptions)) -> Request {
    let mut options = CreateOptions::default();
    change(&mut options);
    let create = CreateProcess {
        key: key(id),
        args: vec![9],
        selector: None,
        callback: None,
        options,
    };
    Request::CreateProcess(client, Box::new(create))
}

#[test]
fn a_create_is_answered_when_its_process_runs_and_not_before() {
    let mut harness = Harness::new();
    harness.node("a", 10);
    let ticket = harness.create("1", |_| {});
    assert!(!harness.answers.contains_key(&ticket));
    assert_eq!(harness.get("1").unwrap().state, ProcessState::Starting);
    let job = harness.start_ok();
    assert_eq!((&*job.spec.args, job.attempt), (&[9][..], 1));
    let Response::Created {
        record,
        created: true,
    } = &harness.answers[&ticket]
    else {
        panic!()
    };
    assert_eq!(
        (record.state, record.address.as_str()),
        (ProcessState::Running, "a:7000")
    );
    assert_eq!(record.incarnation, job.incarnation);
}

#[test]
fn nothing_is_answered_before_it_is_durable() {
    let mut harness = Harness::new();
    let epoch = harness.node("a", 10);
    harness.hold_persist = true;
    let set = SetProcess {
        key: key("1"),
        node: NodeName::new("a").unwrap(),
        epoch,
        pid: "p".to_owned(),
        share: Vec::new(),
        incarnation: None,
    };
    let ticket = harness.send(Request::SetProcess(harness.client, Box::new(set)));
    assert!(!harness.answers.contains_key(&ticket));
    let mut harness = harness.crash();
    assert_eq!(harness.get("1"), None);
}

#[test]
fn concurrent_creates_of_a_key_start_it_once() {
    let mut harness = Harness::new();
    harness.node("a", 10);
    harness.hold_select = true;
    let first = harness.create("1", |_| {});
    let second = harness.create("1", |_| {});
    harness.hold_select = false;
    for input in std::mem::take(&mut harness.held) {
        harness.replica.step(harness.now, input);
    }
    harness.run();
    let third = harness.create("1", |_| {});
    let fail = harness.create("1", |options| options.on_conflict = OnConflict::Fail);
    assert!(matches!(
        harness.answers[&fail],
        Response::Rejected(Rejection::AlreadyExists(_))
    ));
    assert_eq!(harness.spawns.len(), 1);
    harness.start_ok();
    assert!(matches!(
        harness.answers[&first],
        Response::Created { created: true, .. }
    ));
    assert!(matches!(
        harness.answers[&second],
        Response::Created { created: false, .. }
    ));
    assert!(matches!(
        harness.answers[&third],
        Response::Created { created: false, .. }
    ));
}

#[test]
fn a_create_may_wait_until_its_key_is_free() {
    let mut harness = Harness::new();
    harness.node("a", 10);
    harness.create("1", |_| {});
    let old = harness.start_ok();
    let wait = |options: &mut CreateOptions| {
        options.on_conflict = OnConflict::Wait;
        options.deadline_ms = 1_000;
    };
    let first = harness.create("1", wait);
    assert!(!harness.answers.contains_key(&first));
    let client = harness.client;
    harness.ask(Request::DelProcess {
        client,
        key: key("1"),
        incarnation: None,
    });
    let new = harness.start_ok();
    assert!(new.incarnation > old.incarnation);
    assert!(matches!(
        harness.answers[&first],
        Response::Created { created: true, .. }
    ));
    let second = harness.create("1", wait);
    harness.pass(1_100);
    assert!(matches!(
        harness.answers[&second],
        Response::Rejected(Rejection::Deadline(_))
    ));
}

#[test]
fn a_failed_attempt_goes_to_another_node_under_a_new_incarnation() {
    let mut harness = Harness::new();
    harness.node("a", 10);
    harness.node("b", 10);
    let ticket = harness.create("1", |_| {});
    let first = harness.spawned(Spawned::Elsewhere("busy".to_owned()));
    assert!(harness.spawns.is_empty(), "the back-off comes first");
    harness.pass(100);
    let second = harness.start_ok();
    assert_ne!(first.node.name, second.node.name);
    assert!(second.incarnation > first.incarnation);
    assert_eq!(second.attempt, 2);
    assert_eq!(
        harness.stops,
        [(key("1"), first.incarnation)],
        "the old one gets a tombstone"
    );
    assert!(matches!(
        harness.answers[&ticket],
        Response::Created { created: true, .. }
    ));
}

#[test]
fn attempts_run_out() {
    let mut harness = Harness::new();
    for name in ["a", "b", "c"] {
        harness.node(name, 10);
    }
    let ticket = harness.create("1", |options| options.attempts = 2);
    harness.spawned(Spawned::Elsewhere("one".to_owned()));
    harness.pass(100);
    harness.spawned(Spawned::Elsewhere("two".to_owned()));
    let Response::Rejected(Rejection::SpawnFailed(attempts)) = &harness.answers[&ticket] else {
        panic!("{:?}", harness.answers[&ticket])
    };
    let causes: Vec<_> = attempts
        .iter()
        .map(|attempt| attempt.cause.as_str())
        .collect();
    assert_eq!(causes, ["one", "two"]);
    assert_eq!(harness.get("1"), None);
    let give_up = harness.create("1", |_| {});
    harness.spawned(Spawned::GiveUp("no".to_owned()));
    assert!(matches!(
        &harness.answers[&give_up],
        Response::Rejected(Rejection::SpawnFailed(attempts)) if attempts.len() == 1
    ));
}

#[test]
fn a_deadline_undoes_the_create() {
    let mut harness = Harness::new();
    harness.node("a", 10);
    let ticket = harness.create("1", |options| options.deadline_ms = 500);
    harness.pass(600);
    assert!(matches!(
        harness.answers[&ticket],
        Response::Rejected(Rejection::Deadline(_))
    ));
    assert_eq!(harness.get("1"), None);
    let late = harness.start_ok();
    assert_eq!(harness.stops, [(key("1"), late.incarnation)]);
    assert_eq!(harness.get("1"), None, "a late start changes nothing");
}

#[test]
fn capacity_is_never_exceeded_and_the_refusals_are_named() {
    let mut harness = Harness::new();
    harness.node("a", 2);
    harness.node("b", 1);
    let tickets: Vec<u64> = (0..4)
        .map(|id| harness.create(&id.to_string(), |_| {}))
        .collect();
    let Response::Rejected(Rejection::NoPlacement { refusals, .. }) = &harness.answers[&tickets[3]]
    else {
        panic!("{:?}", harness.answers)
    };
    assert_eq!(refusals.len(), 2);
    assert_eq!(refusals[0].reason.to_string(), "capacity: 0 left, 1 needed");
    assert_eq!(harness.spawns.len(), 3);
}

#[test]
fn a_create_survives_a_crash_at_every_step() {
    // Reserved, not yet started: the new leader runs the same incarnation again.
    let mut harness = Harness::new();
    harness.node("a", 10);
    harness.create("1", |_| {});
    let before = harness.spawns.pop_front().unwrap();
    let mut harness = harness.crash();
    let after = harness.start_ok();
    assert_eq!(after.incarnation, before.incarnation);
    let record = harness.get("1").unwrap();
    assert_eq!(
        (record.state, record.incarnation),
        (ProcessState::Running, before.incarnation)
    );
    // Running, and the answer was lost: a retry gets the stored outcome.
    let mut harness = harness.crash();
    assert!(harness.spawns.is_empty());
    let request = create(harness.client, "1", |_| {});
    // The sequence of the create: after the session, two modules with two requests each, a node.
    let ticket = harness.send_as(7, request);
    assert!(matches!(
        harness.answers[&ticket],
        Response::Created { created: true, .. }
    ));
}

#[test]
fn a_crash_after_the_deadline_undoes_the_create() {
    let mut harness = Harness::new();
    harness.node("a", 10);
    harness.create("1", |options| options.deadline_ms = 1_000);
    let mut crashed = harness.crash();
    crashed.spawns.clear();
    crashed.pass(1_200);
    assert_eq!(crashed.get("1"), None);
}

#[test]
fn a_silent_node_expires_once_and_its_processes_are_forgotten_or_placed_again() {
    let mut harness = Harness::new();
    harness.put_type(|spec| spec.on_node_lost = OnNodeLost::Recreate);
    let a = harness.node("a", 10);
    harness.create("1", |_| {});
    let first = harness.start_ok();
    let set = SetProcess {
        key: key("own"),
        node: NodeName::new("a").unwrap(),
        epoch: a,
        pid: "p".to_owned(),
        share: Vec::new(),
        incarnation: None,
    };
    harness.ask(Request::SetProcess(harness.client, Box::new(set)));
    harness.pass(2_900);
    harness.alive(a, 1);
    assert_eq!(harness.acks, [(a, 1, true)]);
    harness.pass(2_900);
    assert!(harness.get("1").is_some(), "the lease was renewed");
    let b = harness.node("b", 10);
    harness.pass(200);
    harness.alive(a, 2);
    assert_eq!(
        harness.acks.last(),
        Some(&(a, 2, false)),
        "it is told that it has ended"
    );
    assert_eq!(
        harness.get("own"),
        None,
        "what a node registered itself goes with it"
    );
    let again = harness.start_ok();
    assert!(again.incarnation > first.incarnation);
    assert_eq!(again.node.epoch, b);
    assert_eq!(harness.get("1").unwrap().node.as_str(), "b");
}

#[test]
fn a_wanted_process_waits_for_a_node_for_as_long_as_it_takes() {
    let mut harness = Harness::new();
    harness.put_type(|spec| spec.on_node_lost = OnNodeLost::Recreate);
    harness.node("a", 10);
    harness.create("1", |_| {});
    harness.start_ok();
    harness.pass(60_000);
    assert_eq!(harness.get("1").unwrap().state, ProcessState::Pending);
    let b = harness.node("b", 10);
    for beat in 1..40 {
        harness.pass(1_000);
        harness.alive(b, beat);
    }
    harness.start_ok();
    assert_eq!(harness.get("1").unwrap().node.as_str(), "b");
}

#[test]
fn a_node_that_registers_anew_keeps_what_it_still_runs() {
    let mut harness = Harness::new();
    let old = harness.node("a", 10);
    for id in ["1", "2"] {
        harness.create(id, |_| {});
    }
    let one = harness.start_ok();
    harness.start_ok();
    let inventory = vec![(key("1"), one.incarnation), (key("3"), Incarnation(1))];
    let register = register("a", 10, inventory);
    let response = harness.ask(Request::RegisterNode(harness.client, Box::new(register)));
    let Response::Registered { epoch, verdicts } = response else {
        panic!("{response:?}")
    };
    assert!(epoch > old);
    use maitred_protocol::Verdict::{Keep, Stop};
    assert_eq!(verdicts, [Keep, Stop]);
    assert_eq!(harness.get("1").unwrap().node_epoch, epoch);
    assert_eq!(harness.get("2"), None);
    let fenced = harness.ask(Request::AttachNode {
        name: NodeName::new("a").unwrap(),
        epoch: old,
        inventory: Vec::new(),
    });
    assert!(matches!(
        fenced,
        Response::Rejected(Rejection::Fenced { .. })
    ));
}

#[test]
fn a_reconnecting_node_is_told_what_to_stop_and_what_it_lost_is_dropped() {
    let mut harness = Harness::new();
    let epoch = harness.node("a", 10);
    for id in ["1", "2"] {
        harness.create(id, |_| {});
    }
    let one = harness.start_ok();
    harness.start_ok();
    let attach = Request::AttachNode {
        name: NodeName::new("a").unwrap(),
        epoch,
        inventory: vec![(key("1"), one.incarnation), (key("2"), Incarnation(1))],
    };
    let Response::Registered { verdicts, .. } = harness.ask(attach) else {
        panic!()
    };
    use maitred_protocol::Verdict::{Keep, Stop};
    assert_eq!(verdicts, [Keep, Stop]);
    assert!(harness.get("1").is_some());
    assert_eq!(harness.get("2"), None);
}

#[test]
fn a_retried_change_takes_effect_once() {
    let mut harness = Harness::new();
    harness.node("a", 10);
    let ticket = harness.create("1", |_| {});
    harness.start_ok();
    let client = harness.client;
    let delete = Request::DelProcess {
        client,
        key: key("1"),
        incarnation: None,
    };
    let first = harness.send_as(1_000, delete.clone());
    assert!(matches!(harness.answers[&first], Response::Done(_)));
    harness.create("1", |_| {});
    harness.start_ok();
    let again = harness.send_as(1_000, delete.clone());
    assert_eq!(harness.answers[&again], harness.answers[&first]);
    assert!(
        harness.get("1").is_some(),
        "the new life is not deleted by the old request"
    );
    let mut harness = harness.crash();
    let again = harness.send_as(1_000, delete);
    assert!(matches!(harness.answers[&again], Response::Done(_)));
    assert!(harness.get("1").is_some());
    let _ = ticket;
    let stranger = Request::DelProcess {
        client: ClientId(999),
        key: key("1"),
        incarnation: None,
    };
    assert_eq!(
        harness.ask(stranger),
        Response::Unavailable(Unavailable::NoSession)
    );
}

#[test]
fn snapshots_cut_the_log_and_a_restart_reads_the_same_state() {
    let mut harness = Harness::new();
    harness.node("a", 1_000);
    for id in 0..100 {
        harness.create(&id.to_string(), |_| {});
        harness.start_ok();
    }
    assert!(harness.disc.snapshot.is_some());
    assert!(harness.disc.start.0 > 0, "the log was cut");
    let before: Vec<_> = (0..100).map(|id| harness.get(&id.to_string())).collect();
    let mut harness = harness.crash();
    let after: Vec<_> = (0..100).map(|id| harness.get(&id.to_string())).collect();
    assert_eq!(before, after);
    assert!(before.iter().all(Option::is_some));
}

#[test]
fn a_full_disk_sheds_creates_and_nothing_else() {
    let mut harness = Harness::new();
    let epoch = harness.node("a", 10);
    harness.create("1", |_| {});
    harness.start_ok();
    harness
        .replica
        .step(harness.now, Input::Disk(Disk::Low(1 << 20)));
    let shed = harness.create("2", |_| {});
    assert!(matches!(
        harness.answers[&shed],
        Response::Unavailable(Unavailable::DiskFull(_))
    ));
    harness.alive(epoch, 1);
    assert_eq!(harness.acks.last(), Some(&(epoch, 1, true)));
    assert!(harness.get("1").is_some());
    let client = harness.client;
    let delete = Request::DelProcess {
        client,
        key: key("1"),
        incarnation: None,
    };
    assert!(matches!(harness.ask(delete), Response::Done(_)));
    harness.replica.step(harness.now, Input::Disk(Disk::Ok));
    let ticket = harness.create("2", |_| {});
    harness.start_ok();
    assert!(matches!(harness.answers[&ticket], Response::Created { .. }));
}

#[test]
fn a_decision_made_before_an_activation_is_made_again() {
    let mut harness = Harness::new();
    harness.node("a", 10);
    harness.hold_select = true;
    let ticket = harness.create("1", |_| {});
    let client = harness.client;
    let name = ModuleName::new("least-loaded").unwrap();
    let activate = Request::ActivateModule {
        client,
        name,
        version: 1,
        config: None,
    };
    let Response::Module(module) = harness.ask(activate) else {
        panic!()
    };
    harness.hold_select = false;
    for input in std::mem::take(&mut harness.held) {
        harness.replica.step(harness.now, input);
    }
    harness.run();
    let job = harness.start_ok();
    assert!(job.incarnation.0 > module.activated.0);
    assert!(matches!(
        harness.answers[&ticket],
        Response::Created { created: true, .. }
    ));
}

#[test]
fn a_plan_changes_nothing() {
    let mut harness = Harness::new();
    harness.node("a", 10);
    let Request::CreateProcess(_, create) = create(harness.client, "1", |_| {}) else {
        panic!()
    };
    let Response::Planned(plan) = harness.ask(Request::Plan(create)) else {
        panic!()
    };
    assert_eq!(plan.node.unwrap().as_str(), "a");
    assert_eq!(plan.evidence.candidates.len(), 1);
    assert_eq!(harness.get("1"), None);
    assert!(harness.spawns.is_empty());
}

#[test]
fn a_missing_selector_falls_back_and_says_so() {
    let mut harness = Harness::new();
    harness.put_type(|spec| spec.selector = ModuleName::new("nowhere").unwrap());
    harness.node("a", 10);
    let ticket = harness.create("1", |_| {});
    harness.start_ok();
    let Response::Created { record, .. } = &harness.answers[&ticket] else {
        panic!()
    };
    let maitred_protocol::Chooser::Fallback { cause, .. } = &record.why.chooser else {
        panic!()
    };
    assert_eq!(cause, "there is no module nowhere");
}
