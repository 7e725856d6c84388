//! Nodes that misbehave: one that never answers, one that answers twice, one that answers for an
//! incarnation that is no longer the current one. Each is spoken frame by frame.

use std::time::Duration;

use maitred_client::{Client, Error};
use maitred_protocol::{
    ClientId, Hello, Incarnation, Kind, NodeAnswer, NodeCommand, NodeEpoch, NodeName, ProcessKey,
    ProcessState, RegisterNode, Rejection, Request, Response, Welcome, codec,
};
use maitred_transport::{Alpn, Connection, Endpoint, FrameReader, FrameWriter};

use crate::host::Host;

/// A node without the client library's manners.
struct Raw {
    reader: FrameReader,
    writer: FrameWriter,
    epoch: NodeEpoch,
    _connection: Connection,
    _endpoint: Endpoint,
}

impl Raw {
    async fn register(host: &Host, name: &str) -> Self {
        let endpoint = Endpoint::client(&host.identity()).unwrap();
        let timeout = Duration::from_secs(10);
        let connection = endpoint
            .connect(host.address(), Alpn::Client, timeout)
            .await
            .unwrap();
        let (send, receive) = connection.open_bi().await.unwrap();
        let writer = FrameWriter::spawn(send, 1 << 20);
        let mut reader = FrameReader::new(receive);
        writer
            .try_send(
                0,
                &Hello {
                    build: "test".to_owned(),
                },
            )
            .unwrap();
        reader.message::<Welcome>().await.unwrap().unwrap();
        writer.try_send(1, &Request::OpenSession).unwrap();
        let (1, Response::Session(client)) = answer(&mut reader).await else {
            panic!("no session")
        };
        writer
            .try_send(2, &Request::RegisterNode(client, Box::new(register(name))))
            .unwrap();
        let (2, Response::Registered { epoch, .. }) = answer(&mut reader).await else {
            panic!("not registered")
        };
        let _: ClientId = client;
        Self {
            reader,
            writer,
            epoch,
            _connection: connection,
            _endpoint: endpoint,
        }
    }

    /// The next command; anything else is passed over.
    async fn command(&mut self) -> (u64, NodeCommand) {
        let wait = async {
            loop {
                let frame = self
                    .reader
                    .next()
                    .await
                    .unwrap()
                    .expect("the host is there");
                if frame.header.kind == Kind::Command {
                    return (frame.header.request_id, codec::decode(&frame).unwrap());
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait)
            .await
            .expect("a command")
    }

    async fn start(&mut self) -> (u64, Incarnation) {
        loop {
            if let (id, NodeCommand::Start { incarnation, .. }) = self.command().await {
                return (id, incarnation);
            }
        }
    }

    fn started(&self, id: u64, pid: &str) {
        let answer = NodeAnswer::Started {
            pid: pid.to_owned(),
            share: Vec::new(),
        };
        self.writer.try_send(id, &answer).unwrap();
    }
}

/// The next answer; notices, which nobody asks for, are passed over.
async fn answer(reader: &mut FrameReader) -> (u64, Response) {
    loop {
        let frame = reader.next().await.unwrap().expect("the host is there");
        if frame.header.kind != Kind::Notice {
            return (frame.header.request_id, codec::decode(&frame).unwrap());
        }
    }
}

fn register(name: &str) -> RegisterNode {
    RegisterNode {
        name: NodeName::new(name).unwrap(),
        types: Vec::new(),
        address: String::new(),
        labels: Vec::new(),
        capacity: 100,
        share: Vec::new(),
        ttl_ms: 60_000,
        inventory: Vec::new(),
        kill_bound_ms: 1_000,
        instance: 1,
        last_epoch: None,
    }
}

fn key(id: &str) -> ProcessKey {
    ProcessKey::new("player", id).unwrap()
}

fn create(
    client: &Client,
    id: &str,
    deadline_ms: u64,
) -> tokio::task::JoinHandle<Result<maitred_client::Created, Error>> {
    let create = client
        .create(key(id))
        .deadline(Duration::from_millis(deadline_ms))
        .attempts(2);
    tokio::spawn(create.back_off(Duration::from_millis(1)).send())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_never_answers_costs_its_create_the_deadline_and_no_more() {
    let host = Host::start().await;
    let client = host.client().await;
    let mut mute = Raw::register(&host, "mute").await;
    let created = create(&client, "1", 1_500);
    let (_, incarnation) = mute.start().await;
    let error = created.await.unwrap().unwrap_err();
    assert!(
        matches!(
            &error,
            Error::Rejected(Rejection::Deadline(_) | Rejection::SpawnFailed(_))
        ),
        "{error}"
    );
    assert!(matches!(
        client.get(&key("1")).await,
        Err(Error::Rejected(Rejection::NotFound(_)))
    ));
    // It is told not to start it after all.
    loop {
        if let (
            _,
            NodeCommand::Stop {
                incarnation: stopped,
                ..
            },
        ) = mute.command().await
        {
            assert_eq!(stopped, incarnation);
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_answer_changes_nothing() {
    let host = Host::start().await;
    let client = host.client().await;
    let mut node = Raw::register(&host, "stammer").await;
    let created = create(&client, "1", 30_000);
    let (id, incarnation) = node.start().await;
    node.started(id, "first");
    node.started(id, "second");
    node.started(id + 1_000, "third");
    let created = created.await.unwrap().unwrap();
    assert_eq!(
        (created.record.incarnation, created.record.pid.as_str()),
        (incarnation, "first")
    );
    let found = client.get(&key("1")).await.unwrap();
    assert_eq!(
        (found.record.pid.as_str(), found.record.state),
        ("first", ProcessState::Running)
    );
    assert_eq!(found.record.node_epoch, node.epoch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_for_an_old_incarnation_changes_nothing() {
    let host = Host::start().await;
    let client = host.client().await;
    let mut first = Raw::register(&host, "first").await;
    let mut second = Raw::register(&host, "second").await;
    let created = create(&client, "1", 30_000);
    // Whichever is chosen refuses; the other gets the next incarnation.
    let (old, (refused, old_life), new) = tokio::select! {
        command = first.start() => (&first, command, &mut second),
        command = second.start() => (&second, command, &mut first),
    };
    old.writer
        .try_send(refused, &NodeAnswer::Busy("full".to_owned()))
        .unwrap();
    let (accepted, new_life) = new.start().await;
    assert!(new_life > old_life);
    old.started(refused, "late");
    new.started(accepted, "new");
    let created = created.await.unwrap().unwrap();
    assert_eq!(
        (created.record.incarnation, created.record.pid.as_str()),
        (new_life, "new")
    );
    assert_eq!(client.get(&key("1")).await.unwrap().record.pid, "new");
}
