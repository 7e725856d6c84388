//! A node's process is killed, and what it ran goes on elsewhere; two processes of one name; a node whose
//! stops hang.

use std::time::Duration;

use super::ledger::{Event, boot_us};
use maitred_protocol::Restart;

use super::node::Spec;
use super::stage::{Stage, assert_apart, assert_lives};
use crate::group::Options;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_node_ran_runs_elsewhere_once() {
    const LOST: usize = 1_000;
    const KEPT: usize = 100;
    let mut stage = Stage::start(Restart::Safe, Options::default()).await;
    // It is full, so that the others get what comes later.
    let victim = stage.run(Spec::node("victim", 1_000)).await;
    let lost = stage.create("lost", LOST).await;
    stage.run(Spec::node("left", 560)).await;
    stage.run(Spec::node("right", 560)).await;
    let kept = stage.create("kept", KEPT).await;
    let before = stage.settled(LOST + KEPT).await;
    assert_lives(&before, &lost, 1);

    let killed_us = boot_us();
    stage.nodes[victim].kill().await;
    stage.running("all run again", LOST + KEPT).await;
    let lives = stage.settled(LOST + KEPT).await;
    let last_us = lives.all.iter().map(|life| life.began_us).max().unwrap();
    println!(
        "{LOST} processes ran elsewhere {:.2?} after their node was killed",
        Duration::from_micros(last_us - killed_us)
    );
    assert_apart(&lives);
    assert_lives(&lives, &lost, 2);
    assert_lives(&lives, &kept, 1);
    assert!(lives.running().iter().all(|(_, node, _)| node != "victim"));
    for node in ["left", "right"] {
        let peak = lives.peak(node);
        assert!(peak <= 560, "{node} of capacity 560 had {peak}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_with_one_name_the_older_ends() {
    const COUNT: usize = 50;
    let mut stage = Stage::start(Restart::Safe, Options::default()).await;
    let older = stage.run(Spec::node("twin", 1_000)).await;
    let keys = stage.create("p", COUNT).await;
    stage.run(Spec::node("other", 1_000)).await;
    let newer = stage.run(Spec::node("twin", 1_000)).await;

    let status = stage.nodes[older].ended().await;
    let log = stage.nodes[older].log();
    assert_eq!(status.code(), Some(3), "{log}");
    let written = stage.entries_of(older);
    let last = written.last().map(|entry| &entry.event);
    assert_eq!(last, Some(&Event::Ended(true)), "{log}");
    let stopped = written.iter();
    let stopped = stopped.filter(|entry| matches!(entry.event, Event::Stopped(..)));
    assert_eq!(
        stopped.count(),
        COUNT,
        "it stops what it runs before it ends"
    );

    let lives = stage.settled(COUNT).await;
    assert_lives(&lives, &keys, 2);
    assert_eq!(stage.nodes[newer].died_us(), None, "the newer one stays");
    // The name says that the older one is dead, which it is not: so two may run at a time for as long
    // as it takes to hear that.
    let ended_us = stage.nodes[older].died_us().unwrap();
    for (one, next) in lives.overlaps() {
        assert_eq!(one.pid, stage.nodes[older].pid, "{one:?} and {next:?}");
        assert!(one.over_us.is_some_and(|over_us| over_us <= ended_us));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_stop_what_it_runs_is_ended_by_its_watchdog() {
    const COUNT: usize = 50;
    const BOUND: Duration = Duration::from_millis(1_000);
    let mut stage = Stage::start(Restart::Safe, Options::default()).await;
    let hangs = Spec {
        ttl_ms: 3_000,
        stop_ms: None,
        watchdog: true,
        ..Spec::node("hangs", 1_000)
    };
    let hangs = stage.run(hangs).await;
    let keys = stage.create("p", COUNT).await;
    stage.run(Spec::node("other", 1_000)).await;
    stage.cut(hangs, true);

    let status = stage.nodes[hangs].ended().await;
    let log = stage.nodes[hangs].log();
    assert_eq!(status.code(), None, "it is aborted\n{log}");
    assert!(log.contains("kill bound"), "{log}");
    let ended_us = stage.nodes[hangs].died_us().unwrap();
    let written = stage.entries_of(hangs);
    let lost = written.iter().find(|one| one.event == Event::LeaseLost);
    let after = Duration::from_micros(ended_us - lost.unwrap().at_us);
    println!("it ended {after:.1?} after its lease was lost");
    // The clocks' steps are 10 ms, and the system takes its time to say that it is dead.
    let slack = Duration::from_millis(20);
    assert!(after + slack >= BOUND, "{after:?} is less than its bound");
    assert!(after < BOUND * 2, "{after:?} is more than its bound");

    stage.running("all run again", COUNT).await;
    let lives = stage.settled(COUNT).await;
    assert_apart(&lives);
    assert_lives(&lives, &keys, 2);
}
