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

use maitred_protocol::{NodeCommand, NodeEpoch, RegisterNode};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use crate::agent::{Agent, Input, STOP_GRACE_US};
use crate::builder::Settings;
use crate::call::Caller;
use crate::clock::Clock;
use crate::conn::{Conn, NodeEvent};
use crate::error::{Error, Fatal};
use crate::node::{NodeHandler, Shared};
use crate::pool::Tasks;
use crate::verbs::SESSION_TIMEOUT;
use crate::watchdog::{Watch, Watchdog};

mod carry_out;
mod enroll;
mod keep_alive;

use enroll::Enrolment;

/// Commands and acknowledgements that may wait for the loop.
const EVENTS_MAX: usize = 1_024;
/// Commands that may wait for the end of a registration.
const EARLY_MAX: usize = 4_096;
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
    pub(crate) watchdog: Watchdog,
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
    /// Why it ends, unless this program wants it to.
    why: Option<Error>,
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
    let shared = Arc::new(share(&setup, caller, inputs));
    if setup.watchdog == Watchdog::Abort
        && let Err(error) = shared.watch.start(&shared.name)
    {
        let error = Fatal::Thread(error.to_string());
        let _ = setup.ready.send(Err(error.into()));
        return;
    }
    let mut driver = Driver::new(setup, Arc::clone(&shared), enrolments);
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
    // What the game has registered by now runs, and then the session is not given up.
    while !killed && let Ok(input) = inputs_in.try_recv() {
        driver.step(input);
    }
    let idle = shared.agent().is_idle();
    let over = driver.leaving.flatten().filter(|_| idle);
    {
        let ending = take_leave(&shared, &tasks, over, killed);
        tokio::pin!(ending);
        loop {
            tokio::select! {
                biased;
                () = &mut ending => break,
                // The watchdog is to hear of what stops meanwhile.
                Some(input) = inputs_in.recv() => driver.step(input),
            }
        }
    }
    let unstopped = driver.unstopped.load(Ordering::Relaxed);
    if unstopped > 0 {
        tracing::warn!(node = %shared.name, unstopped, "the game's runtime ended before its processes were stopped");
    }
    shared.lease_until_us.store(0, Ordering::Release);
    let how = driver.why.take().map_or(Ok(()), Err);
    shared.ended.send_replace(Some(how));
    // What was left running is the watchdog's until it has stopped.
    while !killed && shared.watch.is_kept() && shared.agent().kill_by_us().is_some() {
        tokio::select! {
            () = shared.killed.notified() => killed = true,
            Some(input) = inputs_in.recv() => driver.step(input),
        }
    }
    shared.watch.end();
}

/// Ends the session, if there is one to end, and closes the connections.
async fn take_leave(shared: &Shared, tasks: &Tasks, over: Option<NodeEpoch>, killed: bool) {
    if let Some(epoch) = over {
        carry_out::deregister(shared, epoch).await;
    }
    if !killed {
        shared.caller.close_session(SESSION_TIMEOUT).await;
    }
    tasks.close();
    if !killed {
        tasks.wait_idle(CLOSE_TIMEOUT).await;
    }
}

fn share<H>(setup: &Setup<H>, caller: Caller, inputs: mpsc::UnboundedSender<Input>) -> Shared {
    let node = &setup.node;
    let clock = Arc::new(Clock::new());
    let [ttl_us, kill_bound_us] = [node.ttl_ms, node.kill_bound_ms].map(|ms| u64::from(ms) * 1_000);
    Shared {
        name: node.name.clone(),
        watch: Arc::new(Watch::new(Arc::clone(&clock))),
        clock,
        agent: Mutex::new(Agent::new(ttl_us, kill_bound_us)),
        caller,
        lease_until_us: AtomicU64::new(0),
        request_timeout: setup.settings.request_timeout,
        stop_grace: Duration::from_micros(STOP_GRACE_US.max(kill_bound_us)),
        inputs,
        killed: Notify::new(),
        ended: watch::Sender::new(None),
    }
}

impl<H: NodeHandler> Driver<H> {
    fn new(
        setup: Setup<H>,
        shared: Arc<Shared>,
        enrolments: mpsc::UnboundedSender<Enrolment>,
    ) -> Self {
        Self {
            shared,
            handler: setup.handler,
            game: setup.game,
            ttl: Duration::from_millis(setup.node.ttl_ms.into()),
            node: setup.node,
            ready: Some(setup.ready),
            enrolments,
            enrolment: None,
            attached: None,
            early: VecDeque::new(),
            tags: HashMap::new(),
            last_tag: 0,
            leaving: None,
            why: None,
            unstopped: Arc::default(),
            load_warned: AtomicBool::new(false),
        }
    }

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
            self.shared.watch.expect(agent.kill_by_us());
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
}

/// Runs the game's code on the node's thread, which must outlive a panic of it.
fn guarded<T>(what: &str, call: impl FnOnce() -> T) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(call));
    if done.is_err() {
        tracing::error!(what, "the node's handler panicked");
    }
    done.ok()
}
