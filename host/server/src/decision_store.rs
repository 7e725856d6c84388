//! What placements were made from, on disk, for `explain`: a thread that writes and looks up.
//!
//! Evidence is a help for people. It is not synced, and when more comes than the thread can write,
//! some is dropped and counted rather than delaying a create.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use maitred_protocol::{Explanation, Incarnation, ProcessRecord, Response, Unavailable};
use maitred_registry::decide::Trace;
use maitred_replica::{Answer, Ticket};
use maitred_storage::Decisions;

use crate::metrics::Metrics;
use crate::router::{Answers, Router};

/// Jobs that may wait. A trace shares most of what it holds.
const JOBS_MAX: usize = 16_384;
/// How long after the last job everything is written out.
const FLUSH_AFTER: Duration = Duration::from_millis(200);

enum Job {
    Record(Incarnation, Arc<Trace>),
    Explain(Ticket, Box<ProcessRecord>),
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
}

/// Both halves.
pub(crate) fn decision_store(
    decisions: Decisions,
    router: Arc<Router>,
    metrics: Arc<Metrics>,
) -> (DecisionStore, Keeper) {
    let (sender, jobs) = sync_channel(JOBS_MAX);
    let store = DecisionStore {
        jobs: sender,
        metrics: Arc::clone(&metrics),
    };
    let keeper = Keeper {
        jobs,
        decisions,
        router,
        metrics,
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
        let evidence = self
            .decisions
            .get(record.incarnation)
            .unwrap_or_else(|error| {
                tracing::warn!(%error, "a kept decision cannot be read");
                None
            });
        let explanation = Explanation {
            record: *record,
            evidence,
        };
        let response = Response::Explained(Box::new(explanation));
        let mut answers = Answers::default();
        answers.add(ticket, Answer::Other(Box::new(response)));
        self.router.deliver(&mut answers);
    }
}
