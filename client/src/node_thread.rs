//! Drives the [`Agent`] with real time and connections, on an OS thread with a runtime of its own:
//! a game whose executor is stuck keeps its lease, and one that lost it is told in spite of that.
//!
//! Everything that takes long (handlers, registrations, deletes) runs in tasks whose ends come back
//! as inputs; the loop itself never waits for a host or the game.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use maitred_protocol::limits::{COUNTERS_MAX, TEXT_BYTES_MAX};
use maitred_protocol::{KeepAlive, Load, NodeCommand, NodeEpoch, RegisterNode, Request, Response};
use maitred_transport::{SendError, send_datagram};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use crate::agent::{Agent, Effect, Input, SpawnError};
use crate::builder::Settings;
use crate::call::wrong_answer;
use crate::clock::Clock;
use crate::conn::{Conn, NodeEvent};
use crate::error::{Error, Fatal};
use crate::node::{NodeHandler, Shared, SpawnRequest};
use crate::pool::Route;
use crate::verbs::{NO_SESSION, SESSION_TIMEOUT};

/// Commands and acknowledgements that may wait for the loop.
const EVENTS_MAX: usize = 1_024;
/// Commands that may wait for the end of a registration.
const EARLY_MAX: usize = 4_096;
/// Longest that one try at a registration may take at least; else as long as the lease.
const ENROLL_MIN: Duration = Duration::from_secs(2);
/// One try at a delete, the pause after it, and how many there are: about half an hour.
const DELETE_TIMEOUT: Duration = Duration::from_secs(30);
const DELETE_PAUSE: Duration = Duration::from_secs(1);
const DELETE_TRIES: u32 = 60;
/// Longest to wait for the end of the session when leaving.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest to wait for hosts to hear that the connections are closed.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// Longest sleep of the loop: a machine that was suspended notices soon after.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// What [`run`] is given; `ready` is answered when the node is registered, or cannot be.
pub(crate) struct Setup<H> {
    pub(crate) settings: Arc<Settings>,
    pub(crate) node: RegisterNode,
    pub(crate) handler: Arc<H>,
    pub(crate) game: tokio::runtime::Handle,
    pub(crate) ready: oneshot::Sender<Result<Arc<Shared>, Error>>,
}

/// The thread's body.
pub(crate) fn run<H: NodeHandler>(setup: Setup<H>) {
    let built = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match built {
        Ok(runtime) => {
            runtime.block_on(live(setup));
            // Tasks are dropped as they are: after a kill nobody must hear anything more.
            runtime.shutdown_background();
        }
        Err(error) => {
            let _ = setup
                .ready
                .send(Err(Fatal::Thread(error.to_string()).into()));
        }
    }
}

type Ready = oneshot::Sender<Result<Arc<Shared>, Error>>;
type Enrolment = (u64, u64, Result<(Response, Arc<Conn>), Error>);

struct Driver<H> {
    shared: Arc<Shared>,
    handler: Arc<H>,
    game: tokio::runtime::Handle,
    node: RegisterNode,
    ttl: Duration,
    /// Until the first registration is answered.
    ready: Option<Ready>,
    enrolments: mpsc::UnboundedSender<Enrolment>,
    /// The one under way, or the last.
    enrolment: Option<(u64, AbortHandle)>,
    /// The connection that commands are taken from.
    attached: Option<Arc<Conn>>,
    /// Commands that came before the answer to the registration that they follow.
    early: VecDeque<(Arc<Conn>, u64, NodeCommand)>,
    tags: HashMap<u64, (Arc<Conn>, u64)>,
    last_tag: u64,
    leaving: Option<Option<NodeEpoch>>,
    /// Processes whose end nobody saw, since the game's runtime ended first.
    unstopped: Arc<AtomicU64>,
    /// Whether a load report had to be cut or left out; said once.
    load_warned: AtomicBool,
}

async fn live<H: NodeHandler>(setup: Setup<H>) {
    let (events, mut events_in) = mpsc::channel(EVENTS_MAX);
    let (caller, tasks) = match setup.settings.dial(Some(&events)).await {
        Ok(dialled) => dialled,
        Err(error) => {
            let _ = setup.ready.send(Err(error));
            return;
        }
    };
    drop(events);
    let (inputs, mut inputs_in) = mpsc::unbounded_channel();
    let (enrolments, mut enrolments_in) = mpsc::unbounded_channel();
    let ttl = Duration::from_millis(setup.node.ttl_ms.into());
    let shared = Arc::new(Shared {
        name: setup.node.name.clone(),
        clock: Clock::new(),
        agent: Mutex::new(Agent::new(u64::from(setup.node.ttl_ms) * 1_000)),
        caller,
        lease_until_us: AtomicU64::new(0),
        request_timeout: setup.settings.request_timeout,
        inputs,
        killed: Notify::new(),
        ended: watch::Sender::new(false),
    });
    let mut driver = Driver {
        shared: Arc::clone(&shared),
        handler: setup.handler,
        game: setup.game,
        node: setup.node,
        ttl,
        ready: Some(setup.ready),
        enrolments,
        enrolment: None,
        attached: None,
        early: VecDeque::new(),
        tags: HashMap::new(),
        last_tag: 0,
        leaving: None,
        unstopped: Arc::default(),
        load_warned: AtomicBool::new(false),
    };
    driver.step(Input::Tick);
    let mut killed = false;
    while driver.leaving.is_none() {
        let wait = driver.until_tick();
        tokio::select! {
            biased;
            () = shared.killed.notified() => { killed = true; break }
            Some((number, sent_us, result)) = enrolments_in.recv() => {
                driver.enrolled(number, sent_us, result);
            }
            Some(event) = events_in.recv() => driver.event(event),
            Some(input) = inputs_in.recv() => driver.step(input),
            () = tokio::time::sleep(wait) => driver.step(Input::Tick),
        }
    }
    if let Some(Some(epoch)) = driver.leaving {
        driver.deregister(epoch).await;
    }
    if !killed {
        shared.caller.close_session(SESSION_TIMEOUT).await;
    }
    tasks.close();
    if !killed {
        tasks.wait_idle(CLOSE_TIMEOUT).await;
    }
    let unstopped = driver.unstopped.load(Ordering::Relaxed);
    if unstopped > 0 {
        tracing::warn!(node = %shared.name, unstopped, "the game's runtime ended before its processes were stopped");
    }
    shared.lease_until_us.store(0, Ordering::Release);
    shared.ended.send_replace(true);
}

impl<H: NodeHandler> Driver<H> {
    fn until_tick(&self) -> Duration {
        let next_us = self.shared.agent().next_us();
        let now_us = self.shared.clock.now_us();
        Duration::from_micros(next_us.saturating_sub(now_us)).min(SLEEP_MAX)
    }

    fn step(&mut self, input: Input) {
        let mut effects = Vec::new();
        {
            let mut agent = self.shared.agent();
            agent.step(self.shared.clock.now_us(), input, &mut effects);
            let until_us = agent.lease_until_us();
            self.shared
                .lease_until_us
                .store(until_us, Ordering::Release);
        }
        for effect in effects {
            self.carry_out(effect);
        }
    }

    fn event(&mut self, event: NodeEvent) {
        match event {
            NodeEvent::Command(conn, id, command) => self.command(conn, id, command),
            NodeEvent::Ack(ack) => self.step(Input::Acknowledged(ack)),
            NodeEvent::Leader { from, host, term } => self.step(Input::Leader { from, host, term }),
            NodeEvent::Down(conn) => {
                self.early.retain(|(from, ..)| !Arc::ptr_eq(from, &conn));
                if self
                    .attached
                    .take_if(|attached| Arc::ptr_eq(attached, &conn))
                    .is_some()
                {
                    self.step(Input::Disconnected);
                }
            }
        }
    }

    fn command(&mut self, conn: Arc<Conn>, id: u64, command: NodeCommand) {
        let ours = self
            .attached
            .as_ref()
            .is_some_and(|at| Arc::ptr_eq(at, &conn));
        if !ours {
            // Its registration may be answered already, with the answer still on its way here.
            if self.early.len() < EARLY_MAX {
                self.early.push_back((conn, id, command));
            }
            return;
        }
        self.last_tag += 1;
        self.tags.insert(self.last_tag, (conn, id));
        self.step(Input::Command(self.last_tag, command));
    }

    fn enrolled(
        &mut self,
        number: u64,
        sent_us: u64,
        result: Result<(Response, Arc<Conn>), Error>,
    ) {
        if self
            .enrolment
            .as_ref()
            .is_none_or(|(last, _)| *last != number)
        {
            return;
        }
        let result = result.and_then(|(response, conn)| match response {
            Response::Registered { epoch, verdicts } => Ok((epoch, verdicts, conn)),
            _ => Err(wrong_answer("a registration")),
        });
        let error = match result {
            Ok((epoch, verdicts, conn)) => {
                self.attached = Some(Arc::clone(&conn));
                self.step(Input::Enrolled {
                    number,
                    host: conn.welcome.host,
                    epoch,
                    verdicts,
                    sent_us,
                });
                let ready = self.ready.take();
                if ready.is_some_and(|ready| ready.send(Ok(Arc::clone(&self.shared))).is_err()) {
                    // Whoever started the node no longer waits for it, and nobody else could end it.
                    self.step(Input::Shutdown);
                }
                for (from, id, command) in std::mem::take(&mut self.early) {
                    if Arc::ptr_eq(&from, &conn) {
                        self.command(from, id, command);
                    }
                }
                // It may have gone before it was known here as the one to listen to.
                if conn.is_ended() && self.attached.take().is_some() {
                    self.step(Input::Disconnected);
                }
                return;
            }
            Err(error) => error,
        };
        tracing::warn!(node = %self.shared.name, %error, "cannot register");
        if let Some(ready) = self.ready.take() {
            let _ = ready.send(Err(error));
            self.leaving = Some(None);
            return;
        }
        let over = matches!(error, Error::Rejected(_));
        self.step(Input::EnrollFailed { number, over });
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Answer(tag, answer) => {
                if let Some((conn, id)) = self.tags.remove(&tag) {
                    conn.answer_command(id, answer);
                }
            }
            Effect::Spawn {
                key,
                incarnation,
                payload,
                deadline_ms,
            } => self.spawn(SpawnRequest {
                key,
                incarnation,
                payload,
                deadline: Duration::from_millis(deadline_ms.into()),
            }),
            Effect::Stop(key, incarnation) => {
                let (handler, name) = (Arc::clone(&self.handler), key.clone());
                let stop = async move { handler.stop(name, incarnation).await };
                let (stop, inputs) = (self.game.spawn(stop), self.shared.inputs.clone());
                let unstopped = Arc::clone(&self.unstopped);
                tokio::spawn(async move {
                    match stop.await {
                        Ok(()) => {}
                        Err(error) if error.is_panic() => {
                            tracing::error!(%key, %error, "the stop handler panicked");
                        }
                        Err(_) => drop(unstopped.fetch_add(1, Ordering::Relaxed)),
                    }
                    let _ = inputs.send(Input::StopEnded(key, incarnation));
                });
            }
            Effect::KeepAlive(epoch, sequence) => self.keep_alive(epoch, sequence),
            Effect::Enroll {
                number,
                epoch,
                inventory,
            } => self.enroll(number, epoch, inventory),
            Effect::Delete(key, incarnation) => {
                let shared = Arc::clone(&self.shared);
                let request = Request::DelProcess {
                    client: NO_SESSION,
                    key,
                    incarnation: Some(incarnation),
                };
                tokio::spawn(async move { delete(&shared, request).await });
            }
            Effect::LeaseLost => {
                tracing::warn!(node = %self.shared.name, "the lease is lost; stopping everything");
                guarded("lease_lost", || self.handler.lease_lost());
            }
            Effect::Leave(epoch) => self.leaving = Some(epoch),
        }
    }

    fn spawn(&self, request: SpawnRequest) {
        let (key, incarnation) = (request.key.clone(), request.incarnation);
        let handler = Arc::clone(&self.handler);
        let spawn = self.game.spawn(async move { handler.spawn(request).await });
        let inputs = self.shared.inputs.clone();
        tokio::spawn(async move {
            let result = spawn.await.unwrap_or_else(|error| {
                if error.is_panic() {
                    tracing::error!(%key, %error, "the spawn handler panicked");
                    Err(SpawnError::Failed("the spawn handler panicked".to_owned()))
                } else {
                    Err(SpawnError::Busy("the game is ending".to_owned()))
                }
            });
            let _ = inputs.send(Input::SpawnEnded(key, incarnation, result));
        });
    }

    fn keep_alive(&self, epoch: NodeEpoch, sequence: u64) {
        let attached = self.shared.agent().attached();
        let connected = attached.and_then(|_| self.attached.clone());
        let Some(conn) = connected.or_else(|| self.shared.caller.pool.connected()) else {
            return;
        };
        let load = guarded("load", || self.handler.load()).flatten();
        let load = load.map(|load| self.within_bounds(load));
        let mut message = KeepAlive {
            epoch,
            sequence,
            load,
        };
        let mut sent = send_datagram(&conn.connection, sequence, &message);
        if sent == Err(SendError::Full) && message.load.take().is_some() {
            self.warn_of_load("does not fit a packet; use fewer or shorter counters");
            sent = send_datagram(&conn.connection, sequence, &message);
        }
        if let Err(error) = sent {
            tracing::debug!(%error, "a keep-alive was not sent");
        }
    }

    /// A host does not take a keep-alive with a load out of bounds, and the lease would be lost.
    fn within_bounds(&self, mut load: Load) -> Load {
        let counters = load.counters.len();
        load.counters
            .retain(|(name, _)| name.len() <= TEXT_BYTES_MAX);
        load.counters.truncate(COUNTERS_MAX);
        if load.counters.len() < counters {
            self.warn_of_load("has more than 16 counters, or names over 256 bytes; those are cut");
        }
        load
    }

    fn warn_of_load(&self, problem: &str) {
        if !self.load_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(node = %self.shared.name, "the load report {problem}");
        }
    }

    fn enroll(
        &mut self,
        number: u64,
        epoch: Option<NodeEpoch>,
        inventory: Vec<(maitred_protocol::ProcessKey, maitred_protocol::Incarnation)>,
    ) {
        let request = match epoch {
            Some(epoch) => Request::AttachNode {
                name: self.shared.name.clone(),
                epoch,
                inventory,
            },
            None => {
                let mut node = self.node.clone();
                node.inventory = inventory;
                Request::RegisterNode(NO_SESSION, Box::new(node))
            }
        };
        let (shared, done) = (Arc::clone(&self.shared), self.enrolments.clone());
        let timeout = self.ttl.max(ENROLL_MIN);
        let enrolment = tokio::spawn(async move {
            let sent_us = shared.clock.now_us();
            let result = shared.caller.call_on(Route::Leader, request, timeout).await;
            let _ = done.send((number, sent_us, result));
        });
        let last = self.enrolment.replace((number, enrolment.abort_handle()));
        if let Some((_, last)) = last {
            last.abort();
        }
    }

    async fn deregister(&self, epoch: NodeEpoch) {
        let request = Request::DeregisterNode {
            client: NO_SESSION,
            name: self.shared.name.clone(),
            epoch,
        };
        if let Err(error) = self.shared.caller.call(request, LEAVE_TIMEOUT).await {
            tracing::warn!(%error, "the node's session was not ended; its lease will run out");
        }
    }
}

/// Removes a record, until the registry says that it is gone or is another's.
async fn delete(shared: &Shared, request: Request) {
    for _ in 0..DELETE_TRIES {
        match shared.caller.call(request.clone(), DELETE_TIMEOUT).await {
            Ok(_) | Err(Error::Rejected(_)) => return,
            Err(error) => tracing::debug!(%error, "a record was not removed yet"),
        }
        tokio::time::sleep(DELETE_PAUSE).await;
    }
    tracing::warn!("a record of an ended process was not removed; the registry may still show it");
}

/// Runs the game's code on the node's thread, which must outlive a panic of it.
fn guarded<T>(what: &str, call: impl FnOnce() -> T) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(call));
    if done.is_err() {
        tracing::error!(what, "the node's handler panicked");
    }
    done.ok()
}
