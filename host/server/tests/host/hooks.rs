//! What callbacks can do besides starting a process once: try again, undo, compensate, and advise.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use maitred_client::protocol::{
    Incarnation, ModuleKind, OnNodeLost, ProcessKey, ProcessRecord, ProcessState, Rejection,
    Restart, TypeSpec,
};
use maitred_client::{Client, Error, NodeHandler, SpawnError, SpawnRequest, Spawned};
use maitred_server::{Running, Server, ServerConfig};

use crate::guests::{Parts, START};
use crate::harness::{Group, Starter, key, node, within};
use crate::wire::counted;

/// A manifest with all hooks.
const ITEMS: &str = r#"
    (data (i32.const 400) "\00\00\00\00\06\00\00\00\06\00\00\00\03\00\00\00\b8\01\00\00\03\00\00\00")
    (data (i32.const 440) "\00\01\02")"#;

/// Starts, up to three times while the node refuses; a failure becomes `elsewhere`.
const THREE_TRIES: &str = "
    (local.set $n (i32.const 3))
    (loop $again
      (call $start (i32.load offset=16 (local.get $args)) (i32.load offset=20 (local.get $args))
        (i32.const 5000) (i32.const 1024))
      (local.set $n (i32.sub (local.get $n) (i32.const 1)))
      (br_if $again (i32.and (i32.load8_u (i32.const 1024)) (i32.ne (local.get $n) (i32.const 0)))))
    (if (i32.load8_u (i32.const 1024)) (then (i32.store8 (i32.const 1028) (i32.const 0))))
    (i32.const 1024)";

/// Starts, has it stopped, and answers that it runs; nonsense when it was not stopped.
const UNDOES: &str = "
    (call $start (i32.load offset=16 (local.get $args)) (i32.load offset=20 (local.get $args))
      (i32.const 5000) (i32.const 1024))
    (call $stop (i32.const 5000) (i32.const 1100))
    (if (i32.load8_u (i32.const 1100)) (then (i32.store8 (i32.const 1024) (i32.const 7))))
    (i32.const 1024)";

const STOP: &str = r#"
    (import "maitred:policy/node@0.2.0" "start" (func $start (param i32 i32 i32 i32)))
    (import "maitred:policy/node@0.2.0" "stop" (func $stop (param i32 i32)))"#;

/// Advises by the length of the reason: "bye" to give up, "here", and "back off" for 50 ms. "a trap" is
/// one, and any other the usual.
const ON_EXIT: &str = "
    (i32.store8 (i32.const 1600) (i32.const 0))
    (if (i32.eq (i32.load offset=48 (local.get $args)) (i32.const 3)) (then
      (i32.store8 (i32.const 1600) (i32.const 4))
      (i32.store (i32.const 1604) (i32.load offset=44 (local.get $args)))
      (i32.store (i32.const 1608) (i32.const 3))))
    (if (i32.eq (i32.load offset=48 (local.get $args)) (i32.const 4)) (then
      (i32.store8 (i32.const 1600) (i32.const 1))))
    (if (i32.eq (i32.load offset=48 (local.get $args)) (i32.const 8)) (then
      (i32.store8 (i32.const 1600) (i32.const 3))
      (i32.store (i32.const 1604) (i32.const 50))))
    (if (i32.eq (i32.load offset=48 (local.get $args)) (i32.const 6)) (then unreachable))
    (i32.const 1600)";

/// Advises to start it elsewhere.
const ON_NODE_LOST: &str = "
    (i32.store8 (i32.const 1600) (i32.const 2))
    (i32.const 1600)";

fn callback(body: &str, imports: &'static str) -> Vec<u8> {
    let parts = Parts {
        imports,
        items: ITEMS.to_owned(),
        describe: "(i32.const 400)".to_owned(),
        body: body.to_owned(),
        hooks: [String::new(), ON_NODE_LOST.to_owned(), ON_EXIT.to_owned()],
        ..Parts::default()
    };
    parts.callback()
}

/// A host with a type `room` that this callback starts, and whose processes come back.
async fn host(group: &Group, callback: &[u8]) -> (Running, Client) {
    let config = ServerConfig {
        http: Some((Ipv4Addr::LOCALHOST, 0).into()),
        ..group.bare()
    };
    let running = Server::start(config).await.unwrap();
    within(running.ready()).await.unwrap();
    let client = group.client(&running).await;
    let name = "mine".parse().unwrap();
    let push = client.push_module(&name, ModuleKind::Callback, callback, |_| ());
    within(push).await.unwrap();
    within(client.activate_module(&name, 1, None))
        .await
        .unwrap();
    let spec = TypeSpec {
        callback: name,
        on_node_lost: OnNodeLost::Recreate,
        restart: Restart::Fast,
        back_off_ms: 10,
        ..TypeSpec::new("room".parse().unwrap())
    };
    within(client.put_type(spec)).await.unwrap();
    (running, client)
}

/// The process as soon as it is as it should be.
async fn until(
    client: &Client,
    key: &ProcessKey,
    mut is: impl FnMut(Option<&ProcessRecord>) -> bool,
) {
    let seen = async {
        loop {
            let got = match client.get(key).await {
                Ok(found) => Some(found.record),
                Err(Error::Rejected(Rejection::NotFound(_))) => None,
                Err(error) => panic!("{error}"),
            };
            if is(got.as_ref()) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    within(seen).await;
}

/// Starts a life at its third try only.
#[derive(Clone, Default)]
struct Reluctant(Arc<Mutex<Vec<Incarnation>>>);

impl NodeHandler for Reluctant {
    async fn spawn(&self, request: SpawnRequest) -> Result<Spawned, SpawnError> {
        let mut asked = self.0.lock().unwrap();
        asked.push(request.incarnation);
        match asked.len() {
            1 => Err(SpawnError::Busy("not now".to_owned())),
            2 => Err(SpawnError::Failed("not now either".to_owned())),
            _ => Ok(Spawned {
                pid: "third".to_owned(),
                share: Vec::new(),
            }),
        }
    }

    async fn stop(&self, _: ProcessKey, _: Incarnation) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_refuses_is_tried_again_within_one_attempt() {
    let group = Group::new();
    let (running, client) = host(&group, &callback(THREE_TRIES, START)).await;
    let game = Reluctant::default();
    let builder = client.node("n1").capacity(10);
    let _node = within(builder.start(game.clone())).await.unwrap();
    let create = client.create(key("room/1")).attempts(1);
    let created = within(create.send()).await.unwrap();
    assert_eq!(created.record.state, ProcessState::Running);
    let lives = game.0.lock().unwrap().clone();
    assert_eq!(lives, [created.record.incarnation; 3]);
    assert_eq!(counted(&running, "maitred_starts_again_total").await, 2);
    assert_eq!(counted(&running, "maitred_compensations_total").await, 0);
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_callback_has_stopped_does_not_run_and_is_compensated() {
    let group = Group::new();
    let (running, client) = host(&group, &callback(UNDOES, STOP)).await;
    let game = Starter::default();
    let _node = node(&client, "n1", game.clone()).await;
    let create = client.create(key("room/1")).attempts(1);
    let error = within(create.send()).await.unwrap_err();
    let Error::Rejected(Rejection::SpawnFailed(attempts)) = &error else {
        panic!("{error}");
    };
    assert!(attempts[0].cause.contains("had it stopped"), "{error}");
    assert_eq!(*game.stopped.lock().unwrap(), [key("room/1")]);
    until(&client, &key("room/1"), |record| record.is_none()).await;
    // Its key is free at once: the node has said that nothing runs.
    let again = within(client.create(key("room/1")).attempts(1).send()).await;
    assert!(matches!(
        again,
        Err(Error::Rejected(Rejection::SpawnFailed(_)))
    ));
    assert_eq!(counted(&running, "maitred_compensations_total").await, 2);
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_attempt_that_is_given_up_is_compensated() {
    let group = Group::new();
    let (running, client) = host(&group, &callback(THREE_TRIES, START)).await;
    let game = Starter {
        refuses: Some(SpawnError::Busy("never".to_owned())),
        ..Starter::default()
    };
    let _one = node(&client, "n1", game.clone()).await;
    let _two = node(&client, "n2", game).await;
    let create = client.create(key("room/1")).attempts(2);
    let error = within(create.send()).await.unwrap_err();
    let Error::Rejected(Rejection::SpawnFailed(attempts)) = &error else {
        panic!("{error}");
    };
    assert_eq!(attempts.len(), 2, "{error}");
    assert_eq!(counted(&running, "maitred_compensations_total").await, 2);
    assert_eq!(
        counted(&running, "maitred_compensations_failed_total").await,
        0
    );
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_goes_on_as_the_callback_advises() {
    let group = Group::new();
    let (running, client) = host(&group, &callback(THREE_TRIES, START)).await;
    let handle = node(&client, "n1", Starter::default()).await;
    let _other = node(&client, "n2", Starter::default()).await;
    let room = key("room/1");
    let created = within(client.create(room.clone()).send()).await.unwrap();
    let mut life = created.record.incarnation;
    let on = created.record.node.clone();
    let ran_on = |name: &str| if name == "n1" { &handle } else { &_other };
    for (reason, stays) in [("here", true), ("back off", false), ("here", false)] {
        let at = within(client.get(&room)).await.unwrap().record.node;
        ran_on(at.as_str()).exited_because(room.clone(), life, reason);
        let mut next = life;
        until(&client, &room, |record| {
            let record = record.filter(|record| record.state == ProcessState::Running);
            let Some(record) = record.filter(|record| record.incarnation != life) else {
                return false;
            };
            next = record.incarnation;
            assert!(!stays || record.node == on, "{record:?}");
            true
        })
        .await;
        assert!(next > life);
        life = next;
    }
    let at = within(client.get(&room)).await.unwrap().record.node;
    ran_on(at.as_str()).exited_because(room.clone(), life, "bye");
    until(&client, &room, |record| record.is_none()).await;
    assert_eq!(counted(&running, "maitred_advice_total").await, 4);
    assert_eq!(counted(&running, "maitred_advice_given_up_total").await, 1);
    assert_eq!(counted(&running, "maitred_advice_failed_total").await, 0);
    // One that traps advises nothing: the usual is to forget it.
    let created = within(client.create(room.clone()).send()).await.unwrap();
    let record = created.record;
    ran_on(record.node.as_str()).exited_because(room.clone(), record.incarnation, "a trap");
    until(&client, &room, |record| record.is_none()).await;
    assert_eq!(counted(&running, "maitred_advice_failed_total").await, 1);
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_is_asked_about_and_the_process_goes_on_elsewhere() {
    let group = Group::new();
    let (running, client) = host(&group, &callback(THREE_TRIES, START)).await;
    let builder = client.node("n1").ttl(Duration::from_secs(1)).capacity(10);
    let lost = within(builder.start(Starter::default())).await.unwrap();
    let room = key("room/1");
    within(client.create(room.clone()).send()).await.unwrap();
    let _other = node(&client, "n2", Starter::default()).await;
    lost.kill();
    until(&client, &room, |record| {
        record.is_some_and(|record| {
            record.state == ProcessState::Running && record.node.as_str() == "n2"
        })
    })
    .await;
    assert_eq!(counted(&running, "maitred_advice_total").await, 1);
    assert_eq!(counted(&running, "maitred_advice_failed_total").await, 0);
    within(running.shutdown()).await.unwrap();
}
