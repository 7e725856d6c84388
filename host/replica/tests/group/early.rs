//! What comes to a host between its election and its first entry: it waits, and is answered once.

use std::collections::BTreeMap;

use maitred_protocol::{Request, Response, Unavailable};
use maitred_replica::Input;

use crate::group::Group;
use crate::{Writer, get, others, pid, three};

/// Requests that may wait.
const EARLY_MAX: usize = 4_096;

/// A group whose leader has died, and another been elected that cannot write its first entry: the
/// writer, that one, and the third.
fn elected() -> (Group, Writer, u64, u64) {
    let mut group = three();
    let leader = group.elect();
    let mut writer = Writer::new(&mut group, leader);
    writer.write(&mut group, leader, "1", "p");
    group.pass(100);
    let rest = others(leader);
    group.entries_stuck.extend(rest);
    group.kill(leader);
    for _ in 0..100 {
        group.pass(20);
        if let Some(next) = rest
            .into_iter()
            .find(|at| group.leader_of(*at) == Some(*at))
        {
            let third = rest.into_iter().find(|at| *at != next).unwrap();
            return (group, writer, next, third);
        }
    }
    panic!("nobody is elected");
}

/// A change, a read, and what only a leader can say.
fn ask_all(group: &mut Group, writer: &mut Writer, at: u64) -> [u64; 3] {
    let (sequence, set) = writer.set("2", "q");
    [
        group.ask(at, sequence, set),
        group.ask(at, 0, get("1")),
        group.ask(at, 1, Request::OpenSession),
    ]
}

fn assert_unanswered(group: &Group, tickets: &[u64]) {
    for ticket in tickets {
        assert_eq!(group.answers.get(ticket), None, "ticket {ticket}");
    }
}

/// The disks go on, and so does everybody; nobody is answered once more, or otherwise.
fn assert_answered_once(mut group: Group) {
    let before: BTreeMap<_, _> = group.answers.clone();
    group.cut.clear();
    write_again(&mut group);
    group.pass(2_000);
    for (ticket, answer) in before {
        assert_eq!(group.answers[&ticket], answer);
    }
}

fn write_again(group: &mut Group) {
    group.entries_stuck.clear();
    for host in 1..=3 {
        if group.is_up(host) {
            group.unstick(host);
        }
    }
}

#[test]
fn who_asks_before_the_first_entry_is_answered_after_it() {
    let (mut group, mut writer, next, _) = elected();
    let tickets = ask_all(&mut group, &mut writer, next);
    group.pass(300);
    assert_unanswered(&group, &tickets);
    assert_eq!(group.leader_of(next), Some(next), "it can be looked at");
    write_again(&mut group);
    group.pass(40);
    let [set, read, session] = tickets.map(|ticket| group.answers[&ticket].clone());
    assert_eq!((pid(&set), pid(&read)), ("q", "p"));
    assert!(matches!(session, Response::Session(_)), "{session:?}");
    assert_answered_once(group);
}

#[test]
fn who_asked_a_leader_that_never_served_is_sent_away() {
    let (mut group, mut writer, next, _) = elected();
    let tickets = ask_all(&mut group, &mut writer, next);
    group.isolate(next);
    group.pass(100);
    assert_unanswered(&group, &tickets);
    // It notices that nobody hears it.
    group.pass(500);
    for ticket in tickets {
        let expected = Unavailable::NotLeader { leader: None };
        assert_eq!(group.answers[&ticket], Response::Unavailable(expected));
    }
    assert_answered_once(group);
}

#[test]
fn who_asked_a_leader_that_another_deposes_is_told_of_that_one() {
    let (mut group, mut writer, next, third) = elected();
    let tickets = ask_all(&mut group, &mut writer, next);
    // No time passes for it: what it hears first is that another leads.
    group.isolate(next);
    group.paused.insert(next);
    let down = (1..=3).find(|host| !group.is_up(*host)).unwrap();
    group.entries_stuck.clear();
    group.unstick(third);
    group.start(down);
    group.pass(2_000);
    assert_unanswered(&group, &tickets);
    let leader = group.leader_of(third).unwrap();
    assert_ne!(leader, next);
    group.cut.clear();
    group.pass(60);
    for ticket in tickets {
        let no = &group.answers[&ticket];
        let expected = matches!(no, Response::Unavailable(Unavailable::NotLeader { .. }));
        assert!(expected, "{no:?}");
    }
    group.paused.clear();
    assert_answered_once(group);
}

#[test]
fn who_asked_before_the_first_entry_hears_of_a_shutdown() {
    let (mut group, mut writer, next, _) = elected();
    let tickets = ask_all(&mut group, &mut writer, next);
    group.step(next, Input::Shutdown);
    let late = ask_all(&mut group, &mut writer, next);
    for ticket in tickets.into_iter().chain(late) {
        let expected = Response::Unavailable(Unavailable::ShuttingDown);
        assert_eq!(group.answers[&ticket], expected);
    }
    assert_answered_once(group);
}

#[test]
fn nobody_waits_for_long_for_a_leader_whose_first_entry_is_stuck() {
    let (mut group, mut writer, next, _) = elected();
    let tickets = ask_all(&mut group, &mut writer, next);
    group.pass(1_900);
    assert_unanswered(&group, &tickets);
    group.pass(200);
    assert_eq!(group.leader_of(next), Some(next), "it still leads");
    for ticket in tickets {
        let expected = Unavailable::NotLeader { leader: None };
        assert_eq!(group.answers[&ticket], Response::Unavailable(expected));
    }
    assert_answered_once(group);
}

#[test]
fn so_many_wait_and_the_others_are_sent_away() {
    let (mut group, _, next, _) = elected();
    let ask = |group: &mut Group, turn: usize| match turn % 2 {
        0 => group.ask(next, 0, get("1")),
        _ => group.ask(next, 1, Request::OpenSession),
    };
    let early: Vec<_> = (0..EARLY_MAX).map(|turn| ask(&mut group, turn)).collect();
    assert_unanswered(&group, &early);
    for turn in 0..4 {
        let ticket = ask(&mut group, turn);
        let expected = Unavailable::NotLeader { leader: None };
        assert_eq!(group.answers[&ticket], Response::Unavailable(expected));
    }
    assert_unanswered(&group, &early);
    write_again(&mut group);
    group.pass(100);
    for pair in early.chunks(2) {
        assert_eq!(pid(&group.answers[&pair[0]]), "p");
        let session = &group.answers[&pair[1]];
        assert!(matches!(session, Response::Session(_)), "{session:?}");
    }
    assert_answered_once(group);
}
