//! What a person does with the file of a snapshot while no host runs on it: look inside, and begin a
//! new cluster from it.
//!
//! What holds: a file is verified whole, as a file and as a state, before anything is made of it. A
//! restored cluster has an identity of its own, one host that votes, and an index and a term beyond
//! anything that the old one can have reached: no incarnation, node epoch or revision of the old
//! cluster is ever taken for a newer one. A restore that failed leaves no data directory.
//!
//! A snapshot has the modules' names and digests, not their bytes; those are copied beside it, or
//! pushed again.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use maitred_protocol::{ClusterId, Digest, HostName, ModuleName};
use maitred_registry::{RebaseError, Registry, SnapshotError};
use maitred_storage::snapshot_tools::{self, RestoreOptions};
use maitred_storage::{
    Blobs, DataDir, HostIdentity, SnapshotMeta, SnapshotReader, SnapshotWriter, StorageError,
};

use crate::clock::random;
use crate::snapshot_load::load;
use crate::snapshot_thread::SCHEMA;

/// How far a restore raises the index when nothing else is said: more than a cluster writes in a
/// year at 300 changes a second, or in half a day without a pause at the fastest.
pub const INDEX_BUMP: u64 = 10_000_000_000;

/// How far a restore raises the term: more elections than there can have been since.
const TERM_BUMP: u64 = 1_000_000;

/// The number of the host that a restored cluster begins with, as of a founder.
const FOUNDER: u64 = 1;

/// Why a snapshot could not be read or restored. Nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotToolError {
    /// The file or the directory.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The file is sound, and its content is not this program's.
    #[error("{0}; use the version of the program that wrote it")]
    Content(#[from] SnapshotError),
    /// It cannot be read.
    #[error("{} cannot be read: {source}", .file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Its content is newer than the file says.
    #[error("{0}; use another copy of the snapshot")]
    Rebase(#[from] RebaseError),
    /// The content has another version.
    #[error(
        "the snapshot has content of version {found}, this program reads version {SCHEMA}; use the version of the program that wrote it"
    )]
    Version {
        /// What the file says.
        found: u32,
    },
}

/// What is in a snapshot.
#[derive(Debug, Clone)]
pub struct SnapshotSummary {
    /// The index of the last entry that it contains.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// Who voted, by number.
    pub voters: Vec<u64>,
    /// Who only followed, by number.
    pub learners: Vec<u64>,
    /// Who was to belong to the cluster: number, name and address.
    pub members: Vec<(u64, HostName, String)>,
    /// The commands that the cluster used; see `docs/UPGRADE.md`.
    pub level: u16,
    /// Processes that ran.
    pub running: u64,
    /// Processes that were starting.
    pub starting: u64,
    /// Processes without a node.
    pub pending: u64,
    /// Nodes with a session.
    pub nodes: usize,
    /// The modules, with the digest of each version.
    pub modules: Vec<(ModuleName, Vec<Digest>)>,
    /// Types that were described.
    pub types: usize,
    /// Sessions of clients.
    pub sessions: usize,
    /// Bytes of the file.
    pub bytes: u64,
    /// The blake3 hash of the whole file, as `snapshot save` says it. (The hash that the file ends with
    /// was found to be right too.)
    pub digest: Digest,
    /// The hash of the state: the same for equal states, however they were written.
    pub state: Digest,
}

/// How a snapshot is restored.
#[derive(Debug, Clone)]
pub struct Restore {
    /// The snapshot.
    pub file: PathBuf,
    /// The new data directory: absent or empty.
    pub dir: PathBuf,
    /// The name of the new cluster's first host.
    pub name: HostName,
    /// How far the index is raised; above 0. See [`INDEX_BUMP`].
    pub index_bump: u64,
    /// Where modules' bytes are: a data directory, or its folder `modules`.
    pub modules_from: Option<PathBuf>,
}

/// What a restore made.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The new cluster.
    pub cluster: ClusterId,
    /// The number of its only host.
    pub host: u64,
    /// The index that it begins at.
    pub index: u64,
    /// The term that it begins at.
    pub term: u64,
    /// Modules' bytes that were copied.
    pub modules_copied: usize,
    /// Modules with versions whose bytes are not there, each once.
    pub modules_missing: Vec<ModuleName>,
}

/// Verifies a snapshot and tells what is in it. Takes as much memory as a host with that state.
///
/// # Errors
/// [`SnapshotToolError`] says what is wrong with the file.
pub fn inspect_snapshot(file: &Path) -> Result<SnapshotSummary, SnapshotToolError> {
    let info = snapshot_tools::inspect(file)?;
    let registry = load(&mut SnapshotReader::open(file)?, other_version)?;
    let counts = registry.counts();
    let members = registry.members().iter();
    Ok(SnapshotSummary {
        index: info.meta.index,
        term: info.meta.term,
        voters: info.meta.conf_state.voters.clone(),
        learners: info.meta.conf_state.learners.clone(),
        members: members
            .map(|(host, member)| (*host, member.name.clone(), member.address.clone()))
            .collect(),
        level: registry.level(),
        running: counts.running,
        starting: counts.starting,
        pending: counts.pending,
        nodes: registry.nodes().len(),
        modules: modules(&registry),
        types: registry.types().count(),
        sessions: registry.sessions(),
        bytes: info.bytes,
        digest: hash(file)?,
        state: Digest(registry.digest()),
    })
}

fn hash(file: &Path) -> Result<Digest, SnapshotToolError> {
    let mut hasher = blake3::Hasher::new();
    let read = File::open(file).and_then(|opened| hasher.update_reader(opened).map(drop));
    read.map_err(|source| SnapshotToolError::Read {
        file: file.to_owned(),
        source,
    })?;
    Ok(Digest(*hasher.finalize().as_bytes()))
}

/// Makes a data directory for the first host of a new cluster, with the state of a snapshot.
///
/// # Errors
/// [`SnapshotToolError`]: the file is not whole, the directory is not empty or in use, the disk is
/// full. Nothing is left of it then, unless only the modules' bytes could not be written.
pub fn restore_snapshot(restore: &Restore) -> Result<Restored, SnapshotToolError> {
    let cluster = ClusterId((u128::from(random()) << 64 | u128::from(random())).to_le_bytes());
    let options = RestoreOptions {
        identity: HostIdentity {
            cluster,
            host: FOUNDER,
            instance: random(),
            name: restore.name.clone(),
        },
        index_bump: restore.index_bump,
        term_bump: TERM_BUMP,
        schema: SCHEMA,
    };
    let mut wanted = Vec::new();
    let rewrite = |meta: &SnapshotMeta,
                   old: &mut SnapshotReader,
                   new: &mut SnapshotWriter|
     -> Result<(), SnapshotToolError> {
        let mut registry = load(old, other_version)?;
        registry.rebase(meta.index)?;
        wanted = modules(&registry);
        registry.snapshot().encode(|chunk| new.chunk(&chunk))?;
        Ok(())
    };
    let meta = snapshot_tools::restore(&restore.file, &restore.dir, &options, rewrite)?;
    let (copied, missing) = copy_modules(restore, &wanted)?;
    Ok(Restored {
        cluster,
        host: FOUNDER,
        index: meta.index,
        term: meta.term,
        modules_copied: copied,
        modules_missing: missing,
    })
}

fn other_version(found: u32) -> SnapshotToolError {
    SnapshotToolError::Version { found }
}

fn modules(registry: &Registry) -> Vec<(ModuleName, Vec<Digest>)> {
    let digests =
        |module: &maitred_registry::Module| module.versions.iter().map(|one| one.digest).collect();
    let modules = registry.modules();
    modules
        .map(|(name, module)| (name.clone(), digests(module)))
        .collect()
}

/// How many blobs were copied, and which modules still lack some.
fn copy_modules(
    restore: &Restore,
    wanted: &[(ModuleName, Vec<Digest>)],
) -> Result<(usize, Vec<ModuleName>), StorageError> {
    let dir = DataDir::open(&restore.dir)?;
    let blobs = Blobs::open(&dir)?;
    let mut copied = BTreeSet::new();
    let mut missing = Vec::new();
    for (name, digests) in wanted {
        let mut whole = true;
        for digest in digests {
            let bytes = restore
                .modules_from
                .as_ref()
                .and_then(|from| blob(from, *digest));
            match bytes {
                Some(bytes) => {
                    blobs.put(*digest, &bytes)?;
                    copied.insert(*digest);
                }
                None => whole = false,
            }
        }
        if !whole {
            missing.push(name.clone());
        }
    }
    Ok((copied.len(), missing))
}

/// The bytes of a module in a folder of blobs, or in the data directory that has one; none when they
/// are not there, or are others.
fn blob(from: &Path, digest: Digest) -> Option<Vec<u8>> {
    let name = digest.to_string();
    let places = [from.join("modules").join(&name), from.join(&name)];
    let mut found = places.iter().filter_map(|path| std::fs::read(path).ok());
    found.find(|bytes| Digest::of(bytes) == digest)
}
