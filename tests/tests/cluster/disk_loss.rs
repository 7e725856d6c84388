//! Hosts whose disk is lost, hosts that come and hosts that go, while users are at work.

use std::time::Duration;

use maitred_client::Client;
use maitred_protocol::{MemberRole, Members};

use crate::group::load::Load;
use crate::group::{Ended, Group, Options, seed};

/// A cluster's deterministic no.
const REFUSED: Option<i32> = Some(4);

fn number(text: &serde_json::Value) -> u64 {
    let number = text.as_str().and_then(|text| text.parse().ok());
    number.unwrap_or_else(|| panic!("{text} is not a number"))
}

fn votes(members: &Members, host: u64) -> bool {
    let mut items = members.items.iter();
    items.any(|one| one.host == host && one.role == MemberRole::Voter && one.replaces.is_none())
}

fn is_in(members: &Members, host: u64) -> bool {
    members.items.iter().any(|one| one.host == host)
}

fn number_of(members: &Members, name: &str) -> u64 {
    let mut items = members.items.iter();
    let found = items.find(|one| one.name.as_str() == name);
    found.unwrap_or_else(|| panic!("{name} is no member")).host
}

async fn all_members(group: &Group, client: &Client) -> Members {
    let led = |members: &Members| members.leader.is_some();
    group.members(client, "nobody leads", led).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_lost_its_disk_comes_back_under_a_new_number() {
    let seed = seed();
    let mut group = Group::start(seed, Options::default()).await;
    let client = group.client().await;
    let load = Load::start(&group, seed, Duration::from_secs(30)).await;
    let (lost, _) = group.whole(&client).await;
    let name = group.machines[lost].name.clone();
    let old = number_of(&all_members(&group, &client).await, &name);
    load.advance(20).await;

    group.machines[lost].kill();
    // It may have been the founder, which joined nobody then.
    group.machines[lost].flags = group.joins(lost);
    let spare = group.add("spare").await;
    // Not all is gone for good: a copy turns up later.
    std::fs::rename(group.machines[lost].data(), group.machines[spare].data()).unwrap();
    load.advance(20).await;
    // Under its own name it is not let in: whoever voted must not come back having forgotten it.
    group.machines[lost].spawn();
    let status = group.machines[lost].ended().await;
    let log = group.machines[lost].log();
    assert_eq!(status.code(), REFUSED, "{log}");
    assert!(log.contains("maitred member replace"), "{log}");

    let replaced = group.cli(&["member", "replace", &name, "--no-wait"]).await;
    let new = number(&replaced.json()["member"]["host"]);
    assert!(new > old, "host {new} after {old}");
    group.machines[lost].spawn();
    let done = |members: &Members| votes(members, new) && !is_in(members, old);
    group
        .members(&client, "the new host does not vote", done)
        .await;
    group.whole(&client).await;
    load.advance(20).await;

    // The old number does not come back with the old disk.
    group.machines[spare].spawn();
    let status = group.machines[spare].ended().await;
    let log = group.machines[spare].log();
    assert_eq!(status.code(), REFUSED, "{log}");
    // Nor with a restart of the new one.
    group.machines[lost].kill();
    group.machines[lost].spawn();
    group.whole(&client).await;
    let members = all_members(&group, &client).await;
    assert!(
        votes(&members, new) && !is_in(&members, old),
        "{members:#?}"
    );
    assert_eq!(members.items.len(), 3, "{members:#?}");
    let failed = load.end(&group).await;
    assert_eq!(failed, Vec::<String>::new());
}

async fn remove(group: &Group, name: &str) -> Ended {
    group.cli(&["member", "remove", name, "--yes"]).await
}

/// Removes a host, which ends by itself.
async fn removed(group: &mut Group, at: usize) {
    let name = group.machines[at].name.clone();
    let ended = remove(group, &name).await;
    ended.json();
    let status = group.machines[at].ended().await;
    let log = group.machines[at].log();
    assert_eq!(status.code(), REFUSED, "a host that was removed\n{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go_and_a_quorum_stays() {
    let seed = seed();
    let mut group = Group::start(seed, Options::default()).await;
    let client = group.client().await;
    let load = Load::start(&group, seed, Duration::from_secs(30)).await;

    let fourth = group.add("d").await;
    let address = group.machines[fourth].address().to_string();
    let added = group
        .cli(&["member", "add", "d", &address, "--no-wait"])
        .await;
    let host = number(&added.json()["member"]["host"]);
    group.machines[fourth].spawn();
    let done = |members: &Members| votes(members, host);
    group
        .members(&client, "the fourth host does not vote", done)
        .await;
    // Those that came before learn of it now and then; one that comes now, at once.
    group.whole(&group.client().await).await;
    load.advance(20).await;
    removed(&mut group, fourth).await;

    // While one of three is down, none of the others can go.
    let (leader, _) = group.whole(&client).await;
    let (down, up) = ((leader + 1) % 3, (leader + 2) % 3);
    group.machines[down].kill();
    let name = group.machines[down].name.clone();
    let silent = |members: &Members| {
        let mut items = members.items.iter();
        let found = items.find(|one| one.name.as_str() == name);
        let heard = found.and_then(|one| one.progress?.heard_ms);
        heard.is_some_and(|millis| millis > 3_000)
    };
    group
        .members(&client, "the dead host is heard of", silent)
        .await;
    let ended = remove(&group, &group.machines[up].name).await;
    assert_eq!(ended.code, REFUSED, "{ended:?}");
    assert!(ended.err.contains("not heard of"), "{ended:?}");
    group.machines[down].spawn();
    group.whole(&client).await;
    load.advance(20).await;

    // A leader that is to go hands over first; then the next, until one is left.
    for left in [2, 1] {
        let (leader, _) = group.whole(&client).await;
        removed(&mut group, leader).await;
        let done = |members: &Members| members.items.len() == left;
        group
            .members(&client, "the leader has not gone", done)
            .await;
        load.advance(20).await;
    }
    let last = group.machines[..3].iter().find(|machine| machine.runs());
    let name = last.unwrap().name.clone();
    let ended = remove(&group, &name).await;
    assert_eq!(ended.code, REFUSED, "{ended:?}");
    load.advance(20).await;
    let failed = load.end(&group).await;
    assert_eq!(failed, Vec::<String>::new());
}
