//! Reads back what is durable: the newest snapshot, and the log after it.

use maitred_registry::Loader;
use maitred_replica::{Recovered, RecoveredSnapshot};
use maitred_storage::{
    Blobs, DataDir, DecisionOptions, Decisions, Log, LogOptions, LogStart, Snapshots,
};

use crate::config::ServerConfig;
use crate::error::StartError;
use crate::snapshot_thread::SCHEMA;

/// Everything that is on disk, open.
pub(crate) struct Opened {
    pub(crate) log: Log,
    pub(crate) snapshots: Snapshots,
    pub(crate) blobs: Blobs,
    pub(crate) decisions: Decisions,
    /// Holds the lock, so it goes last.
    pub(crate) dir: DataDir,
}

/// Opens the data directory, or makes it. Blocks, for seconds when the state is large.
///
/// # Errors
/// What is wrong with the directory, and what to do.
pub(crate) fn open(config: &ServerConfig) -> Result<(Opened, Recovered), StartError> {
    let mut dir = DataDir::open_or_create(&config.data_dir, config.host)?;
    if let Some(probe) = &config.space_probe {
        dir.set_space_probe(probe.clone());
    }
    let options = LogOptions {
        accept_damaged_tail: config.accept_damaged_tail,
        space: config.space_limits(),
        ..LogOptions::default()
    };
    let (mut log, recovered) = Log::open(&dir, &options)?;
    for torn in &recovered.torn {
        let (file, bytes) = (torn.file.display(), torn.bytes);
        tracing::warn!(%file, bytes, "a write that a crash had cut off was removed; it had not been acknowledged");
    }
    let snapshots = Snapshots::open(&dir)?;
    let snapshot = load(&snapshots, recovered.start.index)?;
    let mut entries = recovered.entries;
    let mut start = recovered.start;
    if let Some(snapshot) = &snapshot
        && snapshot.index > log.last_index()
    {
        // A crash came between installing a snapshot and emptying the log.
        start = LogStart {
            index: snapshot.index,
            term: snapshot.term,
        };
        log.reset(start, &recovered.hard_state)?;
        entries.clear();
    }
    let options = DecisionOptions {
        total_bytes: config.decisions_bytes,
    };
    let opened = Opened {
        log,
        snapshots,
        blobs: Blobs::open(&dir)?,
        decisions: Decisions::open(&dir, options)?,
        dir,
    };
    let recovered = Recovered {
        hard_state: recovered.hard_state,
        entries,
        start_index: start.index,
        start_term: start.term,
        snapshot,
    };
    Ok((opened, recovered))
}

fn load(snapshots: &Snapshots, log_start: u64) -> Result<Option<RecoveredSnapshot>, StartError> {
    let mut loader = Loader::new();
    let found = snapshots.latest(log_start, |chunk: &[u8]| -> Result<(), StartError> {
        Ok(loader.chunk(chunk)?)
    })?;
    let Some(meta) = found else {
        return Ok(None);
    };
    if meta.schema != SCHEMA {
        return Err(StartError::SnapshotVersion {
            found: meta.schema,
            read: SCHEMA,
        });
    }
    Ok(Some(RecoveredSnapshot {
        index: meta.index,
        term: meta.term,
        conf_state: meta.conf_state,
        registry: loader.finish()?,
    }))
}
