//! The bytes of modules on this disk: which stay, which go, and which are had from other hosts.
//!
//! Nothing is removed that anybody may still need: what is recorded, what an upload or an activation
//! under way uses, and, for a while, what was promised to another host.

use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use hashbrown::HashSet;
use maitred_protocol::Digest;
use maitred_storage::StorageError;
use tokio::runtime::Handle;

use super::{Modules, Subject, Wish};
use crate::bulk::Bulk;

/// How long bytes are kept for another host's upload that has not been recorded. An upload ends
/// within a minute or two; the rest is for this host to hear of it.
pub(super) const HOLD: Duration = Duration::from_secs(15 * 60);
/// Modules that are kept so.
const HELD_MAX: usize = 64;

impl Modules {
    /// Lets modules that are not here be fetched from other hosts, by tasks of this runtime.
    pub(crate) fn fetch_with(&self, runtime: Handle, bulk: Weak<Bulk>) {
        // Set once, when the host is made.
        let _ = self.fetcher.set((runtime, bulk));
    }

    /// Keeps a module for another host's upload, for [`HOLD`] from now. False when too many are.
    pub(crate) fn hold(&self, digest: Digest) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        let before = state.held.len();
        state.held.retain(|_, until| *until > now);
        state.untidy |= state.held.len() < before;
        let recorded = Arc::clone(&state.wish);
        let unrecorded = |held: &&Digest| !recorded.recorded.contains(*held);
        if state.held.keys().filter(unrecorded).count() >= HELD_MAX
            && !state.held.contains_key(&digest)
        {
            return false;
        }
        state.held.insert(digest, now + HOLD);
        true
    }

    /// A module's bytes, when they are on this disk. Blocks.
    ///
    /// # Errors
    /// The disk's, and when they are damaged.
    pub(crate) fn bytes(&self, digest: Digest) -> Result<Option<Vec<u8>>, StorageError> {
        self.blobs.get(digest)
    }

    /// Writes a module's bytes down; none when the host ends, so that nothing is written once its
    /// directory is free.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn write_down(
        &self,
        digest: Digest,
        bytes: &[u8],
    ) -> Result<Option<()>, StorageError> {
        let writable = self.writable.lock().unwrap_or_else(PoisonError::into_inner);
        if !*writable {
            return Ok(None);
        }
        self.blobs.put(digest, bytes).map(Some)
    }

    /// A recorded module's bytes, from this disk or else from another host. Blocks, for minutes when
    /// other hosts are slow.
    pub(super) fn get_or_fetch(&self, digest: Digest) -> Result<Vec<u8>, String> {
        let here = match self.blobs.get(digest) {
            Ok(Some(bytes)) => return Ok(bytes),
            Ok(None) => "its bytes are not on this host".to_owned(),
            // A good copy replaces it.
            Err(error @ StorageError::BlobDamaged { .. }) => error.to_string(),
            Err(error) => return Err(error.to_string()),
        };
        let not_fetched = |why| format!("{here} and could not be fetched ({why}): upload it again");
        self.fetch(digest).map_err(not_fetched)?;
        let fetched = self.blobs.get(digest).map_err(|error| error.to_string())?;
        fetched.ok_or_else(|| "its bytes were removed while they were fetched".to_owned())
    }

    /// The bytes of a module that this host may run. Blocks, as above.
    ///
    /// # Errors
    /// Why it may not, or why they cannot be had.
    pub(crate) fn bytes_of(&self, module: &Subject) -> Result<Vec<u8>, String> {
        self.judge(module)?;
        self.get_or_fetch(module.digest)
    }

    /// The same, of one that is wished and is on this disk: none for any other.
    pub(crate) fn bytes_of_wished(&self, digest: &Digest) -> Option<Vec<u8>> {
        let wish = Arc::clone(&self.lock().wish);
        let mut ready = wish.ready.iter();
        let (_, module) = ready.find(|(_, module)| module.digest == *digest)?;
        self.judge(module).ok()?;
        self.blobs.get(*digest).ok()?
    }

    fn fetch(&self, digest: Digest) -> Result<(), String> {
        let fetcher = self.fetcher.get();
        let fetcher = fetcher.and_then(|(runtime, bulk)| Some((runtime, bulk.upgrade()?)));
        let (runtime, bulk) = fetcher.ok_or("no other host can be asked")?;
        runtime.block_on(bulk.fetch_blob(digest))
    }

    /// Fetches what is recorded and not on this disk: whoever leads next may have to run it.
    pub(super) fn fetch_lacking(&self, wish: &Wish) {
        let mut lacking = HashSet::new();
        for digest in &wish.recorded {
            if self.is_outdated() {
                return;
            }
            if self.blobs.contains(*digest) {
                continue;
            }
            if let Err(why) = self.fetch(*digest) {
                tracing::debug!(digest = %digest.short(), %why, "a recorded module is not on this host");
                lacking.insert(*digest);
            }
        }
        self.lock().lacking = lacking;
    }

    pub(super) fn remove_unrecorded(&self, wish: &Wish) {
        let stored = match self.blobs.list() {
            Ok(stored) => stored,
            Err(error) => return tracing::warn!(%error, "the modules on disk cannot be listed"),
        };
        for (digest, _) in stored {
            if wish.recorded.contains(&digest) {
                continue;
            }
            // Under the lock, so that no upload of these bytes begins meanwhile.
            let state = self.lock();
            if state.news || state.closed || !state.told {
                return;
            }
            if state.kept.contains_key(&digest) || state.held.contains_key(&digest) {
                continue;
            }
            if let Err(error) = self.blobs.remove(digest) {
                tracing::warn!(%error, "the bytes of a removed module are still there");
            }
        }
    }
}
