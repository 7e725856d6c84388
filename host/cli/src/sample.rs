//! Sample game nodes: real ones, over real connections, within this program.
//!
//! A game keeps a map of the processes that it runs, lets each live for a random time, tells the
//! registry when one has ended, and reports its load. That is all that a game node has to do; leases,
//! reconnects and fencing are the client library's.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use maitred_client::{Client, Error, NodeHandle, NodeHandler, SpawnError, SpawnRequest, Spawned};
use maitred_protocol::{Incarnation, Load, ProcessKey};
use tokio::task::AbortHandle;

/// How a sample node announces itself.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) zone: String,
    pub(crate) capacity: u32,
    pub(crate) types: Vec<&'static str>,
    pub(crate) ttl: Duration,
    /// Which processes end by themselves, and when; none: they run until they are stopped.
    pub(crate) life: Option<Life>,
}

/// How processes end by themselves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    /// How long they live on average.
    pub(crate) mean: Duration,
    /// Whether it is one of them; all others run until they are stopped.
    pub(crate) of: fn(&ProcessKey) -> bool,
}

/// A sample node that is registered.
pub(crate) struct SampleNode {
    pub(crate) handle: NodeHandle,
    game: Arc<Game>,
}

impl SampleNode {
    /// Registers it.
    pub(crate) async fn start(client: &Client, spec: &Spec) -> Result<Self, Error> {
        let game = Arc::new(Game {
            capacity: spec.capacity,
            life: spec.life,
            running: Mutex::default(),
            handle: OnceLock::new(),
            pids: AtomicU64::new(1_000),
        });
        let handle = client
            .node(&spec.name)
            .types(&spec.types)
            .address(format!("{}.example:7777", spec.name))
            .label("zone", &spec.zone)
            .capacity(spec.capacity)
            .ttl(spec.ttl)
            .start(Handler(Arc::clone(&game)))
            .await?;
        // Set once, and before any life can have ended: the shortest is half a second.
        let _ = game.handle.set(handle.clone());
        Ok(Self { handle, game })
    }

    /// Processes that it really runs.
    pub(crate) fn running(&self) -> usize {
        self.game.running().len()
    }

    /// Ends as a crash would: nobody is told, and its processes are gone.
    pub(crate) fn crash(&self) {
        self.handle.kill();
        for (_, process) in self.game.running().drain() {
            process.end();
        }
    }

    /// Stops its processes, says good-bye, ends.
    pub(crate) async fn shutdown(&self) {
        self.handle.shutdown().await;
        for (_, process) in self.game.running().drain() {
            process.end();
        }
    }
}

struct Game {
    capacity: u32,
    life: Option<Life>,
    running: Mutex<HashMap<ProcessKey, Process>>,
    handle: OnceLock<NodeHandle>,
    pids: AtomicU64,
}

struct Process {
    incarnation: Incarnation,
    /// Ends it when its time has come.
    life: Option<AbortHandle>,
}

impl Process {
    fn end(&self) {
        if let Some(life) = &self.life {
            life.abort();
        }
    }
}

impl Game {
    fn running(&self) -> MutexGuard<'_, HashMap<ProcessKey, Process>> {
        // Nothing that holds the lock can leave the map half changed.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Self>, key: ProcessKey, incarnation: Incarnation) {
        let mut running = self.running();
        let mortal = self.life.filter(|life| (life.of)(&key));
        let life = mortal.map(|Life { mean, .. }| {
            let (game, key) = (Arc::clone(self), key.clone());
            let span = life(mean, random());
            let task = tokio::spawn(async move {
                tokio::time::sleep(span).await;
                if game.end(&key, incarnation)
                    && let Some(handle) = game.handle.get()
                {
                    handle.exited(key, incarnation);
                }
            });
            task.abort_handle()
        });
        let before = running.insert(key, Process { incarnation, life });
        if let Some(before) = before {
            before.end();
        }
    }

    /// Whether this life of it ran here.
    fn end(&self, key: &ProcessKey, incarnation: Incarnation) -> bool {
        let mut running = self.running();
        let found = running
            .get(key)
            .is_some_and(|process| process.incarnation == incarnation);
        if found && let Some(process) = running.remove(key) {
            process.end();
        }
        found
    }
}

#[derive(Clone)]
struct Handler(Arc<Game>);

impl NodeHandler for Handler {
    async fn spawn(&self, request: SpawnRequest) -> Result<Spawned, SpawnError> {
        let pid = self.0.pids.fetch_add(1, Ordering::Relaxed);
        self.0.begin(request.key, request.incarnation);
        Ok(Spawned {
            pid: pid.to_string(),
            share: Vec::new(),
        })
    }

    async fn stop(&self, key: ProcessKey, incarnation: Incarnation) {
        self.0.end(&key, incarnation);
    }

    fn load(&self) -> Option<Load> {
        let running = self.0.running().len() as f32;
        let noise = (random() % 100) as f32 / 1_000.0;
        let used = running / self.0.capacity.max(1) as f32;
        Some(Load {
            cpu: (used * 0.9 + noise).min(1.0),
            memory_free_mib: 16_384_u32.saturating_sub(running as u32 * 8),
            counters: vec![("sessions".to_owned(), running)],
        })
    }
}

/// A number that is different every time; for sample data, not for secrets.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(0_u8)
}

/// A life from an exponential distribution, cut at half a second and at five times the mean.
fn life(mean: Duration, random: u64) -> Duration {
    let unit = (random >> 11) as f64 / (1_u64 << 53) as f64;
    let factor = -(1.0 - unit).ln();
    mean.mul_f64(factor.min(5.0))
        .max(Duration::from_millis(500))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_have_the_mean_that_was_asked_for() {
        let mean = Duration::from_secs(10);
        let total: Duration = (0..20_000).map(|_| life(mean, random())).sum();
        let seconds = total.as_secs_f64() / 20_000.0;
        // The cut takes 0.7 % off; ten standard deviations of the mean are 0.7.
        assert!((9.2..10.7).contains(&seconds), "{seconds}");
        assert_eq!(life(mean, 0), Duration::from_millis(500));
        assert_eq!(life(mean, u64::MAX), Duration::from_secs(50));
    }
}
