//! Which modules this host can run just now, and which bytes it keeps.
//!
//! The replica says which modules are to be ready and which are recorded at all; one thread follows:
//! it loads, unloads, remembers why a module cannot be had and tries it again, and removes bytes that
//! nothing names any more. Only the newest wish counts. What an upload or an activation under way
//! needs is kept until it has ended, and whatever removes bytes stops at once when a newer wish has
//! come, because that one may name them.
//!
//! Nothing is removed before the first wish: until then nobody knows what is recorded. What is kept
//! for another host's upload stays for a while although nothing records it; so does what was there
//! when this host started, since it may have promised to keep it. What is recorded and not on this
//! disk is fetched from the other hosts.

mod bytes;
mod wish;

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashSet};
use maitred_protocol::{Digest, ModuleName};
use maitred_sandbox::Sandbox;
use maitred_storage::Blobs;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use self::bytes::HOLD;
pub(crate) use self::wish::{Subject, Wish};
use crate::bulk::Bulk;
use crate::metrics::Metrics;
use crate::trust::Trust;

/// Modules that stay loaded although nobody wishes it, as long as there is room.
const SPARE_MAX: usize = 16;

/// First pause before modules that could not be loaded are tried again; each one is twice as long.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const RETRY_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct State {
    wish: Arc<Wish>,
    /// Whether there has been a wish.
    told: bool,
    /// The thread has not followed the wish yet.
    news: bool,
    /// Something was let go that may have to be unloaded or removed.
    untidy: bool,
    /// Digests in use by uploads and activations under way, with how many there are of each.
    kept: HashMap<Digest, u32>,
    /// Digests kept for other hosts' uploads, and until when.
    held: HashMap<Digest, Instant>,
    /// Recorded digests that are not on this disk, and could not be fetched.
    lacking: HashSet<Digest>,
    /// Wished digests that have not been tried since they became so.
    loading: HashSet<Digest>,
    failed: BTreeMap<(ModuleName, Digest), String>,
    /// Standard modules that are still to be installed, and why they are not.
    missing: Vec<(ModuleName, String)>,
    closed: bool,
}

/// See the module's text.
pub(crate) struct Modules {
    sandbox: Arc<Sandbox>,
    blobs: Blobs,
    trust: Trust,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// Whether bytes may be written down; held while they are, so that two never write the same.
    writable: Mutex<bool>,
    /// How bytes are had from other hosts.
    fetcher: OnceLock<(Handle, Weak<Bulk>)>,
    wished: Condvar,
    settled: Notify,
}

/// Keeps a module's bytes, and keeps it loaded, during an upload or an activation.
pub(crate) struct Kept(Arc<Modules>, Digest);

impl Drop for Kept {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if let Some(count) = state.kept.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                state.kept.remove(&self.1);
                state.untidy = true;
            }
        }
        drop(state);
        self.0.wished.notify_one();
    }
}

impl Modules {
    pub(crate) fn new(
        sandbox: Arc<Sandbox>,
        blobs: Blobs,
        trust: Trust,
        metrics: Arc<Metrics>,
    ) -> Self {
        let stored = blobs.list().unwrap_or_else(|error| {
            tracing::warn!(%error, "the modules on disk cannot be listed");
            Vec::new()
        });
        let until = Instant::now() + HOLD;
        let state = State {
            held: stored
                .into_iter()
                .map(|(digest, _)| (digest, until))
                .collect(),
            ..State::default()
        };
        Self {
            sandbox,
            blobs,
            trust,
            metrics,
            state: Mutex::new(state),
            writable: Mutex::new(true),
            fetcher: OnceLock::new(),
            wished: Condvar::new(),
            settled: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a wish the newest one.
    pub(crate) fn want(&self, wish: Wish) {
        let mut state = self.lock();
        let digests = wish.ready.iter().map(|(_, module)| module.digest);
        state.loading = digests
            .filter(|digest| !self.sandbox.is_loaded(digest))
            .collect();
        state.wish = Arc::new(wish);
        (state.told, state.news) = (true, true);
        drop(state);
        self.wished.notify_one();
    }

    /// Keeps a module that is about to be recorded or active.
    pub(crate) fn keep(self: &Arc<Self>, digest: Digest) -> Kept {
        *self.lock().kept.entry(digest).or_default() += 1;
        Kept(Arc::clone(self), digest)
    }

    /// Says which standard modules are not installed yet, and why.
    pub(crate) fn set_missing(&self, missing: Vec<(ModuleName, String)>) {
        self.lock().missing = missing;
    }

    /// Active modules that cannot be run here, and standard ones that are not installed yet, with
    /// the reason.
    pub(crate) fn unavailable(&self) -> Vec<(ModuleName, String)> {
        let state = self.lock();
        let failed = state.failed.iter();
        let active = failed.filter(|((_, digest), _)| state.wish.active.contains(digest));
        let active = active.map(|((name, _), why)| (name.clone(), why.clone()));
        active.chain(state.missing.iter().cloned()).collect()
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
                    let mut failed = state.failed.iter();
                    let why = failed.find(|((_, failed), _)| *failed == digest);
                    return Err(
                        why.map_or_else(|| "it is not loaded".to_owned(), |(_, why)| why.clone())
                    );
                }
            }
            settled.await;
        }
    }

    /// Waits until every wished module has been tried.
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

    /// Ends the thread, and what is being compiled; waits for bytes that are being written down.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.sandbox.stop_compiling();
        *self.writable.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.wished.notify_one();
        self.settled.notify_waiters();
    }

    /// The thread: follows wishes until [`Modules::close`].
    pub(crate) fn run(&self) {
        let mut spare = VecDeque::new();
        let mut pause = RETRY_MIN;
        while let Some((wish, news)) = self.next(&mut pause) {
            if news {
                self.follow(&wish);
                self.fetch_lacking(&wish);
            }
            self.unload_surplus(&wish, &mut spare);
            self.remove_unrecorded(&wish);
        }
    }

    /// Waits for something to do: the newest wish, and whether it is to be followed. `pause` is how
    /// long to wait before what failed is tried again.
    fn next(&self, pause: &mut Duration) -> Option<(Arc<Wish>, bool)> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if std::mem::take(&mut state.news) {
                *pause = RETRY_MIN;
                state.untidy = false;
                return Some((Arc::clone(&state.wish), true));
            }
            if std::mem::take(&mut state.untidy) {
                return Some((Arc::clone(&state.wish), false));
            }
            let waited = self.wished.wait_timeout(state, *pause);
            let (waited, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = waited;
            if !timeout.timed_out() {
                continue;
            }
            *pause = (*pause * 2).min(RETRY_MAX);
            if !(state.failed.is_empty() && state.lacking.is_empty()) {
                return Some((Arc::clone(&state.wish), true));
            }
            let now = Instant::now();
            let before = state.held.len();
            state.held.retain(|_, until| *until > now);
            state.untidy |= state.held.len() < before;
        }
    }

    fn follow(&self, wish: &Wish) {
        let wished = |(name, digest): &(ModuleName, Digest)| {
            let mut ready = wish.ready.iter();
            ready.any(|(wanted, module)| wanted == name && module.digest == *digest)
        };
        self.lock().failed.retain(|failed, _| wished(failed));
        // Those that have to be fetched come last: they hold up nobody.
        let (here, elsewhere): (Vec<_>, Vec<_>) = wish
            .ready
            .iter()
            .partition(|(_, module)| self.blobs.contains(module.digest));
        for (name, module) in here.into_iter().chain(elsewhere) {
            let digest = &module.digest;
            if self.is_outdated() {
                return;
            }
            let failed = (name.clone(), *digest);
            let before = self.lock().failed.get(&failed).cloned();
            if !self.blobs.contains(*digest) {
                let why = "its bytes are being fetched from the other hosts".to_owned();
                self.lock().failed.insert(failed.clone(), why);
            }
            let loaded = self.load(module);
            let mut state = self.lock();
            state.loading.remove(digest);
            match loaded {
                Ok(()) => drop(state.failed.remove(&failed)),
                Err(why) => {
                    let active = wish.active.contains(digest);
                    let digest = digest.short();
                    // Said once: what has not changed since the last try is no news.
                    if before.as_ref() == Some(&why) {
                        tracing::debug!(module = %name, %digest, active, %why, "a module still cannot be run here");
                    } else {
                        tracing::warn!(module = %name, %digest, active, %why, "a module cannot be run here; it is tried again");
                    }
                    state.failed.insert(failed, why);
                }
            }
            drop(state);
            self.settled.notify_waiters();
        }
    }

    /// Whether this host may run a module.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub(crate) fn judge(&self, module: &Subject) -> Result<(), String> {
        let Subject {
            kind,
            digest,
            signature,
        } = module;
        let judged = self.trust.judge(*kind, digest, signature.as_ref());
        if judged.is_err() {
            Metrics::count(&self.metrics.signatures_refused);
        }
        judged
    }

    /// Whether a module is signed with one of the keys that must sign here.
    pub(crate) fn is_signed(&self, module: &Subject) -> bool {
        let signature = module.signature.as_ref();
        self.trust.is_signed(module.kind, &module.digest, signature)
    }

    /// Makes a module ready whose bytes are here or at another host. Blocks, for as long as a
    /// compilation when it has to be.
    ///
    /// # Errors
    /// Why it cannot be run here.
    pub(crate) fn load(&self, module: &Subject) -> Result<(), String> {
        self.judge(module)?;
        let Subject { kind, digest, .. } = *module;
        if self.sandbox.is_loaded(&digest) {
            return Ok(());
        }
        self.make_room();
        let bytes = self.get_or_fetch(digest)?;
        // The bytes of a module are not to be trusted with the host's life.
        let loaded = catch_unwind(AssertUnwindSafe(|| self.sandbox.load(digest, kind, &bytes)));
        match loaded {
            Ok(loaded) => loaded.map_err(|error| error.to_string()),
            Err(_) => Err("the sandbox failed on it, which is a bug; the log says more".to_owned()),
        }
    }

    /// Whether there is a newer wish than the one that is followed, or the end has come.
    fn is_outdated(&self) -> bool {
        let state = self.lock();
        state.news || state.closed
    }

    /// Unloads everything that nobody wishes or uses, if no more modules could be loaded otherwise.
    pub(crate) fn make_room(&self) {
        let loaded = self.sandbox.loaded_modules();
        if loaded.len() < self.sandbox.limits().modules {
            return;
        }
        let state = self.lock();
        let wished: HashSet<Digest> = state
            .wish
            .ready
            .iter()
            .map(|(_, wished)| wished.digest)
            .collect();
        for digest in loaded {
            if !wished.contains(&digest) && !state.kept.contains_key(&digest) {
                self.sandbox.unload(&digest);
            }
        }
    }

    /// Unloads what nobody wishes, but for the newest few: a module that was just replaced still has
    /// decisions under way.
    fn unload_surplus(&self, wish: &Wish, spare: &mut VecDeque<Digest>) {
        let mut loaded: HashSet<Digest> = self.sandbox.loaded_modules().into_iter().collect();
        for (_, wished) in &wish.ready {
            loaded.remove(&wished.digest);
        }
        // Under the lock, so that no use of one begins meanwhile.
        let state = self.lock();
        loaded.retain(|digest| !state.kept.contains_key(digest));
        for surplus in surplus(spare, loaded) {
            self.sandbox.unload(&surplus);
        }
    }
}

/// Notes which modules are loaded and not wished, and says which of them, oldest first, are too many.
fn surplus(spare: &mut VecDeque<Digest>, mut loaded: HashSet<Digest>) -> Vec<Digest> {
    spare.retain(|digest| loaded.remove(digest));
    spare.extend(loaded);
    let surplus = spare.len().saturating_sub(SPARE_MAX);
    spare.drain(..surplus).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(bytes: std::ops::RangeInclusive<u8>) -> HashSet<Digest> {
        bytes.map(|byte| Digest([byte; 32])).collect()
    }

    #[test]
    fn the_newest_of_what_nobody_wishes_stays_loaded() {
        let newest = SPARE_MAX as u8;
        let mut spare = VecDeque::new();
        for byte in 1..=newest {
            assert_eq!(surplus(&mut spare, loaded(1..=byte)), []);
        }
        let oldest = Digest([1; 32]);
        assert_eq!(surplus(&mut spare, loaded(1..=newest + 1)), [oldest]);
        // One that is wished again, or in use, is not spare.
        assert_eq!(surplus(&mut spare, loaded(3..=3)), []);
        assert_eq!(spare, [Digest([3; 32])]);
    }
}
