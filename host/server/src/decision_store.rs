//! What placements were made from, on disk, for `explain`: a thread that writes and looks up.
//!
//! Evidence is a help for people. It is not synced, and when more comes than the thread can write,
//! some is dropped and counted rather than delaying a create. What another host decided is asked of
//! the others, by a task of its own, so that nobody waits for that here.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use maitred_protocol::{Evidence, Explanation, Incarnation, ProcessRecord, Response, Unavailable};
use maitred_registry::decide::Trace;
use maitred_replica::{Answer, Ticket};
use maitred_storage::Decisions;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::bulk::Bulk;
use crate::metrics::Metrics;
use crate::router::{Answers, Router};

/// Jobs that may wait. A trace shares most of what it holds.
const JOBS_MAX: usize = 16_384;
/// How long after the last job everything is written out.
const FLUSH_AFTER: Duration = Duration::from_millis(200);

enum Job {
    Record(Incarnation, Arc<Trace>),
    Explain(Ticket, Box<ProcessRecord>),
    /// For another host.
    LookUp(Incarnation, oneshot::Sender<Option<Evidence>>),
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
    runtime: Handle,
}

/// Both halves. Must be called within the runtime that is to ask other hosts.
pub(crate) fn decision_store(
    decisions: Decisions,
    router: Arc<Router>,
    metrics: Arc<Metrics>,
    bulk: &Arc<Bulk>,
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
        incarnation: Incarnation,
    ) -> Option<oneshot::Receiver<Option<Evidence>>> {
        let (waiter, found) = oneshot::channel();
        let job = Job::LookUp(incarnation, waiter);
        self.jobs.try_send(job).ok().map(|()| found)
    }

    /// Answers an `explain`, after everything that was recorded before.
    pub(crate) fn explain(
        &self,
        ticket: Ticket,
        record: Box<ProcessRecord>,
        answers: &mut Answers,
    ) {
        let why = match self.jobs.try_send(Job::Explain(ticket, record)) {
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
                    if let Err(error) = self.decisions.append(incarnation, &trace.evidence()) {
                        tracing::debug!(%error, "a decision was not kept");
                        Metrics::count(&self.metrics.decisions_dropped);
                    }
                }
                Ok(Job::Explain(ticket, record)) => self.explain(ticket, record),
                Ok(Job::LookUp(incarnation, waiter)) => {
                    // Whoever asked may have gone.
                    let _ = waiter.send(self.kept(incarnation));
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

    fn explain(&mut self, ticket: Ticket, record: Box<ProcessRecord>) {
        let evidence = self.kept(record.incarnation);
        if evidence.is_some() {
            return answer(&self.router, ticket, record, evidence);
        }
        let (bulk, router) = (Arc::clone(&self.bulk), Arc::clone(&self.router));
        // As many as there are unanswered requests, which are bounded; each ends in a moment.
        self.runtime.spawn(async move {
            let evidence = bulk.evidence(record.incarnation).await;
            answer(&router, ticket, record, evidence);
        });
    }

    fn kept(&mut self, incarnation: Incarnation) -> Option<Evidence> {
        self.decisions.get(incarnation).unwrap_or_else(|error| {
            tracing::warn!(%error, "a kept decision cannot be read");
            None
        })
    }
}

fn answer(router: &Router, ticket: Ticket, record: Box<ProcessRecord>, evidence: Option<Evidence>) {
    let explanation = Explanation {
        record: *record,
        evidence,
    };
    let response = Response::Explained(Box::new(explanation));
    let mut answers = Answers::default();
    answers.add(ticket, Answer::Other(Box::new(response)));
    router.deliver(&mut answers);
}
