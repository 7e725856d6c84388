//! Requests over a real connection to a host that misbehaves in every allowed way.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use maitred_protocol::{
    Chooser, ClientId, Incarnation, ListProcesses, ModuleKind, ModuleName, NodeEpoch, NodeName,
    ProcessKey, ProcessRecord, ProcessState, Rejection, Request, RequestId, Response, Revision,
    Unavailable, UploadStage, Why, codec,
};
use maitred_transport::{
    Alpn, Authority, Connection, Endpoint, Handler, IssueKind, Limits, LinkError, serve,
};
use tokio::net::UdpSocket;

use crate::fake_host::FakeHost;
use crate::{Cause, Client, Error, Fatal};

fn key(id: &str) -> ProcessKey {
    ProcessKey::new("player", id).unwrap()
}

pub(crate) fn record(id: &str) -> ProcessRecord {
    ProcessRecord {
        key: key(id),
        state: ProcessState::Running,
        node: NodeName::new("n").unwrap(),
        node_epoch: NodeEpoch(1),
        address: String::new(),
        incarnation: Incarnation(2),
        pid: id.to_owned(),
        share: vec![1],
        revision: Revision(3),
        created_ms: 0,
        attempt: 1,
        args_bytes: 0,
        demand: 1,
        group: None,
        why: Why {
            chooser: Chooser::Node,
            seed: 0,
            micros: 0,
            candidates: 0,
        },
    }
}

pub(crate) fn found(request: &Request) -> Response {
    let Request::GetProcess { key, .. } = request else {
        panic!("{request:?}");
    };
    Response::Process {
        record: Box::new(record(key.id.as_str())),
        revision: Revision(1),
    }
}

fn del(client: &Client, id: &str) -> tokio::task::JoinHandle<Result<Revision, Error>> {
    let (client, key) = (client.clone(), key(id));
    tokio::spawn(async move { client.del(&key, None).await })
}

const DONE: Response = Response::Done(Revision(9));

#[tokio::test]
async fn answers_may_come_out_of_order() {
    let mut host = FakeHost::start();
    let client = host.builder().connect().await.unwrap();
    assert_eq!(client.welcome().unwrap().build, "fake");
    let (a, b) = (key("a"), key("b"));
    let both = async { tokio::join!(client.get(&a), client.get(&b)) };
    let answers = async {
        let (peer, first, request) = host.request().await;
        let (_, second, other) = host.request().await;
        peer.reply(second, &found(&other));
        peer.reply(first, &found(&request));
    };
    let ((a, b), ()) = tokio::join!(both, answers);
    assert_eq!(a.unwrap().record.pid, "a");
    assert_eq!(b.unwrap().record.pid, "b");
}

#[tokio::test]
async fn a_change_cut_off_is_sent_again_under_the_same_id() {
    let mut host = FakeHost::start();
    let client = host.builder().connect().await.unwrap();
    let deleted = del(&client, "a");
    let (peer, id, request) = host.request().await;
    peer.cut();
    let (peer, again, same) = host.request().await;
    assert_eq!((again, &same), (id, &request));
    peer.reply(again, &DONE);
    assert_eq!(deleted.await.unwrap().unwrap(), Revision(9));
}

#[tokio::test]
async fn an_overloaded_or_unsure_host_is_asked_again_under_the_same_id() {
    let mut host = FakeHost::start();
    let client = host.builder().connect().await.unwrap();
    let deleted = del(&client, "a");
    let (peer, id, request) = host.request().await;
    let overloaded = Unavailable::Overloaded("queue".to_owned());
    peer.reply(id, &Response::Unavailable(overloaded));
    let (peer, again, same) = host.request().await;
    assert_eq!((again, &same), (id, &request));
    peer.reply(id, &Response::Unknown("the leader changed".to_owned()));
    let (peer, again, same) = host.request().await;
    assert_eq!((again, same), (id, request));
    peer.reply(id, &DONE);
    deleted.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_forgotten_session_is_replaced_unless_the_change_may_have_been_made() {
    let mut host = FakeHost::start();
    let client = host.builder().connect().await.unwrap();
    let deleted = del(&client, "a");
    let (peer, id, first) = host.request().await;
    peer.reply(id, &Response::Unavailable(Unavailable::NoSession));
    let (peer, again, second) = host.request().await;
    assert!(again > id && first.client() != second.client());
    peer.reply(again, &DONE);
    deleted.await.unwrap().unwrap();

    let deleted = del(&client, "b");
    let (peer, id, request) = host.request().await;
    peer.cut();
    let (peer, again, _) = host.request().await;
    assert_eq!(again, id);
    peer.reply(id, &Response::Unavailable(Unavailable::NoSession));
    let error = deleted.await.unwrap().unwrap_err();
    let client_id = request.client().unwrap();
    let expected = RequestId {
        client: client_id,
        sequence: id,
    };
    let Error::Unknown { request_id, cause } = error else {
        panic!("{error}");
    };
    assert_eq!((request_id, cause), (expected, Cause::SessionLost));
}

#[tokio::test]
async fn without_an_answer_a_change_is_unknown_and_a_read_can_be_repeated() {
    let mut host = FakeHost::start();
    let patience = Duration::from_millis(300);
    let client = host
        .builder()
        .request_timeout(patience)
        .connect()
        .await
        .unwrap();
    let deleted = del(&client, "a");
    let (_peer, _, _) = host.request().await;
    let error = deleted.await.unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            Error::Unknown {
                cause: Cause::Deadline { millis: 300 },
                ..
            }
        ),
        "{error}"
    );
    let error = client.get(&key("a")).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Unavailable {
                cause: Cause::Deadline { millis: 300 }
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_caller_in_a_hurry_does_not_wait_for_the_session_of_a_patient_one() {
    let mut host = FakeHost::start();
    let client = host.builder().request_timeout(Duration::from_millis(300));
    let client = client
        .create_timeout(Duration::from_secs(600))
        .connect()
        .await
        .unwrap();
    let patient = {
        let client = client.clone();
        tokio::spawn(async move { client.create(key("slow")).send().await })
    };
    // It asks for a session, and the host says nothing.
    let (_peer, _, request) = host.requests.recv().await.unwrap();
    assert_eq!(request, Request::OpenSession);
    let key = key("a");
    let hurried = tokio::time::timeout(Duration::from_secs(10), client.del(&key, None));
    let error = hurried
        .await
        .expect("its own time-out ends it")
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Unavailable {
                cause: Cause::Deadline { millis: 300 }
            }
        ),
        "{error}"
    );
    patient.abort();
}

#[tokio::test]
async fn what_is_out_of_bounds_is_not_sent() {
    let mut host = FakeHost::start();
    let client = host.builder().connect().await.unwrap();
    let list = ListProcesses {
        limit: 1_001,
        ..ListProcesses::default()
    };
    let error = client.list(list).await.unwrap_err();
    assert!(matches!(&error, Error::Rejected(Rejection::Invalid(text)) if text.contains("limit")));
    let status = tokio::spawn({
        let client = client.clone();
        async move { client.status().await }
    });
    // The first thing that the host hears.
    let (peer, id, request) = host.request().await;
    assert_eq!(request, Request::Status);
    peer.reply(id, &DONE);
    let error = status.await.unwrap().unwrap_err();
    assert!(
        matches!(error, Error::Fatal(Fatal::Answer { .. })),
        "{error}"
    );
}

#[tokio::test]
async fn all_pages_are_read() {
    let mut host = FakeHost::start();
    let client = host.builder().connect().await.unwrap();
    let pages = async {
        for (item, next) in [("a", Some(key("a"))), ("b", None)] {
            let (peer, id, request) = host.request().await;
            let Request::ListProcesses(list) = request else {
                panic!("{request:?}");
            };
            assert_eq!(list.after.is_some(), item == "b");
            let items = vec![record(item)];
            let revision = Revision(1);
            peer.reply(
                id,
                &Response::Processes {
                    items,
                    next,
                    revision,
                },
            );
        }
    };
    let (all, ()) = tokio::join!(client.list_all(ListProcesses::default()), pages);
    let ids: Vec<_> = all.unwrap().into_iter().map(|record| record.pid).collect();
    assert_eq!(ids, ["a", "b"]);
}

#[tokio::test]
async fn a_push_sends_its_bytes_and_tells_its_progress() {
    let mut host = FakeHost::start();
    let client = host.builder().connect().await.unwrap();
    let name = ModuleName::new("spread").unwrap();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| n as u8).collect();
    let mut stages = Vec::new();
    let push = client.push_module(&name, ModuleKind::Selector, &bytes, |stage| {
        stages.push(stage)
    });
    let session = async {
        let (peer, id, request) = host.requests.recv().await.unwrap();
        assert_eq!(request, Request::OpenSession);
        peer.reply(id, &Response::Session(ClientId(77)));
    };
    let (pushed, ()) = tokio::join!(push, session);
    let error = pushed.unwrap_err();
    let Error::Rejected(Rejection::Module { reason, .. }) = &error else {
        panic!("{error}");
    };
    assert!(reason.ends_with("of 77"), "{reason}");
    assert_eq!(stages.last(), Some(&UploadStage::Compiling));
    assert!(stages.contains(&UploadStage::Received(3_000_000)));
}

#[tokio::test]
async fn a_host_of_another_group_is_fatal_at_once() {
    let host = FakeHost::start();
    let other = Authority::generate("test").unwrap();
    let stranger = other.identity("node", IssueKind::Client, 1).unwrap();
    let error = host
        .builder()
        .identity(stranger)
        .connect()
        .await
        .unwrap_err();
    assert!(error.is_tls(), "{error}");
    let Error::Fatal(Fatal::Link { source, .. }) = error else {
        panic!("{error}");
    };
    assert_eq!(source, LinkError::HostUnknown);
    let error = Client::builder()
        .endpoint("127.0.0.1:1")
        .connect()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("identity"), "{error}");
}

/// Carries packets between one client and `host` until it is told to drop them.
async fn relay(host: SocketAddr, silent: Arc<AtomicBool>) -> SocketAddr {
    let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    back.connect(host).await.unwrap();
    let address = front.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut up, mut down) = ([0; 65_536], [0; 65_536]);
        let mut client = None;
        loop {
            tokio::select! {
                Ok((count, from)) = front.recv_from(&mut up) => {
                    client = Some(from);
                    if !silent.load(Ordering::Relaxed) {
                        let _ = back.send(&up[..count]).await;
                    }
                }
                Ok(count) = back.recv(&mut down) => {
                    if let Some(client) = client && !silent.load(Ordering::Relaxed) {
                        let _ = front.send_to(&down[..count], client).await;
                    }
                }
            }
        }
    });
    address
}

#[tokio::test]
async fn a_host_that_falls_silent_is_given_up_and_another_way_is_tried() {
    let mut host = FakeHost::start();
    let silent = Arc::new(AtomicBool::new(false));
    let relay = relay(host.address, Arc::clone(&silent)).await;
    let builder = Client::builder().endpoint(relay.to_string());
    let client = builder
        .identity(host.identity.clone())
        .endpoint(host.address.to_string());
    let client = client.connect().await.unwrap();
    let first = del(&client, "a");
    let (peer, id, _) = host.request().await;
    peer.reply(id, &DONE);
    first.await.unwrap().unwrap();
    silent.store(true, Ordering::Relaxed);
    let second = del(&client, "b");
    let (peer, id, request) = host.request().await;
    assert!(matches!(request, Request::DelProcess { .. }), "{request:?}");
    peer.reply(id, &DONE);
    second.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_host_of_another_version_is_fatal_and_names_both() {
    let authority = Authority::generate("test").unwrap();
    let identity = authority.identity("host", IssueKind::Host, 1).unwrap();
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    let port = Endpoint::server(any, &identity, &[Alpn::Client], Limits::default()).unwrap();
    let address = port.local_addr().unwrap();
    let handler = |connection: Connection| async move {
        let (mut send, _receive) = connection.accept_bi().await.unwrap();
        let mut frame = Vec::new();
        codec::encode(0, &DONE, &mut frame).unwrap();
        frame[4] = codec::VERSION + 1;
        send.write_all(&frame).await.unwrap();
        connection.closed().await;
    };
    let handlers: Vec<(Alpn, Arc<dyn Handler>)> = vec![(Alpn::Client, Arc::new(handler))];
    let served = tokio::spawn(async move {
        serve(&port, handlers, std::future::pending(), Duration::ZERO).await;
    });
    let identity = authority.identity("node", IssueKind::Client, 1).unwrap();
    let client = Client::builder().endpoint(address.to_string());
    let error = client.identity(identity).connect().await.unwrap_err();
    assert!(!error.is_tls(), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("version 2") && text.contains("version 1"),
        "{text}"
    );
    served.abort();
}

#[tokio::test]
async fn closing_ends_what_is_under_way() {
    let mut host = FakeHost::start();
    let client = host.builder().connect().await.unwrap();
    let deleted = del(&client, "a");
    let (_peer, _, _) = host.request().await;
    client.close().await;
    let error = deleted.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }), "{error}");
}
