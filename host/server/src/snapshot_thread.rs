//! The thread that writes snapshots: encoding a large state takes longer than a turn may.
//!
//! One at a time; the replica asks for the next only after it has heard of the last.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use maitred_replica::{Input, TakeSnapshot};
use maitred_storage::{SnapshotMeta, Snapshots, StorageError};

use crate::inbox::Inbox;
use crate::metrics::Metrics;

/// The version of what the chunks hold: the registry's.
pub(crate) const SCHEMA: u32 = 1;

/// The thread's belongings.
pub(crate) struct SnapshotWriter {
    pub(crate) snapshots: Snapshots,
    pub(crate) jobs: Receiver<Box<TakeSnapshot>>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) metrics: Arc<Metrics>,
}

impl SnapshotWriter {
    /// The thread: ends when nobody can ask any more.
    pub(crate) fn run(self) {
        while let Ok(job) = self.jobs.recv() {
            let index = job.index;
            let written = match self.write(*job) {
                Ok(()) => {
                    Metrics::count(&self.metrics.snapshots);
                    tracing::info!(index, "a snapshot was written");
                    Some(index)
                }
                Err(error) => {
                    Metrics::count(&self.metrics.snapshots_failed);
                    tracing::warn!(%error, index, "a snapshot could not be written; the log grows meanwhile");
                    None
                }
            };
            let floor = self.snapshots.compact_floor().unwrap_or_else(|error| {
                tracing::warn!(%error, "the snapshots cannot be listed");
                0
            });
            self.inbox.push(Input::SnapshotSaved {
                index: written,
                floor,
            });
        }
    }

    fn write(&self, job: TakeSnapshot) -> Result<(), StorageError> {
        let meta = SnapshotMeta {
            index: job.index,
            term: job.term,
            conf_state: job.conf_state,
            schema: SCHEMA,
        };
        let mut writer = self.snapshots.begin(&meta)?;
        job.state.encode(|chunk| writer.chunk(&chunk))?;
        writer.finish().map(drop)
    }
}
