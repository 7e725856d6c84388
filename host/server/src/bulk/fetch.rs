//! A snapshot that the leader says is to be fetched: from the first byte to a registry in memory.
//!
//! Holds: one at a time; a lost connection costs only what had not been written down; what was cut
//! short, altered, or is another one than was announced is never loaded, and is asked for again a few
//! times only; what is loaded is durable. When it fails for good nothing has changed, and the leader
//! offers one again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use maitred_protocol::PeerRequest;
use maitred_registry::Registry;
use maitred_replica::Input;
use maitred_storage::{SnapshotOffer, SnapshotReceiver, Snapshots, StorageError};
use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::fetch_error::FetchError;
use super::wire::{Body, CallError};
use super::{Bulk, blocking};
use crate::metrics::Metrics;
use crate::snapshot_load;

/// How long the sender may take until it begins: it reads the file once before it sends it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// Tries in a row that bring not one byte before the snapshot is given up.
const TRIES_MAX: u32 = 6;
/// Whole files that turn out to be wrong before the snapshot is given up.
const REFUSED_MAX: u32 = 3;
/// First pause before the next try; each one is twice as long.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// The longest pause.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// A snapshot that no byte has come of for so long gives way to another one.
const STALLED: Duration = Duration::from_secs(20);
/// Pieces that may wait to be written to the disk.
const PIECES_MAX: usize = 32;
/// How often the log says how far it is.
const TOLD: Duration = Duration::from_secs(5);

/// Which snapshot a host offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offered {
    /// Who has it.
    pub(crate) from: u64,
    /// The last index in it.
    pub(crate) index: u64,
    /// That entry's term.
    pub(crate) term: u64,
}

/// The one under way.
#[derive(Debug)]
pub(super) struct Fetching {
    offered: Offered,
    progress: Arc<Progress>,
    task: AbortHandle,
}

/// How far it is.
#[derive(Debug)]
struct Progress {
    /// Bytes that came, in all tries.
    bytes: AtomicU64,
    moved: Mutex<Instant>,
    told: Mutex<Instant>,
    /// All bytes are there; nothing can come between any more.
    complete: AtomicBool,
}

impl Progress {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            bytes: AtomicU64::new(0),
            moved: Mutex::new(now),
            told: Mutex::new(now),
            complete: AtomicBool::new(false),
        }
    }

    fn stalled(&self) -> bool {
        let moved = *self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        !self.complete.load(Ordering::Relaxed) && moved.elapsed() >= STALLED
    }

    fn add(&self, bytes: usize, index: u64, (there, total): (u64, u64)) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let now = Instant::now();
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = now;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(*told) >= TOLD {
            *told = now;
            let percent = there * 100 / total.max(1);
            tracing::info!(
                index,
                bytes = there,
                total,
                percent,
                "a snapshot is being fetched"
            );
        }
    }
}

impl Bulk {
    fn fetching(&self) -> MutexGuard<'_, Option<Fetching>> {
        self.fetching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches a snapshot in the background, and hands what `make` makes of it to the replica.
    /// Ignored while the same one is under way, or another one that moves on.
    pub(crate) fn install(
        self: &Arc<Self>,
        offered: Offered,
        make: impl FnOnce(Registry) -> Input + Send + 'static,
    ) {
        let mut fetching = self.fetching();
        if let Some(under_way) = fetching.as_ref() {
            if under_way.offered == offered || !under_way.progress.stalled() {
                return;
            }
            tracing::info!(
                index = under_way.offered.index,
                instead = offered.index,
                "a snapshot of which nothing came any more is given up"
            );
            under_way.task.abort();
        }
        let progress = Arc::new(Progress::new());
        let (bulk, its) = (Arc::clone(self), Arc::clone(&progress));
        let task = tokio::spawn(async move {
            let fetched = tokio::select! {
                fetched = bulk.fetch(offered, &its) => Some(fetched),
                () = bulk.stopped() => None,
            };
            bulk.fetched(offered, &its, fetched, make);
        });
        *fetching = Some(Fetching {
            offered,
            progress,
            task: task.abort_handle(),
        });
    }

    fn fetched(
        &self,
        offered: Offered,
        progress: &Arc<Progress>,
        fetched: Option<Result<Registry, FetchError>>,
        make: impl FnOnce(Registry) -> Input,
    ) {
        let index = offered.index;
        match fetched {
            Some(Ok(registry)) => {
                Metrics::count(&self.metrics.snapshots_fetched);
                tracing::info!(
                    index,
                    from = offered.from,
                    "a snapshot was fetched and loaded"
                );
                self.inbox.push(make(registry));
            }
            Some(Err(error)) => {
                Metrics::count(&self.metrics.snapshots_fetch_failed);
                tracing::warn!(index, from = offered.from, %error, "a snapshot could not be fetched; the leader will offer one again");
            }
            None => {}
        }
        let mut fetching = self.fetching();
        if fetching
            .as_ref()
            .is_some_and(|now| Arc::ptr_eq(&now.progress, progress))
        {
            *fetching = None;
        }
    }

    async fn fetch(
        &self,
        offered: Offered,
        progress: &Arc<Progress>,
    ) -> Result<Registry, FetchError> {
        // Ours, or one that was fetched and then not wanted.
        if let Some(registry) = self.load(offered, true).await? {
            return Ok(registry);
        }
        tracing::info!(
            index = offered.index,
            from = offered.from,
            "a snapshot is to be fetched"
        );
        let (mut tries, mut refused, mut pause) = (0, 0, RETRY_MIN);
        loop {
            let before = progress.bytes.load(Ordering::Relaxed);
            let Err(error) = self.fetch_once(offered, progress).await else {
                break;
            };
            if progress.bytes.load(Ordering::Relaxed) > before {
                (tries, pause) = (0, RETRY_MIN);
            }
            tries += 1;
            refused += u32::from(error.is_refusal());
            if error.is_final() || tries >= TRIES_MAX || refused >= REFUSED_MAX {
                return Err(error);
            }
            tracing::info!(index = offered.index, %error, "a snapshot was not fetched to its end; trying again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
        progress.complete.store(true, Ordering::Relaxed);
        let loaded = self.load(offered, false).await?;
        loaded.ok_or_else(|| FetchError::Broken("it was removed before it was loaded".to_owned()))
    }

    /// Asks for the file from where the last try ended, and writes down what comes.
    async fn fetch_once(
        &self,
        offered: Offered,
        progress: &Arc<Progress>,
    ) -> Result<(), FetchError> {
        let turn = Arc::clone(&self.receiving).lock_owned().await;
        let snapshots = self.snapshots.clone();
        let partial = blocking(move || snapshots.partial(offered.index));
        let partial = partial.await.map_err(FetchError::Broken)??;
        let mut offset = partial.map_or(0, |(_, bytes)| bytes);
        let mut body = match self.ask_for(offered, offset).await {
            // What was left is of a longer file: of another one, though of the same index.
            Err(CallError::Refused(_)) if offset > 0 => {
                offset = 0;
                self.ask_for(offered, 0).await?
            }
            asked => asked?,
        };
        let receiver = self.receiver(offered, &body).await?;
        if receiver.offset() != offset {
            // What was left is of another file, or more than this one has.
            offset = receiver.offset();
            let announced = (body.total, body.digest);
            body = self.ask_for(offered, offset).await?;
            if (body.total, body.digest) != announced {
                return Err(CallError::Unfit.into());
            }
        }
        self.receive(offered, progress, body, receiver, turn).await
    }

    async fn ask_for(&self, offered: Offered, offset: u64) -> Result<Body, CallError> {
        let index = offered.index;
        let asked = PeerRequest::Snapshot { index, offset };
        let body = self
            .call_for_bytes(offered.from, &asked, ANSWER_TIMEOUT)
            .await?;
        if body.left() + offset != body.total {
            return Err(CallError::Unfit);
        }
        Ok(body)
    }

    async fn receiver(
        &self,
        offered: Offered,
        body: &Body,
    ) -> Result<SnapshotReceiver, FetchError> {
        let offer = SnapshotOffer {
            index: offered.index,
            term: offered.term,
            bytes: body.total,
            digest: body.digest,
        };
        let snapshots = self.snapshots.clone();
        let received = blocking(move || snapshots.receive(offer)).await;
        Ok(received.map_err(FetchError::Broken)??)
    }

    /// Writes down what comes; on a thread of its own, so that a slow disk holds up nobody else.
    async fn receive(
        &self,
        offered: Offered,
        progress: &Arc<Progress>,
        mut body: Body,
        receiver: SnapshotReceiver,
        turn: OwnedMutexGuard<()>,
    ) -> Result<(), FetchError> {
        let total = body.total;
        let (pieces, written) = mpsc::channel(PIECES_MAX);
        let its = Arc::clone(progress);
        let writing = blocking(move || {
            let written = write(offered.index, receiver, written, &its, total);
            // Not before: there is one receiver at a time, also when nobody waits for this one.
            drop(turn);
            written
        });
        let metrics = &self.metrics;
        // The writer ends when its channel does, so that goes with the reader.
        let reading = async move {
            loop {
                match body.piece().await {
                    Ok(Some(piece)) => {
                        Metrics::add(&metrics.snapshot_bytes_fetched, piece.len());
                        // The writer says why it has ended.
                        if pieces.send(piece).await.is_err() {
                            break Ok(());
                        }
                    }
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            }
        };
        let (read, written) = tokio::join!(reading, writing);
        let finished = written.map_err(FetchError::Broken)??;
        read?;
        if !finished {
            return Err(CallError::Ended.into());
        }
        Ok(())
    }

    /// Loads a snapshot of this disk; none when there is no such one.
    async fn load(&self, offered: Offered, verify: bool) -> Result<Option<Registry>, FetchError> {
        let snapshots = self.snapshots.clone();
        let loaded = blocking(move || load(&snapshots, offered, verify)).await;
        loaded.map_err(FetchError::Broken)?
    }
}

/// Writes down pieces until no more come; true when the file is whole and durable.
fn write(
    index: u64,
    mut receiver: SnapshotReceiver,
    mut pieces: mpsc::Receiver<Vec<u8>>,
    progress: &Progress,
    total: u64,
) -> Result<bool, StorageError> {
    while let Some(piece) = pieces.blocking_recv() {
        receiver.append(&piece)?;
        progress.add(piece.len(), index, (receiver.offset(), total));
    }
    if !receiver.is_complete() {
        return Ok(false);
    }
    receiver.finish().map(|_| true)
}

fn load(
    snapshots: &Snapshots,
    offered: Offered,
    verify: bool,
) -> Result<Option<Registry>, FetchError> {
    let reader = match snapshots.read(offered.index) {
        Ok(Some(reader)) if verify => snapshots.verify(offered.index).map(|()| reader),
        Ok(Some(reader)) => Ok(reader),
        Ok(None) => return Ok(None),
        Err(error) => Err(error),
    };
    let mut reader = match reader {
        Err(error) if verify => {
            tracing::warn!(index = offered.index, %error, "this host's own copy of a snapshot is not used");
            return Ok(None);
        }
        reader => reader?,
    };
    let meta = reader.meta();
    if (meta.index, meta.term) != (offered.index, offered.term) {
        let (index, term) = (meta.index, meta.term);
        return Err(FetchError::Another { index, term });
    }
    snapshot_load::load(&mut reader, FetchError::Schema).map(Some)
}
