//! Many nodes die at once: few enough that what they ran is created again, and so many that this waits for
//! an operator.

use maitred_protocol::Restart;

use super::node::Spec;
use super::stage::{Stage, assert_apart, flags};

const PROGRAMS: usize = 10;
const NODES_EACH: usize = 10;
const COUNT: usize = 1_000;
const CAPACITY: u32 = 25;

fn spec(program: usize) -> Spec {
    let names = (0..NODES_EACH).map(|node| format!("n-{program}-{node}"));
    Spec {
        names: names.collect(),
        ttl_ms: 2_000,
        ..Spec::node("", CAPACITY)
    }
}

async fn kill(stage: &Stage, programs: &[usize]) {
    let killed = programs.iter().map(|at| stage.nodes[*at].kill());
    for kill in killed {
        kill.await;
    }
}

/// Starts the programs, which need not be the first with their nodes' names.
async fn start(stage: &mut Stage, programs: impl Iterator<Item = usize> + Clone) {
    let started: Vec<usize> = programs.map(|program| stage.spawn(spec(program))).collect();
    for at in started {
        stage.ready(at).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_of_a_hundred_nodes_are_asked_about_and_thirty_are_made_up_for() {
    // A pause that ends by itself is not what ends it here.
    let mut stage = Stage::start(Restart::Safe, flags(&["--mass-loss-pause", "1h"])).await;
    start(&mut stage, 0..PROGRAMS).await;
    stage.create("p", COUNT).await;
    let before = stage.settled(COUNT).await;

    let dying = [5, 6, 7, 8, 9];
    let pids = dying.map(|at: usize| stage.nodes[at].pid);
    let lost = before.all.iter().filter(|life| pids.contains(&life.pid));
    let lost = lost.count();
    let written = stage.entries();
    kill(&stage, &dying).await;
    stage.pending(lost).await;
    assert_paused(&stage, lost).await;
    assert_eq!(stage.entries(), written, "nothing is created meanwhile");
    stage.group.cli(&["recreation", "resume"]).await.json();
    let lives = stage.settled(COUNT).await;
    assert_apart(&lives);
    println!("50 of 100 nodes died: {lost} processes were created again when asked for");

    start(&mut stage, dying.into_iter()).await;
    kill(&stage, &[0, 1, 2]).await;
    stage.running("what 30 of 100 nodes ran", COUNT).await;
    let lives = stage.settled(COUNT).await;
    assert_apart(&lives);
    assert_eq!(stage.client.status().await.unwrap().recreation_paused, None);
    for program in 0..PROGRAMS {
        for node in spec(program).names {
            let peak = lives.peak(&node);
            assert!(peak <= CAPACITY as usize, "{node} had {peak}");
        }
    }
}

/// Creating again is paused, and whoever asks is told why, by every way to ask.
async fn assert_paused(stage: &Stage, lost: usize) {
    let shown = stage.group.cli(&["status"]).await.json();
    let why = shown["recreation_paused"].as_str().unwrap_or_default();
    assert!(why.contains("50 of 100 nodes"), "{shown}");
    let shown = stage.group.cli(&["recreation", "status"]).await.json();
    assert_eq!(shown["waits"]["paused"], lost, "{shown}");
    let args = ["process", "ls", "--state", "pending", "--limit", "1"];
    let shown = stage.group.cli(&args).await.json();
    let waits = &shown["items"][0]["pending"]["waits"];
    assert_eq!(waits["for"], "paused", "{shown}");
}
