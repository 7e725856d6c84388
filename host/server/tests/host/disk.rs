//! A disk that fills up: what needs room is refused or waits, the rest goes on, and when there is
//! room again everything is as before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use maitred_client::protocol::Rejection;
use maitred_client::{Client, Error};
use maitred_server::{Running, Server, ServerConfig, SpaceProbe};

use crate::harness::{Group, Starter, key, node, within};

const PLENTY: u64 = 100 << 30;
const LOW: u64 = 100 << 20;
const FULL: u64 = 1 << 20;

/// A host on a disk of which the test says how much is free.
async fn start(group: &Group) -> (Running, Arc<AtomicU64>) {
    let free = Arc::new(AtomicU64::new(PLENTY));
    let measured = Arc::clone(&free);
    let probe = SpaceProbe::new(move |_| Ok((measured.load(Ordering::Relaxed), PLENTY)));
    let mut config = ServerConfig {
        space_probe: Some(probe),
        ..group.bare()
    };
    config.disk.low_percent = 0;
    let running = Server::start(config).await.unwrap();
    within(running.ready()).await.unwrap();
    (running, free)
}

async fn wait_for(client: &Client, sheds: bool) {
    let status = async {
        while within(client.status()).await.unwrap().shedding.is_some() != sheds {
            tokio::task::yield_now().await;
        }
    };
    within(status).await;
}

async fn assert_creates_are_refused(client: &Client) {
    let create = client
        .create(key("room/refused"))
        .deadline(Duration::from_millis(500));
    let error = within(create.send()).await.unwrap_err();
    assert!(error.to_string().contains("disk is nearly full"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_nearly_full_sheds_creates_and_nothing_else() {
    let group = Group::new();
    let (running, free) = start(&group).await;
    let client = group.client(&running).await;
    let handle = node(&client, "n1", Starter::default()).await;
    within(client.create(key("room/1")).send()).await.unwrap();
    free.store(LOW, Ordering::Relaxed);
    wait_for(&client, true).await;
    assert_creates_are_refused(&client).await;
    within(client.get(&key("room/1"))).await.unwrap();
    // What frees room goes on.
    within(client.del(&key("room/1"), None)).await.unwrap();
    assert!(handle.lease_ok());

    free.store(PLENTY, Ordering::Relaxed);
    wait_for(&client, false).await;
    within(client.create(key("room/1")).send()).await.unwrap();
    handle.shutdown().await;
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_to_be_written_waits_out_a_full_disk_and_the_rest_goes_on() {
    let group = Group::new();
    let (running, free) = start(&group).await;
    let client = group.client(&running).await;
    let handle = node(&client, "n1", Starter::default()).await;
    within(client.create(key("room/1")).send()).await.unwrap();
    free.store(FULL, Ordering::Relaxed);
    wait_for(&client, true).await;
    assert_creates_are_refused(&client).await;
    let other = client.clone();
    let deleted = tokio::spawn(async move { other.del(&key("room/1"), None).await });
    // Written by nobody yet, so it is not gone, and whoever reads is not held up.
    let full = async {
        let told = || async { within(client.status()).await.unwrap().shedding };
        while !told()
            .await
            .is_some_and(|why| why.contains("nothing can be written"))
        {
            tokio::task::yield_now().await;
        }
    };
    within(full).await;
    assert!(!deleted.is_finished());
    within(client.get(&key("room/1"))).await.unwrap();
    assert!(handle.lease_ok());

    free.store(PLENTY, Ordering::Relaxed);
    match within(deleted).await.unwrap() {
        // The second is the answer to one that was asked again.
        Ok(_) | Err(Error::Rejected(Rejection::NotFound(_))) => {}
        other => panic!("{other:?}"),
    }
    wait_for(&client, false).await;
    within(client.create(key("room/1")).send()).await.unwrap();
    handle.shutdown().await;
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_does_not_hold_up_the_end() {
    let group = Group::new();
    let (running, free) = start(&group).await;
    let client = group.client(&running).await;
    let handle = node(&client, "n1", Starter::default()).await;
    within(client.create(key("room/1")).send()).await.unwrap();
    free.store(FULL, Ordering::Relaxed);
    wait_for(&client, true).await;
    let other = client.clone();
    let deleting = tokio::spawn(async move { other.del(&key("room/1"), None).await });
    let full = async {
        let told = || async { within(client.status()).await.unwrap().shedding };
        while !told()
            .await
            .is_some_and(|why| why.contains("nothing can be written"))
        {
            tokio::task::yield_now().await;
        }
    };
    within(full).await;
    handle.kill();
    within(running.shutdown()).await.unwrap();
    deleting.abort();
    // What was not acknowledged is not kept; what was, is.
    let running = group.start_bare().await;
    let client = group.client(&running).await;
    within(client.get(&key("room/1"))).await.unwrap();
    within(running.shutdown()).await.unwrap();
}
