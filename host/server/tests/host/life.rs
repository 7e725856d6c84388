//! What a host is for: nodes, processes, and that all of it is still there after a restart.

use maitred_client::protocol::{Chooser, ProcessState, Rejection, TypeSpec};
use maitred_client::{Error, SpawnError};
use maitred_server::{Server, ServerConfig, StartError};

use crate::harness::{Group, Starter, key, node, standard_modules, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_placed_by_a_module_started_by_another_explained_and_found_after_a_restart() {
    let group = Group::new();
    let running = group.start().await;
    let client = group.client(&running).await;
    let starter = Starter::default();
    let handle = node(&client, "n1", starter.clone()).await;

    let create = client.create(key("player/ada")).args("hello");
    let created = within(create.send()).await.unwrap();
    assert!(created.created);
    assert_eq!(created.record.state, ProcessState::Running);
    assert_eq!(created.record.pid, "pid of ada");
    assert_eq!(created.record.share, b"hello");
    assert_eq!(created.record.address, "10.0.0.1:7777");
    assert_eq!(
        *starter.started.lock().unwrap(),
        [(key("player/ada"), b"hello".to_vec())]
    );
    let again = within(client.create(key("player/ada")).send())
        .await
        .unwrap();
    assert!(!again.created);

    let explained = within(client.explain(&key("player/ada"))).await.unwrap();
    let Chooser::Selector { name, version, .. } = &explained.record.why.chooser else {
        panic!("{:?}", explained.record.why);
    };
    assert_eq!((name.as_str(), *version), ("least-loaded", 1));
    let evidence = explained.evidence.expect("it was decided a moment ago");
    assert_eq!(evidence.candidates.len(), 1);
    assert!(evidence.candidates[0].chosen);

    let status = within(client.status()).await.unwrap();
    assert_eq!(
        (status.role.as_str(), status.running, status.fallbacks),
        ("leader", 1, 0)
    );
    assert_eq!(status.unavailable_modules, []);
    let modules = within(client.modules()).await.unwrap();
    assert_eq!(modules.len(), standard_modules());

    handle.kill();
    client.close().await;
    within(running.shutdown()).await.unwrap();

    let running = group.start().await;
    let client = group.client(&running).await;
    let found = within(client.get(&key("player/ada"))).await.unwrap();
    assert_eq!(found.record.incarnation, created.record.incarnation);
    assert_eq!(found.record.pid, "pid of ada");
    // Not pushed a second time.
    assert_eq!(within(client.modules()).await.unwrap(), modules);
    let explained = within(client.explain(&key("player/ada"))).await.unwrap();
    // By their text: an age that is not known is no number, and equals nothing.
    let kept = explained.evidence.unwrap();
    assert_eq!(format!("{kept:?}"), format!("{evidence:?}"));
    // And the modules decide again, without having been compiled again.
    let handle = node(&client, "n2", Starter::default()).await;
    let created = within(client.create(key("player/bob")).send())
        .await
        .unwrap();
    assert!(
        matches!(created.record.why.chooser, Chooser::Selector { .. }),
        "{created:?}"
    );
    handle.shutdown().await;
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stays_is_commanded_again_after_its_host_restarted() {
    let group = Group::new();
    let running = group.start_bare().await;
    let address = running.local_addr();
    let client = group.client(&running).await;
    let starter = Starter::default();
    let handle = node(&client, "n1", starter.clone()).await;
    let epoch = handle.epoch();
    within(running.shutdown()).await.unwrap();

    let config = ServerConfig {
        listen: address,
        standard_modules: false,
        ..group.config()
    };
    let running = Server::start(config).await.unwrap();
    let created = within(client.create(key("room/1")).send()).await.unwrap();
    assert_eq!(Some(created.record.node_epoch), epoch);
    assert_eq!(starter.started.lock().unwrap().len(), 1);
    handle.shutdown().await;
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_refuses_is_named_and_a_deleted_process_is_stopped() {
    let group = Group::new();
    let running = group.start_bare().await;
    let client = group.client(&running).await;
    let refuses = Some(SpawnError::Busy("full house".to_owned()));
    let busy = node(
        &client,
        "busy",
        Starter {
            refuses,
            ..Starter::default()
        },
    )
    .await;
    let error = within(client.create(key("room/1")).attempts(1).send())
        .await
        .unwrap_err();
    let Error::Rejected(Rejection::SpawnFailed(attempts)) = &error else {
        panic!("{error:?}");
    };
    assert_eq!(attempts.len(), 1);
    assert!(attempts[0].cause.contains("full house"), "{attempts:?}");
    busy.shutdown().await;

    let starter = Starter::default();
    let handle = node(&client, "willing", starter.clone()).await;
    within(client.create(key("room/1")).send()).await.unwrap();
    within(client.del(&key("room/1"), None)).await.unwrap();
    let stopped = async {
        while starter.stopped.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    within(stopped).await;
    assert_eq!(*starter.stopped.lock().unwrap(), [key("room/1")]);
    handle.shutdown().await;
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_is_not_there_ends_the_create_with_the_reason() {
    let group = Group::new();
    let running = group.start_bare().await;
    let client = group.client(&running).await;
    let handle = node(&client, "n1", Starter::default()).await;
    let mut spec = TypeSpec::new("room".parse().unwrap());
    spec.callback = "nosuch".parse().unwrap();
    within(client.put_type(spec)).await.unwrap();
    let error = within(client.create(key("room/1")).send())
        .await
        .unwrap_err();
    assert!(
        format!("{error:?}").contains("the callback nosuch is not available"),
        "{error:?}"
    );
    handle.shutdown().await;
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_do_not_share_a_data_directory() {
    let group = Group::new();
    let running = group.start_bare().await;
    match group.try_start().await {
        Err(error @ StartError::Storage(_)) => {
            assert!(
                error.to_string().contains("is in use by process"),
                "{error}"
            );
        }
        other => panic!("{other:?}"),
    }
    within(running.shutdown()).await.unwrap();
    // And it is free as soon as the first one has ended.
    let running = group.start_bare().await;
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_dropped_loses_nothing_and_gives_its_directory_back() {
    let group = Group::new();
    let running = group.start_bare().await;
    let client = group.client(&running).await;
    let handle = node(&client, "n1", Starter::default()).await;
    within(client.create(key("room/1")).send()).await.unwrap();
    handle.kill();
    drop(running);
    let started = async {
        loop {
            match group.try_start().await {
                Ok(running) => break running,
                Err(StartError::Storage(_)) => tokio::task::yield_now().await,
                Err(other) => panic!("{other}"),
            }
        }
    };
    let running = within(started).await;
    let client = group.client(&running).await;
    within(client.get(&key("room/1"))).await.unwrap();
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_and_leaves_the_directory_free() {
    let group = Group::new();
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let config = ServerConfig {
        listen: taken.local_addr().unwrap(),
        ..group.config()
    };
    let error = Server::start(config).await.unwrap_err();
    assert!(matches!(error, StartError::Bind(_)), "{error}");
    let running = group.start_bare().await;
    within(running.shutdown()).await.unwrap();
}
