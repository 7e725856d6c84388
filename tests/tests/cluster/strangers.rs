//! Hosts that do not belong to the group: of another authority, of another cluster, of a name that is
//! taken. Each is refused in clear words, and the group goes on.

use std::time::{Duration, Instant};

use maitred_transport::Authority;

use crate::group::load::Load;
use crate::group::{Group, LOOK, Options, PATIENCE, host_name, seed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_in_clear_words() {
    let seed = seed();
    let mut group = Group::start(seed, Options::default()).await;
    let client = group.client().await;
    let load = Load::start(&group, seed, Duration::from_secs(30)).await;
    let before = client.members().await.unwrap();

    let forged = group.add("forged").await;
    group.machines[forged].certify(&Authority::generate("another group").unwrap());
    group.machines[forged].spawn();
    let status = group.machines[forged].ended().await;
    let log = group.machines[forged].log();
    assert_eq!(status.code(), Some(7), "{log}");
    assert!(log.contains("certificate"), "{log}");

    let double = group.add("double").await;
    group.machines[double].name = "b".to_owned();
    group.machines[double].spawn();
    let status = group.machines[double].ended().await;
    let log = group.machines[double].log();
    assert_eq!(status.code(), Some(4), "{log}");
    assert!(log.contains("maitred member replace"), "{log}");

    // A host of another cluster, although its certificate is a good one: neither lets the other in.
    let other = group.add("other").await;
    let joins = std::mem::take(&mut group.machines[other].flags);
    group.machines[other].spawn();
    let others = group.client_of(&group.machines[other]).await;
    let ours = group.machines[0].address().to_string();
    others.add_member(host_name("ours"), &ours).await.unwrap();
    let begun = Instant::now();
    while !group.machines[other]
        .whole_log()
        .contains("another cluster")
    {
        let log = group.machines[other].log();
        assert!(begun.elapsed() < PATIENCE, "nothing is said\n{log}");
        tokio::time::sleep(LOOK).await;
    }
    let members = others.members().await.unwrap();
    let taken = members
        .items
        .iter()
        .any(|one| one.address == ours && one.arrived);
    assert!(!taken, "{members:#?}");
    drop(others);
    // It belongs to a cluster, so it is not to be talked into joining this one.
    group.machines[other].terminate().await;
    group.machines[other].flags = joins;
    group.machines[other].spawn();
    let others = group.client_of(&group.machines[other]).await;
    let members = others.members().await.unwrap();
    assert!(
        members.items.iter().any(|one| one.name.as_str() == "other"),
        "{members:#?}"
    );

    load.advance(20).await;
    let after = client.members().await.unwrap();
    let numbers = |members: &maitred_protocol::Members| {
        let items = members.items.iter();
        items
            .map(|one| (one.host, one.name.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(numbers(&before), numbers(&after), "the group is as it was");
    group.machines[other].kill();
    group.whole(&client).await;
    let failed = load.end(&group).await;
    assert_eq!(failed, Vec::<String>::new());
}
