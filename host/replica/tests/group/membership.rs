//! Hosts that join a group, take another one's place in it, and are taken out of it.

use maitred_protocol::{MemberRole, Rejection, Request, Response};
use maitred_replica::Config;

use crate::group::{Group, join_of};
use crate::{Writer, get, pid};

/// A group of one that grows: the founder, and hosts that join.
pub(crate) fn grown(count: u64) -> (Group, Vec<u64>) {
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

pub(crate) fn roles(group: &mut Group, at: u64) -> Vec<(u64, MemberRole)> {
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
