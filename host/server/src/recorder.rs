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
use maitred_registry::decide::SelectBatch;
use maitred_registry::inputs::{self, InputsError, Outcome, Start, waiting_bytes};
use maitred_storage::StorageError;
use maitred_storage::inputs::{Inputs, Kept, Newest};
use tokio::sync::oneshot;

use crate::metrics::Metrics;

/// Batches that may wait.
const BATCHES_MAX: usize = 256;
/// Bytes of batches, about, that may wait: a batch shares its fleet with nobody once it is decided.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// How long after the last batch everything is written out.
const FLUSH_AFTER: Duration = Duration::from_millis(200);

enum Job {
    Record(Box<Waiting>),
    Find {
        last: u64,
        of: Option<ModuleName>,
        waiter: oneshot::Sender<Newest>,
    },
}

/// A batch that was decided.
struct Waiting {
    /// As it was before.
    batch: SelectBatch,
    /// One a job: without traces, which may take a hundred times as much.
    outcomes: Arc<[Outcome]>,
    bytes: usize,
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

impl Recorder {
    /// Keeps what a batch was made from, as it was before, and what came out. Never waits.
    pub(crate) fn record(&self, batch: SelectBatch, outcomes: Arc<[Outcome]>) {
        let (bytes, count) = (waiting_bytes(&batch, &outcomes), batch.jobs.len());
        let waiting = self.waiting.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let job = Job::Record(Box::new(Waiting {
            batch,
            outcomes,
            bytes,
        }));
        // One is taken however large it is.
        let fits = waiting == bytes || waiting <= WAITING_BYTES_MAX;
        if !fits || self.jobs.try_send(job).is_err() {
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
        found.await.map_err(ended)
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
                    self.keep(&record.batch, &record.outcomes);
                    self.waiting.fetch_sub(record.bytes, Ordering::Relaxed);
                }
                Ok(Job::Find { last, of, waiter }) => {
                    self.flush();
                    let found = self.inputs.newest(last, of.as_ref().map(inputs::tag));
                    // Whoever asked may have gone.
                    let _ = waiter.send(found);
                }
                Err(RecvTimeoutError::Timeout) if !dirty => {}
                Err(end) => {
                    dirty = false;
                    self.flush();
                    if end == RecvTimeoutError::Disconnected {
                        return;
                    }
                }
            }
        }
    }

    fn keep(&mut self, batch: &SelectBatch, outcomes: &[Outcome]) {
        let (encoder, count) = (&mut self.encoder, batch.jobs.len());
        let tag = inputs::tag(&inputs::lane_of(&batch.selector).module);
        let mut length = 0;
        let kept = self.inputs.append(tag, count as u32, |keyframe| {
            let start = if keyframe {
                Start::Keyframe
            } else {
                Start::Delta
            };
            let frame = encoder.frame(batch, outcomes, start)?;
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
        self.count_lost();
        say(&kept);
    }

    fn flush(&mut self) {
        let kept = self.inputs.flush();
        self.count_lost();
        say(&Ok(kept));
    }

    /// What was recorded and then lost is dropped all the same.
    fn count_lost(&mut self) {
        let lost = self.inputs.take_lost();
        Metrics::add(&self.metrics.inputs_dropped, lost as usize);
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

#[cfg(test)]
mod tests {
    use maitred_protocol::{Answered, ProcessKey};
    use maitred_registry::candidates::{Fleet, SelectRequest};
    use maitred_registry::decide::SelectJob;
    use maitred_storage::{DataDir, HostIdentity, InputsOptions};

    use super::*;

    /// So many creates over no nodes, each with a party's name of so many bytes.
    fn batch(jobs: u64, bytes: usize) -> SelectBatch {
        let job = |id| {
            let key = ProcessKey::new("player", &format!("p{id}")).unwrap();
            let request = SelectRequest {
                group: Some("g".repeat(bytes)),
                ..SelectRequest::new(key)
            };
            SelectJob {
                id,
                request: Arc::new(request),
                fallback: Default::default(),
                seed: 0,
            }
        };
        SelectBatch {
            selector: Err((ModuleName::new("gone").unwrap(), String::new())),
            shadow: None,
            fleet: Arc::new(Fleet::new(Arc::default(), Vec::new())),
            time_s: 0,
            jobs: (0..jobs).map(job).collect(),
            dry: false,
        }
    }

    /// A recorder whose writer does not run, as when the disk stalls.
    fn stalled() -> (tempfile::TempDir, Arc<Recorder>, Writer) {
        let dir = tempfile::tempdir().unwrap();
        let identity = HostIdentity::joining(1, "first".parse().unwrap());
        let data = DataDir::create(dir.path().join("data"), &identity).unwrap();
        let inputs = Inputs::open(&data, InputsOptions::default()).unwrap();
        let (recorder, writer) = recorder(inputs, &Arc::default());
        (dir, recorder, writer)
    }

    #[test]
    fn counters_that_nodes_have_replaced_count_and_one_batch_is_always_taken() {
        let (_dir, recorder, _writer) = stalled();
        // Each batch holds the reports of another moment: 1,000 nodes with 16 counters each.
        let held = |recorder: &Recorder, nodes: usize| {
            let mut batch = batch(1, 1);
            let name = |at: usize| format!("counter-{at:0>40}");
            let report = || (0..16).map(|at| (name(at), 1.0)).collect();
            let mut fleet = Fleet::new(Arc::default(), Vec::new());
            fleet.counters = (0..nodes).map(|_| report()).collect();
            let kept = Arc::downgrade(&fleet.counters[0]);
            batch.fleet = Arc::new(fleet);
            recorder.record(batch, Arc::default());
            kept.upgrade().is_some()
        };
        let held_of = 1_000 * 16 * (48 + size_of::<(String, f32)>());
        let all = (0..100).filter(|_| held(&recorder, 1_000)).count();
        let bytes = all * held_of;
        assert!(all >= 10 && bytes <= WAITING_BYTES_MAX, "{all} wait");
        let (_dir, recorder, _writer) = stalled();
        assert!(held(&recorder, 50_000) && !held(&recorder, 1));
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_whatever_it_is() {
        let (_dir, recorder, writer) = stalled();
        let metrics = Arc::clone(&recorder.metrics);
        // 200 batches of 1 MiB.
        let outcome = Outcome {
            chosen: None,
            answered: Answered::Nothing,
            fallback: true,
            fingerprint: 0,
        };
        let outcomes: Arc<[Outcome]> = vec![outcome; 1_024].into();
        let kept: Vec<_> = (0..200)
            .map(|_| {
                let batch = batch(1_024, 1_024);
                let request = Arc::downgrade(&batch.jobs[0].request);
                recorder.record(batch, Arc::clone(&outcomes));
                request
            })
            .collect();
        let held = kept.iter().filter(|one| one.upgrade().is_some()).count();
        assert!((10..=32).contains(&held), "{held} MiB wait");
        let dropped = metrics.inputs_dropped.load(Ordering::Relaxed);
        assert_eq!(dropped as usize, (200 - held) * 1_024);
        drop(recorder);
        writer.run();
        assert_eq!(
            metrics.inputs_recorded.load(Ordering::Relaxed) as usize,
            held * 1_024
        );
    }
}
