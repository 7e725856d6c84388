//! The thread that makes the log durable: everything that waits goes into one synced write.
//!
//! Holds: the replica hears `Persisted`, and peers get what it promises, only after the write has
//! returned. A full disk is waited out
//! with the same tasks in hand; any other failure stops the host, because what a failed sync has
//! written is unknown. How much wait is bounded by what the replica leaves uncommitted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use maitred_replica::{Disk, Input, Persist};
use maitred_storage::{Log, LogStart, Space, SpaceMonitor, StorageError, WriteTask};
use raft::eraftpb::{HardState, Message};

use crate::critical::Alarm;
use crate::inbox::Inbox;
use crate::metrics::Metrics;
use crate::peers::Peers;

/// How long to wait before trying again on a full disk.
const AGAIN: Duration = Duration::from_millis(100);
/// How often the disk's room is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Tasks of one write.
const TASKS_MAX: usize = 1_024;

/// Something for the log, in order.
pub(crate) enum LogJob {
    /// Make it durable.
    Persist(Persist),
    /// Cut the log through this index.
    Compact(u64),
}

/// The thread's belongings.
pub(crate) struct LogWriter {
    pub(crate) log: Log,
    pub(crate) jobs: Receiver<LogJob>,
    pub(crate) space: SpaceMonitor,
    /// As it was last written.
    pub(crate) hard_state: HardState,
    pub(crate) peers: Arc<Peers>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) alarm: Alarm,
    pub(crate) disk_full: Arc<AtomicBool>,
    /// Set when the host shuts down: a full disk is not waited out any more.
    pub(crate) stopping: Arc<AtomicBool>,
}

/// What is written together.
#[derive(Default)]
struct Batch {
    /// Of the last one in it.
    number: Option<u64>,
    tasks: Vec<WriteTask>,
    release: Vec<Message>,
}

impl Batch {
    fn add(&mut self, mut persist: Persist) {
        self.number = Some(persist.number);
        self.release.append(&mut persist.release);
        if !persist.entries.is_empty() || persist.hard_state.is_some() {
            self.tasks.push(WriteTask {
                entries: persist.entries,
                hard_state: persist.hard_state,
            });
        }
    }
}

impl LogWriter {
    /// The thread: ends when nobody can send any more.
    ///
    /// # Errors
    /// Why the host must stop.
    pub(crate) fn run(mut self) -> Result<(), String> {
        let mut told = Disk::Ok;
        loop {
            let first = match self.jobs.recv_timeout(LOOK) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            let mut batch = Batch::default();
            let mut cut = None;
            let waiting = first.into_iter().chain(self.jobs.try_iter());
            let jobs: Vec<LogJob> = waiting.take(TASKS_MAX).collect();
            for job in jobs {
                match job {
                    LogJob::Persist(persist) => {
                        if let Some(start) = persist.reset {
                            // What was asked for before comes before.
                            if !self.carry_out(&mut batch, &mut told)?
                                || !self.reset(start, persist.hard_state.as_ref(), &mut told)?
                            {
                                return Ok(());
                            }
                        }
                        batch.add(persist);
                    }
                    LogJob::Compact(through) => cut = Some(through),
                }
            }
            if !self.carry_out(&mut batch, &mut told)? {
                return Ok(());
            }
            if let Some(through) = cut {
                self.compact(through)?;
            }
            self.look(&mut told);
        }
    }

    /// Makes a batch durable, sends what waited for that, and says so. False when the host ends
    /// before there was room.
    fn carry_out(&mut self, batch: &mut Batch, told: &mut Disk) -> Result<bool, String> {
        let Batch {
            number,
            tasks,
            release,
        } = std::mem::take(batch);
        let Some(number) = number else {
            return Ok(true);
        };
        // One without anything to write has only waited for those before it.
        if !tasks.is_empty() {
            let began = Instant::now();
            if !self.insist(told, |log| log.write_all(&tasks))? {
                return Ok(false);
            }
            self.count(&tasks, began);
            let newest = tasks.iter().rev().find_map(|task| task.hard_state.as_ref());
            if let Some(newest) = newest {
                self.hard_state.clone_from(newest);
            }
        }
        if !release.is_empty() {
            self.peers.send(release);
        }
        self.inbox.push(Input::Persisted(number));
        Ok(true)
    }

    /// Begins the log anew after a snapshot that is durable already. False as above.
    fn reset(
        &mut self,
        (index, term): (u64, u64),
        hard_state: Option<&HardState>,
        told: &mut Disk,
    ) -> Result<bool, String> {
        let hard_state = hard_state.unwrap_or(&self.hard_state).clone();
        let start = LogStart { index, term };
        tracing::info!(
            index,
            term,
            "the log begins anew after a snapshot of a peer"
        );
        self.insist(told, |log| log.reset(start, &hard_state))
    }

    /// Does something with the log until it has succeeded. False when the host ends before there was
    /// room.
    fn insist(
        &mut self,
        told: &mut Disk,
        mut act: impl FnMut(&mut Log) -> Result<(), StorageError>,
    ) -> Result<bool, String> {
        loop {
            let error = match act(&mut self.log) {
                Ok(()) => {
                    if self.disk_full.swap(false, Ordering::Relaxed) {
                        tracing::info!("the log can be written again");
                    }
                    return Ok(true);
                }
                Err(error) => error,
            };
            if !error.is_disk_full() {
                return Err(format!("the log cannot be written: {error}"));
            }
            Metrics::count(&self.metrics.log_writes_disk_full);
            if !self.disk_full.swap(true, Ordering::Relaxed) {
                tracing::error!(%error, "nothing can be changed until there is room");
            }
            self.tell(Disk::Low(0), told);
            if self.stopping.load(Ordering::Relaxed) || self.alarm.raised().is_some() {
                tracing::warn!(
                    "the host ends with a full disk; what was not acknowledged is not kept"
                );
                return Ok(false);
            }
            std::thread::sleep(AGAIN);
        }
    }

    fn count(&mut self, tasks: &[WriteTask], began: Instant) {
        let entries: usize = tasks.iter().map(|task| task.entries.len()).sum();
        let bytes = tasks
            .iter()
            .flat_map(|task| &task.entries)
            .map(|entry| entry.data.len() as u64)
            .sum();
        self.space.wrote(bytes);
        let metrics = &self.metrics;
        Metrics::count(&metrics.log_writes);
        metrics
            .log_entries
            .fetch_add(entries as u64, Ordering::Relaxed);
        let micros = began.elapsed().as_micros() as u64;
        metrics
            .log_write_micros
            .fetch_add(micros, Ordering::Relaxed);
    }

    fn compact(&mut self, through: u64) -> Result<(), String> {
        match self.log.compact(through) {
            // The next snapshot brings another chance.
            Err(error) if error.is_disk_full() => {
                tracing::warn!(%error, "the log cannot be cut for want of room");
                Ok(())
            }
            other => other.map_err(|error| format!("the log cannot be cut: {error}")),
        }
    }

    fn look(&mut self, told: &mut Disk) {
        match self.space.check() {
            Ok(Space::Ok) => self.tell(Disk::Ok, told),
            Ok(Space::Low { free } | Space::Full { free }) => self.tell(Disk::Low(free), told),
            Err(error) => tracing::warn!(%error, "the disk's room cannot be told"),
        }
    }

    fn tell(&self, disk: Disk, told: &mut Disk) {
        let changed = std::mem::discriminant(&disk) != std::mem::discriminant(told);
        *told = disk;
        if changed {
            match disk {
                Disk::Ok => tracing::info!("the disk has room again: creates are taken"),
                Disk::Low(free) => {
                    tracing::warn!(free, "the disk is nearly full: creates are refused")
                }
            }
            self.inbox.push(Input::Disk(disk));
        }
    }
}
