//! What hosts give one another, and clients, in bulk: modules, evidence, snapshots.

use std::path::Path;
use std::time::Duration;

use maitred_client::Client;
use maitred_client::protocol::{MemberRole, ModuleKind, ModuleName, TypeSpec};
use maitred_protocol::{Digest, Hello, Request, Response, SaveSnapshot, SavedSnapshot, Welcome};
use maitred_server::snapshot_tool::inspect_snapshot;
use maitred_server::{Running, Server, ServerConfig};
use maitred_transport::{Connection, FrameReader, SendStream};

use crate::harness::{Group, Starter, key, node, within};
use crate::wire::{answer, frame, message};

const SPREAD: &[u8] = include_bytes!("../../../../selectors/prebuilt/spread.wasm");

async fn start(config: &ServerConfig) -> Running {
    let running = within(Server::start(config.clone())).await.unwrap();
    within(running.ready()).await.unwrap();
    running
}

async fn until(mut done: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(waited).await;
}

async fn voters(client: &Client, count: usize) {
    until(async || {
        let members = client.members().await.unwrap();
        let voting = |role| role == MemberRole::Voter;
        members.items.iter().filter(|one| voting(one.role)).count() == count
    })
    .await;
}

fn has(data_dir: &Path, digest: Digest) -> bool {
    data_dir.join("modules").join(digest.to_string()).exists()
}

/// A connection to one host and to no other.
pub(crate) async fn greeted(
    group: &Group,
    running: &Running,
) -> (Connection, SendStream, FrameReader) {
    let (_endpoint, connection) = group.connect(running.local_addr()).await;
    let (mut send, receive) = connection.open_bi().await.unwrap();
    let hello = Hello {
        build: "test".to_owned(),
    };
    send.write_all(&frame(1, &hello)).await.unwrap();
    let mut reader = FrameReader::new(receive);
    let (_, welcome) = message::<Welcome>(&mut reader).await;
    assert_eq!(welcome.host, running.host());
    (connection, send, reader)
}

#[tokio::test(flavor = "multi_thread")]
async fn modules_are_where_most_hosts_are_and_come_to_the_rest() {
    let group = Group::new();
    let first = start(&group.bare()).await;
    let [second, third] = ["second", "third"].map(|name| group.joining(name, &first));
    let dirs = [
        group.data_dir(),
        second.data_dir.clone(),
        third.data_dir.clone(),
    ];
    let (second, was_third) = (start(&second).await, start(&third).await);
    let client = group.client(&first).await;
    voters(&client, 3).await;

    let name: ModuleName = "mine".parse().unwrap();
    let push = async |bytes: &[u8]| {
        let pushed = client.push_module(&name, ModuleKind::Selector, bytes, |_| ());
        within(pushed).await.unwrap();
        Digest::of(bytes)
    };
    let one = push(SPREAD).await;
    assert!(dirs.iter().filter(|dir| has(dir, one)).count() >= 2);
    until(async || dirs.iter().all(|dir| has(dir, one))).await;

    // Two of three are enough; the third gets what it missed, and what its disk has lost.
    within(was_third.shutdown()).await.unwrap();
    std::fs::remove_file(dirs[2].join("modules").join(one.to_string())).unwrap();
    let two = push(&[SPREAD, &[0, 3, 1, b'v', 2]].concat()).await;
    assert!(has(&dirs[0], two) && has(&dirs[1], two) && !has(&dirs[2], two));
    let third = start(&third).await;
    until(async || has(&dirs[2], one) && has(&dirs[2], two)).await;
    for running in [third, second, first] {
        within(running.shutdown()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_host_explains_what_another_one_decided() {
    let group = Group::new();
    let first = start(&group.bare()).await;
    let second = start(&group.joining("second", &first)).await;
    let client = group.client(&first).await;
    voters(&client, 2).await;
    let handle = node(&client, "n1", Starter::default()).await;
    let created = within(client.create(key("room/1")).send()).await.unwrap();
    let explained = async |running: &Running| {
        let (_connection, mut send, mut reader) = greeted(&group, running).await;
        let mut last = None;
        // The others are asked for a moment only, and a busy machine may need longer.
        until(async || {
            let asked = frame(
                2,
                &Request::Explain {
                    key: key("room/1"),
                    why_not: None,
                },
            );
            send.write_all(&asked).await.unwrap();
            let Response::Explained(explanation) = answer(&mut reader).await.1 else {
                return false;
            };
            last = Some(explanation);
            last.as_ref().is_some_and(|last| last.evidence.is_some())
        })
        .await;
        last.unwrap()
    };
    let here = explained(&first).await;
    assert_eq!(here.record.incarnation, created.record.incarnation);
    // By their text: an age that is not known is no number, and equals nothing.
    let there = explained(&second).await;
    assert_eq!(
        format!("{:?}", there.evidence),
        format!("{:?}", here.evidence)
    );
    handle.shutdown().await;
    within(second.shutdown()).await.unwrap();
    within(first.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_saved_from_any_host_with_a_leader_or_without() {
    let group = Group::new();
    let first = start(&group.bare()).await;
    let second = start(&group.joining("second", &first)).await;
    let client = group.client(&first).await;
    voters(&client, 2).await;
    within(client.put_type(TypeSpec::new("room".parse().unwrap())))
        .await
        .unwrap();
    let (connection, _send, _reader) = greeted(&group, &second).await;
    let saved = async |newest_kept| {
        let (mut send, receive) = connection.open_bi().await.unwrap();
        let asked = frame(9, &SaveSnapshot { newest_kept });
        send.write_all(&asked).await.unwrap();
        let mut reader = FrameReader::new(receive);
        let (id, saved) = message::<SavedSnapshot>(&mut reader).await;
        let SavedSnapshot::File {
            index,
            bytes,
            digest,
        } = saved
        else {
            panic!("{saved:?}");
        };
        let mut file = Vec::new();
        let mut piece = [0; 4_096];
        while let Some(count) = within(reader.raw(&mut piece)).await.unwrap() {
            file.extend_from_slice(&piece[..count]);
        }
        assert_eq!((id, file.len() as u64), (9, bytes));
        assert_eq!(Digest::of(&file), digest);
        (index, file)
    };
    let (index, file) = saved(true).await;
    assert_eq!(saved(true).await, (index, file.clone()));
    let path = group.data_dir().with_file_name("saved");
    std::fs::write(&path, file).unwrap();
    let summary = inspect_snapshot(&path).unwrap();
    assert_eq!((summary.index, summary.members.len()), (index, 2));

    // The other one is gone, and with it the leader.
    drop(first);
    let (newest, _) = saved(false).await;
    assert!(newest >= index);
    drop(second);
}
