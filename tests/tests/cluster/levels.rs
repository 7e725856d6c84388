//! A group in the middle of an upgrade: one host takes part in less than the others can.

use std::time::Duration;

use maitred_client::Client;

use crate::group::load::Load;
use crate::group::{Group, LOOK, Options, PATIENCE, seed};

async fn level_is(group: &Group, client: &Client, wished: u16) {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            let (_, statuses) = group.whole(client).await;
            if statuses.iter().all(|status| status.level == wished) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    });
    waited
        .await
        .unwrap_or_else(|_| panic!("the level is not {wished}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_uses_what_its_oldest_host_can() {
    let seed = seed();
    let pinned = vec!["--level-max".to_owned(), "1".to_owned()];
    let options = Options {
        flags: vec![pinned.clone()],
        ..Options::default()
    };
    let mut group = Group::start(seed, options).await;
    let client = group.client().await;
    let load = Load::start(&group, seed, Duration::from_secs(30)).await;
    load.advance(100).await;
    let (_, statuses) = group.whole(&client).await;
    assert!(
        statuses.iter().all(|status| status.level == 1),
        "{statuses:#?}"
    );
    let shown = group.cli(&["status"]).await.json();
    assert_eq!(shown["level"], 1, "{shown}");
    // Who leads makes no difference.
    for at in [1, 0, 2] {
        let name = group.machines[at].name.clone();
        group
            .cli(&["member", "transfer-leader", &name])
            .await
            .json();
        load.advance(10).await;
    }

    // The upgrade.
    group.machines[0].terminate().await;
    let flags = std::mem::take(&mut group.machines[0].flags);
    assert_eq!(flags, pinned);
    group.machines[0].spawn();
    level_is(&group, &client, 2).await;
    load.advance(50).await;

    // There is no way back: the log may have what an older program cannot read.
    group.machines[1].terminate().await;
    let flags = group.machines[1].flags.clone();
    group.machines[1].flags.extend(pinned);
    group.machines[1].spawn();
    let status = group.machines[1].ended().await;
    let log = group.machines[1].log();
    assert_eq!(status.code(), Some(4), "{log}");
    assert!(log.contains("level"), "{log}");
    group.machines[1].flags = flags;
    group.machines[1].spawn();
    level_is(&group, &client, 2).await;
    let failed = load.end(&group).await;
    assert_eq!(failed, Vec::<String>::new());
}
