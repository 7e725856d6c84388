//! What is created again only when its node is proven dead.

use std::time::Duration;

use maitred_protocol::Restart;

use super::node::Spec;
use super::stage::{Stage, assert_apart, assert_lives, fault_lasts};
use crate::group::Options;

const COUNT: usize = 100;

/// All wait for proof that this node is dead, as long as there is none.
async fn wait_for_proof(stage: &Stage, node: &str) {
    stage.pending(COUNT).await;
    let written = stage.entries();
    // Longer than its kill bound, which is none of their business.
    fault_lasts(Duration::from_millis(1_500)).await;
    let shown = stage
        .group
        .cli(&["process", "ls", "--state", "pending", "--all"])
        .await
        .json();
    let items = shown["items"].as_array().unwrap();
    assert_eq!(items.len(), COUNT);
    for item in items {
        let waits = &item["pending"]["waits"];
        assert_eq!(waits["for"], "held", "{item}");
        assert_eq!(waits["proof"], true, "{item}");
        assert_eq!(waits["lost"], true, "{item}");
        assert_eq!(waits["node"], node, "{item}");
    }
    let shown = stage.group.cli(&["node", "ls", "--lost"]).await.json();
    assert_eq!(shown["items"][0]["name"], node, "{shown}");
    assert_eq!(shown["items"][0]["waiting_for_proof"], COUNT, "{shown}");
    assert_eq!(stage.entries(), written, "nothing runs without proof");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_processes_wait_for_proof_that_their_node_is_dead() {
    let mut stage = Stage::start(Restart::Strict, Options::default()).await;
    let first = stage.run(Spec::node("first", 1_000)).await;
    let keys = stage.create("p", COUNT).await;
    let second = stage.run(Spec::node("second", 1_000)).await;

    stage.nodes[first].kill().await;
    wait_for_proof(&stage, "first").await;
    let shown = stage
        .group
        .cli(&["node", "confirm-dead", "first", "--yes"])
        .await
        .json();
    assert_eq!(shown["keys"], COUNT, "{shown}");
    let lives = stage.settled(COUNT).await;
    assert_apart(&lives);
    assert_lives(&lives, &keys, 2);

    stage.nodes[second].kill().await;
    wait_for_proof(&stage, "second").await;
    stage.run(Spec::node("second", 1_000)).await;
    let lives = stage.settled(COUNT).await;
    assert_apart(&lives);
    assert_lives(&lives, &keys, 3);
    let shown = stage.group.cli(&["node", "ls", "--lost"]).await.json();
    assert_eq!(shown["items"], serde_json::json!([]));
}
