//! Uploads: the same way in for everybody, and a no that says what is wrong.

use std::sync::{Arc, Mutex};

use maitred_client::Error;
use maitred_client::protocol::{Chooser, ModuleKind, ModuleName, Rejection, UploadStage};

use crate::harness::{Group, Starter, key, node, within};

const SPREAD: &[u8] = include_bytes!("../../../../selectors/prebuilt/spread.wasm");

fn rejected(error: &Error) -> (&str, &str) {
    match error {
        Error::Rejected(Rejection::Module { stage, reason }) => (stage, reason),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uploaded_selector_decides_once_it_is_active() {
    let group = Group::new();
    let running = group.start_bare().await;
    let client = group.client(&running).await;
    let handle = node(&client, "n1", Starter::default()).await;
    let name: ModuleName = "mine".parse().unwrap();

    let stages = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&stages);
    let progress = move |stage| seen.lock().unwrap().push(stage);
    let push = client.push_signed(&name, ModuleKind::Selector, SPREAD, None, progress);
    let pushed = within(push).await.unwrap();
    assert_eq!((pushed.version, pushed.record.active), (1, None));
    let found = pushed.findings;
    assert!(
        found.memory_bytes >= 64 << 10 && found.notes.is_empty(),
        "{found:?}"
    );
    assert!(found.decision_nanos > 0 && found.nodes == 8, "{found:?}");
    // The same bytes are the same version; what they cost is measured again.
    let again = client.push_signed(&name, ModuleKind::Selector, SPREAD, None, |_| ());
    let again = within(again).await.unwrap();
    assert_eq!((again.version, again.findings.nodes), (1, 8));
    let stages = stages.lock().unwrap().clone();
    assert!(
        stages.contains(&UploadStage::Received(SPREAD.len() as u64)),
        "{stages:?}"
    );
    assert!(stages.contains(&UploadStage::Compiling), "{stages:?}");
    assert_eq!(stages.last(), Some(&UploadStage::Recording));

    let create = client.create(key("room/1")).selector(name.clone());
    let error = within(create.send()).await.unwrap_err();
    assert!(
        error.to_string().contains("no version of mine is active"),
        "{error}"
    );
    within(client.activate_module(&name, 0, None))
        .await
        .unwrap();
    let create = client.create(key("room/1")).selector(name.clone());
    let placed = within(create.send()).await.unwrap().record;
    let Chooser::Selector {
        name: chooser,
        version,
        ..
    } = &placed.why.chooser
    else {
        panic!("{:?}", placed.why);
    };
    assert_eq!((chooser, *version), (&name, 1));

    handle.shutdown().await;
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_module_is_rejected_with_the_stage_and_the_reason() {
    let group = Group::new();
    let running = group.start_bare().await;
    let client = group.client(&running).await;
    let name = "mine".parse().unwrap();

    let push = client.push_module(&name, ModuleKind::Selector, b"not wasm at all", |_| ());
    let error = within(push).await.unwrap_err();
    assert_eq!(rejected(&error).0, "scanning");

    let push = client.push_module(&name, ModuleKind::Callback, SPREAD, |_| ());
    let error = within(push).await.unwrap_err();
    assert_ne!(rejected(&error).1, "");

    let large = vec![0; (4 << 20) + 1];
    let push = client.push_module(&name, ModuleKind::Selector, &large, |_| ());
    let error = within(push).await.unwrap_err();
    let (stage, reason) = rejected(&error);
    assert_eq!(stage, "receiving");
    assert!(
        reason.contains("upload_bytes") && reason.contains("allow_large_modules"),
        "{reason}"
    );

    assert_eq!(within(client.modules()).await.unwrap(), []);
    within(running.shutdown()).await.unwrap();
}
