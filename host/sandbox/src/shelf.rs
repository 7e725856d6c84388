//! The instances of callbacks, or of fences, that nobody uses at the moment, and how many live. It
//! does not know what an instance is.
//!
//! What holds: no more instances live than the limit, as long as no more than that are taken at a
//! time (the caller's turns see to it): where all live ones are taken or shelved, the shelf drops
//! one of another module before a new one is made.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use maitred_protocol::{Digest, ModuleName};
use maitred_registry::decide::ModuleRef;

/// Modules whose idle instances and counters are kept; the one that was used longest ago goes.
const POOLS_MAX: usize = 256;

/// What a callback or a fence has done on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallCounters {
    /// The name it is uploaded under.
    pub module: ModuleName,
    /// Its bytes.
    pub digest: Digest,
    /// Calls of `spawn` and the hooks, or of `examine`.
    pub calls: u64,
    /// Those that it answered with a failure, or an error.
    pub refused: u64,
    /// Those that failed by a trap, an answer out of bounds or for want of an instance.
    pub failed: u64,
    /// Those that computed too long.
    pub timeouts: u64,
    /// Instances that were replaced because they had been used enough.
    pub recycled: u64,
    /// Lines that it wanted to log and that were dropped.
    pub log_lines_dropped: u64,
}

/// [`CallCounters`] while they are written.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) calls: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) timeouts: AtomicU64,
    pub(crate) recycled: AtomicU64,
    pub(crate) lines_dropped: AtomicU64,
}

/// See the head of this file.
pub(crate) struct Shelf<I> {
    instances_max: usize,
    inner: Mutex<Inner<I>>,
}

struct Inner<I> {
    /// Instances that are taken or idle.
    live: usize,
    /// Counts up with each take.
    clock: u64,
    /// A module with several configurations has several pools.
    pools: HashMap<Digest, Vec<Pool<I>>>,
}

struct Pool<I> {
    module: ModuleName,
    config: Arc<str>,
    tally: Arc<Tally>,
    idle: Vec<I>,
    used: u64,
}

/// A place for an instance, taken from the shelf; given back when it is dropped.
pub(crate) struct Place<I> {
    shelf: Arc<Shelf<I>>,
    digest: Digest,
    config: Arc<str>,
    tally: Arc<Tally>,
    /// Whether the place is still to be given back.
    held: bool,
}

impl<I> Shelf<I> {
    pub(crate) fn new(instances_max: usize) -> Arc<Self> {
        Arc::new(Self {
            instances_max,
            inner: Mutex::new(Inner {
                live: 0,
                clock: 0,
                pools: HashMap::new(),
            }),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner<I>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, and an idle instance if there is one.
    pub(crate) fn take(self: &Arc<Self>, module: &ModuleRef) -> (Place<I>, Option<I>) {
        let mut inner = self.inner();
        inner.clock += 1;
        let clock = inner.clock;
        inner.make_room_for_pool(&module.digest);
        let pools = inner.pools.entry(module.digest).or_default();
        let at = pools
            .iter()
            .position(|pool| pool.config == module.config)
            .unwrap_or_else(|| {
                let (name, config) = (module.name.clone(), Arc::clone(&module.config));
                pools.push(Pool {
                    module: name,
                    config,
                    tally: Arc::default(),
                    idle: Vec::new(),
                    used: 0,
                });
                pools.len() - 1
            });
        let pool = &mut pools[at];
        pool.used = clock;
        let (instance, tally) = (pool.idle.pop(), Arc::clone(&pool.tally));
        let mut evicted = None;
        if instance.is_none() {
            inner.live += 1;
            if inner.live > self.instances_max {
                evicted = inner.evict();
            }
        }
        drop(inner);
        // Its memory is given back outside the lock.
        drop(evicted);
        let place = Place {
            shelf: Arc::clone(self),
            digest: module.digest,
            config: Arc::clone(&module.config),
            tally,
            held: true,
        };
        (place, instance)
    }

    pub(crate) fn counters(&self) -> Vec<CallCounters> {
        let inner = self.inner();
        let pools = inner
            .pools
            .iter()
            .flat_map(|(digest, pools)| pools.iter().map(move |pool| (digest, pool)));
        let mut counters: Vec<CallCounters> = pools
            .map(|(digest, Pool { module, tally, .. })| CallCounters {
                module: module.clone(),
                digest: *digest,
                calls: tally.calls.load(Relaxed),
                refused: tally.refused.load(Relaxed),
                failed: tally.failed.load(Relaxed),
                timeouts: tally.timeouts.load(Relaxed),
                recycled: tally.recycled.load(Relaxed),
                log_lines_dropped: tally.lines_dropped.load(Relaxed),
            })
            .collect();
        counters.sort_by(|a, b| {
            a.module
                .as_str()
                .cmp(b.module.as_str())
                .then(a.digest.0.cmp(&b.digest.0))
        });
        counters
    }
}

impl<I> Inner<I> {
    /// Takes an idle instance off the pool that was used longest ago.
    fn evict(&mut self) -> Option<I> {
        let pools = self.pools.values_mut().flatten();
        let oldest = pools
            .filter(|pool| !pool.idle.is_empty())
            .min_by_key(|pool| pool.used)?;
        let evicted = oldest.idle.pop();
        self.live -= 1;
        evicted
    }

    fn make_room_for_pool(&mut self, digest: &Digest) {
        if self.pools.len() < POOLS_MAX || self.pools.contains_key(digest) {
            return;
        }
        let used = |pools: &Vec<Pool<I>>| pools.iter().map(|pool| pool.used).max();
        let oldest = self
            .pools
            .iter()
            .min_by_key(|(_, pools)| used(pools))
            .map(|(digest, _)| *digest);
        if let Some(pools) = oldest.and_then(|oldest| self.pools.remove(&oldest)) {
            self.live -= pools.iter().map(|pool| pool.idle.len()).sum::<usize>();
        }
    }
}

impl<I> Place<I> {
    pub(crate) fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// Shelves the instance that lived here, for the next one.
    pub(crate) fn give_back(mut self, instance: I) {
        self.held = false;
        let mut inner = self.shelf.inner();
        let pools = inner.pools.get_mut(&self.digest);
        let pool = pools.and_then(|pools| pools.iter_mut().find(|pool| pool.config == self.config));
        match pool {
            Some(pool) => pool.idle.push(instance),
            // Its pool has gone: so does it.
            None => inner.live -= 1,
        }
    }
}

impl<I> Drop for Place<I> {
    fn drop(&mut self) {
        if self.held {
            self.shelf.inner().live -= 1;
        }
    }
}
