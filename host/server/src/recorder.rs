//! The inputs of decisions, on disk, for replay: a thread that encodes, writes and finds.
//!
//! A lane hands over what a batch was made from and what came out, and goes on. Recording is a help
//! for people: it is not synced, and when more comes than the thread can write, or the disk is nearly
//! full, batches are dropped and counted rather than delaying a create.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use maitred_protocol::ModuleName;
use maitred_registry::candidates::{Fleet, NodeLive};
use maitred_registry::decide::{Decision, SelectBatch};
use maitred_registry::inputs::{self, InputsError, Outcome, Start};
use maitred_storage::StorageError;
use maitred_storage::inputs::{Inputs, Kept, Newest};
use tokio::sync::oneshot;

use crate::metrics::Metrics;

/// Batches that may wait.
const BATCHES_MAX: usize = 256;
/// Bytes of fleets, about, that may wait: a batch shares its fleet with nobody once it is decided.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// How long after the last batch everything is written out.
const FLUSH_AFTER: Duration = Duration::from_millis(200);

enum Job {
    Record(Box<(SelectBatch, Vec<Decision>)>),
    Find {
        last: u64,
        of: Option<ModuleName>,
        waiter: oneshot::Sender<Result<Newest, String>>,
    },
}

/// The way to the thread; dropping it ends the thread once it is done.
pub(crate) struct Recorder {
    jobs: SyncSender<Job>,
    /// Bytes of what waits.
    waiting: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

/// The thread's half.
pub(crate) struct Writer {
    jobs: Receiver<Job>,
    waiting: Arc<AtomicUsize>,
    inputs: Inputs,
    encoder: inputs::Recorder,
    metrics: Arc<Metrics>,
}

/// Both halves.
pub(crate) fn recorder(inputs: Inputs, metrics: &Arc<Metrics>) -> (Arc<Recorder>, Writer) {
    let (sender, jobs) = sync_channel(BATCHES_MAX);
    let waiting = Arc::<AtomicUsize>::default();
    let recorder = Arc::new(Recorder {
        jobs: sender,
        waiting: Arc::clone(&waiting),
        metrics: Arc::clone(metrics),
    });
    let writer = Writer {
        jobs,
        waiting,
        inputs,
        encoder: inputs::Recorder::default(),
        metrics: Arc::clone(metrics),
    };
    (recorder, writer)
}

/// What a fleet that nobody else holds costs, about.
fn bytes(fleet: &Fleet) -> usize {
    let columns = fleet.of_type.len() + fleet.of_group.len();
    let row = size_of::<NodeLive>() + columns * size_of::<u32>() + size_of::<usize>();
    fleet.live.len() * row
}

impl Recorder {
    /// Keeps what a batch was made from, as it was before, and what came out. Never waits.
    pub(crate) fn record(&self, batch: SelectBatch, decisions: Vec<Decision>) {
        let (bytes, count) = (bytes(&batch.fleet), batch.jobs.len());
        let waiting = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let job = Job::Record(Box::new((batch, decisions)));
        if waiting + bytes > WAITING_BYTES_MAX || self.jobs.try_send(job).is_err() {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            Metrics::add(&self.metrics.inputs_dropped, count);
        }
    }

    /// The newest decisions that are kept, of one module or of all; at least so many when there are,
    /// since batches are whole. To be read where blocking is allowed.
    ///
    /// # Errors
    /// Why not, for people.
    pub(crate) async fn newest(&self, last: u64, of: Option<ModuleName>) -> Result<Newest, String> {
        let (waiter, found) = oneshot::channel();
        let job = Job::Find { last, of, waiter };
        let busy = |_| "the thread that records decisions is busy; try again".to_owned();
        self.jobs.try_send(job).map_err(busy)?;
        let ended = |_| "the host is shutting down".to_owned();
        found.await.map_err(ended)?
    }
}

impl Writer {
    /// The thread.
    pub(crate) fn run(mut self) {
        let mut dirty = false;
        loop {
            match self.jobs.recv_timeout(FLUSH_AFTER) {
                Ok(Job::Record(record)) => {
                    dirty = true;
                    let (batch, decisions) = *record;
                    self.waiting
                        .fetch_sub(bytes(&batch.fleet), Ordering::Relaxed);
                    self.keep(&batch, &decisions);
                }
                Ok(Job::Find { last, of, waiter }) => {
                    let tag = of.as_ref().map(inputs::tag);
                    let found = self.inputs.newest(last, tag);
                    // Whoever asked may have gone.
                    let _ = waiter.send(found.map_err(|error| error.to_string()));
                }
                Err(RecvTimeoutError::Timeout) if !dirty => {}
                Err(end) => {
                    dirty = false;
                    if let Err(error) = self.inputs.flush() {
                        tracing::debug!(%error, "inputs of decisions were not written out");
                    }
                    if end == RecvTimeoutError::Disconnected {
                        return;
                    }
                }
            }
        }
    }

    fn keep(&mut self, batch: &SelectBatch, decisions: &[Decision]) {
        let outcomes: Vec<Outcome> = decisions.iter().map(Outcome::of).collect();
        let (encoder, count) = (&mut self.encoder, batch.jobs.len());
        let tag = inputs::tag(&inputs::lane_of(&batch.selector).module);
        let mut length = 0;
        let kept = self.inputs.append(tag, count as u32, |keyframe| {
            let start = if keyframe {
                Start::Keyframe
            } else {
                Start::Delta
            };
            let frame = encoder.frame(batch, &outcomes, start)?;
            length = frame.len();
            Ok::<_, InputsError>(frame)
        });
        let metrics = &self.metrics;
        match &kept {
            Ok(Kept::Yes | Kept::Again) => {
                Metrics::add(&metrics.inputs_recorded, count);
                Metrics::add(&metrics.inputs_bytes, length);
            }
            Ok(Kept::No | Kept::Stopped(_)) | Err(_) => {
                Metrics::add(&metrics.inputs_dropped, count);
            }
        }
        say(&kept);
    }
}

/// What an operator should hear of it.
fn say(kept: &Result<Kept, InputsError>) {
    match kept {
        Ok(Kept::Yes | Kept::No) => {}
        Ok(Kept::Again) => tracing::info!("inputs of decisions are recorded again"),
        Ok(Kept::Stopped(error)) => stopped(error),
        Err(error) => tracing::debug!(%error, "the inputs of a batch were not kept"),
    }
}

fn stopped(error: &StorageError) {
    tracing::warn!(%error, "inputs of decisions are not recorded for now; decisions go on");
}
