//! Which modules this host can run just now, and which bytes it keeps.
//!
//! The replica says which modules are active and which are recorded at all; one thread follows: it
//! loads, unloads, remembers why a module cannot be had, and removes bytes that nothing names any
//! more. Only the newest wish counts. Bytes of an upload under way are kept until it has ended, and
//! whatever removes bytes stops at once when a newer wish has come, because that one may name them.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use hashbrown::{HashMap, HashSet};
use maitred_protocol::{Digest, ModuleKind, ModuleName};
use maitred_sandbox::Sandbox;
use maitred_storage::Blobs;
use tokio::sync::Notify;

/// Modules that stay loaded although they are not active: just uploaded, or just replaced.
const SPARE_MAX: usize = 16;

/// The active modules.
pub(crate) type Active = Vec<(ModuleName, ModuleKind, Digest)>;

#[derive(Debug, Default)]
struct State {
    /// The newest wish, until the thread has taken it.
    active: Option<Active>,
    /// The digests of all versions of all modules, until the thread has taken them.
    recorded: Option<HashSet<Digest>>,
    /// Digests of uploads under way, with how many there are of each.
    uploading: HashMap<Digest, u32>,
    /// Active digests that have not been tried since they became so.
    loading: HashSet<Digest>,
    failed: BTreeMap<ModuleName, (Digest, String)>,
    closed: bool,
}

/// See the module's text.
pub(crate) struct Modules {
    sandbox: Arc<Sandbox>,
    blobs: Blobs,
    state: Mutex<State>,
    wished: Condvar,
    settled: Notify,
}

/// Keeps the bytes of an upload under way.
pub(crate) struct Kept<'a>(&'a Modules, Digest);

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if let Some(count) = state.uploading.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                state.uploading.remove(&self.1);
            }
        }
    }
}

impl Modules {
    pub(crate) fn new(sandbox: Arc<Sandbox>, blobs: Blobs) -> Self {
        Self {
            sandbox,
            blobs,
            state: Mutex::default(),
            wished: Condvar::new(),
            settled: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are active: make them ready.
    pub(crate) fn want(&self, active: Active) {
        let mut state = self.lock();
        let digests = active.iter().map(|(.., digest)| *digest);
        state.loading = digests
            .filter(|digest| !self.sandbox.is_loaded(digest))
            .collect();
        state.active = Some(active);
        drop(state);
        self.wished.notify_one();
    }

    /// These are recorded: the bytes of all others may go.
    pub(crate) fn recorded(&self, digests: HashSet<Digest>) {
        self.lock().recorded = Some(digests);
        self.wished.notify_one();
    }

    /// Keeps bytes that are about to be recorded.
    pub(crate) fn keep(&self, digest: Digest) -> Kept<'_> {
        *self.lock().uploading.entry(digest).or_default() += 1;
        Kept(self, digest)
    }

    /// Active modules that cannot be run here, with the reason.
    pub(crate) fn unavailable(&self) -> Vec<(ModuleName, String)> {
        let state = self.lock();
        let failed = state.failed.iter();
        failed
            .map(|(name, (_, why))| (name.clone(), why.clone()))
            .collect()
    }

    /// Waits until an active module is loaded.
    ///
    /// # Errors
    /// Why it cannot be.
    pub(crate) async fn ready(&self, digest: Digest) -> Result<(), String> {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if self.sandbox.is_loaded(&digest) {
                return Ok(());
            }
            {
                let state = self.lock();
                if state.closed || !state.loading.contains(&digest) {
                    let why = state.failed.values().find(|(failed, _)| *failed == digest);
                    return Err(
                        why.map_or_else(|| "it is not loaded".to_owned(), |(_, why)| why.clone())
                    );
                }
            }
            settled.await;
        }
    }

    /// Waits until every active module has been tried.
    pub(crate) async fn settled(&self) {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            {
                let state = self.lock();
                if state.closed || state.loading.is_empty() {
                    return;
                }
            }
            settled.await;
        }
    }

    /// Ends the thread.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.wished.notify_one();
        self.settled.notify_waiters();
    }

    /// The thread: follows wishes until [`Modules::close`].
    pub(crate) fn run(&self) {
        let mut spare = Spare::default();
        loop {
            let mut state = self.lock();
            while !state.closed && state.active.is_none() && state.recorded.is_none() {
                state = self
                    .wished
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if state.closed {
                return;
            }
            let (active, recorded) = (state.active.take(), state.recorded.take());
            drop(state);
            if let Some(active) = active {
                self.follow(&active, &mut spare);
            }
            if let Some(recorded) = recorded {
                self.remove_unrecorded(&recorded);
            }
        }
    }

    fn follow(&self, active: &Active, spare: &mut Spare) {
        self.lock()
            .failed
            .retain(|name, _| active.iter().any(|(wanted, ..)| wanted == name));
        for (name, kind, digest) in active {
            let loaded = self.load(*kind, *digest);
            let mut state = self.lock();
            state.loading.remove(digest);
            match loaded {
                Ok(()) => drop(state.failed.remove(name)),
                Err(why) => {
                    tracing::warn!(module = %name, digest = %digest.short(), %why, "an active module cannot be run here");
                    state.failed.insert(name.clone(), (*digest, why));
                }
            }
            drop(state);
            self.settled.notify_waiters();
        }
        for digest in spare.replaced(active) {
            self.sandbox.unload(&digest);
        }
    }

    fn load(&self, kind: ModuleKind, digest: Digest) -> Result<(), String> {
        if self.sandbox.is_loaded(&digest) {
            return Ok(());
        }
        let bytes = self.blobs.get(digest).map_err(|error| error.to_string())?;
        let bytes = bytes.ok_or("its bytes are not on this host: upload it again")?;
        // The bytes of a module are not to be trusted with the host's life.
        let loaded = catch_unwind(AssertUnwindSafe(|| self.sandbox.load(digest, kind, &bytes)));
        match loaded {
            Ok(loaded) => loaded.map_err(|error| error.to_string()),
            Err(_) => Err("the sandbox failed on it, which is a bug; the log says more".to_owned()),
        }
    }

    fn remove_unrecorded(&self, recorded: &HashSet<Digest>) {
        let kept = match self.blobs.list() {
            Ok(kept) => kept,
            Err(error) => return tracing::warn!(%error, "the modules on disk cannot be listed"),
        };
        for (digest, _) in kept {
            if recorded.contains(&digest) {
                continue;
            }
            // Under the lock, so that no upload of these bytes begins meanwhile.
            let state = self.lock();
            if state.recorded.is_some() || state.closed {
                return;
            }
            if state.uploading.contains_key(&digest) {
                continue;
            }
            if let Err(error) = self.blobs.remove(digest) {
                tracing::warn!(%error, "the bytes of a removed module are still there");
            }
        }
    }
}

/// Modules that are loaded and no longer active, oldest first.
#[derive(Debug, Default)]
struct Spare {
    active: HashSet<Digest>,
    spare: VecDeque<Digest>,
}

impl Spare {
    /// Notes what is active now, and says which digests are to be unloaded.
    fn replaced(&mut self, active: &Active) -> Vec<Digest> {
        let now: HashSet<Digest> = active.iter().map(|(.., digest)| *digest).collect();
        self.spare.retain(|digest| !now.contains(digest));
        self.spare.extend(self.active.difference(&now).copied());
        self.active = now;
        let surplus = self.spare.len().saturating_sub(SPARE_MAX);
        self.spare.drain(..surplus).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn active(digests: std::ops::Range<u8>) -> Active {
        let one = |byte| {
            (
                ModuleName::new(format!("m{byte}")).unwrap(),
                ModuleKind::Selector,
                Digest([byte; 32]),
            )
        };
        digests.map(one).collect()
    }

    #[test]
    fn replaced_modules_stay_loaded_for_a_while() {
        let mut spare = Spare::default();
        assert!(spare.replaced(&active(0..1)).is_empty());
        for next in 1..=SPARE_MAX as u8 {
            assert!(spare.replaced(&active(next..next + 1)).is_empty());
        }
        let unloaded = spare.replaced(&active(100..101));
        assert_eq!(unloaded, [Digest([0; 32])]);
        // One that is active again is not spare.
        assert_eq!(spare.replaced(&active(1..2)), []);
        assert!(!spare.spare.contains(&Digest([1; 32])));
    }
}
