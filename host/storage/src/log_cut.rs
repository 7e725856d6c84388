//! Where the log begins: compaction, and a new beginning after a snapshot from the leader.
//!
//! What holds: the new beginning, the hard state and what is forgotten are one record, so a crash
//! finds all of it or nothing; files are removed only after that record is durable, oldest first.
//! It must not know what an entry's bytes mean.

use raft::eraftpb::HardState;
use raft_engine::env::FileSystem;
use raft_engine::{Command, LogBatch};

use crate::log::{Log, LogStart, RecoveredLog};
use crate::log_engine::{HARD_STATE, START};
use crate::space::free_and_total;
use crate::{SnapshotMeta, StorageError, log_engine};

/// Bytes that compaction needs to free more.
pub(crate) const COMPACT_RESERVE_BYTES: u64 = 8 << 20;

impl<F: FileSystem> Log<F> {
    /// Forgets entries up to and including `through_index`, and removes files that hold nothing
    /// else. Does nothing when they are forgotten already.
    ///
    /// Keep `through_index` at or below [`crate::Snapshots::compact_floor`], so that the older
    /// snapshot still serves when the newest cannot be read. Takes some 100 ms at worst.
    ///
    /// # Errors
    /// As [`Log::write_all`]; works on a disk that is too full for writes.
    ///
    /// # Panics
    /// As [`Log::write_all`], and when the disk fills up in the middle.
    pub fn compact(&mut self, through_index: u64) -> Result<(), StorageError> {
        if through_index <= self.start.index {
            return Ok(());
        }
        if through_index > self.last_index {
            return Err(StorageError::OutOfOrder(format!(
                "compaction through {through_index} of a log that ends at {}",
                self.last_index
            )));
        }
        let Some(term) = self.term(through_index) else {
            let what = format!("entry {through_index} has no term");
            return Err(log_engine::lost(&self.dir, what));
        };
        let start = LogStart {
            index: through_index,
            term,
        };
        let hard_state = self.hard_state.clone();
        self.begin_after(start, self.last_index, through_index + 1, &hard_state)
    }

    /// Drops all entries and begins after `start`: for a snapshot from the leader that the log does
    /// not lead to. Make the snapshot durable first. The hard state is written with it, fitted: its
    /// commit is `start`'s index, as nothing beyond is in the log yet, and its term at least `start`'s.
    /// A commit that the snapshot brought must not be written before this.
    ///
    /// One record: after a crash all of this has happened, or nothing.
    ///
    /// # Errors
    /// As [`Log::compact`].
    ///
    /// # Panics
    /// As [`Log::compact`].
    pub fn reset(&mut self, start: LogStart, hard_state: &HardState) -> Result<(), StorageError> {
        let beyond_all = self.last_index.max(start.index) + 1;
        let mut hard_state = hard_state.clone();
        hard_state.commit = start.index;
        if hard_state.term < start.term {
            hard_state.term = start.term;
            // A vote in that term would have been durable with it.
            hard_state.vote = 0;
        }
        self.begin_after(start, start.index, beyond_all, &hard_state)
    }

    /// Makes the log lead on from the snapshot that was loaded, and says whether it had to be reset:
    /// a crash came between a snapshot from the leader and [`Log::reset`]. It may have left a log
    /// that ends before the snapshot, or one that has another entry in its place; a snapshot has
    /// committed entries only, so it is the log that is wrong. `recovered` is changed to what the log
    /// then holds, its commit to what the snapshot proves.
    ///
    /// # Errors
    /// As [`Log::compact`]; [`StorageError::LogDamaged`] when the two cannot be of one history.
    ///
    /// # Panics
    /// As [`Log::compact`].
    pub fn continue_from(
        &mut self,
        snapshot: &SnapshotMeta,
        recovered: &mut RecoveredLog,
    ) -> Result<bool, StorageError> {
        let at = snapshot.index;
        let known = self.term(at);
        let leads_on = known == Some(snapshot.term);
        let settled = self.start.index.max(recovered.hard_state.commit);
        if at < self.start.index || (known.is_some() && !leads_on && at <= settled) {
            let what = format!(
                "committed entry {at} is of term {known:?}, and of term {} in the snapshot",
                snapshot.term
            );
            return Err(log_engine::lost(&self.dir, what));
        }
        if leads_on {
            let commit = &mut recovered.hard_state.commit;
            *commit = at.max(*commit);
        } else {
            let start = LogStart {
                index: at,
                term: snapshot.term,
            };
            self.reset(start, &recovered.hard_state)?;
            recovered.start = start;
            recovered.hard_state = self.hard_state.clone();
            recovered.entries.clear();
        }
        Ok(!leads_on)
    }

    /// Writes that the log begins after `start` and has no entry below `cut`, then removes old files.
    fn begin_after(
        &mut self,
        start: LogStart,
        last_index: u64,
        cut: u64,
        hard_state: &HardState,
    ) -> Result<(), StorageError> {
        let (free, _) = free_and_total(&self.dir)?;
        if free < COMPACT_RESERVE_BYTES {
            return Err(StorageError::DiskFull {
                path: self.dir.clone(),
                free,
            });
        }
        let mut batch = LogBatch::default();
        batch.add_command(self.region, Command::Compact { index: cut });
        let text = log_engine::encode_start(start);
        self.in_batch(batch.put(self.region, START.to_vec(), text))?;
        self.in_batch(batch.put_message(self.region, HARD_STATE.to_vec(), hard_state))?;
        self.commit(&mut batch)?;
        self.start = start;
        self.last_index = last_index;
        // Keeps the term that entries after the start may still be of.
        let over = self
            .terms
            .partition_point(|&(first, _)| first <= start.index);
        self.terms.drain(..over.saturating_sub(1));
        if last_index == start.index {
            self.terms.clear();
        }
        self.hard_state = hard_state.clone();
        // Not `purge_expired_files`: that rewrites live entries into a second queue of files, on this
        // thread. The hard state was just written again, so files of dead entries are all dead.
        self.engine.purge_manager().must_purge_all_stale();
        Ok(())
    }
}
