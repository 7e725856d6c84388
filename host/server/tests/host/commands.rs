//! Commands to nodes: who may answer them, and that they outlive a connection.

use maitred_client::protocol::{NodeAnswer, NodeCommand, NodeEpoch};
use maitred_protocol::{RegisterNode, Request, Response, codec};
use maitred_server::{Server, ServerConfig};
use maitred_transport::FrameReader;

use crate::harness::{Group, key, within};
use crate::wire::{answer, frame, greet, message, page};

async fn command(reader: &mut FrameReader) -> (u64, NodeCommand) {
    message(reader).await
}

async fn registered(reader: &mut FrameReader) -> NodeEpoch {
    match answer(reader).await {
        (_, Response::Registered { epoch, .. }) => epoch,
        other => panic!("{other:?}"),
    }
}

fn register(client: maitred_protocol::ClientId) -> Request {
    let register = RegisterNode {
        name: "n1".parse().unwrap(),
        types: Vec::new(),
        address: "10.0.0.1:1".to_owned(),
        labels: Vec::new(),
        capacity: 10,
        share: Vec::new(),
        ttl_ms: 30_000,
        inventory: Vec::new(),
        kill_bound_ms: 1_000,
        instance: 1,
        last_epoch: None,
    };
    Request::RegisterNode(client, Box::new(register))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_that_attached_last_has_the_node_though_it_is_the_older_one() {
    let group = Group::new();
    let running = group.start_bare().await;
    let client = group.client(&running).await;
    let (_older_endpoint, older) = group.connect(running.local_addr()).await;
    let (mut old, mut old_reader) = greet(&older).await;
    let (_newer_endpoint, newer) = group.connect(running.local_addr()).await;
    let (mut new, mut new_reader) = greet(&newer).await;
    old.write_all(&frame(1, &Request::OpenSession))
        .await
        .unwrap();
    let (1, Response::Session(session)) = answer(&mut old_reader).await else {
        panic!("no session");
    };
    old.write_all(&frame(2, &register(session))).await.unwrap();
    let epoch = registered(&mut old_reader).await;
    let attach = Request::AttachNode {
        name: "n1".parse().unwrap(),
        epoch,
        inventory: Vec::new(),
    };
    for (number, pid) in [(1, "new"), (2, "old"), (3, "new"), (4, "old")] {
        let (send, reader) = if pid == "new" {
            (&mut new, &mut new_reader)
        } else {
            (&mut old, &mut old_reader)
        };
        send.write_all(&frame(3, &attach)).await.unwrap();
        registered(reader).await;
        let create = client.create(key(&format!("room/{number}")));
        let created = tokio::spawn(create.send());
        // What its inventory lacks is lost, and it may be told to stop that first.
        let number = loop {
            if let (number, NodeCommand::Start { .. }) = command(reader).await {
                break number;
            }
        };
        let started = NodeAnswer::Started {
            pid: pid.to_owned(),
            share: Vec::new(),
        };
        send.write_all(&frame(number, &started)).await.unwrap();
        assert_eq!(within(created).await.unwrap().unwrap().record.pid, pid);
    }
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_sent_again_over_a_new_connection_and_only_that_one_may_answer_it() {
    let group = Group::new();
    let config = ServerConfig {
        standard_modules: false,
        http: Some((std::net::Ipv4Addr::LOCALHOST, 0).into()),
        ..group.config()
    };
    let running = Server::start(config).await.unwrap();
    within(running.ready()).await.unwrap();
    let client = group.client(&running).await;

    let (_first_endpoint, first) = group.connect(running.local_addr()).await;
    let (mut send, mut reader) = greet(&first).await;
    send.write_all(&frame(1, &Request::OpenSession))
        .await
        .unwrap();
    let (1, Response::Session(session)) = answer(&mut reader).await else {
        panic!("no session");
    };
    send.write_all(&frame(2, &register(session))).await.unwrap();
    let epoch = registered(&mut reader).await;
    let create = client.create(key("room/1")).args("payload");
    let created = tokio::spawn(create.send());
    let (number, start) = command(&mut reader).await;
    let NodeCommand::Start {
        payload,
        incarnation,
        ..
    } = &start
    else {
        panic!("{start:?}");
    };
    assert_eq!(payload, b"payload");

    // A stranger knows the number and may not use it.
    let (_second_endpoint, second) = group.connect(running.local_addr()).await;
    let (mut send, mut reader) = greet(&second).await;
    let forged = NodeAnswer::Started {
        pid: "forged".to_owned(),
        share: Vec::new(),
    };
    send.write_all(&frame(number, &forged)).await.unwrap();
    let ignored = async {
        let counted = "\nmaitred_node_answers_unknown_total 1\n";
        while !page(running.http_addr().unwrap(), "/metrics")
            .await
            .contains(counted)
        {
            tokio::task::yield_now().await;
        }
    };
    within(ignored).await;

    // The node comes back over the second connection, which takes its session over.
    drop(first);
    let attach = Request::AttachNode {
        name: "n1".parse().unwrap(),
        epoch,
        inventory: Vec::new(),
    };
    send.write_all(&frame(3, &attach)).await.unwrap();
    assert_eq!(registered(&mut reader).await, epoch);
    let (number, again) = command(&mut reader).await;
    assert!(
        matches!(&again, NodeCommand::Start { incarnation: same, .. } if same == incarnation),
        "{again:?}"
    );
    let mut frames = Vec::new();
    let started = NodeAnswer::Started {
        pid: "true".to_owned(),
        share: Vec::new(),
    };
    // Twice is as good as once.
    codec::encode(number, &started, &mut frames).unwrap();
    codec::encode(number, &started, &mut frames).unwrap();
    send.write_all(&frames).await.unwrap();
    let created = within(created).await.unwrap().unwrap();
    assert_eq!(created.record.pid, "true");
    within(running.shutdown()).await.unwrap();
}
