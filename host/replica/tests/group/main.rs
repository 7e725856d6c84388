//! Groups of replicas, step by step: what the simulator finds by chance, these tests name.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop here"
)]

mod edges;
mod garbage;
mod group;

use group::{Group, join_of};
use maitred_protocol::{
    ClientId, MemberRole, NodeName, ProcessKey, RegisterNode, Rejection, Request, Response,
    SetProcess, Unavailable,
};
use maitred_replica::{Config, Input};

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

/// A group of one that grows: the founder, and hosts that join.
fn grown(count: u64) -> (Group, Vec<u64>) {
    let mut group = Group::new(&[1], |_| {});
    assert_eq!(group.elect(), 1);
    let mut hosts = vec![1];
    for instance in 2..=count {
        let Response::Member(member) = group.join(1, join_of(0, &format!("h{instance}"), instance))
        else {
            panic!("not taken in");
        };
        group.add(member.host, &[1], |config: &mut Config| {
            config.instance = instance;
            config.name = member.name.clone();
            config.address.clone_from(&member.address);
        });
        hosts.push(member.host);
        group.pass(1_000);
    }
    (group, hosts)
}

fn roles(group: &mut Group, at: u64) -> Vec<(u64, MemberRole)> {
    let members = group.members(at).items;
    members.iter().map(|one| (one.host, one.role)).collect()
}

#[test]
fn a_host_joins_as_a_learner_and_votes_by_itself() {
    let (mut group, hosts) = grown(3);
    let voters: Vec<_> = hosts
        .iter()
        .map(|host| (*host, MemberRole::Voter))
        .collect();
    for host in hosts {
        assert_eq!(roles(&mut group, host), voters);
    }
    group.assert_equal();
    let leader = group.elect();
    group.kill(leader);
    assert_ne!(group.elect(), leader);
}

#[test]
fn a_founder_that_starts_again_knows_that_it_is_not_alone() {
    let (mut group, hosts) = grown(3);
    group.kill(1);
    // The others go on without it.
    let leader = group.elect();
    let mut writer = Writer::new(&mut group, leader);
    group.isolate(1);
    group.start(1);
    group.pass(2_000);
    assert_eq!(group.leader_of(1), None, "it cannot lead alone");
    writer.write(&mut group, leader, "1", "p");
    group.cut.clear();
    group.pass(1_000);
    assert_eq!(pid(&group.answer(1, 0, get("1"))), "p");
    assert_eq!(hosts.len(), 3);
}

#[test]
fn a_name_that_is_taken_is_refused_and_a_join_asked_again_is_the_same_host() {
    let (mut group, hosts) = grown(2);
    let leader = group.elect();
    let refused = group.join(leader, join_of(0, "h2", 99));
    let Response::Rejected(Rejection::Conflict(text)) = refused else {
        panic!("{refused:?}");
    };
    assert!(text.contains("replace"), "{text}");
    let Response::Member(again) = group.join(leader, join_of(0, "h2", 2)) else {
        panic!("not the same");
    };
    assert_eq!(again.host, hosts[1]);
}

#[test]
fn a_lost_host_is_replaced_in_one_change() {
    let (mut group, hosts) = grown(3);
    let lost = hosts[2];
    let leader = group.elect();
    let lost = if leader == lost { hosts[1] } else { lost };
    group.kill(lost);
    let client = group.session(leader);
    let replace = Request::ReplaceMember {
        client,
        host: lost,
        address: None,
    };
    let Response::Member(new) = group.answer(leader, 2, replace) else {
        panic!("not replaced");
    };
    let taken = group.join(leader, join_of(0, new.name.as_str(), 44));
    let Response::Member(taken) = taken else {
        panic!("{taken:?}");
    };
    assert_eq!(taken.host, new.host, "it takes the announced place");
    group.add(new.host, &[1], |config: &mut Config| config.instance = 44);
    group.pass(3_000);
    let now = roles(&mut group, leader);
    assert!(now.contains(&(new.host, MemberRole::Voter)), "{now:?}");
    assert!(now.iter().all(|(host, _)| *host != lost), "{now:?}");
    // The old one, with its old disc, has no say any more.
    group.start(lost);
    group.pass(2_000);
    assert_eq!(group.leader_of(leader), Some(leader));
}

#[test]
fn a_replacement_that_is_lost_before_it_votes_is_replaced_too() {
    let (mut group, hosts) = grown(3);
    let leader = group.elect();
    let lost = hosts.iter().copied().find(|host| *host != leader).unwrap();
    group.kill(lost);
    let client = group.session(leader);
    let replace = |host| Request::ReplaceMember {
        client,
        host,
        address: None,
    };
    let member = |response| match response {
        Response::Member(member) => *member,
        other => panic!("{other:?}"),
    };
    let first = member(group.answer(leader, 2, replace(lost)));
    // It comes, and is gone before it has caught up.
    member(group.join(leader, join_of(0, first.name.as_str(), 44)));
    group.pass(3_000);
    let second = member(group.answer(leader, 3, replace(first.host)));
    assert_ne!(second.host, first.host);
    assert_eq!(second.replaces, Some(lost));
    // That one is lost as well; this time the first host is named.
    member(group.join(leader, join_of(0, second.name.as_str(), 45)));
    group.pass(3_000);
    let third = member(group.answer(leader, 4, replace(lost)));
    assert_ne!(third.host, second.host);
    member(group.join(leader, join_of(0, third.name.as_str(), 46)));
    group.add(third.host, &[1], |config: &mut Config| config.instance = 46);
    group.pass(3_000);
    let now = roles(&mut group, leader);
    assert_eq!(now.len(), 3, "{now:?}");
    assert!(now.contains(&(third.host, MemberRole::Voter)), "{now:?}");
}

#[test]
fn a_removal_that_would_lose_the_quorum_is_refused() {
    let (mut group, hosts) = grown(3);
    let leader = group.elect();
    let client = group.session(leader);
    let remove = |host| Request::RemoveMember { client, host };
    let rest: Vec<u64> = hosts
        .iter()
        .copied()
        .filter(|host| *host != leader)
        .collect();
    group.kill(rest[0]);
    group.pass(3_000);
    let refused = group.answer(leader, 2, remove(rest[1]));
    let Response::Rejected(Rejection::Conflict(text)) = refused else {
        panic!("{refused:?}");
    };
    assert!(text.contains(&rest[0].to_string()), "{text}");
    // The dead one may go, and then the other, but not the last.
    let done = group.answer(leader, 3, remove(rest[0]));
    assert!(matches!(done, Response::Done(_)), "{done:?}");
    group.pass(1_000);
    let done = group.answer(leader, 4, remove(rest[1]));
    assert!(matches!(done, Response::Done(_)), "{done:?}");
    group.pass(1_000);
    assert_eq!(roles(&mut group, leader), [(leader, MemberRole::Voter)]);
    let last = group.answer(leader, 5, remove(leader));
    assert!(
        matches!(last, Response::Rejected(Rejection::Conflict(_))),
        "{last:?}"
    );
    // Alone, it starts again by itself.
    group.kill(rest[1]);
    group.kill(leader);
    group.start(leader);
    assert_eq!(group.elect(), leader);
}

#[test]
fn one_of_two_can_be_taken_out() {
    let (mut group, hosts) = grown(2);
    let leader = group.elect();
    let client = group.session(leader);
    let host = hosts.iter().copied().find(|host| *host != leader).unwrap();
    let done = group.answer(leader, 2, Request::RemoveMember { client, host });
    assert!(matches!(done, Response::Done(_)), "{done:?}");
    group.pass(1_000);
    assert_eq!(roles(&mut group, leader), [(leader, MemberRole::Voter)]);
    assert_eq!(group.leader_of(leader), Some(leader));
}

#[test]
fn a_host_that_joins_by_a_snapshot_votes_though_nothing_happens() {
    let mut group = Group::new(&[1], |config| config.snapshot_entries = 20);
    let leader = group.elect();
    let mut writer = Writer::new(&mut group, leader);
    for turn in 0..100 {
        writer.write(&mut group, leader, "1", &turn.to_string());
    }
    let Response::Member(member) = group.join(1, join_of(0, "h2", 2)) else {
        panic!("not taken in");
    };
    group.add(member.host, &[1], |config| config.instance = 2);
    group.pass(3_000);
    assert!(group.installs > 0);
    let voter = (member.host, MemberRole::Voter);
    assert!(roles(&mut group, 1).contains(&voter));
}

#[test]
fn a_leader_that_is_to_go_hands_over_and_is_taken_out() {
    let (mut group, _) = grown(3);
    let leader = group.elect();
    let client = group.session(leader);
    let remove = Request::RemoveMember {
        client,
        host: leader,
    };
    let done = group.answer(leader, 2, remove);
    assert!(matches!(done, Response::Done(_)), "{done:?}");
    group.pass(3_000);
    let up: Vec<u64> = (1..100)
        .filter(|host| *host != leader && group.exists(*host))
        .collect();
    let roles = roles(&mut group, up[0]);
    assert!(roles.iter().all(|(host, _)| *host != leader), "{roles:?}");
    assert_eq!(roles.len(), 2);
    let now_leads = group.leader_of(up[0]).unwrap();
    assert_ne!(now_leads, leader);
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
