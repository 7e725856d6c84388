//! The replica's thread: takes inputs, steps, and sends the effects to where they are carried out.
//!
//! Nothing here waits for anybody but for inputs. A turn takes keep-alives first, before it tells the
//! replica what time it is: a host that was busy, or stood still, must not expire a node whose
//! keep-alive has come. Answers of a turn go out together at its end, after everything that they may
//! have caused has been handed on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Duration;

use maitred_protocol::ProcessState;
use maitred_registry::decide::{Decision, LaneId, SelectBatch};
use maitred_registry::{Change, Event, Record, Registry};
use maitred_replica::{Effect, Input, Now, Peer, Replica, TakeSnapshot};
use tokio::sync::mpsc;

use crate::clock;
use crate::decision_store::DecisionStore;
use crate::error::Failed;
use crate::host::{Host, Leader};
use crate::inbox::Taken;
use crate::journal::Journal;
use crate::lease_watch::LeaseWatch;
use crate::metrics::Metrics;
use crate::module_service::Wish;
use crate::node_service::{Ack, Acks};
use crate::peers::Roster;
use crate::recorder::Recorder;
use crate::router::Answers;
use crate::storage_thread::LogJob;

/// Ticks that are made up for when the thread was held up; beyond that time is let go, or an
/// election would be called for a pause of our own.
const TICKS_LATE_MAX: u64 = 2;

/// The thread's belongings. Dropping it ends the threads behind its channels.
pub(crate) struct ReplicaLoop {
    pub(crate) host: Arc<Host>,
    pub(crate) replica: Replica,
    pub(crate) tick_us: u64,
    pub(crate) log: Sender<LogJob>,
    pub(crate) snapshots: Sender<Box<TakeSnapshot>>,
    pub(crate) decisions: Arc<DecisionStore>,
    /// None when nothing is recorded.
    pub(crate) recorder: Option<Arc<Recorder>>,
    pub(crate) acks: mpsc::Sender<Acks>,
    /// When keep-alives came, to measure by.
    pub(crate) leases: LeaseWatch,
    pub(crate) journal: Journal,
    /// Spawns begun so far.
    pub(crate) runs: u64,
    /// The other hosts, as the replica last named them.
    pub(crate) others: Vec<Peer>,
}

/// What is collected in a turn.
#[derive(Default)]
struct Turn {
    answers: Answers,
    acks: Acks,
    /// Whether something about the members changed.
    members: bool,
}

impl ReplicaLoop {
    /// The thread: ends when the inbox is closed, or when the log's thread is gone.
    ///
    /// # Errors
    /// Why the host must stop.
    pub(crate) fn run(mut self) -> Result<(), String> {
        let (mut taken, mut effects) = (Taken::default(), Vec::new());
        let mut turn = Turn::default();
        let mut next_tick = clock::mono_us();
        loop {
            let wake = self
                .replica
                .next_wake_us()
                .unwrap_or(u64::MAX)
                .min(next_tick);
            let patience = Duration::from_micros(wake.saturating_sub(clock::mono_us()));
            let open = self.host.inbox.take(&mut taken, patience);
            if self.host.alarm.raised().is_some() {
                return Ok(());
            }
            let now = clock::now();
            self.renew(now, &mut taken);
            while next_tick <= now.mono_us {
                self.replica.step(now, Input::Tick);
                let oldest = now.mono_us.saturating_sub(TICKS_LATE_MAX * self.tick_us);
                next_tick = (next_tick + self.tick_us).max(oldest);
            }
            let metrics = &self.host.metrics;
            Metrics::count(&metrics.replica_turns);
            Metrics::add(&metrics.replica_inputs, taken.inputs.len());
            for input in taken.inputs.drain(..) {
                self.replica.step(now, input);
            }
            self.replica.effects(now, &mut effects);
            for effect in effects.drain(..) {
                self.dispatch(effect, &mut turn)?;
            }
            if std::mem::take(&mut turn.members) {
                self.follow_members();
            }
            self.host.router.deliver(&mut turn.answers);
            if !turn.acks.is_empty() && self.acks.try_send(std::mem::take(&mut turn.acks)).is_err()
            {
                Metrics::count(&self.host.metrics.keep_alive_acks_lost);
            }
            let micros = clock::mono_us().saturating_sub(now.mono_us);
            self.host.metrics.turn_times.observe(micros);
            if !open {
                return Ok(());
            }
        }
    }

    fn renew(&mut self, now: Now, taken: &mut Taken) {
        Metrics::add(&self.host.metrics.replica_inputs, taken.renewals.len());
        for renewal in taken.renewals.drain(..) {
            self.leases.renewed(&renewal);
            let input = Input::KeepAlive {
                link: renewal.link,
                keep_alive: renewal.keep_alive,
                at_us: renewal.at_us,
            };
            self.replica.step(now, input);
        }
    }

    fn dispatch(&mut self, effect: Effect, turn: &mut Turn) -> Result<(), String> {
        let host = &self.host;
        match effect {
            Effect::Reply(ticket, answer) => turn.answers.add(ticket, answer),
            Effect::Persist(persist) => self.log(LogJob::Persist(persist))?,
            Effect::Compact(through) => self.log(LogJob::Compact(through))?,
            Effect::Select { lane, batch } => self.select(lane, batch),
            Effect::Spawn(job) => {
                self.runs += 1;
                host.runner.spawn(self.runs, *job);
            }
            Effect::Stop {
                node,
                epoch,
                term,
                key,
                incarnation,
            } => {
                host.runner.stop(&key, incarnation);
                // Nobody ever answers for a session that has ended meanwhile.
                let live = self.replica.registry().node(&node);
                if live.is_some_and(|live| live.epoch() == epoch) {
                    host.nodes.stop((&node, epoch), term, (key, incarnation));
                }
            }
            Effect::Examine(examination) => host.examiner.examine(*examination),
            Effect::Advise(question) => host.runner.advise(*question),
            Effect::Unasked {
                callback,
                pause_ms,
                waiting,
            } => {
                Metrics::count(&host.metrics.advice_pauses);
                tracing::warn!(%callback, pause_ms, waiting, "a callback answers no question about processes whose lives have ended; it is not asked for a while, and the usual is done with those that wait for it");
            }
            Effect::Compensate(compensation) => host.runner.compensate(*compensation),
            Effect::Modules(ready) => {
                let registry = self.replica.registry();
                host.modules.want(Wish::of(registry, ready));
                host.guards.watch(registry);
            }
            Effect::KeepAliveAck { link, ack } => {
                let at_us = self.leases.came(&ack);
                turn.acks.push(Ack { link, ack, at_us });
            }
            Effect::Record(incarnation, trace) => self.decisions.record(incarnation, trace),
            Effect::Explain(ticket, record, why_not) => {
                let answers = &mut turn.answers;
                self.decisions.explain(ticket, record, why_not, answers);
            }
            Effect::Snapshot(job) => {
                // Its thread ends only after this one.
                let _ = self.snapshots.send(job);
            }
            Effect::Events(_, events) => self.follow(&events, turn),
            Effect::Send(messages) => host.peers.send(messages),
            Effect::Peers(others) => {
                self.others = others;
                turn.members = true;
            }
            Effect::Leader {
                host,
                address,
                term,
                serving,
            } => self.led_by(Leader {
                host,
                address,
                term,
                serving,
            }),
            Effect::Restored(revision) => {
                turn.members = true;
                tracing::info!(revision = revision.0, "the state was replaced by a peer's snapshot");
            }
            Effect::Removed => self.end(
                "it was removed from its cluster; to join again, start it on an empty data directory with the join setting"
                    .to_owned(),
            ),
            Effect::TooOld { index, why } => self.end(format!(
                "its program is too old for its cluster: entry {index} of the log: {why}; start a newer version of the program"
            )),
            Effect::Lost { last, commit } => self.end(format!(
                "its log ends at entry {last} and it had acknowledged everything up to {commit}: the disk lost what it had synced; start it on an empty data directory with the join setting, in place of this member (maitred member replace)"
            )),
        }
        Ok(())
    }

    /// Has a batch decided, on the lane's thread.
    fn select(&self, lane: LaneId, batch: SelectBatch) {
        let inbox = Arc::clone(&self.host.inbox);
        let metrics = Arc::clone(&self.host.metrics);
        let is_plan = batch.dry;
        let done = move |decisions: Vec<Decision>| {
            // Nothing was placed by it.
            if !is_plan {
                metrics.verdicts.count(&decisions);
            }
            inbox.push(Input::Selected { lane, decisions });
        };
        let lanes = &self.host.lanes;
        match self.recorder.clone().filter(|_| !batch.dry) {
            None => lanes.submit(batch, done),
            Some(recorder) => lanes.submit_recorded(batch, done, move |batch, outcomes| {
                recorder.record(batch, outcomes);
            }),
        }
    }

    /// The host ends, and starting it again is of no use.
    fn end(&self, what: String) {
        self.host.alarm.fail(Failed {
            what,
            restart: false,
        });
    }

    fn led_by(&mut self, leader: Leader) {
        let host = Arc::clone(&self.host);
        let before = host.leader.send_replace(leader.clone());
        host.peers.term.store(leader.term, Ordering::Relaxed);
        if before.serving && !leader.serving {
            host.runner.stop_all();
            host.examiner.stop_all();
            host.nodes.forget_all();
            self.leases.clear();
        }
        if !before.serving && leader.serving {
            self.leases.grant(self.replica.registry(), clock::mono_us());
        }
        if before.host != leader.host {
            Metrics::count(&host.metrics.leader_changes);
            match leader.host {
                Some(number) if number == host.number => {
                    tracing::info!(term = leader.term, "this host leads");
                }
                Some(number) => {
                    tracing::info!(leader = number, term = leader.term, "another host leads")
                }
                None => tracing::info!(term = leader.term, "no host leads"),
            }
        }
        host.bulk.set_leader(leader.host, leader.address.clone());
        if before.notice() != leader.notice() {
            host.router.notify(&leader.notice());
        }
    }

    fn follow_members(&self) {
        let registry = self.replica.registry();
        let host = &self.host;
        host.bulk.set_peers(self.others.clone());
        host.peers.follow(Roster {
            others: self.others.clone(),
            caught_up: registry.members().contains_key(&host.number),
            applied: registry.applied(),
            level: registry.level(),
        });
    }

    fn log(&self, job: LogJob) -> Result<(), String> {
        self.log
            .send(job)
            .map_err(|_| "the log's thread has ended".to_owned())
    }

    fn follow(&mut self, events: &[Event], turn: &mut Turn) {
        let metrics = &self.host.metrics;
        let serving = self.host.leader.borrow().serving;
        let registry = self.replica.registry();
        let mut ended = Vec::new();
        for event in events {
            match event {
                Event::Members => turn.members = true,
                Event::NodeDown(_, epoch) => {
                    self.host.nodes.end(*epoch);
                    ended.push(*epoch);
                }
                Event::NodeUp {
                    name,
                    epoch,
                    superseded,
                } => {
                    if let Some(epoch) = superseded {
                        self.host.nodes.end(*epoch);
                        self.leases.ended(*epoch);
                    }
                    let node = registry.node(name).filter(|node| node.epoch() == *epoch);
                    if serving && let Some(node) = node {
                        self.leases.began(node, clock::mono_us());
                    }
                }
                Event::Process(Change::Reserved, record) if serving && !record.is_creating() => {
                    Metrics::count(&metrics.recreations);
                }
                Event::Ended(record) if serving && is_moved(registry, record) => {
                    Metrics::count(&metrics.moves);
                }
                _ => {}
            }
        }
        // Whoever watches has been told everything by now.
        let mut lost = Vec::new();
        for epoch in ended {
            if let Some(deadline_us) = self.leases.ended(epoch)
                && let Some(micros) = clock::mono_us().checked_sub(deadline_us)
            {
                metrics.expiry_times.observe(micros);
                lost.push(epoch);
            }
        }
        if serving {
            let is_lost = |epoch| lost.contains(&epoch);
            self.journal.note(&self.replica, events, is_lost);
        }
    }
}

/// Whether a life that has ended was taken off its node, which lives, to go on elsewhere.
fn is_moved(registry: &Registry, ended: &Record) -> bool {
    let wanted = registry.process(&ended.key());
    ended.state == ProcessState::Running
        && wanted.is_some_and(|record| record.state == ProcessState::Pending)
}
