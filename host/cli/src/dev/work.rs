//! The steady load of `dev`: so many creates a second, each on its way by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use maitred_client::Client;
use maitred_protocol::ProcessKey;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::rules::TYPES;
use super::stats::Stats;
use crate::failure::Failure;

/// Creates under way; more are left out, and counted.
const IN_FLIGHT: usize = 1_024;
/// How long the end waits for those under way.
const END: Duration = Duration::from_secs(12);

pub(crate) struct Work {
    paused: Arc<AtomicBool>,
    room: Arc<Semaphore>,
    task: JoinHandle<()>,
}

impl Work {
    pub(crate) fn start(client: Client, stats: Arc<Stats>, rate: u32) -> Self {
        let paused = Arc::new(AtomicBool::new(false));
        let room = Arc::new(Semaphore::new(IN_FLIGHT));
        let task = tokio::spawn(generate(
            client,
            stats,
            rate,
            Arc::clone(&paused),
            Arc::clone(&room),
        ));
        Self { paused, room, task }
    }

    /// Pauses, or goes on; whether it is paused now.
    pub(crate) fn pause(&self) -> bool {
        !self.paused.fetch_xor(true, Ordering::Relaxed)
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Ends it, and waits for the creates under way, if somebody can carry them out.
    pub(crate) async fn stop(&mut self, led: bool) {
        self.task.abort();
        let _ = (&mut self.task).await;
        let all = u32::try_from(IN_FLIGHT).unwrap_or(u32::MAX);
        // Those that take longer are counted by nobody.
        let _ = tokio::time::timeout(
            if led { END } else { Duration::ZERO },
            self.room.acquire_many(all),
        )
        .await;
    }
}

/// The id of the load's process of that number, in the run that began at `start`, below a million.
fn id(start: u64, number: u64) -> String {
    format!("{start:06}-{number}")
}

/// Whether the load made it, in this run or an earlier one on the same folder. What a person
/// creates meanwhile is not the load's to end.
pub(crate) fn made(key: &ProcessKey) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts = key.id.as_str().split_once('-');
    parts.is_some_and(|(start, number)| start.len() == 6 && digits(start) && digits(number))
}

async fn generate(
    client: Client,
    stats: Arc<Stats>,
    rate: u32,
    paused: Arc<AtomicBool>,
    room: Arc<Semaphore>,
) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    // Ids that an earlier run on the same folder has not used.
    let epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    let start = epoch.map_or(0, |since| since.as_secs()) % 1_000_000;
    for number in 0_u64.. {
        ticks.tick().await;
        if paused.load(Ordering::Relaxed) {
            continue;
        }
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            stats.lock().skipped += 1;
            continue;
        };
        let (type_name, ..) = TYPES[(number % TYPES.len() as u64) as usize];
        let Ok(key) = ProcessKey::new(type_name, &id(start, number)) else {
            continue;
        };
        let (client, stats) = (client.clone(), Arc::clone(&stats));
        tokio::spawn(async move {
            let asked = Instant::now();
            match client.create(key.clone()).send().await {
                Ok(made) => stats.created(&made.record, asked.elapsed()),
                Err(error) => {
                    stats.failed(format!("{key}: {}", Failure::from(error).message));
                }
            }
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_knows_its_own_from_those_of_a_person() {
        let made = |id: &str| made(&ProcessKey::new("player", id).unwrap());
        assert!(made(&id(7, 0)) && made(&id(999_999, u64::MAX)));
        for other in ["1001", "370281", "370281-", "eu-1", "12-34", "370281-x"] {
            assert!(!made(other), "{other}");
        }
    }
}
