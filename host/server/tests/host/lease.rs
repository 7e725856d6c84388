//! Leases over the wire: who may renew one, in which way, and that nothing else costs a node its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use maitred_client::protocol::{KeepAliveAck, Load, MemberRole, NodeEpoch, Rejection, Response};
use maitred_client::{Client, NodeHandle};
use maitred_protocol::Request;
use maitred_server::{RaftTimes, Running, Server, ServerConfig, SnapshotConfig};

use crate::harness::{Group, Starter, key, within};
use crate::raw_node::{RawNode, describe, keep_alive};
use crate::wire::{counted, page};

async fn start(config: ServerConfig) -> Running {
    let config = ServerConfig {
        http: Some((std::net::Ipv4Addr::LOCALHOST, 0).into()),
        ..config
    };
    let running = Server::start(config).await.unwrap();
    within(running.ready()).await.unwrap();
    running
}

/// Waits until a counter has reached a value.
async fn reaches(running: &Running, name: &str, value: u64) {
    let reached = async {
        while counted(running, name).await < value {
            tokio::task::yield_now().await;
        }
    };
    within(reached).await;
    assert_eq!(counted(running, name).await, value, "{name}");
}

fn alive(epoch: NodeEpoch, sequence: u64) -> KeepAliveAck {
    KeepAliveAck {
        epoch,
        sequence,
        alive: true,
    }
}

const IGNORED: &str = "maitred_keep_alives_ignored_total";
const TAKEN: &str = "maitred_keep_alives_total";
const BY_STREAM: &str = "maitred_keep_alives_by_stream_total";

#[tokio::test(flavor = "multi_thread")]
async fn a_keep_alive_is_answered_in_the_way_in_which_it_came_and_once() {
    let group = Group::new();
    let running = start(group.bare()).await;
    let mut node = RawNode::connect(&group, &running).await;
    let epoch = node.registered(describe("n1", 60_000, 1)).await;
    node.say(0, &keep_alive(epoch, 1, None)).await;
    assert_eq!(node.ack().await, alive(epoch, 1));
    node.send_datagram(&keep_alive(epoch, 2, None));
    assert_eq!(node.datagram_ack().await, alive(epoch, 2));
    // Said again, in either way, and one that was overtaken: taken, and not answered. The host answers
    // in order, so what it says next shows it.
    for old in [1, 2] {
        node.say(0, &keep_alive(epoch, old, None)).await;
        reaches(&running, TAKEN, 2 + 2 * old - 1).await;
        node.send_datagram(&keep_alive(epoch, old, None));
        reaches(&running, TAKEN, 2 + 2 * old).await;
    }
    node.say(0, &keep_alive(epoch, 3, None)).await;
    assert_eq!(node.ack().await, alive(epoch, 3));
    node.send_datagram(&keep_alive(epoch, 4, None));
    assert_eq!(node.datagram_ack().await, alive(epoch, 4));
    reaches(&running, BY_STREAM, 4).await;
    assert_eq!(counted(&running, IGNORED).await, 0);
    let answered = "maitred_keep_alive_seconds_count";
    reaches(&running, answered, 4).await;
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_renewed_only_over_its_nodes_connection_and_for_the_live_session() {
    let group = Group::new();
    let running = start(group.bare()).await;
    let mut node = RawNode::connect(&group, &running).await;
    let epoch = node.registered(describe("n1", 60_000, 1)).await;
    let mut stranger = RawNode::connect(&group, &running).await;
    stranger.say(0, &keep_alive(epoch, 7, None)).await;
    stranger.send_datagram(&keep_alive(epoch, 8, None));
    reaches(&running, IGNORED, 2).await;
    // The stranger has not used up the numbers.
    node.say(0, &keep_alive(epoch, 1, None)).await;
    assert_eq!(node.ack().await, alive(epoch, 1));
    // The node comes back as another session, and its old one is over, whoever speaks for it.
    let mut again = describe("n1", 60_000, 1);
    again.last_epoch = Some(epoch);
    let newer = stranger.registered(again).await;
    assert!(newer > epoch);
    node.say(0, &keep_alive(epoch, 2, None)).await;
    node.say(0, &keep_alive(newer, 3, None)).await;
    stranger.say(0, &keep_alive(epoch, 4, None)).await;
    reaches(&running, IGNORED, 5).await;
    stranger.say(0, &keep_alive(newer, 1, None)).await;
    assert_eq!(stranger.ack().await, alive(newer, 1));
    assert_eq!(counted(&running, TAKEN).await, 2);
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absurd_load_does_not_cost_the_lease_and_is_not_believed() {
    let group = Group::new();
    let running = start(group.bare()).await;
    let client = group.client(&running).await;
    let mut node = RawNode::connect(&group, &running).await;
    let epoch = node.registered(describe("n1", 60_000, 1)).await;
    let many = (0..5_000).map(|number| (format!("c{number}"), 1.0));
    let odd = [
        (f32::NAN, vec![("rooms".to_owned(), f32::NAN)]),
        (-1.0, vec![("rooms".to_owned(), f32::NEG_INFINITY)]),
        (1e30, vec![("x".repeat(100_000), 1.0)]),
        (f32::INFINITY, many.collect()),
    ];
    for (sequence, (cpu, counters)) in (1..).zip(odd) {
        let load = Load {
            cpu,
            memory_free_mib: u32::MAX,
            counters,
        };
        node.say(0, &keep_alive(epoch, sequence, Some(load))).await;
        assert_eq!(node.ack().await, alive(epoch, sequence));
        let known = within(client.get_node(&"n1".parse().unwrap()))
            .await
            .unwrap();
        let (load, _) = known.load.unwrap();
        assert!(load.cpu.is_nan(), "{load:?}");
        assert!(load.counters.len() <= 16, "{}", load.counters.len());
        assert!(load.counters.iter().all(|(_, value)| value.is_finite()));
    }
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn more_keep_alives_than_a_node_could_mean_are_ignored_as_frames_too() {
    let group = Group::new();
    let running = start(group.bare()).await;
    let mut node = RawNode::connect(&group, &running).await;
    let epoch = node.registered(describe("n1", 60_000, 1)).await;
    for sequence in 1..=1_000 {
        node.say(0, &keep_alive(epoch, sequence, None)).await;
    }
    // Whatever has been read by then, requests are answered as ever.
    assert!(matches!(
        node.ask(Request::Status).await,
        Response::Status(_)
    ));
    let (taken, ignored) = (
        counted(&running, TAKEN).await,
        counted(&running, IGNORED).await,
    );
    assert_eq!(taken + ignored, 1_000);
    assert!(ignored > 0, "{taken}");
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_out_of_bounds_is_refused_and_so_is_the_older_of_two_with_one_name() {
    let group = Group::new();
    let running = start(group.bare()).await;
    let mut first = RawNode::connect(&group, &running).await;
    for (ttl_ms, kill_bound_ms) in [(0, 1), (999, 1), (60_001, 1), (3_000, 60_001)] {
        let mut node = describe("n1", ttl_ms, 1);
        node.kill_bound_ms = kill_bound_ms;
        match first.register(node).await {
            Response::Rejected(Rejection::Invalid(why)) => {
                assert!(
                    why.contains("ttl is ") || why.contains("kill bound is "),
                    "{why}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    let epoch = first.registered(describe("n1", 3_000, 1)).await;
    let mut second = RawNode::connect(&group, &running).await;
    let newer = second.registered(describe("n1", 3_000, 2)).await;
    let mut again = describe("n1", 3_000, 1);
    again.last_epoch = Some(epoch);
    match first.register(again).await {
        Response::Rejected(Rejection::Superseded { name, epoch }) => {
            assert_eq!((name.as_str(), epoch), ("n1", newer));
        }
        other => panic!("{other:?}"),
    }
    second.say(0, &keep_alive(newer, 1, None)).await;
    assert_eq!(second.ack().await, alive(newer, 1));
    within(running.shutdown()).await.unwrap();
}

/// How long the flood lasts: many leases.
const FLOOD: Duration = Duration::from_secs(5);
const CLIENTS: usize = 32;

/// Creates and deletes as much as fits, until told to end; says how many creates went through.
async fn creates(client: Client, number: usize, over: Arc<AtomicBool>) -> u64 {
    const AT_ONCE: u64 = 64;
    let (mut done, mut round) = (0, 0);
    while !over.load(Ordering::Relaxed) {
        let keys: Vec<_> = (0..AT_ONCE)
            .map(|at| key(&format!("room/{number}-{round}-{at}")))
            .collect();
        let creates: Vec<_> = keys
            .iter()
            .map(|key| tokio::spawn(client.create(key.clone()).args(vec![7; 1_000]).send()))
            .collect();
        for (key, create) in keys.iter().zip(creates) {
            // A host under a flood may refuse some.
            if create.await.unwrap().is_ok() {
                done += 1;
                let _ = client.del(key, None).await;
            }
        }
        round += 1;
    }
    done
}

/// Sets processes of its own as fast as it is answered; says how often.
async fn sets(node: NodeHandle, number: usize, over: Arc<AtomicBool>) -> u64 {
    let mut done = 0;
    while !over.load(Ordering::Relaxed) {
        let key = key(&format!("own/{}-{number}-{}", node.name(), done % 100));
        done += u64::from(node.set(key, "own", vec![done as u8; 500]).await.is_ok());
    }
    done
}

/// Four nodes with the shortest lease keep it while all others ask for as much as they can. `leader`
/// leads for all of the time.
async fn keeps_its_leases(group: &Group, leader: &Running) {
    let client = group.client(leader).await;
    let over = Arc::new(AtomicBool::new(false));
    let (mut nodes, mut floods) = (Vec::new(), Vec::new());
    for number in 1..=4 {
        // Each has a connection of its own, as machines have.
        let own = group.client(leader).await;
        let builder = own.node(&format!("n{number}")).address("10.0.0.1:7777");
        let builder = builder.capacity(10_000).ttl(Duration::from_secs(1));
        let node = within(builder.start(Starter::default())).await.unwrap();
        for number in 0..8 {
            let sets = sets(node.clone(), number, Arc::clone(&over));
            floods.push(tokio::spawn(sets));
        }
        nodes.push((own, node.epoch(), node));
    }
    for number in 0..CLIENTS {
        let client = group.client(leader).await;
        floods.push(tokio::spawn(creates(client, number, Arc::clone(&over))));
    }
    tokio::time::sleep(FLOOD).await;
    over.store(true, Ordering::Relaxed);
    let mut done = 0;
    for flood in floods {
        done += within(flood).await.unwrap();
    }
    assert!(counted(leader, "maitred_snapshots_total").await > 0);
    assert_eq!(counted(leader, "maitred_expiry_seconds_count").await, 0);
    assert_eq!(within(client.status()).await.unwrap().nodes, 4);
    for (_, epoch, node) in &nodes {
        assert_eq!(node.epoch(), *epoch, "a node lost its session");
        assert!(node.lease_ok());
    }
    let page = page(leader.http_addr().unwrap(), "/metrics").await;
    let told = page.lines().filter(|line| {
        line.starts_with("maitred_keep_alive") || line.starts_with("maitred_replica_turn")
    });
    let told: Vec<&str> = told.collect();
    println!("{done} creates and sets\n{}", told.join("\n"));
    for (_, _, node) in nodes {
        node.kill();
    }
}

/// Snapshots are taken all the time.
fn busy(config: ServerConfig) -> ServerConfig {
    ServerConfig {
        snapshot: SnapshotConfig {
            entries: 1_000,
            ..SnapshotConfig::default()
        },
        ..config
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_and_snapshots_cost_no_node_its_lease() {
    let group = Group::new();
    let running = start(busy(group.bare())).await;
    keeps_its_leases(&group, &running).await;
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_do_they_where_a_keep_alive_needs_the_word_of_a_second_host() {
    let group = Group::new();
    let calm = RaftTimes {
        // They share one machine with their flood: this is not about elections.
        election_ticks: 100,
        ..RaftTimes::default()
    };
    let first = start(ServerConfig {
        raft: calm,
        ..busy(group.bare())
    })
    .await;
    let second = start(ServerConfig {
        raft: calm,
        ..busy(group.joining("second", &first))
    })
    .await;
    let client = group.client(&first).await;
    let both_vote = async {
        loop {
            let members = client.members().await.unwrap().items;
            let voters = members.iter().filter(|one| one.role == MemberRole::Voter);
            if voters.count() == 2 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    within(both_vote).await;
    keeps_its_leases(&group, &first).await;
    within(second.shutdown()).await.unwrap();
    within(first.shutdown()).await.unwrap();
}
