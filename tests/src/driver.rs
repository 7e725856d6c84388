//! A replica alone in its group, driven by hand: its effects are carried out at once and in order.
//!
//! What is to be durable goes to a disc in memory, decisions are made by [`chooser`], spawns end
//! when the test says so, and time moves only when the test moves it. A test may hold decisions and
//! writes back, and crash the host: what was not written by then is lost. Whatever leaves the
//! replica is kept in [`Driver::seen`], in order.
//!
//! It must not know what is being tested: it judges only what holds in every test, that no ticket
//! is answered twice.

pub(crate) mod chooser;
mod disc;

use std::collections::BTreeSet;

use maitred_protocol::{
    ClientId, Digest, Incarnation, KeepAlive, KeepAliveAck, ModuleKind, ModuleName, NodeEpoch,
    NodeName, ProcessKey, Request, Response,
};
use maitred_registry::{Event, PushModule};
use maitred_replica::{
    Config, Effect, Input, Now, Persist, Push, Replica, SpawnJob, Spawned, StartError, Ticket,
};

pub use disc::Disc;

/// Something that left the replica.
#[derive(Debug)]
pub enum Seen {
    /// An answer to a ticket.
    Reply(u64, Box<Response>),
    /// A spawn was asked for.
    Spawn(Box<SpawnJob>),
    /// A life is not to run.
    Stop {
        /// The node that is told.
        node: NodeName,
        /// Its session.
        epoch: NodeEpoch,
        /// Which process.
        key: ProcessKey,
        /// Which life.
        incarnation: Incarnation,
    },
    /// A keep-alive was answered.
    Ack(KeepAliveAck),
    /// A snapshot that contains this index was written; or could not be.
    Snapshot(Option<u64>),
    /// The log was cut through this index.
    Compact(u64),
    /// What changed.
    Events(Vec<Event>),
}

/// See the head of this file.
#[derive(Debug)]
pub struct Driver {
    /// The replica.
    pub replica: Replica,
    /// Its time.
    pub now: Now,
    /// Its disc.
    pub disc: Disc,
    /// What left it, in order; whoever drives takes it out.
    pub seen: Vec<Seen>,
    /// Spawns that were asked for and have not ended, oldest first.
    pub spawns: Vec<SpawnJob>,
    /// Holds decisions back.
    pub hold_select: bool,
    /// Holds writes back.
    pub hold_persist: bool,
    /// Holds back what nodes answer when they are told to stop something; else they do so at once.
    pub hold_stop: bool,
    /// The session that requests are made in.
    pub client: ClientId,
    held_selects: Vec<Input>,
    held_persists: Vec<Persist>,
    held_stops: Vec<Input>,
    answered: BTreeSet<u64>,
    config: Config,
}

impl Driver {
    /// Starts a host on a disc.
    ///
    /// # Errors
    /// Those of [`Replica::new`].
    pub fn start(config: Config, disc: Disc, now: Now) -> Result<Self, StartError> {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let replica = Replica::new(config.clone(), disc.recovered(), now, &logger)?;
        let mut driver = Self {
            replica,
            now,
            disc,
            seen: Vec::new(),
            spawns: Vec::new(),
            hold_select: false,
            hold_persist: false,
            hold_stop: false,
            client: ClientId(0),
            held_selects: Vec::new(),
            held_persists: Vec::new(),
            held_stops: Vec::new(),
            answered: BTreeSet::new(),
            config,
        };
        driver.run();
        Ok(driver)
    }

    /// A host of a group of one that says nothing of itself: its log holds what the test asks for.
    #[must_use]
    pub fn config() -> Config {
        Config {
            instance: 0,
            level_max: 1,
            ..Config::new(1)
        }
    }

    /// A host with a session, the selector `least-loaded` and the callback `start`. Its tickets so
    /// far are 1001 and up.
    ///
    /// # Panics
    /// When an empty disc will not do.
    #[must_use]
    pub fn ready(config: Config) -> Self {
        let now = Now {
            mono_us: 1_000_000,
            wall_ms: 1_000,
        };
        let mut driver = Self::start(config, Disc::default(), now).expect("an empty disc will do");
        driver.request(1001, 1, Request::OpenSession);
        if let Some(Seen::Reply(_, response)) = driver.seen.pop()
            && let Response::Session(client) = *response
        {
            driver.client = client;
        }
        let standard = [
            ("least-loaded", ModuleKind::Selector),
            ("start", ModuleKind::Callback),
        ];
        for (at, (name, kind)) in (0..).zip(standard) {
            let name = ModuleName::new(name).expect("a valid constant");
            driver.push(1002 + 2 * at, 2 + 2 * at, name.clone(), kind, "1");
            let activate = Request::ActivateModule {
                client: driver.client,
                name,
                version: 0,
                config: None,
                percent: 100,
                types: Vec::new(),
                guard: String::new(),
            };
            driver.request(1003 + 2 * at, 3 + 2 * at, activate);
        }
        driver.seen.clear();
        driver
    }

    /// The host dies, and starts again with what was durable.
    ///
    /// # Errors
    /// Those of [`Replica::new`].
    pub fn crash(self) -> Result<Self, StartError> {
        let (client, answered) = (self.client, self.answered);
        let mut driver = Self::start(self.config, self.disc, self.now)?;
        driver.client = client;
        driver.answered = answered;
        Ok(driver)
    }

    /// The same, except that what was held back had reached the disc, though nobody had heard of it.
    ///
    /// # Errors
    /// Those of [`Replica::new`].
    pub fn crash_after_write(mut self) -> Result<Self, StartError> {
        for persist in std::mem::take(&mut self.held_persists) {
            self.disc.persist(persist);
        }
        self.crash()
    }

    /// Something happens; everything that follows from it at once does too.
    pub fn step(&mut self, input: Input) {
        self.replica.step(self.now, input);
        self.run();
    }

    /// A client asks.
    pub fn request(&mut self, ticket: u64, sequence: u64, request: Request) {
        let ticket = Ticket(ticket);
        self.step(Input::Request {
            ticket,
            sequence,
            request,
        });
    }

    /// A module has been uploaded; its bytes are its name and the text.
    pub fn push(
        &mut self,
        ticket: u64,
        sequence: u64,
        name: ModuleName,
        kind: ModuleKind,
        text: &str,
    ) {
        let module = PushModule {
            digest: Digest::of(format!("{name} {text}").as_bytes()),
            name,
            kind,
            bytes: text.len() as u64,
            title: format!("test {text}"),
            features: vec!["processes".to_owned()],
            world: "selector".to_owned(),
            abi: "0.2.0".to_owned(),
            hooks: Vec::new(),
            signature: None,
            is_trusted: false,
        };
        let client = self.client;
        let push = Push { client, module };
        let ticket = Ticket(ticket);
        self.step(Input::Push {
            ticket,
            sequence,
            push,
        });
    }

    /// A node renews its lease.
    pub fn keep_alive(&mut self, epoch: NodeEpoch, sequence: u64) {
        let keep_alive = KeepAlive {
            epoch,
            sequence,
            load: None,
            stop_ms: 0,
        };
        let at_us = self.now.mono_us;
        self.step(Input::KeepAlive {
            link: 0,
            keep_alive,
            at_us,
        });
    }

    /// Ends the oldest spawn of a key, and whether its node has said that it does not run; false when
    /// there is none.
    pub fn spawned(&mut self, key: &ProcessKey, result: Spawned, over: bool) -> bool {
        let Some(at) = self.spawns.iter().position(|job| job.key == *key) else {
            return false;
        };
        let job = self.spawns.remove(at);
        self.step(Input::Spawned {
            key: job.key,
            incarnation: job.incarnation,
            result,
            over,
        });
        true
    }

    /// Time passes, a tick of ten milliseconds at a time.
    pub fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(10) {
            self.now.mono_us += 10_000;
            self.now.wall_ms += 10;
            self.step(Input::Tick);
        }
    }

    /// Lets go of the decisions that were held back.
    pub fn release_selects(&mut self) {
        self.hold_select = false;
        for input in std::mem::take(&mut self.held_selects) {
            self.step(input);
        }
    }

    /// Lets go of the answers of nodes that were to stop something.
    pub fn release_stops(&mut self) {
        self.hold_stop = false;
        for input in std::mem::take(&mut self.held_stops) {
            self.step(input);
        }
    }

    /// Lets go of the writes that were held back.
    pub fn release_persists(&mut self) {
        // What follows from one write may be another; it goes behind those that are held.
        while !self.held_persists.is_empty() {
            let number = self.disc.persist(self.held_persists.remove(0));
            self.step(Input::Persisted(number));
        }
        self.hold_persist = false;
    }

    /// Carries out effects until there are none.
    fn run(&mut self) {
        let mut effects = Vec::new();
        loop {
            self.replica.effects(self.now, &mut effects);
            if effects.is_empty() {
                return;
            }
            for effect in effects.drain(..) {
                self.carry_out(effect);
            }
        }
    }

    fn reply(&mut self, ticket: Ticket, response: Response) {
        let first = self.answered.insert(ticket.0);
        assert!(first, "ticket {} is answered twice: {response:?}", ticket.0);
        self.seen.push(Seen::Reply(ticket.0, Box::new(response)));
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(persist) if self.hold_persist => self.held_persists.push(persist),
            Effect::Persist(persist) => {
                let number = self.disc.persist(persist);
                self.replica.step(self.now, Input::Persisted(number));
            }
            Effect::Reply(ticket, answer) => self.reply(ticket, answer.into_response()),
            Effect::Select { lane, batch } => {
                let decisions = chooser::decide_all(batch);
                let input = Input::Selected { lane, decisions };
                if self.hold_select {
                    self.held_selects.push(input);
                } else {
                    self.replica.step(self.now, input);
                }
            }
            Effect::Spawn(job) => {
                // A run of the same process that is under way is replaced.
                self.spawns.retain(|have| have.key != job.key);
                self.spawns.push((*job).clone());
                self.seen.push(Seen::Spawn(job));
            }
            Effect::Stop {
                node,
                epoch,
                key,
                incarnation,
                ..
            } => {
                let is_this = |job: &SpawnJob| job.key == key && job.incarnation <= incarnation;
                self.spawns.retain(|job| !is_this(job));
                let current = self.replica.registry().node(&node);
                if current.is_some_and(|current| current.epoch() == epoch) {
                    let key = key.clone();
                    let stopped = Input::Stopped { key, incarnation };
                    if self.hold_stop {
                        self.held_stops.push(stopped);
                    } else {
                        self.replica.step(self.now, stopped);
                    }
                }
                self.seen.push(Seen::Stop {
                    node,
                    epoch,
                    key,
                    incarnation,
                });
            }
            Effect::KeepAliveAck { ack, .. } => self.seen.push(Seen::Ack(ack)),
            Effect::Snapshot(take) => {
                let input = self.disc.save_snapshot(*take);
                if let Input::SnapshotSaved { index, .. } = &input {
                    self.seen.push(Seen::Snapshot(*index));
                }
                self.replica.step(self.now, input);
            }
            Effect::Compact(index) => {
                self.disc.compact(index);
                self.seen.push(Seen::Compact(index));
            }
            Effect::Explain(ticket, record, _) => {
                let explanation = maitred_protocol::Explanation {
                    record: *record,
                    evidence: None,
                    why_not: None,
                    fuel: None,
                };
                self.reply(ticket, Response::Explained(Box::new(explanation)));
            }
            Effect::Events(_, events) => self.seen.push(Seen::Events(events)),
            // Alone, there is nobody to talk to.
            Effect::Modules(_)
            | Effect::Examine(_)
            | Effect::Advise(_)
            | Effect::Unasked { .. }
            | Effect::Compensate(_)
            | Effect::Record(..)
            | Effect::Send(_)
            | Effect::Peers(_)
            | Effect::Leader { .. }
            | Effect::Restored(_) => {}
            Effect::Removed | Effect::Lost { .. } | Effect::TooOld { .. } => {
                unreachable!("a host alone goes on: {effect:?}")
            }
        }
    }
}
