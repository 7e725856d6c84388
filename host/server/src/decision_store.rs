//! What placements were made from, on disk, for `explain`: a thread that writes and looks up.
//!
//! Evidence is a help for people. It is not synced, and when more comes than the thread can write,
//! some is dropped and counted rather than delaying a create. What another host decided is asked of
//! the others, by a task of its own, so that nobody waits for that here.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use maitred_protocol::{
    Evidence, Explanation, Incarnation, NodeName, ProcessKey, ProcessRecord, Response, Unavailable,
    WhyNot,
};
use maitred_registry::decide::Trace;
use maitred_replica::{Answer, Ticket};
use maitred_storage::Decisions;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::bulk::Bulk;
use crate::metrics::Metrics;
use crate::replay::Replays;
use crate::router::{Answers, Router};

/// Jobs that may wait. A trace shares most of what it holds.
const JOBS_MAX: usize = 16_384;
/// How long after the last job everything is written out.
const FLUSH_AFTER: Duration = Duration::from_millis(200);

/// An `explain`: who asks, for what, and about which node besides.
struct Asked {
    ticket: Ticket,
    record: Box<ProcessRecord>,
    why_not: Option<NodeName>,
}

enum Job {
    Record(Incarnation, Arc<Trace>),
    Explain(Asked),
    /// For another host.
    LookUp(ProcessKey, Incarnation, oneshot::Sender<Option<Evidence>>),
}

/// The way to the thread; dropping it ends the thread once it is done.
pub(crate) struct DecisionStore {
    jobs: SyncSender<Job>,
    metrics: Arc<Metrics>,
}

/// The thread's half.
pub(crate) struct Keeper {
    jobs: Receiver<Job>,
    decisions: Decisions,
    router: Arc<Router>,
    metrics: Arc<Metrics>,
    bulk: Arc<Bulk>,
    replays: Arc<Replays>,
    runtime: Handle,
}

/// Both halves. Must be called within the runtime that is to ask other hosts.
pub(crate) fn decision_store(
    decisions: Decisions,
    router: Arc<Router>,
    metrics: Arc<Metrics>,
    bulk: &Arc<Bulk>,
    replays: &Arc<Replays>,
) -> (Arc<DecisionStore>, Keeper) {
    let (sender, jobs) = sync_channel(JOBS_MAX);
    let store = Arc::new(DecisionStore {
        jobs: sender,
        metrics: Arc::clone(&metrics),
    });
    bulk.set_decisions(&store);
    let keeper = Keeper {
        jobs,
        decisions,
        router,
        metrics,
        bulk: Arc::clone(bulk),
        replays: Arc::clone(replays),
        runtime: Handle::current(),
    };
    (store, keeper)
}

impl DecisionStore {
    /// Keeps what a placement was made from.
    pub(crate) fn record(&self, incarnation: Incarnation, trace: Arc<Trace>) {
        if self.jobs.try_send(Job::Record(incarnation, trace)).is_err() {
            Metrics::count(&self.metrics.decisions_dropped);
        }
    }

    /// Looks up what this host has kept; none when too much else is to be done.
    pub(crate) fn look_up(
        &self,
        key: ProcessKey,
        incarnation: Incarnation,
    ) -> Option<oneshot::Receiver<Option<Evidence>>> {
        let (waiter, found) = oneshot::channel();
        let job = Job::LookUp(key, incarnation, waiter);
        self.jobs.try_send(job).ok().map(|()| found)
    }

    /// Answers an `explain`, after everything that was recorded before.
    pub(crate) fn explain(
        &self,
        ticket: Ticket,
        record: Box<ProcessRecord>,
        why_not: Option<NodeName>,
        answers: &mut Answers,
    ) {
        let asked = Asked {
            ticket,
            record,
            why_not,
        };
        let why = match self.jobs.try_send(Job::Explain(asked)) {
            Ok(()) => return,
            Err(TrySendError::Full(_)) => "the decision store is busy".to_owned(),
            Err(TrySendError::Disconnected(_)) => "the decision store has ended".to_owned(),
        };
        let response = Response::Unavailable(Unavailable::Overloaded(why));
        answers.add(ticket, Answer::Other(Box::new(response)));
    }
}

impl Keeper {
    /// The thread.
    pub(crate) fn run(mut self) {
        let mut dirty = false;
        loop {
            match self.jobs.recv_timeout(FLUSH_AFTER) {
                Ok(Job::Record(incarnation, trace)) => {
                    dirty = true;
                    let (key, evidence) = (&trace.request.key, trace.evidence());
                    if let Err(error) = self.decisions.append(key, incarnation, &evidence) {
                        tracing::debug!(%error, "a decision was not kept");
                        Metrics::count(&self.metrics.decisions_dropped);
                    }
                }
                Ok(Job::Explain(asked)) => self.explain(asked),
                Ok(Job::LookUp(key, incarnation, waiter)) => {
                    // Whoever asked may have gone.
                    let _ = waiter.send(self.kept(&key, incarnation));
                }
                Err(RecvTimeoutError::Timeout) if !dirty => {}
                Err(end) => {
                    dirty = false;
                    if let Err(error) = self.decisions.flush() {
                        tracing::debug!(%error, "decisions were not written out");
                    }
                    if end == RecvTimeoutError::Disconnected {
                        return;
                    }
                }
            }
        }
    }

    fn explain(&mut self, asked: Asked) {
        let record = &asked.record;
        let evidence = self.kept(&record.key, record.incarnation);
        let (bulk, router) = (Arc::clone(&self.bulk), Arc::clone(&self.router));
        let replays = Arc::clone(&self.replays);
        // As many as there are unanswered requests, which are bounded; each ends in a moment.
        self.runtime.spawn(async move {
            let Asked {
                ticket,
                record,
                why_not: node,
            } = asked;
            let found = match evidence {
                Some(evidence) => {
                    let node = node.as_ref();
                    let why_not =
                        node.map(|node| maitred_registry::decide::why_not(&evidence, node));
                    Some((evidence, why_not))
                }
                None => {
                    bulk.evidence(&record.key, record.incarnation, node.as_ref())
                        .await
                }
            };
            // What was kept names so many refusals only.
            let asked = match &found {
                Some((_, Some(WhyNot::Unknown))) => node,
                _ => None,
            };
            let again = match &found {
                Some((evidence, _)) => replays.again(&record.key, &evidence.why, asked).await,
                None => None,
            };
            let (evidence, why_not) = found.unzip();
            let (fuel, found_again) = again.map(|again| (again.fuel, again.why_not)).unzip();
            let explanation = Explanation {
                record: *record,
                evidence,
                why_not: found_again.flatten().or(why_not.flatten()),
                fuel,
            };
            let response = Response::Explained(Box::new(explanation));
            let mut answers = Answers::default();
            answers.add(ticket, Answer::Other(Box::new(response)));
            router.deliver(&mut answers);
        });
    }

    fn kept(&mut self, key: &ProcessKey, incarnation: Incarnation) -> Option<Evidence> {
        self.decisions
            .get(key, incarnation)
            .unwrap_or_else(|error| {
                tracing::warn!(%error, "a kept decision cannot be read");
                None
            })
    }
}
