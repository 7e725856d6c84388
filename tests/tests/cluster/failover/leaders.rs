//! The leader is killed while what a lost node ran is being created again.

use std::time::Duration;

use super::ledger::{Lives, boot_us};
use maitred_protocol::Restart;

use super::node::Spec;
use super::stage::{Stage, assert_apart, assert_lives, flags};

/// From the leader's death until all runs again: an election, a whole lease and a whole kill bound by the new
/// leader's clock, 600 processes at 300 a second, and as much again for a machine that is busy.
const BOUND: Duration = Duration::from_secs(15);

/// When the last of them began, for people.
fn say(lives: &Lives, killed_us: u64) {
    let last_us = lives.all.iter().map(|life| life.began_us).max().unwrap();
    let took = Duration::from_micros(last_us.saturating_sub(killed_us));
    println!("all ran {took:.1?} after the leader was killed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_outlives_its_leader() {
    const COUNT: usize = 600;
    let options = flags(&["--recreate-per-second", "300"]);
    let mut stage = Stage::start(Restart::Safe, options).await;
    // Long enough that those that live do not notice an election.
    let steady = |name| Spec {
        ttl_ms: 3_000,
        ..Spec::node(name, 1_000)
    };
    let first = stage.run(Spec::node("first", 1_000)).await;
    let keys = stage.create("p", COUNT).await;
    let second = stage.run(steady("second")).await;

    // While its keys are held, that is between the end of its lease and that of its kill bound.
    stage.nodes[first].kill().await;
    stage.lost(1).await;
    let leader = stage.kill_leader().await;
    let killed_us = boot_us();
    let lives = stage.settled_within(BOUND, COUNT).await;
    say(&lives, killed_us);
    assert_apart(&lives);
    assert_lives(&lives, &keys, 2);
    stage.group.machines[leader].spawn();
    stage.group.whole(&stage.client).await;

    // While they are created again.
    stage.run(steady("third")).await;
    let (leader, _) = stage.group.whole(&stage.client).await;
    stage.nodes[second].kill().await;
    stage
        .until("some run again", |stage| {
            let running = stage.lives().running().len();
            (running >= COUNT / 10).then_some(running)
        })
        .await;
    let running = stage.lives().running().len();
    stage.group.machines[leader].kill();
    let killed_us = boot_us();
    println!("the leader was killed when {running} of {COUNT} ran again");
    assert!(running < COUNT, "too late to see anything");
    let lives = stage.settled_within(BOUND, COUNT).await;
    say(&lives, killed_us);
    assert_apart(&lives);
    assert_lives(&lives, &keys, 3);
    stage.group.machines[leader].spawn();
    stage.group.whole(&stage.client).await;
}
