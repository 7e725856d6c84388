//! Three hosts in one process: they find each other, follow one leader, and go on without one of them.

use std::time::Duration;

use maitred_client::Client;
use maitred_client::protocol::{MemberRole, TypeSpec};
use maitred_server::{Began, Running, Server, ServerConfig, SnapshotConfig, StartError};

use crate::harness::{Group, Starter, key, node, within};
use crate::wire::counted;

async fn start(config: ServerConfig) -> Running {
    let running = within(Server::start(config)).await.unwrap();
    within(running.ready()).await.unwrap();
    running
}

/// Three hosts that vote.
async fn three(group: &Group) -> [Running; 3] {
    let first = start(group.bare()).await;
    let second = start(group.joining("second", &first)).await;
    let third = start(group.joining("third", &first)).await;
    let client = group.client(&first).await;
    voters(&client, 3).await;
    [first, second, third]
}

async fn voters(client: &Client, count: usize) {
    let voting = async {
        loop {
            let members = client.members().await.unwrap();
            let voting = |role| role == MemberRole::Voter;
            if members.items.iter().filter(|one| voting(one.role)).count() == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(voting).await;
}

fn room(number: u32) -> TypeSpec {
    TypeSpec::new(format!("room-{number}").parse().unwrap())
}

async fn led_by_another(running: &Running, old: u64) -> u64 {
    let led = async {
        loop {
            match running.leader() {
                Some((leader, _)) if leader != old => return leader,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    within(led).await
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hosts_are_one_group_and_outlive_their_leader() {
    let group = Group::new();
    let [first, second, third] = three(&group).await;
    assert_eq!(first.began(), Began::Founded);
    assert_eq!(second.began(), Began::Joined);
    assert_eq!(first.cluster(), third.cluster());
    let clients = [
        group.client(&first).await,
        group.client(&second).await,
        group.client(&third).await,
    ];
    // Each finds the leader, whichever host it was given.
    for (number, client) in clients.iter().enumerate() {
        within(client.put_type(room(number as u32))).await.unwrap();
    }
    for client in &clients {
        assert_eq!(within(client.types()).await.unwrap().len(), 3);
    }

    // Told to end, it hands over; those that are left lose nothing.
    within(first.shutdown()).await.unwrap();
    let leader = led_by_another(&second, 1).await;
    assert_eq!(led_by_another(&third, 1).await, leader);
    within(clients[1].put_type(room(7))).await.unwrap();
    assert_eq!(within(clients[2].types()).await.unwrap().len(), 4);

    // It comes back as what it was, at another address, and the others hear of that.
    let first = start(group.bare()).await;
    assert_eq!((first.began(), first.host()), (Began::Known, 1));
    let address = first.advertised().to_owned();
    let known = async {
        loop {
            let members = clients[1].members().await.unwrap();
            if members.items.iter().any(|one| one.address == address) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(known).await;
    let client = group.client(&first).await;
    assert_eq!(within(client.types()).await.unwrap().len(), 4);

    // One that is cut off without a word.
    drop(if leader == second.host() {
        second
    } else {
        third
    });
    let client = group.client(&first).await;
    within(client.put_type(room(8))).await.unwrap();
    assert_eq!(within(client.types()).await.unwrap().len(), 5);
    within(first.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_used_is_refused_and_another_one_will_do() {
    let group = Group::new();
    let first = start(group.bare()).await;
    let taken = ServerConfig {
        name: "first".to_owned(),
        ..group.joining("second", &first)
    };
    let error = within(Server::start(taken)).await.unwrap_err();
    assert!(matches!(error, StartError::Join(_)), "{error}");
    let text = error.to_string();
    assert!(text.contains("maitred member replace"), "{text}");

    // Nothing is left of it.
    let second = group.joining("second", &first);
    assert!(!second.data_dir.exists());
    let second = start(second).await;
    assert_eq!(second.cluster(), first.cluster());
    within(second.shutdown()).await.unwrap();
    within(first.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_asks_its_seeds_until_one_answers_and_may_be_broken_off() {
    let group = Group::new();
    // Nobody is there yet.
    let socket = tokio::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await;
    let seed = socket.unwrap().local_addr().unwrap();
    let first = start(group.bare()).await;
    let joining = ServerConfig {
        join: vec![seed.to_string()],
        ..group.joining("second", &first)
    };
    let waiting = Server::start(joining.clone());
    let broken_off = tokio::time::timeout(Duration::from_millis(200), waiting).await;
    assert!(broken_off.is_err());

    // It has begun to be somebody, and does not found a cluster of its own now.
    let alone = ServerConfig {
        join: Vec::new(),
        ..joining.clone()
    };
    let error = within(Server::start(alone)).await.unwrap_err();
    assert!(matches!(error, StartError::NotJoined { .. }), "{error}");
    let renamed = ServerConfig {
        name: "other".to_owned(),
        ..joining.clone()
    };
    let error = within(Server::start(renamed)).await.unwrap_err();
    assert!(matches!(error, StartError::OtherName { .. }), "{error}");

    let joining = ServerConfig {
        join: vec![seed.to_string(), first.local_addr().to_string()],
        ..joining
    };
    let second = start(joining).await;
    assert_eq!(second.began(), Began::Joined);
    within(second.shutdown()).await.unwrap();
    within(first.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_removed_ends_and_says_so() {
    let group = Group::new();
    let [first, second, third] = three(&group).await;
    let client = group.client(&first).await;
    within(client.remove_member(third.host())).await.unwrap();
    let failed = within(third.failed()).await;
    assert!(failed.what.contains("removed"), "{failed}");
    assert!(!failed.restart);
    assert_eq!(within(third.shutdown()).await, Err(failed));
    // Nor does it get in again with what it has.
    let again = Server::start(group.joining("third", &first));
    let again = within(again).await.unwrap();
    let failed = within(again.failed()).await;
    assert!(!failed.restart, "{failed}");
    voters(&client, 2).await;
    within(second.shutdown()).await.unwrap();
    within(first.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_commanded_by_whoever_leads() {
    let group = Group::new();
    let [first, second, third] = three(&group).await;
    let client = group.client(&second).await;
    let starter = Starter::default();
    let _node = node(&client, "n1", starter.clone()).await;
    let before = within(client.create(key("room/1")).send()).await.unwrap();
    within(first.shutdown()).await.unwrap();
    led_by_another(&second, 1).await;
    let after = within(client.create(key("room/2")).send()).await.unwrap();
    assert_eq!(after.record.node, before.record.node);
    within(client.del(&key("room/1"), None)).await.unwrap();
    let stopped = async {
        while !starter.stopped.lock().unwrap().contains(&key("room/1")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(stopped).await;
    assert_eq!(starter.started.lock().unwrap().len(), 2);
    within(third.shutdown()).await.unwrap();
    within(second.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_joins_when_the_log_was_cut_fetches_a_snapshot_and_keeps_it() {
    const WRITES: u32 = 1_100;
    let group = Group::new();
    let snapshot = SnapshotConfig {
        entries: 1_000,
        ..SnapshotConfig::default()
    };
    let http = Some((std::net::Ipv4Addr::LOCALHOST, 0).into());
    let first = start(ServerConfig {
        snapshot,
        http,
        ..group.bare()
    })
    .await;
    let client = group.client(&first).await;
    // The second snapshot cuts the log through the first one.
    for snapshots in 1..=2 {
        let mut writing = tokio::task::JoinSet::new();
        for number in 0..WRITES {
            let client = client.clone();
            writing.spawn(async move { client.put_type(room(number % 10)).await.map(drop) });
        }
        while let Some(written) = within(writing.join_next()).await {
            written.unwrap().unwrap();
        }
        let taken = async {
            while counted(&first, "maitred_snapshots_total").await < snapshots {
                tokio::task::yield_now().await;
            }
        };
        within(taken).await;
    }

    let joining = ServerConfig {
        http,
        ..group.joining("second", &first)
    };
    let second = start(joining.clone()).await;
    assert_eq!(counted(&second, "maitred_snapshots_fetched_total").await, 1);
    voters(&client, 2).await;
    assert_eq!(
        within(group.client(&second).await.types())
            .await
            .unwrap()
            .len(),
        10
    );
    let listen = second.local_addr();
    within(second.shutdown()).await.unwrap();
    // What it fetched is its own now; and its port is free again.
    let second = start(ServerConfig { listen, ..joining }).await;
    assert_eq!(second.began(), Began::Known);
    assert_eq!(counted(&second, "maitred_snapshots_fetched_total").await, 0);
    within(second.shutdown()).await.unwrap();
    within(first.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hosts_either_can_be_removed() {
    let group = Group::new();
    let first = start(group.bare()).await;
    let second = start(group.joining("second", &first)).await;
    let client = group.client(&first).await;
    voters(&client, 2).await;
    // The one that leads: it hands over first. The change needs its word, and the other's.
    within(client.remove_member(1)).await.unwrap();
    let failed = within(first.failed()).await;
    assert!(!failed.restart, "{failed}");
    assert_eq!(within(first.shutdown()).await, Err(failed));
    let client = group.client(&second).await;
    voters(&client, 1).await;
    within(client.put_type(room(1))).await.unwrap();
    within(second.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_which_every_host_has_another_address_finds_itself_again_by_a_seed() {
    let group = Group::new();
    let [first, second, third] = three(&group).await;
    let client = group.client(&first).await;
    within(client.put_type(room(1))).await.unwrap();
    for running in [third, second, first] {
        within(running.shutdown()).await.unwrap();
    }
    // None of the recorded addresses is right, and no quorum can say so before they have met.
    let first = within(Server::start(group.bare())).await.unwrap();
    let second = within(Server::start(group.joining("second", &first)))
        .await
        .unwrap();
    let third = within(Server::start(group.joining("third", &first)))
        .await
        .unwrap();
    for running in [&first, &second, &third] {
        within(running.ready()).await.unwrap();
    }
    let client = group.client(&third).await;
    within(client.put_type(room(2))).await.unwrap();
    assert_eq!(within(client.types()).await.unwrap().len(), 2);
    for running in [first, second, third] {
        within(running.shutdown()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_seeds_lead_back_to_itself_is_not_ended_by_its_own_no() {
    let group = Group::new();
    let first = start(group.bare()).await;
    let second = start(group.joining("second", &first)).await;
    within(second.shutdown()).await.unwrap();
    let free = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    // All hosts are started with the same list, or with a name that leads to any of them.
    let config = ServerConfig {
        listen: address,
        join: vec![
            format!("localhost:{}", address.port()),
            first.local_addr().to_string(),
        ],
        ..group.joining("second", &first)
    };
    let second = start(config).await;
    let client = group.client(&first).await;
    let heard = async {
        loop {
            let members = client.members().await.unwrap();
            let mut addresses = members.items.iter().map(|one| one.address.as_str());
            if addresses.any(|one| one == second.advertised()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = within(heard) => {}
        failed = second.failed() => panic!("{failed}"),
    }
    within(second.shutdown()).await.unwrap();
    within(first.shutdown()).await.unwrap();
}
