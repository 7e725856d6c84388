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

/// A runtime of the game's or of the test's own.
fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

#[test]
fn a_game_that_ends_first_still_lets_the_node_end() {
    let (game, tests) = (runtime(), runtime());
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
    let (game, tests) = (runtime(), runtime());
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

#[test]
fn what_a_stuck_game_was_to_start_under_a_lease_that_is_lost_never_begins() {
    let (game, tests) = (runtime(), runtime());
    tests.block_on(async {
        let mut host = FakeHost::start();
        let builder = host.builder();
        let (tell, mut done) = mpsc::unbounded_channel();
        let (free, stuck) = std::sync::mpsc::channel::<()>();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let (given, node) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let node = game.block_on(async {
                let client = builder.connect().await.unwrap();
                let node = client.node("eu-1").ttl(Duration::from_secs(1));
                node.start(Game(tell)).await.unwrap()
            });
            assert!(given.send(node).is_ok());
            stuck.recv().unwrap();
            game.block_on(ended).unwrap();
        });
        let (peer, id, _) = host.request().await;
        peer.reply(id, &registered(1, vec![]));
        let node = node.await.ok().unwrap();
        // The game is told to start it, and does not get round to it until the lease is over.
        peer.command(1, &start("a", 5));
        assert_eq!(done.recv().await.unwrap(), Done::LeaseLost);
        free.send(()).unwrap();
        let answer = host.answers.recv().await.unwrap();
        assert_eq!(answer, (1, NodeAnswer::Fenced));
        end.send(()).unwrap();
        thread.join().unwrap();
        assert!(done.try_recv().is_err(), "the game was asked to start it");
        node.kill();
    });
}

/// A game whose stop panics the first time that it is called, and never returns after that.
#[derive(Default)]
struct Fragile(std::sync::atomic::AtomicU32, Arc<tokio::sync::Notify>);

impl NodeHandler for Fragile {
    async fn spawn(&self, _: SpawnRequest) -> Result<Spawned, SpawnError> {
        Ok(Spawned {
            pid: "pid-a".to_owned(),
            share: b"args".to_vec(),
        })
    }

    async fn stop(&self, _: ProcessKey, _: Incarnation) {
        let earlier = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        assert_ne!(earlier, 0, "a handler of the test panics");
        self.1.notified().await;
    }
}

#[tokio::test]
async fn only_a_stop_that_returns_has_stopped_anything() {
    let mut host = FakeHost::start();
    let client = host.builder().connect().await.unwrap();
    let game = Fragile::default();
    let gone = Arc::clone(&game.1);
    let node = client.node("eu-1").ttl(LONG).start(game);
    let (node, peer) = tokio::join!(node, async {
        let (peer, id, _) = host.request().await;
        peer.reply(id, &registered(1, vec![]));
        peer
    });
    peer.command(1, &start("a", 5));
    assert_eq!(host.answers.recv().await.unwrap(), (1, started("a")));
    let stop = NodeCommand::Stop {
        term: 1,
        key: key("a"),
        incarnation: Incarnation(5),
    };
    peer.command(2, &stop);
    // What is answered meanwhile is answered before the stop.
    peer.command(3, &start("a", 4));
    assert_eq!(host.answers.recv().await.unwrap(), (3, NodeAnswer::Fenced));
    let again = tokio::time::timeout(Duration::from_millis(600), host.answers.recv()).await;
    assert!(again.is_err(), "nothing has been stopped: {again:?}");
    gone.notify_one();
    assert_eq!(host.answers.recv().await.unwrap(), (2, NodeAnswer::Stopped));
    node.unwrap().kill();
}

#[test]
fn a_game_that_ends_before_what_it_runs_leaves_the_session_alone() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let (game, tests) = (runtime(), runtime());
    tests.block_on(async {
        let mut host = FakeHost::start();
        let builder = host.builder();
        let (tell, mut done) = mpsc::unbounded_channel();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let (given, node) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            game.block_on(async {
                let client = builder.connect().await.unwrap();
                let node = client.node("eu-1").ttl(LONG).start(Game(tell)).await;
                assert!(given.send(node.unwrap()).is_ok());
                ended.await.unwrap();
            });
            drop(game);
        });
        let (peer, id, _) = host.request().await;
        peer.reply(id, &registered(1, vec![]));
        let node = node.await.ok().unwrap();
        peer.command(1, &start("a", 5));
        assert_eq!(host.answers.recv().await.unwrap(), (1, started("a")));
        end.send(()).unwrap();
        thread.join().unwrap();
        // A process of the game may be a program or a thread of its own: nobody has stopped it.
        let stop = NodeCommand::Stop {
            term: 1,
            key: key("a"),
            incarnation: Incarnation(5),
        };
        peer.command(2, &stop);
        node.shutdown().await;
        node.ended().await.unwrap();
        assert!(
            host.answers.try_recv().is_err(),
            "it was said to be stopped"
        );
        let asked: Vec<_> = std::iter::from_fn(|| host.requests.try_recv().ok()).collect();
        let ends =
            |(.., request): &(_, _, Request)| matches!(request, Request::DeregisterNode { .. });
        assert!(!asked.iter().any(ends), "the session was given up");
        assert_eq!(done.recv().await, Some(Done::Spawned("a".to_owned())));
    });
}
