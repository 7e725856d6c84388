//! The active selector is swapped again and again under load.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use maitred_client::Client;
use maitred_protocol::{
    Chooser, Digest, Incarnation, ModuleKind, ModuleName, ProcessKey, TypeName, TypeSpec,
};

use crate::host::Host;
use crate::nodes::{self, Shared};

const SWAPS: usize = 100;
const CREATORS: u64 = 16;

async fn creator(
    client: Client,
    number: u64,
    stop: Arc<AtomicBool>,
    made: Arc<Mutex<Vec<(Incarnation, Chooser)>>>,
) {
    let mut turn = 0_u64;
    while !stop.load(Relaxed) {
        turn += 1;
        let key = ProcessKey::new("player", &format!("{number}-{turn}")).unwrap();
        let created = client
            .create(key)
            .send()
            .await
            .expect("no create fails for a swap");
        made.lock()
            .unwrap()
            .push((created.record.incarnation, created.record.why.chooser));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_swap_under_load_fails_no_create_and_takes_effect_in_order() {
    let host = Host::start().await;
    let client = host.client().await;
    let nodes = nodes::start(&host, 3, &Shared::default()).await;
    let policy = ModuleName::new("policy").unwrap();
    let prebuilt = concat!(env!("CARGO_MANIFEST_DIR"), "/../selectors/prebuilt");
    let mut digests: Vec<Digest> = Vec::new();
    for (file, expected) in [("least-loaded", 1), ("two-choices", 2)] {
        let bytes = std::fs::read(format!("{prebuilt}/{file}.wasm")).unwrap();
        let pushed = client
            .push_module(&policy, ModuleKind::Selector, &bytes, |_| {})
            .await
            .unwrap();
        assert_eq!(pushed.1, expected);
        digests.push(Digest::of(&bytes));
    }
    let first = client.activate_module(&policy, 1, None).await.unwrap();
    let mut activations = vec![(first.activated.0, 1_u32)];
    let spec = TypeSpec {
        selector: policy.clone(),
        ..TypeSpec::new(TypeName::new("player").unwrap())
    };
    client.put_type(spec).await.unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let made = Arc::new(Mutex::new(Vec::new()));
    let creators: Vec<_> = (0..CREATORS)
        .map(|number| {
            tokio::spawn(creator(
                client.clone(),
                number,
                Arc::clone(&stop),
                Arc::clone(&made),
            ))
        })
        .collect();
    for swap in 0..SWAPS {
        // Each version decides something before the next swap.
        let before = made.lock().unwrap().len();
        while made.lock().unwrap().len() < before + 20 {
            assert!(
                creators.iter().all(|creator| !creator.is_finished()),
                "a creator gave up\n{}",
                host.log()
            );
            tokio::task::yield_now().await;
        }
        let version = if swap % 2 == 0 { 2 } else { 1 };
        let module = if swap % 10 == 9 {
            client.rollback_module(&policy).await.unwrap()
        } else {
            client
                .activate_module(&policy, version, None)
                .await
                .unwrap()
        };
        activations.push((module.activated.0, module.active.unwrap()));
    }
    stop.store(true, Relaxed);
    for creator in creators {
        creator.await.unwrap();
    }

    let made = made.lock().unwrap();
    let mut decided = [0_u32; 2];
    for (incarnation, chooser) in made.iter() {
        let Chooser::Selector {
            version, digest, ..
        } = chooser
        else {
            panic!("incarnation {incarnation} was not placed by the selector: {chooser:?}");
        };
        let active = activations
            .iter()
            .rev()
            .find(|(at, _)| *at < incarnation.0)
            .map(|(_, v)| *v);
        assert_eq!(
            active,
            Some(*version),
            "incarnation {incarnation} by a version that was not active"
        );
        assert_eq!(*digest, digests[*version as usize - 1]);
        decided[*version as usize - 1] += 1;
    }
    println!(
        "{} creates over {SWAPS} swaps, by version {decided:?}",
        made.len()
    );
    assert!(
        decided.iter().all(|count| *count > 0),
        "both versions decided: {decided:?}"
    );
    for node in nodes {
        node.kill();
    }
}
