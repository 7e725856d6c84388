//! Every host is shut down in order (SIGTERM) and started again, one after the other, under load.

use std::time::Duration;

use crate::group::load::Load;
use crate::group::{Group, Options, seed};

const ROUNDS: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_fails_no_request() {
    let seed = seed();
    let mut group = Group::start(seed, Options::default()).await;
    let client = group.client().await;
    let load = Load::start(&group, seed, Duration::from_secs(10)).await;
    for _ in 0..ROUNDS {
        for at in 0..group.machines.len() {
            load.advance(20).await;
            let status = group.machines[at].terminate().await;
            let log = group.machines[at].log();
            assert!(status.success(), "a shutdown ends with {status}\n{log}");
            load.advance(5).await;
            group.machines[at].spawn();
            group.whole(&client).await;
        }
    }
    load.advance(20).await;
    let failed = load.end(&group).await;
    assert_eq!(failed, Vec::<String>::new(), "requests fail for a restart");
}
