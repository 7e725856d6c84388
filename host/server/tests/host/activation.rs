//! Which module decides: changing it costs no decision, and what is missing is said and tried again.

use std::collections::BTreeSet;

use maitred_client::Client;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use maitred_client::protocol::{Chooser, MemberRole, ModuleKind, ModuleName};
use maitred_server::{CompilerCommand, GuestConfig, Server, ServerConfig};

use crate::harness::{Group, Starter, key, node, standard_modules, within};
use crate::wire::page;

const START: &[u8] = include_bytes!("../../../../selectors/prebuilt/start.wasm");
const LEAST_LOADED: &[u8] = include_bytes!("../../../../selectors/prebuilt/least-loaded.wasm");
const SPREAD: &[u8] = include_bytes!("../../../../selectors/prebuilt/spread.wasm");

/// The same selector in other bytes: with a custom section that nobody reads.
fn variant(number: u8) -> Vec<u8> {
    [SPREAD, &[0, 3, 1, b'v', number]].concat()
}

async fn push(client: &Client, name: &ModuleName, number: u8) -> u32 {
    let bytes = variant(number);
    let push = client.push_module(name, ModuleKind::Selector, &bytes, |_| ());
    within(push).await.unwrap().1
}

/// The version that placed a new process.
async fn placed_by(client: &Client, name: &ModuleName, id: &str) -> u32 {
    let create = client.create(key(&format!("room/{id}")));
    let created = within(create.selector(name.clone()).send()).await.unwrap();
    match created.record.why.chooser {
        Chooser::Selector { version, .. } => version,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_decision_falls_back_because_of_an_activation() {
    let group = Group::new();
    let mut config = group.bare();
    // So few that versions which nobody wishes do not stay loaded.
    config.guests.modules = 4;
    let running = Server::start(config).await.unwrap();
    within(running.ready()).await.unwrap();
    let client = group.client(&running).await;
    let handle = node(&client, "n1", Starter::default()).await;
    let name: ModuleName = "mine".parse().unwrap();
    // More than may be loaded at a time: those that are not wished give way.
    let versions = 7;
    for number in 1..=versions {
        assert_eq!(push(&client, &name, number).await, u32::from(number));
    }
    for (turn, version) in [1, 3, 2, 5, 1, 7, 4].into_iter().enumerate() {
        within(client.activate_module(&name, version, None))
            .await
            .unwrap();
        for create in 0..3 {
            let id = format!("{turn}-{create}");
            assert_eq!(placed_by(&client, &name, &id).await, version);
        }
    }
    for version in [7, 1, 5, 2, 3, 1] {
        let module = within(client.rollback_module(&name)).await.unwrap();
        assert_eq!(module.active, Some(version));
        let id = format!("back-{}", module.revision.0);
        assert_eq!(placed_by(&client, &name, &id).await, version);
    }
    assert_eq!(within(client.status()).await.unwrap().fallbacks, 0);
    handle.shutdown().await;
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn saying_an_activation_twice_keeps_the_way_back_and_a_configuration_is_json() {
    let group = Group::new();
    let running = group.start_bare().await;
    let client = group.client(&running).await;
    let name: ModuleName = "mine".parse().unwrap();
    for number in 1..=2 {
        push(&client, &name, number).await;
        let activate = client.activate_module(&name, number.into(), None);
        within(activate).await.unwrap();
    }
    let first = within(client.activate_module(&name, 2, None))
        .await
        .unwrap();
    let again = within(client.activate_module(&name, 2, None))
        .await
        .unwrap();
    assert_eq!(
        (first.activated, first.previous),
        (again.activated, Some(1))
    );
    let nonsense = client.activate_module(&name, 2, Some("nonsense".to_owned()));
    let error = within(nonsense).await.unwrap_err().to_string();
    assert!(error.contains("the configuration is not JSON"), "{error}");
    let back = within(client.rollback_module(&name)).await.unwrap();
    assert_eq!(back.active, Some(1));
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_were_refused_or_removed_do_not_stay_on_the_disk() {
    let group = Group::new();
    let running = group.start_bare().await;
    let client = group.client(&running).await;
    let name: ModuleName = "mine".parse().unwrap();
    push(&client, &name, 1).await;
    push(&client, &name, 2).await;
    let stored = || {
        std::fs::read_dir(group.data_dir().join("modules"))
            .unwrap()
            .count()
    };
    assert_eq!(stored(), 2);
    let taken = client.push_module(&name, ModuleKind::Callback, START, |_| ());
    let error = within(taken).await.unwrap_err();
    assert!(error.to_string().contains("is a selector"), "{error}");
    let until = async |count| {
        while stored() != count {
            tokio::task::yield_now().await
        }
    };
    within(until(2)).await;
    within(client.remove_module(&name, 1)).await.unwrap();
    within(until(1)).await;
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selector_that_is_not_there_is_counted_as_a_fallback() {
    let group = Group::new();
    let running = group.start_bare().await;
    let client = group.client(&running).await;
    let handle = node(&client, "n1", Starter::default()).await;
    for id in 0..3 {
        let create = client.create(key(&format!("room/{id}")));
        let created = within(create.send()).await.unwrap();
        let chooser = created.record.why.chooser;
        assert!(matches!(chooser, Chooser::Fallback { .. }), "{chooser:?}");
    }
    assert_eq!(within(client.status()).await.unwrap().fallbacks, 3);
    handle.shutdown().await;
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_active_module_that_cannot_be_loaded_is_named_and_tried_again() {
    let group = Group::new();
    let running = group.start_bare().await;
    let client = group.client(&running).await;
    let name: ModuleName = "mine".parse().unwrap();
    push(&client, &name, 1).await;
    within(client.activate_module(&name, 1, None))
        .await
        .unwrap();
    push(&client, &name, 2).await;
    within(running.shutdown()).await.unwrap();
    // Their machine code is gone, and there is no compiler.
    let compiled = group.data_dir().join("compiled");
    std::fs::remove_dir_all(&compiled).unwrap();
    let compiler = group.data_dir().with_file_name("compiler");
    let config = ServerConfig {
        compiler: Some(CompilerCommand {
            program: compiler.clone(),
            args: Vec::new(),
        }),
        ..group.bare()
    };
    let running = Server::start(config).await.unwrap();
    within(running.ready()).await.unwrap();
    let client = group.client(&running).await;
    let unavailable = within(client.status()).await.unwrap().unavailable_modules;
    assert_eq!(unavailable.len(), 1, "{unavailable:?}");
    assert!(
        unavailable[0].1.contains("could not be run"),
        "{unavailable:?}"
    );
    // Nor can what cannot be run here become active.
    let error = within(client.activate_module(&name, 2, None)).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("could not be run"), "{error}");

    let real = group.config().compiler.unwrap().program;
    symlink(real, compiler).unwrap();
    let loaded = async {
        while !within(client.status())
            .await
            .unwrap()
            .unavailable_modules
            .is_empty()
        {
            tokio::task::yield_now().await;
        }
    };
    within(loaded).await;
    let handle = node(&client, "n1", Starter::default()).await;
    assert_eq!(placed_by(&client, &name, "1").await, 1);
    handle.shutdown().await;
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_modules_that_cannot_be_installed_are_named_and_tried_again() {
    let group = Group::new();
    let compiler = group.data_dir().with_file_name("compiler");
    let config = ServerConfig {
        http: Some((std::net::Ipv4Addr::LOCALHOST, 0).into()),
        compiler: Some(CompilerCommand {
            program: compiler.clone(),
            args: Vec::new(),
        }),
        ..group.config()
    };
    let running = Server::start(config).await.unwrap();
    let client = group.client(&running).await;
    let named = async {
        loop {
            let missing = within(client.status()).await.unwrap().unavailable_modules;
            if !missing.is_empty() {
                break missing;
            }
            tokio::task::yield_now().await;
        }
    };
    let missing = within(named).await;
    let names: BTreeSet<&str> = missing.iter().map(|(name, _)| name.as_str()).collect();
    assert!(
        names.contains("least-loaded") && names.contains("start"),
        "{names:?}"
    );
    let (_, why) = &missing[0];
    assert!(why.contains("could not be run"), "{why}");
    let page = page(running.http_addr().unwrap(), "/readyz").await;
    assert!(
        page.starts_with("HTTP/1.1 503") && page.contains(why),
        "{page}"
    );

    let real = group.config().compiler.unwrap().program;
    symlink(real, compiler).unwrap();
    within(running.ready()).await.unwrap();
    let status = within(client.status()).await.unwrap();
    assert_eq!(status.unavailable_modules, []);
    let modules = within(client.modules()).await.unwrap();
    assert_eq!(
        modules
            .iter()
            .filter(|module| module.active.is_some())
            .count(),
        standard_modules()
    );
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_gets_the_standard_modules_that_it_lacks_and_keeps_what_replaced_one() {
    let group = Group::new();
    let running = group.start_bare().await;
    let client = group.client(&running).await;
    let spread: ModuleName = "spread".parse().unwrap();
    // Somebody's own, under a standard name.
    push(&client, &spread, 1).await;
    within(client.activate_module(&spread, 1, None))
        .await
        .unwrap();
    within(running.shutdown()).await.unwrap();

    let running = group.start().await;
    let client = group.client(&running).await;
    let active = async || {
        let modules = within(client.modules()).await.unwrap();
        let active = modules.iter().filter(|module| module.active.is_some());
        active
            .map(|module| module.name.to_string())
            .collect::<BTreeSet<_>>()
    };
    let all = active().await;
    assert!(
        all.contains("start") && all.contains("least-loaded"),
        "{all:?}"
    );
    // One that was lost comes back, although `start` is active.
    let lost: ModuleName = "rendezvous".parse().unwrap();
    within(client.remove_module(&lost, 0)).await.unwrap();
    assert!(!active().await.contains("rendezvous"));
    within(running.shutdown()).await.unwrap();
    let running = group.start().await;
    let client = group.client(&running).await;
    let module = within(client.get_module(&lost)).await.unwrap();
    assert_eq!(module.active, Some(1));
    // The name is theirs: nothing is put beside it, which `activate` would take for the newest.
    let module = within(client.get_module(&spread)).await.unwrap();
    assert_eq!((module.active, module.versions.len()), (Some(1), 1));
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_modules_that_creates_do_not_need_do_not_hold_up_the_host() {
    let group = Group::new();
    let bare = ServerConfig {
        standard_modules: false,
        ..group.config()
    };
    let running = Server::start(bare).await.unwrap();
    within(running.ready()).await.unwrap();
    let client = group.client(&running).await;
    let needed = [
        ("start", ModuleKind::Callback, START),
        ("least-loaded", ModuleKind::Selector, LEAST_LOADED),
    ];
    for (name, kind, bytes) in needed {
        let name: ModuleName = name.parse().unwrap();
        let push = client.push_module(&name, kind, bytes, |_| ());
        within(push).await.unwrap();
        let activate = client.activate_module(&name, 1, None);
        within(activate).await.unwrap();
    }
    within(running.shutdown()).await.unwrap();

    // What they are compiled to is there, and nothing else can be compiled.
    let compiler = group.data_dir().with_file_name("compiler");
    let config = ServerConfig {
        compiler: Some(CompilerCommand {
            program: compiler.clone(),
            args: Vec::new(),
        }),
        ..group.config()
    };
    let running = Server::start(config).await.unwrap();
    within(running.ready()).await.unwrap();
    let client = group.client(&running).await;
    let missing = within(client.status()).await.unwrap().unavailable_modules;
    let names: BTreeSet<&str> = missing.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.len(), standard_modules() - needed.len(), "{names:?}");
    assert!(missing.iter().all(|(_, why)| why.contains("not installed")));
    // They are tried again, all of them.
    symlink(group.config().compiler.unwrap().program, compiler).unwrap();
    let installed = async {
        loop {
            let status = within(client.status()).await.unwrap();
            if status.unavailable_modules.is_empty() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    within(installed).await;
    let modules = within(client.modules()).await.unwrap();
    let active = modules.iter().filter(|module| module.active.is_some());
    assert_eq!(active.count(), standard_modules());
    within(running.shutdown()).await.unwrap();
}

async fn both_vote(client: &Client) {
    let voting = async {
        loop {
            let members = client.members().await.unwrap().items;
            let votes = members.iter().filter(|one| one.role == MemberRole::Voter);
            if votes.count() == 2 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    within(voting).await;
}

/// A compiler that says that it was called, and waits until it may work.
fn patient_compiler(path: &Path, real: &Path) {
    let script = format!(
        "#!/bin/sh\n: > \"$0.called\"\nwhile [ ! -e \"$0.open\" ]; do /bin/sleep 0.02; done\nexec \"{}\" \"$@\"\n",
        real.display()
    );
    std::fs::write(path, script).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_is_taken_back_while_another_module_is_being_made_ready() {
    let group = Group::new();
    let guests = GuestConfig {
        modules: 8,
        ..group.bare().guests
    };
    let bare = ServerConfig {
        guests,
        ..group.bare()
    };
    let first = Server::start(bare).await.unwrap();
    within(first.ready()).await.unwrap();
    let compiler = group.data_dir().with_file_name("compiler");
    let real = group.config().compiler.unwrap().program;
    symlink(&real, &compiler).unwrap();
    let second_config = ServerConfig {
        guests,
        compiler: Some(CompilerCommand {
            program: compiler.clone(),
            args: Vec::new(),
        }),
        ..group.joining("second", &first)
    };
    let second = Server::start(second_config.clone()).await.unwrap();
    within(second.ready()).await.unwrap();
    let client = group.client(&first).await;
    both_vote(&client).await;

    let slow: ModuleName = "slow".parse().unwrap();
    let tried: ModuleName = "tried".parse().unwrap();
    let compiled = || -> BTreeSet<_> {
        let files = std::fs::read_dir(second_config.data_dir.join("compiled")).unwrap();
        files.map(|entry| entry.unwrap().path()).collect()
    };
    push(&client, &slow, 1).await;
    let others = compiled();
    push(&client, &slow, 2).await;
    let of_it = compiled().difference(&others).next().unwrap().clone();
    push(&client, &slow, 3).await;
    for number in 4..=5 {
        push(&client, &tried, number).await;
    }
    for name in [&slow, &tried] {
        let activate = client.activate_module(name, 1, None);
        within(activate).await.unwrap();
    }
    let canary = client.activate(&tried).version(2).percent(50);
    assert!(within(canary.send()).await.unwrap().canary.is_some());

    // One host has to compile the version that is neither active nor the newest anew, and takes its time.
    within(second.shutdown()).await.unwrap();
    std::fs::remove_file(of_it).unwrap();
    std::fs::remove_file(&compiler).unwrap();
    patient_compiler(&compiler, &real);
    let second = Server::start(second_config.clone()).await.unwrap();
    within(second.ready()).await.unwrap();

    let beside = |what: &str| compiler.with_file_name(format!("compiler.{what}"));
    let activation = client.activate_module(&slow, 2, None);
    let back = async {
        while !beside("called").exists() {
            tokio::task::yield_now().await;
        }
        let back = client.rollback_module(&tried);
        let back = tokio::time::timeout(Duration::from_secs(10), back).await;
        let back = back.expect("it needs nothing").unwrap();
        assert_eq!((back.active, back.canary), (Some(1), None));
        std::fs::write(beside("open"), "").unwrap();
    };
    let (activated, ()) = within(async { tokio::join!(activation, back) }).await;
    assert_eq!(activated.unwrap().active, Some(2));
    within(second.shutdown()).await.unwrap();
    within(first.shutdown()).await.unwrap();
}
