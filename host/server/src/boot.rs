//! Whose data directory it is, and what is durable in it: the newest snapshot, and the log after it.

use maitred_protocol::ClusterId;
use maitred_registry::Loader;
use maitred_replica::{Recovered, RecoveredSnapshot};
use maitred_storage::{
    Blobs, DataDir, DecisionOptions, Decisions, HostIdentity, Inputs, InputsOptions, Log,
    LogOptions, SnapshotMeta, Snapshots,
};

use raft::eraftpb::HardState;

use crate::clock;
use crate::config::ServerConfig;
use crate::error::StartError;
use crate::running::Began;
use crate::snapshot_thread::SCHEMA;

/// Everything that is on disk, open.
pub(crate) struct Opened {
    pub(crate) log: Log,
    /// As it is in the log.
    pub(crate) hard_state: HardState,
    pub(crate) snapshots: Snapshots,
    pub(crate) blobs: Blobs,
    pub(crate) decisions: Decisions,
    /// None when no inputs of decisions are to be recorded.
    pub(crate) inputs: Option<Inputs>,
    /// Holds the lock, so it goes last.
    pub(crate) dir: DataDir,
}

/// Opens the data directory, or makes it: for the founder of a cluster, or for a host that is still to
/// be let into one.
///
/// # Errors
/// What is wrong with the directory, and what to do.
pub(crate) fn open_dir(config: &ServerConfig) -> Result<(DataDir, Began), StartError> {
    let (name, instance) = (config.host_name()?, clock::random());
    let identity = if config.join.is_empty() {
        let mut cluster = [0; 16];
        for part in cluster.chunks_mut(8) {
            part.copy_from_slice(&clock::random().to_le_bytes());
        }
        HostIdentity {
            cluster: ClusterId(cluster),
            host: 1,
            instance,
            name,
        }
    } else {
        HostIdentity::joining(instance, name)
    };
    let mut dir = DataDir::open_or_create(&config.data_dir, &identity)?;
    if let Some(probe) = &config.space_probe {
        dir.set_space_probe(probe.clone());
    }
    let began = if !dir.identity().is_joined() {
        if config.join.is_empty() {
            let dir = config.data_dir.clone();
            return Err(StartError::NotJoined { dir });
        }
        Began::Joined
    } else if dir.is_new() {
        tracing::info!(cluster = %identity.cluster, "a new cluster is founded");
        Began::Founded
    } else {
        if !config.join.is_empty() {
            tracing::info!("the host belongs to a cluster already: nothing is joined");
        }
        Began::Known
    };
    Ok((dir, began))
}

/// Leaves no directory behind that was made for a host which no cluster lets in, so that the next start
/// may give it another name. One that was there before stays.
pub(crate) fn forget(dir: DataDir) {
    if !dir.is_new() {
        return;
    }
    let path = dir.path().to_owned();
    if let Err(error) = dir.remove() {
        tracing::warn!(%error, dir = %path.display(), "the new data directory could not be removed again");
    }
}

/// Opens what is in the directory of a host that has a number. Blocks, for seconds when the state is
/// large.
///
/// # Errors
/// What is wrong with the directory, and what to do.
pub(crate) fn open(config: &ServerConfig, dir: DataDir) -> Result<(Opened, Recovered), StartError> {
    let options = LogOptions {
        accept_damaged_tail: config.accept_damaged_tail,
        space: config.space_limits(),
        ..LogOptions::default()
    };
    let (mut log, mut recovered) = Log::open(&dir, &options)?;
    for torn in &recovered.torn {
        let (file, bytes) = (torn.file.display(), torn.bytes);
        tracing::warn!(%file, bytes, "a write that a crash had cut off was removed; it had not been acknowledged");
    }
    let snapshots = Snapshots::open(&dir)?;
    let mut snapshot = None;
    if let Some((meta, loaded)) = load(&snapshots, recovered.start.index)? {
        if log.continue_from(&meta, &mut recovered)? {
            let index = meta.index;
            tracing::info!(
                index,
                "a crash came between a peer's snapshot and the log: the log begins after it now"
            );
        }
        snapshot = Some(loaded);
    }
    let options = DecisionOptions {
        total_bytes: config.decisions_bytes,
    };
    let inputs = InputsOptions {
        total_bytes: config.inputs_bytes,
        space: config.space_limits(),
        ..InputsOptions::default()
    };
    // With none to be kept it removes those that are there.
    let inputs = Inputs::open(&dir, inputs)?;
    let opened = Opened {
        log,
        hard_state: recovered.hard_state.clone(),
        snapshots,
        blobs: Blobs::open(&dir)?,
        decisions: Decisions::open(&dir, options)?,
        inputs: (config.inputs_bytes > 0).then_some(inputs),
        dir,
    };
    let recovered = Recovered {
        hard_state: recovered.hard_state,
        entries: recovered.entries,
        start_index: recovered.start.index,
        start_term: recovered.start.term,
        snapshot,
    };
    Ok((opened, recovered))
}

fn load(
    snapshots: &Snapshots,
    log_start: u64,
) -> Result<Option<(SnapshotMeta, RecoveredSnapshot)>, StartError> {
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
    let snapshot = RecoveredSnapshot {
        index: meta.index,
        term: meta.term,
        conf_state: meta.conf_state.clone(),
        registry: loader.finish()?,
    };
    Ok(Some((meta, snapshot)))
}
