//! A node against a host of the test's own: commands, reconnects, lost leases, stuck games.

use std::sync::Arc;
use std::time::Duration;

use maitred_protocol::{
    Incarnation, Load, NodeAnswer, NodeCommand, NodeEpoch, ProcessKey, Request, Response, Revision,
    Verdict,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::fake_host::{FakeHost, Peer};
use crate::{NodeHandle, NodeHandler, SpawnError, SpawnRequest, Spawned};

#[derive(Debug, PartialEq, Eq)]
enum Done {
    Spawned(String),
    Stopped(String, u64),
    LeaseLost,
}

struct Game(mpsc::UnboundedSender<Done>);

impl NodeHandler for Game {
    async fn spawn(&self, request: SpawnRequest) -> Result<Spawned, SpawnError> {
        let id = request.key.id.to_string();
        self.0.send(Done::Spawned(id.clone())).unwrap();
        match id.as_str() {
            "busy" => Err(SpawnError::Busy("full".to_owned())),
            "panic" => panic!("a handler of the test panics"),
            _ => Ok(Spawned {
                pid: format!("pid-{id}"),
                share: request.payload,
            }),
        }
    }

    async fn stop(&self, key: ProcessKey, incarnation: Incarnation) {
        let done = Done::Stopped(key.id.to_string(), incarnation.0);
        self.0.send(done).unwrap();
    }

    fn lease_lost(&self) {
        self.0.send(Done::LeaseLost).unwrap();
    }

    fn load(&self) -> Option<Load> {
        Some(Load {
            cpu: 0.5,
            // Far too long for a datagram: the keep-alive must still go out.
            counters: (0..16).map(|n| (format!("{n:0200}"), 1.0)).collect(),
            ..Load::default()
        })
    }
}

fn key(id: &str) -> ProcessKey {
    ProcessKey::new("player", id).unwrap()
}

fn start(id: &str, incarnation: u64) -> NodeCommand {
    NodeCommand::Start {
        term: 1,
        key: key(id),
        incarnation: Incarnation(incarnation),
        payload: b"args".to_vec(),
        deadline_ms: 1_000,
    }
}

fn registered(epoch: u64, verdicts: Vec<Verdict>) -> Response {
    let epoch = NodeEpoch(epoch);
    Response::Registered { epoch, verdicts }
}

struct Bench {
    host: FakeHost,
    peer: Peer,
    node: NodeHandle,
    done: mpsc::UnboundedReceiver<Done>,
}

/// A node `eu-1` that has registered as epoch 1.
async fn bench(ttl: Duration) -> Bench {
    let mut host = FakeHost::start();
    let client = host.builder().connect().await.unwrap();
    let (tell, done) = mpsc::unbounded_channel();
    let node = client.node("eu-1").types(["player"]).ttl(ttl);
    let (node, peer) = tokio::join!(node.start(Game(tell)), async {
        let (peer, id, request) = host.request().await;
        let Request::RegisterNode(_, node) = request else {
            panic!("{request:?}");
        };
        assert_eq!(node.name.as_str(), "eu-1");
        // A command right behind the answer must wait for the node to have read that.
        peer.reply(id, &registered(1, vec![]));
        peer.command(500, &start("early", 4));
        peer
    });
    let node = node.unwrap();
    let mut bench = Bench {
        host,
        peer,
        node,
        done,
    };
    assert_eq!(bench.answer().await, (500, started("early")));
    assert_eq!(bench.done().await, Done::Spawned("early".to_owned()));
    bench
}

fn started(id: &str) -> NodeAnswer {
    NodeAnswer::Started {
        pid: format!("pid-{id}"),
        share: b"args".to_vec(),
    }
}

impl Bench {
    async fn answer(&mut self) -> (u64, NodeAnswer) {
        self.host.answers.recv().await.unwrap()
    }

    async fn done(&mut self) -> Done {
        self.done.recv().await.unwrap()
    }
}

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn commands_are_carried_out_and_ends_are_told() {
    let mut bench = bench(LONG).await;
    assert!(bench.node.lease_ok());
    assert_eq!(bench.node.epoch(), Some(NodeEpoch(1)));
    bench.peer.command(1, &start("a", 5));
    assert_eq!(bench.answer().await, (1, started("a")));
    bench.peer.command(2, &start("a", 5));
    assert_eq!(bench.answer().await, (2, started("a")));
    bench.peer.command(3, &start("busy", 6));
    let busy = NodeAnswer::Busy("full".to_owned());
    assert_eq!(bench.answer().await, (3, busy));
    bench.peer.command(4, &start("panic", 7));
    let failed = NodeAnswer::Failed("the spawn handler panicked".to_owned());
    assert_eq!(bench.answer().await, (4, failed));
    let stop = NodeCommand::Stop {
        term: 1,
        key: key("a"),
        incarnation: Incarnation(5),
    };
    bench.peer.command(5, &stop);
    assert_eq!(bench.answer().await, (5, NodeAnswer::Stopped));
    for expected in ["a", "busy", "panic"] {
        assert_eq!(bench.done().await, Done::Spawned(expected.to_owned()));
    }
    assert_eq!(bench.done().await, Done::Stopped("a".to_owned(), 5));

    bench.node.exited(key("early"), Incarnation(4));
    let (peer, id, request) = bench.host.request().await;
    let Request::DelProcess {
        key: gone,
        incarnation,
        ..
    } = request
    else {
        panic!("{request:?}");
    };
    assert_eq!((gone, incarnation), (key("early"), Some(Incarnation(4))));
    peer.reply(id, &Response::Done(Revision(1)));
    assert_eq!(bench.node.processes(), []);
}

#[tokio::test]
async fn a_cut_connection_is_attached_anew_with_the_inventory() {
    let mut bench = bench(LONG).await;
    bench.peer.command(1, &start("a", 5));
    assert_eq!(bench.answer().await, (1, started("a")));
    assert_eq!(bench.done().await, Done::Spawned("a".to_owned()));
    bench.peer.cut();
    let (peer, id, request) = bench.host.request().await;
    let expected = Request::AttachNode {
        name: bench.node.name().clone(),
        epoch: NodeEpoch(1),
        inventory: vec![(key("a"), Incarnation(5)), (key("early"), Incarnation(4))],
    };
    assert_eq!(request, expected);
    peer.reply(id, &registered(1, vec![Verdict::Stop, Verdict::Keep]));
    assert_eq!(bench.done().await, Done::Stopped("a".to_owned(), 5));
    // Commands now come over the new connection.
    peer.command(9, &start("b", 11));
    assert_eq!(bench.answer().await, (9, started("b")));
}

#[tokio::test]
async fn a_session_that_has_ended_is_left_and_a_new_one_begun() {
    let mut bench = bench(LONG).await;
    let (peer, keep_alive) = bench.host.keep_alives.recv().await.unwrap();
    assert_eq!((keep_alive.epoch, keep_alive.load), (NodeEpoch(1), None));
    peer.ack(&bench.host.keep_alives.recv().await.unwrap().1, false);
    assert_eq!(bench.done().await, Done::LeaseLost);
    assert_eq!(bench.done().await, Done::Stopped("early".to_owned(), 4));
    let (peer, id, request) = bench.host.request().await;
    assert!(!bench.node.lease_ok());
    let Request::RegisterNode(_, node) = request else {
        panic!("{request:?}");
    };
    assert_eq!(node.inventory, []);
    peer.reply(id, &registered(2, vec![]));
    peer.command(1, &start("a", 21));
    assert_eq!(bench.answer().await, (1, started("a")));
    assert_eq!(bench.node.epoch(), Some(NodeEpoch(2)));
}

#[tokio::test]
async fn silence_of_the_host_ends_the_lease() {
    let mut bench = bench(Duration::from_secs(1)).await;
    // Nothing is acknowledged; attaching again does not help either.
    let (peer, id, request) = bench.host.request().await;
    assert!(matches!(request, Request::AttachNode { .. }));
    peer.reply(id, &registered(1, vec![Verdict::Keep]));
    assert_eq!(bench.done().await, Done::LeaseLost);
    assert_eq!(bench.done().await, Done::Stopped("early".to_owned(), 4));
}

#[tokio::test]
async fn a_shutdown_stops_everything_and_ends_the_session() {
    let mut bench = bench(LONG).await;
    let node = bench.node.clone();
    let ended = tokio::spawn(async move { node.shutdown().await });
    assert_eq!(bench.done().await, Done::Stopped("early".to_owned(), 4));
    let (peer, id, request) = bench.host.request().await;
    assert!(matches!(
        request,
        Request::DeregisterNode {
            epoch: NodeEpoch(1),
            ..
        }
    ));
    peer.reply(id, &Response::Done(Revision(1)));
    ended.await.unwrap();
    assert!(!bench.node.lease_ok());
}

#[tokio::test]
async fn a_node_that_nobody_waits_for_any_more_leaves_again() {
    let mut host = FakeHost::start();
    let client = host.builder().connect().await.unwrap();
    let (tell, _done) = mpsc::unbounded_channel();
    let starting = tokio::spawn(async move { client.node("eu-1").start(Game(tell)).await });
    let (peer, id, request) = host.request().await;
    assert!(matches!(request, Request::RegisterNode(..)), "{request:?}");
    starting.abort();
    assert!(starting.await.unwrap_err().is_cancelled());
    peer.reply(id, &registered(1, vec![]));
    let (peer, id, request) = host.request().await;
    let Request::DeregisterNode { epoch, .. } = request else {
        panic!("{request:?}");
    };
    assert_eq!(epoch, NodeEpoch(1));
    peer.reply(id, &Response::Done(Revision(1)));
}

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

struct Attached {
    node: NodeHandle,
    peer: Peer,
    done: mpsc::UnboundedReceiver<Done>,
}

/// A node of this lease, registered as epoch 1 with host 1 of three.
async fn attached_to_one(ttl: Duration) -> ([FakeHost; 3], Attached) {
    let mut hosts: [FakeHost; 3] = FakeHost::group(3).try_into().ok().unwrap();
    let client = hosts[0].builder().connect().await.unwrap();
    let (tell, done) = mpsc::unbounded_channel();
    let node = client.node("eu-1").ttl(ttl);
    let (node, peer) = tokio::join!(node.start(Game(tell)), async {
        let (peer, id, _) = hosts[0].request().await;
        peer.reply(id, &registered(1, vec![]));
        peer
    });
    let node = node.unwrap();
    node.connected(&[1, 2, 3], Some(1)).await;
    (hosts, Attached { node, peer, done })
}

async fn attach(host: &mut FakeHost) -> Peer {
    let (peer, id, request) = host.request().await;
    assert!(
        matches!(&request, Request::AttachNode { epoch, .. } if *epoch == NodeEpoch(1)),
        "{request:?}"
    );
    peer.reply(id, &registered(1, vec![]));
    peer
}

#[tokio::test]
async fn a_node_attaches_to_a_new_leader_at_once_and_its_keep_alives_go_there() {
    let ([_one, mut two, three], attached) = attached_to_one(LONG).await;
    let (node, old, _done) = (attached.node, attached.peer, attached.done);
    let heard = Instant::now();
    three.says_leader(Some(2), 2);
    let new = attach(&mut two).await;
    let (_, keep_alive) = two.keep_alives.recv().await.unwrap();
    let within = heard.elapsed();
    assert_eq!(keep_alive.epoch, NodeEpoch(1));
    assert!(within < Duration::from_millis(500), "{within:?}");
    // The new leader commands in its term, and the old one no more.
    let in_term = |term, id| match start(id, 5) {
        NodeCommand::Start {
            key,
            incarnation,
            payload,
            deadline_ms,
            ..
        } => NodeCommand::Start {
            term,
            key,
            incarnation,
            payload,
            deadline_ms,
        },
        stop => stop,
    };
    new.command(1, &in_term(1, "a"));
    assert_eq!(two.answers.recv().await.unwrap(), (1, NodeAnswer::Fenced));
    new.command(2, &in_term(2, "a"));
    assert_eq!(two.answers.recv().await.unwrap(), (2, started("a")));
    old.command(3, &in_term(2, "b"));
    new.command(4, &in_term(2, "c"));
    assert_eq!(two.answers.recv().await.unwrap(), (4, started("c")));
    assert_eq!(node.processes().len(), 2);
    node.kill();
}

/// Acknowledges keep-alives for so long.
async fn renew(host: &mut FakeHost, renewed: Duration) {
    let until = Instant::now() + renewed;
    while let Ok(Some((peer, keep_alive))) = timeout_at(until, host.keep_alives.recv()).await {
        peer.ack(&keep_alive, true);
    }
}

#[tokio::test]
async fn a_leader_change_does_not_lose_a_lease() {
    // The old leader goes at once; the next one is elected after as long as elections may take.
    let ttl = Duration::from_secs(3);
    let election = Duration::from_secs(1);
    let ([mut one, mut two, mut three], attached) = attached_to_one(ttl).await;
    let (node, mut done) = (attached.node, attached.done);
    renew(&mut one, Duration::from_millis(1_000)).await;
    one.die();
    let elected = Instant::now() + election;
    loop {
        tokio::select! {
            (peer, id, _) = two.request() => peer.not_leader(id, None),
            (peer, id, _) = three.request() => peer.not_leader(id, None),
            () = sleep_until(elected) => break,
        }
    }
    three.says_leader(Some(3), 2);
    two.says_leader(Some(3), 2);
    let refuse = async {
        loop {
            let (peer, id, _) = two.request().await;
            peer.not_leader(id, None);
        }
    };
    let attached = tokio::select! {
        never = refuse => never,
        _ = attach(&mut three) => Instant::now(),
    };
    let late = attached - elected;
    assert!(late < Duration::from_millis(300), "{late:?}");
    renew(&mut three, ttl).await;
    assert!(node.lease_ok());
    assert_eq!(node.epoch(), Some(NodeEpoch(1)));
    assert!(done.try_recv().is_err(), "the game was told of nothing");
    node.kill();
}

#[tokio::test]
async fn a_leader_that_stands_still_is_left_at_its_successors_notice() {
    let ([mut one, mut two, three], attached) = attached_to_one(LONG).await;
    let (node, _done) = (attached.node, attached.done);
    // The node asks its leader anew, and that one says nothing any more.
    one.says_leader(None, 1);
    let (_, _, request) = one.request().await;
    assert!(matches!(request, Request::AttachNode { .. }), "{request:?}");
    let heard = Instant::now();
    three.says_leader(Some(2), 2);
    attach(&mut two).await;
    let within = heard.elapsed();
    assert!(within < Duration::from_millis(200), "{within:?}");
    assert!(node.lease_ok());
    node.kill();
}
