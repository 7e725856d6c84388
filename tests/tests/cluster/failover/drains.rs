//! A node is emptied, and nodes are made even, with the program an operator uses.

use maitred_protocol::Restart;
use serde_json::Value;

use super::node::Spec;
use super::stage::{Stage, assert_apart, assert_lives};
use crate::group::Options;

const COUNT: usize = 200;

fn moves(plan: &Value) -> usize {
    plan["moves"].as_array().map_or(usize::MAX, Vec::len)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_outlives_its_leader_and_rebalancing_evens_what_it_left() {
    let mut stage = Stage::start(Restart::Safe, Options::default()).await;
    // A stop takes its time, and a move has to wait for it.
    let node = |name| Spec {
        stop_ms: Some(100),
        ttl_ms: 3_000,
        ..Spec::node(name, 300)
    };
    stage.run(node("full")).await;
    let keys = stage.create("p", COUNT).await;
    stage.run(node("left")).await;
    stage.run(node("right")).await;

    let args = ["node", "drain", "full", "--rate", "50", "--deadline", "80s"];
    let drain = tokio::spawn(stage.group.operator(&args));
    let node = stage
        .node_is("full", "gets emptier", |node| node.processes < 170)
        .await;
    assert_eq!(node.drain.map(|drain| drain.processes), Some(200));
    assert!(node.processes > 0, "too late to see anything");
    let shown = stage.group.cli(&["node", "get", "full"]).await.json();
    let left = shown["node"]["drain"]["left"].as_u64().unwrap();
    // With those that it is still stopping.
    assert!((1..200).contains(&left), "{shown}");
    let leader = stage.kill_leader().await;
    println!("the leader was killed with {left} left");
    let shown = drain.await.unwrap().json();
    assert_eq!(shown["processes"], COUNT, "{shown}");
    assert_eq!(shown["gone"], false, "{shown}");
    let lives = stage.settled(COUNT).await;
    assert_apart(&lives);
    assert_lives(&lives, &keys, 2);
    assert!(lives.running().iter().all(|(_, node, _)| node != "full"));
    stage.group.machines[leader].spawn();
    stage.group.whole(&stage.client).await;

    stage.group.cli(&["node", "uncordon", "full"]).await.json();
    let written = stage.entries();
    let plan = stage.group.cli(&["rebalance", "--plan"]).await.json();
    assert!((60..COUNT).contains(&moves(&plan)), "{plan}");
    stage.settled(COUNT).await;
    assert_eq!(stage.entries(), written, "a plan moves nothing");
    let args = ["rebalance", "--apply", "--rate", "500"];
    let applied = stage.group.cli(&args).await.json();
    assert_eq!(applied["applied"], moves(&plan), "{applied}");
    let lives = stage.settled(COUNT).await;
    assert_apart(&lives);
    let plan = stage.group.cli(&["rebalance", "--plan"]).await.json();
    assert_eq!(moves(&plan), 0, "{plan}");
    for node in ["full", "left", "right"] {
        let here = lives.running();
        let here = here.iter().filter(|(_, at, _)| at == node).count();
        assert!((66..=68).contains(&here), "{node} has {here} of {COUNT}");
    }
}
