//! A node against a host of the test's own: commands, reconnects, leaving.

use std::time::Duration;

use maitred_protocol::{
    Incarnation, Load, NodeAnswer, NodeCommand, NodeEpoch, ProcessKey, Request, Response, Revision,
    Unavailable, Verdict,
};
use tokio::sync::mpsc;

use crate::fake_host::{FakeHost, Peer};
use crate::{NodeHandle, NodeHandler, SpawnError, SpawnRequest, Spawned};

mod failover;
mod game;
mod leader;
mod lease;
mod watchdog;

#[derive(Debug, PartialEq, Eq)]
enum Done {
    Spawned(String),
    Stopped(String, u64),
    LeaseLost,
    Adopted(String, u64, u64),
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
        let id = key.id.to_string();
        if id == "stuck" {
            return std::future::pending().await;
        }
        self.0.send(Done::Stopped(id, incarnation.0)).unwrap();
    }

    fn lease_lost(&self) {
        self.0.send(Done::LeaseLost).unwrap();
    }

    fn adopted(&self, key: ProcessKey, old: Incarnation, new: Incarnation) {
        let done = Done::Adopted(key.id.to_string(), old.0, new.0);
        self.0.send(done).unwrap();
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
        try_number: 1,
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
    // Of a start that panicked something may run.
    assert_eq!(bench.done().await, Done::Stopped("panic".to_owned(), 7));
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
async fn an_end_with_a_reason_is_told_until_there_is_an_answer() {
    let mut bench = bench(LONG).await;
    let life = (key("early"), Incarnation(4));
    bench
        .node
        .exited_because(life.0.clone(), life.1, "out of memory");
    let (peer, id, request) = bench.host.request().await;
    let reason = "out of memory".to_owned();
    assert!(
        matches!(&request, Request::ProcessExited { key, incarnation, reason: why, .. }
        if (key, incarnation, why) == (&life.0, &life.1, &reason))
    );
    peer.reply(id, &Response::Unavailable(Unavailable::ShuttingDown));
    let (peer, id, again) = bench.host.request().await;
    assert!(matches!(again, Request::ProcessExited { .. }), "{again:?}");
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
