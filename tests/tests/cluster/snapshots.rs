//! Snapshots over the wire, and in the hands of operators.

use std::time::Duration;

use maitred_client::Client;
use maitred_protocol::{Incarnation, ProcessKey, Status};

use crate::group::load::Load;
use crate::group::{Group, Machine, Options, PATIENCE, game, seed};

/// As small as it goes.
const CONFIG: &str = "[snapshot]\nentries = 1000\n";

fn options() -> Options {
    Options {
        config: Some(CONFIG),
        ..Options::default()
    }
}

/// The last index that is no longer in the log.
fn compacted(status: &Status) -> u64 {
    status.commit.saturating_sub(status.log_entries)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_was_away_for_long_fetches_a_snapshot() {
    let seed = seed();
    let mut group = Group::start(seed, options()).await;
    let client = group.client().await;
    let load = Load::start(&group, seed, Duration::from_secs(30)).await;
    load.advance(20).await;
    let (leader, statuses) = group.whole(&client).await;
    let away = (leader + 1) % 3;
    let had = statuses[away].commit;
    group.machines[away].kill();
    let mut batch = 0;
    loop {
        load.fill(batch, 300).await;
        batch += 1;
        let (_, statuses) = group.whole(&client).await;
        // Whoever leads when it comes back, the log alone will not do.
        if statuses.iter().all(|status| compacted(status) > had + 100) {
            break;
        }
        assert!(batch < 60, "the log is never cut: {statuses:#?}");
    }
    group.machines[away].spawn();
    let (_, statuses) = group.whole(&client).await;
    let back = &statuses[away];
    assert!(back.snapshot > had, "{back:?}");
    let log = group.machines[away].whole_log();
    assert!(log.contains("a snapshot was fetched and loaded"), "{log}");
    load.advance(20).await;

    // It can lead, with what it has fetched.
    let name = group.machines[away].name.clone();
    group
        .cli(&["member", "transfer-leader", &name])
        .await
        .json();
    load.advance(20).await;
    let failed = load.end(&group).await;
    assert_eq!(failed, Vec::<String>::new());
}

fn key(id: &str) -> ProcessKey {
    ProcessKey::new("player", id).unwrap()
}

async fn create(client: &Client, id: &str) -> Incarnation {
    let made = client.create(key(id)).deadline(PATIENCE).send().await;
    made.unwrap().record.incarnation
}

/// What restores the snapshot in `file` into `folder`, for a host of that name.
fn restore<'a>(file: &'a str, folder: &'a str, name: &'a str) -> [&'a str; 7] {
    [
        "snapshot",
        "restore",
        file,
        "--data-dir",
        folder,
        "--name",
        name,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_saved_looked_into_and_restored() {
    let mut group = Group::start(seed(), options()).await;
    let client = group.client().await;
    let book = game::SharedBook::default();
    let node = game::start(&client, "node-1", &book).await;
    let kept = create(&client, "kept").await;
    create(&client, "gone").await;
    client.del(&key("gone"), None).await.unwrap();

    let path = |name: &str| group.folder().join(name).to_str().unwrap().to_owned();
    let file = path("backup.snap");
    let saved = group.cli(&["snapshot", "save", &file]).await.json();
    let again = group.cli(&["snapshot", "save", &file]).await;
    assert_eq!(again.code, Some(4), "written over: {again:?}");
    let inside = group.cli(&["snapshot", "inspect", &file]).await.json();
    assert_eq!(inside["index"], saved["index"]);
    assert_eq!(inside["bytes"], saved["bytes"]);
    assert_eq!(inside["running"], "1", "{inside}");
    assert_eq!(inside["members"].as_array().unwrap().len(), 3, "{inside}");

    // Cut short, or altered in any place: not a snapshot.
    let bytes = std::fs::read(&file).unwrap();
    for at in [0, bytes.len() / 2, bytes.len() - 1] {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        for (name, bad) in [("altered", &bad[..]), ("short", &bytes[..at])] {
            let (file, folder) = (path(name), path("never"));
            std::fs::write(&file, bad).unwrap();
            let ended = group.cli(&["snapshot", "inspect", &file]).await;
            assert_ne!(ended.code, Some(0), "{name} at {at}: {ended:?}");
            let ended = group.cli(&restore(&file, &folder, "r")).await;
            assert_ne!(ended.code, Some(0), "{name} at {at}: {ended:?}");
            let made = std::fs::read_dir(&folder).is_ok_and(|mut files| files.next().is_some());
            assert!(!made, "{name} at {at}: something was restored");
        }
    }

    // Not over a host's directory, whether it runs or not; and it does not mind.
    let folder = group.machines[0].data().to_str().unwrap().to_owned();
    let args = restore(&file, &folder, "a");
    let running = group.cli(&args).await;
    assert_ne!(running.code, Some(0), "{running:?}");
    create(&client, "later").await;
    group.machines[0].terminate().await;
    let stopped = group.cli(&args).await;
    assert_ne!(stopped.code, Some(0), "{stopped:?}");
    group.machines[0].spawn();
    group.whole(&client).await;
    let last = create(&client, "last").await;

    let seed = 1;
    let mut alone = Machine::new(group.folder(), "restored", &group.authority, seed).await;
    let (modules, folder) = (group.machines[0].data(), alone.data());
    let [modules, folder] = [&modules, &folder].map(|path| path.to_str().unwrap());
    let args = restore(&file, folder, "restored");
    let args = [&args[..], &["--modules-from", modules]].concat();
    let restored = group.cli(&args).await.json();
    assert_eq!(
        restored["modules_missing"],
        serde_json::json!([]),
        "{restored}"
    );
    node.kill();
    group.machines.iter_mut().for_each(Machine::kill);
    alone.spawn();
    let client = group.client_of(&alone).await;
    let found = client.get(&key("kept")).await.unwrap();
    assert_eq!(found.record.incarnation, kept, "what was saved is there");
    // What came after is not, and no incarnation that it had can be given again. The node comes back
    // with nothing: what it had is forgotten.
    assert!(client.get(&key("last")).await.is_err());
    let book = game::SharedBook::default();
    let _node = game::start(&client, "node-1", &book).await;
    for id in ["kept", "gone", "last", "new"] {
        let life = create(&client, id).await;
        assert!(life > last, "{id}: {life} after {last}\n{}", alone.log());
    }
}
