//! A node is cut off from all hosts for longer than its lease.

use std::time::Duration;

use super::ledger::Event;
use maitred_protocol::Restart;

use super::node::Spec;
use super::stage::{Stage, assert_apart, assert_lives};
use crate::group::Options;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_fences_itself_before_anybody_takes_over() {
    const LOST: usize = 200;
    const NEW: usize = 20;
    let mut stage = Stage::start(Restart::Safe, Options::default()).await;
    // It takes half of its kill bound.
    let alone = Spec {
        stop_ms: Some(500),
        ..Spec::node("alone", 1_000)
    };
    let alone = stage.run(alone).await;
    let keys = stage.create("p", LOST).await;
    stage.run(Spec::node("other", 1_000)).await;
    let session = stage.node("alone").await.epoch;

    stage.cut(alone, true);
    stage
        .until("all run elsewhere", |stage| {
            let running = stage.lives().running();
            let elsewhere = running.iter().filter(|(_, node, _)| node == "other");
            (elsewhere.count() == LOST).then_some(())
        })
        .await;
    let written = stage.entries_of(alone);
    assert!(written.iter().any(|one| one.event == Event::LeaseLost));
    let lives = stage.lives();
    assert_apart(&lives);
    let of_alone = lives.all.iter().filter(|life| life.node == "alone");
    let last_us = of_alone.map(|life| life.over_us.unwrap()).max().unwrap();
    let of_other = lives.all.iter().filter(|life| life.node == "other");
    let first_us = of_other.map(|life| life.began_us).min().unwrap();
    assert!(last_us < first_us, "its last stop is after the first start");
    let apart = Duration::from_micros(first_us - last_us);
    println!("the first successor began {apart:.1?} after the last stop");

    stage.cut(alone, false);
    stage
        .node_is("alone", "registers again", |node| node.epoch != session)
        .await;
    stage.cordon(&["other"], true).await;
    let new = stage.create("new", NEW).await;
    let lives = stage.settled(LOST + NEW).await;
    assert_apart(&lives);
    assert_lives(&lives, &keys, 2);
    for key in &new {
        assert!(lives.of_key(key).all(|life| life.node == "alone"), "{key}");
    }
}
