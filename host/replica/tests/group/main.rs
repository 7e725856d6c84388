//! Groups of replicas, step by step: what the simulator finds by chance, these tests name.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop here"
)]

mod arrivals;
mod early;
mod edges;
mod expiry;
mod garbage;
mod group;
mod membership;

use group::Group;
use maitred_protocol::{
    ClientId, NodeName, ProcessKey, RegisterNode, Request, Response, SetProcess, Unavailable,
};
use maitred_replica::Input;

fn three() -> Group {
    Group::new(&[1, 2, 3], |_| {})
}

fn key(id: &str) -> ProcessKey {
    ProcessKey::new("player", id).unwrap()
}

fn register(client: ClientId) -> Request {
    let register = RegisterNode {
        name: NodeName::new("a").unwrap(),
        types: Vec::new(),
        address: String::new(),
        labels: Vec::new(),
        capacity: 1_000,
        share: Vec::new(),
        ttl_ms: 60_000,
        inventory: Vec::new(),
        kill_bound_ms: 1_000,
        instance: 1,
        last_epoch: None,
    };
    Request::RegisterNode(client, Box::new(register))
}

/// A node, and what registers a process on it.
struct Writer {
    client: ClientId,
    epoch: maitred_protocol::NodeEpoch,
    sequence: u64,
}

impl Writer {
    fn new(group: &mut Group, leader: u64) -> Self {
        let client = group.session(leader);
        let Response::Registered { epoch, .. } = group.answer(leader, 2, register(client)) else {
            panic!("not registered");
        };
        Self {
            client,
            epoch,
            sequence: 2,
        }
    }

    fn set(&mut self, id: &str, pid: &str) -> (u64, Request) {
        self.sequence += 1;
        let set = SetProcess {
            key: key(id),
            node: NodeName::new("a").unwrap(),
            epoch: self.epoch,
            pid: pid.to_owned(),
            share: Vec::new(),
            incarnation: None,
        };
        let request = Request::SetProcess(self.client, Box::new(set));
        (self.sequence, request)
    }

    fn write(&mut self, group: &mut Group, at: u64, id: &str, pid: &str) -> Response {
        let (sequence, request) = self.set(id, pid);
        group.answer(at, sequence, request)
    }
}

fn get(id: &str) -> Request {
    Request::GetProcess {
        key: key(id),
        stale: false,
    }
}

fn pid(response: &Response) -> &str {
    match response {
        Response::Process { record, .. } => &record.pid,
        other => panic!("{other:?}"),
    }
}

fn others(leader: u64) -> [u64; 2] {
    match leader {
        1 => [2, 3],
        2 => [1, 3],
        _ => [1, 2],
    }
}

#[test]
fn a_write_is_on_all_hosts_and_any_of_them_reads_it() {
    let mut group = three();
    let leader = group.elect();
    let mut writer = Writer::new(&mut group, leader);
    assert_eq!(pid(&writer.write(&mut group, leader, "1", "p")), "p");
    for host in 1..=3 {
        assert_eq!(pid(&group.answer(host, 0, get("1"))), "p", "host {host}");
    }
    group.pass(100);
    group.assert_equal();
}

#[test]
fn a_follower_refuses_writes_and_names_the_leader() {
    let mut group = three();
    let leader = group.elect();
    let [follower, _] = others(leader);
    let answer = group.answer(follower, 1, Request::OpenSession);
    let address = Some(format!("10.0.0.{leader}:7600"));
    // The address is known once the leader has announced itself.
    let expected = Unavailable::NotLeader { leader: address };
    assert_eq!(answer, Response::Unavailable(expected));
}

#[test]
fn another_host_leads_when_the_leader_dies_and_nothing_acknowledged_is_lost() {
    let mut group = three();
    let leader = group.elect();
    let mut writer = Writer::new(&mut group, leader);
    writer.write(&mut group, leader, "1", "p");
    group.kill(leader);
    let next = group.elect();
    assert_ne!(next, leader);
    assert_eq!(pid(&group.answer(next, 0, get("1"))), "p");
    writer.write(&mut group, next, "2", "q");
    group.start(leader);
    group.pass(500);
    group.assert_equal();
}

#[test]
fn a_leader_that_is_cut_off_answers_no_read_and_its_writes_are_unknown() {
    let mut group = three();
    let leader = group.elect();
    let mut writer = Writer::new(&mut group, leader);
    writer.write(&mut group, leader, "1", "old");
    group.isolate(leader);
    let (sequence, request) = writer.set("1", "lost");
    let write = group.ask(leader, sequence, request);
    let read = group.ask(leader, 0, get("1"));
    // Long enough for the others to elect, not for this one to notice.
    group.pass(160);
    assert_eq!(group.answers.get(&read), None, "a read without a quorum");
    group.pass(3_000);
    assert!(matches!(group.answers[&read], Response::Unavailable(_)));
    let [one, _] = others(leader);
    let next = group.leader_of(one).unwrap();
    assert_ne!(next, leader);
    writer.write(&mut group, next, "1", "new");
    group.cut.clear();
    group.pass(1_000);
    assert!(matches!(group.answers[&write], Response::Unknown(_)));
    assert_eq!(pid(&group.answer(leader, 0, get("1"))), "new");
    group.assert_equal();
}

#[test]
fn a_retry_at_the_next_leader_takes_effect_once() {
    let mut group = three();
    let leader = group.elect();
    let mut writer = Writer::new(&mut group, leader);
    let first = writer.write(&mut group, leader, "1", "p");
    group.kill(leader);
    let next = group.elect();
    writer.sequence -= 1;
    let again = writer.write(&mut group, next, "1", "p");
    let incarnation = |response: &Response| match response {
        Response::Process { record, .. } => (record.incarnation, record.revision),
        other => panic!("{other:?}"),
    };
    assert_eq!(incarnation(&first), incarnation(&again));
}

#[test]
fn a_stuck_disk_of_a_follower_makes_nobody_slower_and_of_a_leader_costs_it_the_lead() {
    let mut group = three();
    let leader = group.elect();
    let mut writer = Writer::new(&mut group, leader);
    let [follower, _] = others(leader);
    group.stuck.insert(follower);
    writer.write(&mut group, leader, "1", "p");
    group.pass(1_000);
    assert_eq!(group.leader_of(follower), Some(leader), "it still hears");
    group.unstick(follower);
    group.stuck.insert(leader);
    let (sequence, request) = writer.set("2", "q");
    let write = group.ask(leader, sequence, request);
    group.pass(2_500);
    let next = group.leader_of(follower).unwrap();
    assert_ne!(next, leader, "the lead is handed over");
    writer.write(&mut group, next, "3", "r");
    group.unstick(leader);
    group.pass(500);
    assert_eq!(pid(&group.answers[&write]), "q", "the others had it");
    group.assert_equal();
}

#[test]
fn a_host_that_was_away_for_long_fetches_a_snapshot() {
    let mut group = Group::new(&[1, 2, 3], |config| config.snapshot_entries = 20);
    let leader = group.elect();
    let mut writer = Writer::new(&mut group, leader);
    let [away, _] = others(leader);
    group.kill(away);
    for turn in 0..100 {
        writer.write(
            &mut group,
            leader,
            &(turn % 7).to_string(),
            &turn.to_string(),
        );
    }
    group.start(away);
    group.pass(2_000);
    assert!(group.installs > 0);
    group.assert_equal();
    // A leader that has not heard so is told that it has it already.
    let installed = group.installs;
    group.offer_again(leader, away);
    assert!(group.installs > installed);
    let (sequence, request) = writer.set("8", "after");
    group.ask(leader, sequence, request);
    group.pass(200);
    group.assert_equal();
    // And what it has installed, it can start from.
    group.kill(away);
    group.start(away);
    group.pass(500);
    group.assert_equal();
}

#[test]
fn leadership_is_handed_over_when_asked_and_at_shutdown() {
    let mut group = three();
    let leader = group.elect();
    let [to, _] = others(leader);
    let answer = group.answer(leader, 0, Request::TransferLeader { to: Some(to) });
    assert!(matches!(answer, Response::Done(_)), "{answer:?}");
    assert_eq!(group.elect(), to);
    group.step(to, Input::Shutdown);
    group.pass(100);
    let next = group.leader_of(leader).unwrap();
    assert_ne!(next, to, "handed over long before an election time-out");
}

#[test]
fn the_level_rises_when_everybody_knows_it() {
    let mut group = Group::new(&[1, 2, 3], |config| {
        config.level_max = if config.id == 3 { 1 } else { 2 };
    });
    let leader = group.elect();
    group.pass(1_000);
    assert_eq!(group.members(leader).level, 1);
    let client = group.session(leader);
    let done = group.answer(leader, 2, Request::CloseSession(client));
    assert!(matches!(done, Response::Done(_)), "a courtesy: {done:?}");
    group.kill(3);
    group.set_level(3, 2);
    group.start(3);
    group.pass(1_000);
    let leader = group.elect();
    group.pass(1_000);
    assert_eq!(group.members(leader).level, 2);
    group.assert_equal();
}

#[test]
fn a_leader_with_a_lease_answers_at_once_and_not_when_it_is_over() {
    let mut group = Group::new(&[1, 2, 3], |config| config.lease_reads = true);
    let leader = group.elect();
    let mut writer = Writer::new(&mut group, leader);
    writer.write(&mut group, leader, "1", "p");
    // A round grants the lease; after that a read needs nobody.
    group.answer(leader, 0, get("1"));
    group.isolate(leader);
    let read = group.ask(leader, 0, get("1"));
    assert!(group.answers.contains_key(&read), "within the lease");
    group.pass(140);
    let read = group.ask(leader, 0, get("1"));
    assert!(!group.answers.contains_key(&read), "the lease is over");
}

#[test]
fn all_hosts_start_again_with_what_they_had() {
    let mut group = three();
    let leader = group.elect();
    let mut writer = Writer::new(&mut group, leader);
    writer.write(&mut group, leader, "1", "p");
    for host in 1..=3 {
        group.kill(host);
    }
    for host in 1..=3 {
        group.start(host);
    }
    let next = group.elect();
    assert_eq!(pid(&group.answer(next, 0, get("1"))), "p");
    assert!(group.disc(next).snapshots.is_empty());
    group.pass(500);
    group.assert_equal();
    assert_eq!(group.replica(next).registry().level(), 2);
}
