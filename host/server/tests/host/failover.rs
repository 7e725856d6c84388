//! Lives that may still go on: what waits for them, and what ends the wait.

use maitred_client::protocol::{
    NodeAnswer, NodeEpoch, NodeName, OnNodeLost, ProcessState, Rejection, Response, Restart,
    TypeSpec, Unavailable,
};
use maitred_client::{Client, Error};
use maitred_protocol::{ModuleKind, ModuleName, Request};
use maitred_server::{Running, Server, ServerConfig};

use crate::guests::{Parts, unknown};
use crate::harness::{Group, Starter, key, node, within};
use crate::raw_node::{RawNode, describe};
use crate::wire::counted;

/// The node that is lost.
const LOST: &str = "a-node-that-will-be-lost";

fn spec(name: &str, restart: Restart) -> TypeSpec {
    let mut spec = TypeSpec::new(name.parse().unwrap());
    spec.restart = restart;
    spec.on_node_lost = OnNodeLost::Recreate;
    spec
}

/// Creates a process on the only node there is, which is by hand.
async fn create_on(client: &Client, raw: &mut RawNode, text: &str) {
    let created = tokio::spawn(client.create(key(text)).send());
    raw.start().await;
    within(created).await.unwrap().unwrap();
}

async fn held(client: &Client) -> u64 {
    within(client.status()).await.unwrap().held
}

async fn until_held(client: &Client, keys: u64) {
    let reached = async {
        while held(client).await != keys {
            tokio::task::yield_now().await;
        }
    };
    within(reached).await;
}

async fn until_running_on(client: &Client, text: &str, node: &str) {
    let running = async {
        loop {
            let found = client.get(&key(text)).await.unwrap().record;
            if found.state == ProcessState::Running && found.node.as_str() == node {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    within(running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_waits_until_the_node_says_that_the_last_life_is_over() {
    let group = Group::new();
    let running = group.start_bare().await;
    let client = group.client(&running).await;
    let mut raw = RawNode::connect(&group, &running).await;
    let epoch = raw.registered(describe("n1", 60_000, 1)).await;
    create_on(&client, &mut raw, "room/1").await;
    within(client.del(&key("room/1"), None)).await.unwrap();
    let (number, stopped, life) = raw.told_to_stop().await;
    assert_eq!(stopped, key("room/1"));
    assert_eq!(held(&client).await, 1);

    // Neither a create nor another node's own process gets the key.
    let mut other = RawNode::connect(&group, &running).await;
    let mut elsewhere = describe("n2", 60_000, 2);
    elsewhere.types = vec!["lobby".parse().unwrap()];
    let others = other.registered(elsewhere).await;
    let answer = other.set(&key("room/1"), ("n2", others)).await;
    assert!(
        matches!(answer, Response::Unavailable(Unavailable::Held(_))),
        "{answer:?}"
    );
    let create = client.create(key("room/1"));
    let created = tokio::spawn(create.send());
    // An answer that is not that one proves nothing.
    for answer in [
        NodeAnswer::Fenced,
        NodeAnswer::Failed("no".to_owned()),
        NodeAnswer::Busy("no".to_owned()),
    ] {
        raw.say(number, &answer).await;
    }
    let answer = raw.ask(Request::Status).await;
    assert!(matches!(answer, Response::Status(status) if status.held == 1));
    // The node comes back, and is told again, in the same words.
    let attach = Request::AttachNode {
        name: "n1".parse().unwrap(),
        epoch,
        inventory: vec![(key("room/1"), life)],
    };
    assert!(matches!(raw.ask(attach).await, Response::Registered { .. }));
    assert_eq!(raw.told_to_stop().await, (number, stopped, life));
    assert!(!created.is_finished());
    raw.say(number, &NodeAnswer::Stopped).await;
    // It was not told twice, though the replica asks for it at every attach.
    raw.start().await;
    let created = within(created).await.unwrap().unwrap();
    assert!(created.created);
    assert!(created.record.incarnation > life);
    assert_eq!(held(&client).await, 0);
    within(running.shutdown()).await.unwrap();
}

/// A node that had `keys`, and whose lease has run out.
async fn lost_node(group: &Group, running: &Running, client: &Client, keys: &[&str]) -> NodeEpoch {
    let mut raw = RawNode::connect(group, running).await;
    let epoch = raw.registered(describe(LOST, 1_000, 1)).await;
    for text in keys {
        create_on(client, &mut raw, text).await;
    }
    // It says nothing more.
    drop(raw);
    until_held(client, keys.len() as u64).await;
    epoch
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_proof_waits_for_an_operators_word() {
    let group = Group::new();
    let running = group.start_bare().await;
    let client = group.client(&running).await;
    within(client.put_type(spec("room", Restart::Strict)))
        .await
        .unwrap();
    let epoch = lost_node(&group, &running, &client, &["room/1"]).await;
    let lost = within(client.lost_nodes()).await.unwrap();
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert_eq!((lost[0].epoch, lost[0].strict), (epoch, 1));
    let name: NodeName = LOST.parse().unwrap();
    // Not of another session.
    let other = within(client.confirm_dead(&name, Some(NodeEpoch(epoch.0 + 1_000)))).await;
    assert!(
        matches!(
            other,
            Err(Error::Rejected(
                Rejection::NotFound(_) | Rejection::Fenced { .. }
            ))
        ),
        "{other:?}"
    );
    let handle = node(&client, "n2", Starter::default()).await;
    assert_eq!(held(&client).await, 1);
    within(client.confirm_dead(&name, Some(epoch)))
        .await
        .unwrap();
    until_running_on(&client, "room/1", "n2").await;
    assert_eq!(held(&client).await, 0);
    assert!(within(client.lost_nodes()).await.unwrap().is_empty());
    handle.shutdown().await;
    within(running.shutdown()).await.unwrap();
}

/// A fence that does not come to an end, but for other nodes than [`LOST`]: it would not be taken
/// otherwise.
fn hanging() -> Vec<u8> {
    let ever = format!(
        "(if (i32.eq (local.get $node_len) (i32.const {})) (then (loop $ever (br $ever))))",
        LOST.len()
    );
    let parts = Parts::body(&format!("{ever} {}", unknown("(i32.const 100)")));
    parts.fence()
}

async fn push_fence(client: &Client, name: &str, bytes: &[u8]) {
    let name: ModuleName = name.parse().unwrap();
    let push = client.push_module(&name, ModuleKind::Fence, bytes, |_| ());
    let (_, version) = within(push).await.unwrap();
    within(client.activate_module(&name, version, None))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_proves_a_node_dead_and_one_that_hangs_or_is_missing_changes_nothing_else() {
    let group = Group::new();
    let config = ServerConfig {
        http: Some((std::net::Ipv4Addr::LOCALHOST, 0).into()),
        ..group.config()
    };
    let running = Server::start(config).await.unwrap();
    within(running.ready()).await.unwrap();
    let client = group.client(&running).await;
    push_fence(&client, "hangs", &hanging()).await;
    for (name, fence) in [("good", "witness"), ("stuck", "hangs"), ("void", "nosuch")] {
        let mut spec = spec(name, Restart::Strict);
        spec.fence = Some(fence.parse().unwrap());
        within(client.put_type(spec)).await.unwrap();
    }
    let epoch = lost_node(&group, &running, &client, &["good/1", "stuck/1", "void/1"]).await;
    let handle = node(&client, "n2", Starter::default()).await;
    // All three have been asked, and two of them have failed.
    let failed = async {
        while counted(&running, "maitred_examinations_failed_total").await < 2 {
            tokio::task::yield_now().await;
        }
    };
    within(failed).await;
    assert_eq!(held(&client).await, 3);
    let testimony = format!("dead {}", epoch.0);
    within(handle.set(
        key(&format!("fence/{LOST}")),
        "watcher",
        testimony.into_bytes(),
    ))
    .await
    .unwrap();
    until_running_on(&client, "good/1", "n2").await;
    // Whose fence has no verdict waits on, is asked again, and is in nobody's way.
    let so_far = counted(&running, "maitred_examinations_failed_total").await;
    let mut number = 0;
    while counted(&running, "maitred_examinations_failed_total").await < so_far + 2 {
        number += 1;
        within(client.create(key(&format!("room/{number}"))).send())
            .await
            .unwrap();
    }
    assert!(number > 0);
    assert_eq!(held(&client).await, 2);
    for text in ["stuck/1", "void/1"] {
        let found = within(client.get(&key(text))).await.unwrap();
        assert_eq!(found.record.state, ProcessState::Pending);
    }
    assert_eq!(counted(&running, "maitred_nodes_lost").await, 1);
    assert_eq!(counted(&running, "maitred_keys_held").await, 2);
    assert_eq!(counted(&running, "maitred_expiry_seconds_count").await, 1);
    assert_eq!(counted(&running, "maitred_recreations_total").await, 1);
    handle.shutdown().await;
    within(running.shutdown()).await.unwrap();
}
