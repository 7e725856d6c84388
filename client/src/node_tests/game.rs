//! Games that are stuck, end too early, or say too much.

use std::sync::Arc;

use super::*;

/// A game that reports more than a host takes.
struct Talkative;

impl NodeHandler for Talkative {
    async fn spawn(&self, _: SpawnRequest) -> Result<Spawned, SpawnError> {
        Err(SpawnError::Busy("it only talks".to_owned()))
    }

    async fn stop(&self, _: ProcessKey, _: Incarnation) {}

    fn load(&self) -> Option<Load> {
        let long = ("x".repeat(257), 1.0);
        let short = (0..20).map(|n| (format!("c{n}"), n as f32));
        Some(Load {
            counters: std::iter::once(long).chain(short).collect(),
            ..Load::default()
        })
    }
}

#[tokio::test]
async fn a_load_report_is_cut_to_what_a_host_takes() {
    let mut host = FakeHost::start();
    let client = host.builder().connect().await.unwrap();
    let node = client.node("eu-1").start(Talkative);
    let (node, ()) = tokio::join!(node, async {
        let (peer, id, _) = host.request().await;
        peer.reply(id, &registered(1, vec![]));
    });
    let (_, keep_alive) = host.keep_alives.recv().await.unwrap();
    let counters = keep_alive.load.unwrap().counters;
    assert_eq!(counters.len(), 16);
    assert_eq!(counters[0].0, "c0");
    node.unwrap().kill();
}

#[test]
fn a_game_that_ends_first_still_lets_the_node_end() {
    let game = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let tests = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tests.block_on(async {
        let mut host = FakeHost::start();
        let builder = host.builder();
        let (tell, mut done) = mpsc::unbounded_channel();
        let (given, node) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let node = game.block_on(async {
                let client = builder.connect().await.unwrap();
                client.node("eu-1").start(Game(tell)).await.unwrap()
            });
            drop(game);
            assert!(given.send(node).is_ok());
        });
        let (peer, id, _) = host.request().await;
        peer.reply(id, &registered(1, vec![]));
        let node = node.await.unwrap();
        thread.join().unwrap();
        // Nothing can be stopped any more, and no start can be carried out: another node may do.
        peer.command(1, &start("a", 5));
        let busy = NodeAnswer::Busy("the game is ending".to_owned());
        assert_eq!(host.answers.recv().await.unwrap(), (1, busy));
        let shutdown = node.clone();
        let ended = tokio::spawn(async move { shutdown.shutdown().await });
        let (peer, id, request) = host.request().await;
        assert!(matches!(request, Request::DeregisterNode { .. }));
        peer.reply(id, &Response::Done(Revision(1)));
        ended.await.unwrap();
        assert!(done.recv().await.is_none());
    });
}

#[test]
fn a_stuck_game_keeps_its_lease() {
    let game = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let tests = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tests.block_on(async {
        let mut host = FakeHost::start();
        let builder = host.builder();
        let (tell, _done) = mpsc::unbounded_channel();
        let (free, stuck) = std::sync::mpsc::channel::<()>();
        let (given, node) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let node = game.block_on(async {
                let client = builder.connect().await.unwrap();
                let node = client.node("eu-1").ttl(Duration::from_secs(1));
                node.start(Game(tell)).await.unwrap()
            });
            assert!(given.send(node).is_ok());
            // From here on nothing of the game's runtime moves.
            stuck.recv().unwrap();
        });
        let (peer, id, _) = host.request().await;
        peer.reply(id, &registered(1, vec![]));
        let node = node.await.ok().unwrap();
        let node = Arc::new(node);
        // Far longer than the lease, which only acknowledged keep-alives extend.
        for _ in 0..12 {
            let (peer, keep_alive) = host.keep_alives.recv().await.unwrap();
            assert!(node.lease_ok());
            peer.ack(&keep_alive, true);
        }
        free.send(()).unwrap();
        thread.join().unwrap();
        node.kill();
    });
}
