//! Where a change of the group, a hand-over or a disk meets another at the wrong moment.

use maitred_protocol::{
    CreateOptions, CreateProcess, MemberRole, Rejection, Request, Response, Unavailable,
};
use maitred_registry::Registry;
use maitred_replica::{Answer, Config, Effect, Input, Install, Now, Recovered, Replica, Ticket};
use raft::eraftpb::{ConfState, Message, MessageType};

use crate::group::{Group, join_of};
use crate::membership::{grown, roles};
use crate::{Writer, get, key, others, three};

#[test]
fn a_leader_that_finds_itself_taken_out_leads_no_longer() {
    let mut group = three();
    let leader = group.elect();
    group.pass(500);
    let [gone, other] = others(leader);
    let client = group.session(leader);
    let remove = Request::RemoveMember { client, host: gone };
    let done = group.answer(leader, 2, remove);
    assert!(matches!(done, Response::Done(_)), "{done:?}");
    // The change reaches only the one that it takes out, and is not committed.
    group.stuck.insert(gone);
    group.cut.insert((leader.min(other), leader.max(other)));
    group.pass(120);
    group.isolate(leader);
    group.unstick(gone);
    group.pass(100);
    // Whoever has the longest log leads, and the others make its removal certain before its disk
    // has its own first entry.
    group.entries_stuck.insert(gone);
    for _ in 0..100 {
        group.pass(20);
        if group.leader_of(other) == Some(gone) {
            break;
        }
    }
    assert_eq!(group.leader_of(other), Some(gone));
    group.cut.clear();
    group.pass(60);
    group.entries_stuck.clear();
    group.unstick(gone);
    group.pass(2_000);
    let leads = group.leader_of(other);
    assert!(leads.is_some_and(|leads| leads != gone), "{leads:?}");
    assert_eq!(roles(&mut group, other).len(), 2);
}

#[test]
fn while_leadership_is_handed_over_no_lease_is_granted() {
    let mut group = Group::new(&[1, 2, 3], |config| config.lease_reads = true);
    let leader = group.elect();
    let mut writer = Writer::new(&mut group, leader);
    group.pass(500);
    let [to, _] = others(leader);
    group.stuck.insert(to);
    writer.write(&mut group, leader, "1", "p");
    // It waits for the other's disk; a round that ends meanwhile must not renew the lease.
    group.ask(leader, 0, Request::TransferLeader { to: Some(to) });
    group.answer(leader, 0, get("1"));
    group.isolate(leader);
    let read = group.ask(leader, 0, get("1"));
    assert!(
        !group.answers.contains_key(&read),
        "another may lead already"
    );
}

fn replica(id: u64, voters: &[u64]) -> Replica {
    let config = Config {
        voters: voters.to_vec(),
        ..Config::new(id)
    };
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    Replica::new(config, Recovered::default(), Now::default(), &logger).unwrap()
}

fn message(kind: MessageType, term: u64) -> Message {
    let mut message = Message::default();
    message.set_msg_type(kind);
    (message.from, message.to, message.term) = (1, 2, term);
    message
}

fn snapshot_at(index: u64) -> Input {
    let mut message = message(MessageType::MsgSnapshot, 5);
    let metadata = message.mut_snapshot().mut_metadata();
    (metadata.index, metadata.term) = (index, 4);
    metadata.set_conf_state(ConfState::from((vec![1, 2, 3], vec![])));
    let mut registry = Registry::founded(&[1, 2, 3]);
    registry.skip(index);
    Input::Install(Box::new(Install { message, registry }))
}

#[test]
fn of_two_snapshots_at_once_the_newer_one_stays() {
    let mut replica = replica(2, &[1, 2, 3]);
    replica.step(Now::default(), snapshot_at(50));
    replica.step(Now::default(), snapshot_at(40));
    replica.effects(Now::default(), &mut Vec::new());
    assert_eq!(replica.registry().applied(), 50);
}

#[test]
fn who_asked_in_the_turn_that_ends_a_host_is_answered() {
    let mut replica = replica(1, &[1]);
    let (mut effects, now) = (Vec::new(), Now::default());
    for _ in 0..3 {
        replica.effects(now, &mut effects);
        for effect in effects.drain(..) {
            if let Effect::Persist(persist) = effect {
                replica.step(now, Input::Persisted(persist.number));
            }
        }
    }
    let (ticket, request) = (Ticket(7), Request::OpenSession);
    replica.step(
        now,
        Input::Request {
            ticket,
            sequence: 1,
            request,
        },
    );
    let mut heartbeat = message(MessageType::MsgHeartbeat, 100);
    (heartbeat.from, heartbeat.to, heartbeat.commit) = (2, 1, 1_000);
    replica.step(now, Input::Peer(Box::new(heartbeat)));
    replica.effects(now, &mut effects);
    let answered = effects.iter().any(|effect| {
        matches!(effect, Effect::Reply(Ticket(7), Answer::Other(no))
            if matches!(**no, Response::Unavailable(_)))
    });
    assert!(answered, "{effects:?}");
}

#[test]
fn who_waits_for_a_first_entry_when_a_host_ends_is_answered() {
    let mut replica = replica(1, &[1]);
    let (mut effects, now) = (Vec::new(), Now::default());
    for _ in 0..3 {
        replica.effects(now, &mut effects);
        for effect in effects.drain(..) {
            // It votes for itself, and its disk does not get as far as its first entry.
            if let Effect::Persist(persist) = effect
                && persist.entries.is_empty()
            {
                replica.step(now, Input::Persisted(persist.number));
            }
        }
    }
    let (ticket, request) = (Ticket(7), Request::OpenSession);
    replica.step(
        now,
        Input::Request {
            ticket,
            sequence: 1,
            request,
        },
    );
    replica.effects(now, &mut effects);
    let answers = |effects: &[Effect]| {
        let answers = |effect: &&Effect| matches!(effect, Effect::Reply(Ticket(7), _));
        effects.iter().filter(answers).count()
    };
    assert_eq!(answers(&effects), 0, "{effects:?}");
    let mut heartbeat = message(MessageType::MsgHeartbeat, 100);
    (heartbeat.from, heartbeat.to, heartbeat.commit) = (2, 1, 1_000);
    replica.step(now, Input::Peer(Box::new(heartbeat)));
    replica.effects(now, &mut effects);
    assert_eq!(answers(&effects), 1, "{effects:?}");
}

#[test]
fn the_only_voter_can_be_replaced() {
    let (mut group, _) = grown(1);
    let client = group.session(1);
    let replace = Request::ReplaceMember {
        client,
        host: 1,
        address: Some("10.0.0.44:7600".to_owned()),
    };
    let Response::Member(new) = group.answer(1, 2, replace) else {
        panic!("not replaced");
    };
    let taken = group.join(1, join_of(0, new.name.as_str(), 44));
    assert!(matches!(taken, Response::Member(_)), "{taken:?}");
    group.add(new.host, &[1], |config: &mut Config| {
        config.instance = 44;
        config.name = new.name.clone();
        config.address = "10.0.0.44:7600".to_owned();
    });
    group.pass(5_000);
    let now = roles(&mut group, new.host);
    assert_eq!(now, [(new.host, MemberRole::Voter)]);
}

#[test]
fn a_replacement_that_is_asked_for_again_when_it_is_done_is_the_same() {
    let (mut group, hosts) = grown(3);
    let leader = group.elect();
    let lost = hosts.iter().copied().find(|host| *host != leader).unwrap();
    group.kill(lost);
    let client = group.session(leader);
    let replace = || Request::ReplaceMember {
        client,
        host: lost,
        address: None,
    };
    let Response::Member(new) = group.answer(leader, 2, replace()) else {
        panic!("not replaced");
    };
    group.join(leader, join_of(0, new.name.as_str(), 44));
    group.add(new.host, &[1], |config: &mut Config| config.instance = 44);
    group.pass(3_000);
    let Response::Member(again) = group.answer(leader, 2, replace()) else {
        panic!("another answer");
    };
    assert_eq!(again.host, new.host);
}

#[test]
fn a_learner_that_is_lost_is_replaced_too() {
    let (mut group, _) = grown(2);
    let Response::Member(lost) = group.join(1, join_of(0, "h3", 3)) else {
        panic!("not taken in");
    };
    // It is a learner, and never comes.
    group.pass(500);
    let leader = group.elect();
    let client = group.session(leader);
    let replace = Request::ReplaceMember {
        client,
        host: lost.host,
        address: None,
    };
    let Response::Member(new) = group.answer(leader, 2, replace) else {
        panic!("not replaced");
    };
    group.join(leader, join_of(0, "h3", 44));
    group.add(new.host, &[1], |config: &mut Config| config.instance = 44);
    group.pass(3_000);
    let now = roles(&mut group, leader);
    assert!(now.contains(&(new.host, MemberRole::Voter)), "{now:?}");
    assert!(now.iter().all(|(host, _)| *host != lost.host), "{now:?}");
}

#[test]
fn a_member_that_is_to_go_does_not_come_back_by_saying_where_it_is() {
    let (mut group, hosts) = grown(3);
    let leader = group.elect();
    let host = hosts.iter().copied().find(|host| *host != leader).unwrap();
    let client = group.session(leader);
    let instance = group.members_wanted(leader)[&host].instance;
    let name = group.members_wanted(leader)[&host].name.clone();
    let done = group.answer(leader, 2, Request::RemoveMember { client, host });
    assert!(matches!(done, Response::Done(_)), "{done:?}");
    let mut join = join_of(host, name.as_str(), instance);
    join.address = "10.9.9.9:7600".to_owned();
    let later = group.join(leader, join.clone());
    assert!(
        matches!(later, Response::Unavailable(Unavailable::Overloaded(_))),
        "its own word may be needed until it has gone: {later:?}"
    );
    group.pass(1_000);
    assert_eq!(roles(&mut group, leader).len(), 2);
    let refused = group.join(leader, join);
    assert!(
        matches!(refused, Response::Rejected(Rejection::NotFound(_))),
        "{refused:?}"
    );
}

#[test]
fn the_level_waits_for_a_member_that_is_still_to_be_taken_in() {
    let mut group = Group::new(&[1], |config| config.level_max = 1);
    assert_eq!(group.elect(), 1);
    group.kill(1);
    group.set_level(1, 2);
    group.start(1);
    // An older program comes before the first look at the group.
    let older = maitred_protocol::Join {
        level_max: 1,
        ..join_of(0, "h2", 2)
    };
    let taken = group.join(1, older);
    assert!(matches!(taken, Response::Member(_)), "{taken:?}");
    group.pass(1_000);
    assert_eq!(group.members(1).level, 1);
}

#[test]
fn what_waited_for_a_round_is_proposed_at_once() {
    let mut group = Group::new(&[1], |_| {});
    group.elect();
    let before = group.now;
    let taken = group.join(1, join_of(0, "h2", 2));
    assert!(matches!(taken, Response::Member(_)), "{taken:?}");
    assert_eq!(group.now, before, "no tick was needed");
}

#[test]
fn a_leader_that_has_been_deposed_says_no_to_no_create() {
    let mut group = three();
    let leader = group.elect();
    let [other, _] = others(leader);
    group.isolate(leader);
    group.paused.insert(leader);
    group.pass(2_000);
    let next = group.leader_of(other).unwrap();
    let client = group.session(next);
    // It goes on, and has not heard of anything yet.
    let create = CreateProcess {
        key: key("1"),
        args: Vec::new(),
        selector: None,
        callback: None,
        options: CreateOptions::default(),
    };
    let asked = group.ask(leader, 1, Request::CreateProcess(client, Box::new(create)));
    assert!(
        !group.answers.contains_key(&asked),
        "{:?}",
        group.answers[&asked]
    );
    group.paused.clear();
    group.cut.clear();
    group.pass(1_000);
    let answer = &group.answers[&asked];
    let expected = matches!(answer, Response::Unavailable(Unavailable::NotLeader { .. }));
    assert!(expected, "{answer:?}");
}

#[test]
fn what_a_leader_ends_while_a_hand_over_fails_ends() {
    let mut group = three();
    let leader = group.elect();
    let mut writer = Writer::new(&mut group, leader);
    writer.write(&mut group, leader, "1", "p");
    group.pass(61_100);
    let [to, _] = others(leader);
    group.stuck.insert(to);
    writer.write(&mut group, leader, "1", "q");
    // The node's lease ends while the other's disk is waited for.
    let handed = group.ask(leader, 0, Request::TransferLeader { to: Some(to) });
    group.pass(300);
    assert!(!group.answers.contains_key(&handed), "still under way");
    group.pass(3_000);
    assert_eq!(group.leader_of(leader), Some(leader), "it has failed");
    group.unstick(to);
    group.pass(500);
    let gone = group.answer(leader, 0, get("1"));
    let gone = matches!(gone, Response::Rejected(Rejection::NotFound(_)));
    assert!(gone, "the node's session has ended");
}

#[test]
fn a_host_that_has_nothing_yet_does_not_vote() {
    let (mut group, _) = grown(2);
    let Response::Member(member) = group.join(1, join_of(0, "h3", 3)) else {
        panic!("not taken in");
    };
    group.stuck.insert(member.host);
    group.add(member.host, &[1], |config: &mut Config| {
        config.instance = 3;
        config.name = member.name.clone();
        config.address.clone_from(&member.address);
    });
    // It answers heartbeats, and its disk has written nothing.
    group.pass(1_000);
    let role = (member.host, MemberRole::Learner);
    assert!(roles(&mut group, 1).contains(&role));
    group.unstick(member.host);
    group.pass(1_000);
    let role = (member.host, MemberRole::Voter);
    assert!(roles(&mut group, 1).contains(&role));
}
