//! Bad networks between real processes: hosts that cannot talk to each other, in all the ways there
//! are, and packets that are lost, late, doubled or out of order.
//!
//! Users and nodes reach all hosts all the time but for lost packets, so a majority that can talk
//! must go on; the relays count that each fault was really met.

use std::time::{Duration, Instant};

use maitred_client::Client;
use maitred_protocol::NodeEpoch;
use maitred_tests::relay::{Lane, LaneCounts, Who};

use crate::group::load::Load;
use crate::group::{Group, LOOK, Options, PATIENCE, game, seed};

/// A fault lasts so long: an election is long over then, and silent connections are given up.
const FAULT: Duration = Duration::from_secs(2);

/// What all relays did to packets.
fn sum(group: &Group, pick: fn(&LaneCounts) -> u64) -> u64 {
    let relays = group.machines.iter();
    let counts = relays.map(|machine| machine.relay.counts(Who::Everyone));
    counts
        .map(|counts| pick(&counts.to_target) + pick(&counts.from_target))
        .sum()
}

/// Sets a fault while users go on, takes it away again, and waits until the group is whole.
async fn through(
    group: &Group,
    client: &Client,
    load: &Load,
    what: &str,
    met: fn(&LaneCounts) -> u64,
    set: impl Fn(&Group, usize),
) {
    let (leader, _) = group.whole(client).await;
    let before = sum(group, met);
    let begun = Instant::now();
    set(group, leader);
    load.advance(60).await;
    let went_on = begun.elapsed();
    // How long it lasts is part of the fault.
    tokio::time::sleep(FAULT.saturating_sub(went_on)).await;
    load.advance(10).await;
    let waited = tokio::time::timeout(PATIENCE, async {
        while sum(group, met) == before {
            tokio::time::sleep(LOOK).await;
        }
    });
    waited
        .await
        .unwrap_or_else(|_| panic!("{what}: no packet met the fault"));
    group.heal();
    let healed = Instant::now();
    group.whole(client).await;
    let whole = healed.elapsed();
    println!("{what}: 60 changes in {went_on:.1?}, whole again after {whole:.1?}");
}

fn others(leader: usize) -> [usize; 2] {
    [(leader + 1) % 3, (leader + 2) % 3]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_rides_over_partitions() {
    let seed = seed();
    let group = Group::start(seed, Options::default()).await;
    let client = group.client().await;
    let load = Load::start(&group, seed, Duration::from_secs(30)).await;
    let cut: fn(&LaneCounts) -> u64 = |lane| lane.cut;
    type Set = fn(&Group, usize);
    let faults: [(&str, Set); 8] = [
        ("the leader alone", |group, leader| {
            for other in others(leader) {
                group.cut(leader, other);
            }
        }),
        ("a follower alone", |group, leader| {
            let [one, two] = others(leader);
            group.cut(one, leader);
            group.cut(one, two);
        }),
        ("nobody hears the leader", |group, leader| {
            for other in others(leader) {
                group.cut_way(leader, other);
            }
        }),
        ("the leader hears nobody", |group, leader| {
            for other in others(leader) {
                group.cut_way(other, leader);
            }
        }),
        ("a follower does not hear the leader", |group, leader| {
            group.cut_way(leader, others(leader)[0]);
        }),
        ("the leader does not hear a follower", |group, leader| {
            group.cut_way(others(leader)[0], leader);
        }),
        ("the leader and a follower cannot talk", |group, leader| {
            group.cut(leader, others(leader)[0]);
        }),
        ("the followers cannot talk", |group, leader| {
            let [one, two] = others(leader);
            group.cut(one, two);
        }),
    ];
    for (what, set) in faults {
        through(&group, &client, &load, what, cut, set).await;
    }
    let failed = load.end(&group).await;
    assert_eq!(
        failed,
        Vec::<String>::new(),
        "requests fail for a partition"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_rides_over_bad_lines() {
    let seed = seed();
    let group = Group::start(seed, Options::default()).await;
    let client = group.client().await;
    let load = Load::start(&group, seed, Duration::from_secs(60)).await;
    let loss = Lane {
        loss: 0.05,
        ..Lane::default()
    };
    let delay = Lane {
        delay: Duration::from_millis(50),
        ..Lane::default()
    };
    let duplicate = Lane {
        duplicate: 0.3,
        ..Lane::default()
    };
    let reorder = Lane {
        reorder: 0.3,
        ..Lane::default()
    };
    let all = Lane {
        delay: Duration::from_millis(20),
        jitter: Duration::from_millis(10),
        duplicate: 0.1,
        reorder: 0.1,
        ..loss
    };
    type Met = fn(&LaneCounts) -> u64;
    let lines: [(&str, Lane, Met); 5] = [
        ("5 % are lost", loss, |lane| lane.lost),
        ("50 ms each way", delay, |lane| lane.delayed),
        ("doubled", duplicate, |lane| lane.duplicated),
        ("out of order", reorder, |lane| lane.reordered),
        ("all of it", all, |lane| lane.lost),
    ];
    for (what, lane, met) in lines {
        through(&group, &client, &load, what, met, move |group, _| {
            group.everywhere(lane);
        })
        .await;
    }
    let failed = load.end(&group).await;
    assert_eq!(failed, Vec::<String>::new(), "requests fail for a bad line");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_changes_its_address_keeps_its_session() {
    let group = Group::start(seed(), Options::default()).await;
    let client = group.client().await;
    let (leader, _) = group.whole(&client).await;
    let relay = &group.machines[leader].relay;
    let before = relay.sources();
    let book = game::SharedBook::default();
    let node = game::start(&client, "nomad", &book).await;
    let epoch = node.epoch();
    assert_ne!(epoch, None::<NodeEpoch>);
    // Only the node is new to the leader's relay; it has one port for all of its connections.
    let new: Vec<_> = relay.sources();
    let new: Vec<_> = new.iter().filter(|one| !before.contains(one)).collect();
    let [source] = new[..] else {
        panic!("a node calls from one port, and not from {new:?}");
    };
    for turn in 0..3 {
        for machine in &group.machines {
            let known = machine.relay.sources().contains(source);
            if known {
                machine.relay.rebind(*source).await.unwrap();
            }
        }
        let key = maitred_protocol::ProcessKey::new("player", &turn.to_string()).unwrap();
        let made = client.create(key).deadline(PATIENCE).send().await.unwrap();
        assert_eq!(Some(made.record.node_epoch), epoch);
        assert!(node.lease_ok());
    }
    assert_eq!(node.epoch(), epoch, "the session is the same");
    assert_eq!(relay.counts(Who::Source(*source)).rebinds, 3);
    let book = book.lock().unwrap();
    assert_eq!(book.breaches, Vec::<String>::new());
    assert_eq!(book.running().len(), 3);
}
