//! Hosts are stopped and go on (SIGSTOP, SIGCONT): for less than an election takes, and for more.
//!
//! A leader that was stopped does not know that it no longer leads when it goes on.

use std::time::Duration;

use crate::group::load::Load;
use crate::group::{Group, Options, seed};

/// The election time-out is 200 ms to 400 ms; after 2 s a host counts as not heard of.
const PAUSES_MS: [u64; 4] = [60, 250, 700, 2_500];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_may_be_paused_at_any_time() {
    let seed = seed();
    let group = Group::start(seed, Options::default()).await;
    let client = group.client().await;
    let load = Load::start(&group, seed, Duration::from_secs(30)).await;
    for pause in PAUSES_MS {
        for turn in 0..3 {
            let (leader, _) = group.whole(&client).await;
            // The leader first, then the two others.
            let paused = &group.machines[(leader + turn) % 3];
            paused.signal("STOP");
            // The pause is the fault.
            tokio::time::sleep(Duration::from_millis(pause)).await;
            paused.signal("CONT");
            load.advance(10).await;
        }
    }
    group.whole(&client).await;
    let failed = load.end(&group).await;
    assert_eq!(failed, Vec::<String>::new(), "requests fail for a pause");
}
