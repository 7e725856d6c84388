//! Three hosts in one process: they find each other, follow one leader, and go on without one of them.

use std::time::Duration;

use maitred_client::Client;
use maitred_client::protocol::{MemberRole, TypeSpec};
use maitred_server::{Began, Running, Server, ServerConfig, StartError};

use crate::harness::{Group, within};

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

    // The same directory without a cluster to join is nobody's yet.
    let alone = ServerConfig {
        join: Vec::new(),
        ..group.joining("second", &first)
    };
    let error = within(Server::start(alone)).await.unwrap_err();
    assert!(matches!(error, StartError::NotJoined { .. }), "{error}");

    let second = start(group.joining("second", &first)).await;
    assert_eq!(second.cluster(), first.cluster());
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
