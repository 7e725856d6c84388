//! The leader is killed with SIGKILL under load, again and again.

use std::time::{Duration, Instant};

use maitred_registry::random::Random;

use crate::group::load::Load;
use crate::group::{Group, Options, seed};

const KILLS: usize = 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_kills_of_the_leader_lose_nothing() {
    let seed = seed();
    let mut random = Random::new(seed);
    let mut group = Group::start(seed, Options::default()).await;
    let client = group.client().await;
    let load = Load::start(&group, seed, Duration::from_secs(30)).await;
    let mut times = Vec::new();
    for kill in 0..KILLS {
        let (leader, _) = group.whole(&client).await;
        load.advance(5).await;
        // The moment is the point.
        tokio::time::sleep(Duration::from_millis(u64::from(random.below(100)))).await;
        let killed = Instant::now();
        group.machines[leader].kill();
        times.push(load.next_write(&format!("after-{kill}"), killed).await);
        group.machines[leader].spawn();
    }
    group.whole(&client).await;
    load.advance(50).await;
    let failed = load.end(&group).await;
    times.sort();
    println!(
        "from the kill to the next acknowledged write: p50 {:?}, max {:?} of {KILLS}",
        times[KILLS / 2],
        times[KILLS - 1]
    );
    assert_eq!(
        failed,
        Vec::<String>::new(),
        "requests fail for a leader's death"
    );
}
