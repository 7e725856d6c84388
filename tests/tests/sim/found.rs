//! What the simulator found and only decisions can show, step by step on one host.

use maitred_protocol::{
    CreateOptions, CreateProcess, NodeEpoch, NodeName, OnConflict, ProcessKey, RegisterNode,
    Request, Response, SetProcess,
};
use maitred_replica::Spawned;
use maitred_tests::driver::{Driver, Seen};

fn name(name: &str) -> NodeName {
    NodeName::new(name).expect("a valid name")
}

fn answer(driver: &Driver, ticket: u64) -> Option<&Response> {
    driver.seen.iter().find_map(|seen| match seen {
        Seen::Reply(to, response) if *to == ticket => Some(&**response),
        _ => None,
    })
}

fn register(driver: &mut Driver, ticket: u64, node: &str, capacity: u32) -> NodeEpoch {
    let register = RegisterNode {
        name: name(node),
        types: Vec::new(),
        address: String::new(),
        labels: Vec::new(),
        capacity,
        share: Vec::new(),
        ttl_ms: 60_000,
        inventory: Vec::new(),
        kill_bound_ms: 1_000,
        instance: ticket,
        last_epoch: None,
    };
    let request = Request::RegisterNode(driver.client, Box::new(register));
    driver.request(ticket, ticket, request);
    match answer(driver, ticket) {
        Some(Response::Registered { epoch, .. }) => *epoch,
        other => panic!("not registered: {other:?}"),
    }
}

/// A node registers the key before the create's reservation, and is gone before it, too: the create
/// that was told "it exists" must not take effect afterwards.
#[test]
fn a_create_is_not_refused_while_its_reservation_is_on_its_way() {
    let mut driver = Driver::ready(Driver::config());
    let (client, key) = (
        driver.client,
        ProcessKey::new("room", "1").expect("a valid key"),
    );
    let epoch = register(&mut driver, 20, "a", 2);
    register(&mut driver, 21, "b", 10);
    (driver.hold_persist, driver.hold_select) = (true, true);
    let set = SetProcess {
        key: key.clone(),
        node: name("a"),
        epoch,
        pid: "p".to_owned(),
        share: Vec::new(),
        incarnation: None,
    };
    driver.request(22, 22, Request::SetProcess(client, Box::new(set)));
    let create = CreateProcess {
        key: key.clone(),
        args: Vec::new(),
        selector: None,
        callback: None,
        options: CreateOptions {
            on_conflict: OnConflict::Fail,
            deadline_ms: 5_000,
            demand: 5,
            ..CreateOptions::default()
        },
    };
    driver.request(23, 23, Request::CreateProcess(client, Box::new(create)));
    let deregister = Request::DeregisterNode {
        client,
        name: name("a"),
        epoch,
    };
    driver.request(24, 24, deregister);
    // The decision is about the node that stays (the other has no room), and comes last.
    driver.release_selects();
    driver.release_persists();
    assert!(matches!(
        answer(&driver, 22),
        Some(Response::Process { .. })
    ));
    assert!(matches!(answer(&driver, 24), Some(Response::Done(_))));
    let started = Spawned::Started {
        pid: "q".to_owned(),
        share: Vec::new(),
    };
    let spawned = driver.spawned(&key, started, false);
    assert!(spawned, "{:?}", driver.seen);
    let told = answer(&driver, 23);
    let made = matches!(told, Some(Response::Created { created: true, .. }));
    assert!(made, "{told:?}");
}
