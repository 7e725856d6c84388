//! A node's process is stopped and goes on (SIGSTOP, SIGCONT): for longer than its lease, and for less.

use std::time::Duration;

use maitred_protocol::Restart;
use rustix::process::Signal;

use super::ledger::{Event, boot_us};
use super::node::Spec;
use super::stage::{Stage, assert_lives, fault_lasts};
use crate::group::Options;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_paused_past_its_lease_finds_itself_fenced() {
    const LOST: usize = 200;
    const KEPT: usize = 20;
    const NEW: usize = 20;
    let mut stage = Stage::start(Restart::Safe, Options::default()).await;
    let sleeper = stage.run(Spec::node("sleeper", 200)).await;
    let lost = stage.create("lost", LOST).await;
    stage.run(Spec::node("left", 150)).await;
    stage.run(Spec::node("right", 150)).await;
    let kept = stage.create("kept", KEPT).await;
    let session = stage.node("sleeper").await.epoch;

    stage.nodes[sleeper].signal(Signal::STOP);
    stage
        .until("its processes run elsewhere", |stage| {
            let running = stage.lives().running();
            let elsewhere = running.iter().filter(|(_, node, _)| node != "sleeper");
            (elsewhere.count() == LOST + KEPT).then_some(())
        })
        .await;
    let resumed_us = boot_us();
    stage.nodes[sleeper].signal(Signal::CONT);
    stage
        .node_is("sleeper", "registers again", |node| node.epoch != session)
        .await;
    let lives = stage.settled(LOST + KEPT).await;

    let after = stage.entries_of(sleeper);
    let after: Vec<_> = after.iter().filter(|one| one.at_us >= resumed_us).collect();
    let first = after.first().map(|one| &one.event);
    assert_eq!(first, Some(&Event::LeaseLost), "before it does anything");
    let started = after
        .iter()
        .find(|one| matches!(one.event, Event::Start(..)));
    assert_eq!(started, None, "nothing is started in the old session");
    let last = after
        .iter()
        .rev()
        .find(|one| matches!(one.event, Event::Stopped(..)));
    let took = Duration::from_micros(last.unwrap().at_us - resumed_us);
    println!("it had stopped everything {took:.1?} after it went on");
    // No lease can help while it does not run; from then on it has its kill bound.
    assert!(took < Duration::from_secs(1), "{took:?}");
    for (one, next) in lives.overlaps() {
        assert_eq!(one.node, "sleeper", "{one:?} and {next:?}");
        assert_eq!(one.began_us.max(resumed_us), resumed_us, "{one:?}");
    }
    assert_lives(&lives, &lost, 2);
    assert_lives(&lives, &kept, 1);

    stage.cordon(&["left", "right"], true).await;
    let new = stage.create("new", NEW).await;
    let lives = stage.settled(LOST + KEPT + NEW).await;
    for key in &new {
        assert!(
            lives.of_key(key).all(|life| life.node == "sleeper"),
            "{key}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pauses_and_cuts_shorter_than_a_lease_change_nothing() {
    const COUNT: usize = 100;
    // Longer than a keep-alive interval (2 s), far shorter than the lease less two of them.
    const FAULT: Duration = Duration::from_millis(2_200);
    const TTL_MS: u32 = 10_000;
    let mut stage = Stage::start(Restart::Safe, Options::default()).await;
    let lease = |name| Spec {
        ttl_ms: TTL_MS.into(),
        ..Spec::node(name, 1_000)
    };
    let shaky = stage.run(lease("shaky")).await;
    stage.run(lease("other")).await;
    stage.create("p", COUNT).await;
    stage.settled(COUNT).await;
    let (session, written) = (stage.node("shaky").await.epoch, stage.entries());

    for pause in [true, false] {
        if pause {
            stage.nodes[shaky].signal(Signal::STOP);
            fault_lasts(FAULT).await;
            stage.nodes[shaky].signal(Signal::CONT);
        } else {
            let met = stage.dropped(shaky);
            stage.cut(shaky, true);
            fault_lasts(FAULT).await;
            stage.cut(shaky, false);
            assert!(stage.dropped(shaky) > met, "the cut met nothing");
        }
        let node = stage
            .node_is("shaky", "is heard of again", |node| {
                !node.suspect && node.lease_left_ms > TTL_MS - 1_000
            })
            .await;
        assert_eq!(node.epoch, session, "its session goes on");
    }
    stage.settled(COUNT).await;
    assert_eq!(stage.entries(), written, "nothing was started or stopped");
    assert_eq!(stage.node("shaky").await.epoch, session);
}
