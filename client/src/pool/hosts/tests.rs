//! Choosing among hosts, without a network: a connection is its name.

use maitred_protocol::{HostName, MemberRole};

use super::*;

type Named = Hosts<&'static str>;

fn seeds(count: usize) -> Named {
    let all: Vec<_> = (1..=count).map(|n| format!("seed-{n}:7")).collect();
    Hosts::new(&all)
}

fn connect(hosts: &mut Named, way: u64, number: u64, conn: &'static str) -> bool {
    let remote = format!("10.0.0.{number}:7").parse().unwrap();
    hosts.connected(way, number, remote, conn)
}

/// Three seeds, with the hosts 1, 2, 3 behind them.
fn three() -> Named {
    let mut hosts = seeds(3);
    for (way, conn) in [(1, "a"), (2, "b"), (3, "c")] {
        assert!(connect(&mut hosts, way, way, conn));
    }
    hosts
}

fn lose(hosts: &mut Named, way: u64) {
    hosts.lost(way, Error::closed());
}

fn members(commit: u64, all: &[(u64, &str)]) -> Members {
    let record = |(host, address): &(u64, &str)| MemberRecord {
        host: *host,
        name: HostName::new(format!("h{host}")).unwrap(),
        address: (*address).to_owned(),
        role: MemberRole::Voter,
        replaces: None,
        arrived: true,
        progress: None,
    };
    Members {
        items: all.iter().map(record).collect(),
        leader: None,
        term: 0,
        commit,
        level: 1,
    }
}

fn chosen(hosts: &mut Named) -> &'static str {
    hosts.choose(Route::Leader, None).unwrap().1
}

#[test]
fn a_notice_counts_when_its_term_is_as_high_as_any_seen() {
    let mut hosts = three();
    assert!(hosts.heard(1, Some(2), 5));
    assert_eq!(chosen(&mut hosts), "b");
    assert!(!hosts.heard(3, Some(3), 4));
    assert_eq!(chosen(&mut hosts), "b");
    assert!(!hosts.heard(3, Some(2), 5), "it is no news");
    // A follower that has lost sight of it says nothing of others; the leader itself does.
    assert!(!hosts.heard(3, None, 5));
    assert_eq!(hosts.leader(), Some(2));
    assert!(hosts.heard(2, None, 5));
    assert_eq!(hosts.leader(), None);
    assert!(hosts.heard(1, Some(3), 6));
    assert_eq!(chosen(&mut hosts), "c");
    // All connections gone: a cluster that was founded anew begins with low terms.
    (1..=3).for_each(|way| lose(&mut hosts, way));
    assert!(connect(&mut hosts, 1, 1, "a2"));
    assert!(hosts.heard(1, Some(1), 1));
    assert_eq!(chosen(&mut hosts), "a2");
}

#[test]
fn a_deposed_leader_is_named_once() {
    let mut hosts = three();
    assert!(hosts.heard(1, Some(1), 1));
    assert_eq!(hosts.deposed(), None);
    assert!(hosts.heard(1, None, 1));
    assert_eq!(hosts.deposed(), None);
    assert!(hosts.heard(2, Some(2), 2));
    assert_eq!(hosts.deposed(), Some("a"));
    assert_eq!(hosts.deposed(), None);
}

#[test]
fn a_refusal_moves_on_to_the_host_that_is_named_or_the_next() {
    let mut hosts = three();
    assert!(hosts.refused(1, None));
    assert_eq!(chosen(&mut hosts), "b");
    assert!(hosts.refused(2, Some("10.0.0.1:7")), "by its address");
    assert_eq!(chosen(&mut hosts), "a");
    assert!(
        hosts.refused(2, Some("seed-3:7")),
        "another has moved on already"
    );
    assert_eq!(chosen(&mut hosts), "a");
    assert!(
        !hosts.refused(1, Some("10.9.9.9:7")),
        "that one is not known"
    );
    assert_eq!(chosen(&mut hosts), "b");
    // What a member says of its address counts too, wherever it was reached.
    let view = members(1, &[(1, "p:1"), (2, "p:2"), (3, "p:3")]);
    hosts.learn(&view);
    assert!(hosts.refused(2, Some("p:3")));
    assert_eq!(chosen(&mut hosts), "c");
    // A leader that refuses is none.
    assert!(hosts.heard(2, Some(2), 7));
    assert_eq!(chosen(&mut hosts), "b");
    assert!(hosts.refused(2, None));
    assert_eq!(hosts.leader(), None);
}

#[test]
fn what_was_asked_in_vain_is_asked_again_only_when_nobody_else_is_there() {
    let mut hosts = three();
    assert!(hosts.heard(1, Some(1), 1));
    let mut avoiding = |avoid| hosts.choose(Route::Leader, Some(avoid)).unwrap().1;
    assert_eq!((avoiding(1), avoiding(2), avoiding(3)), ("b", "a", "a"));
    lose(&mut hosts, 2);
    lose(&mut hosts, 3);
    assert_eq!(hosts.choose(Route::Leader, Some(1)), Some((1, "a")));
    lose(&mut hosts, 1);
    assert_eq!(hosts.choose(Route::Leader, Some(1)), None);
}

#[test]
fn all_take_turns_when_any_will_do() {
    let mut hosts = three();
    let mut any = |avoid| hosts.choose(Route::Any, avoid).unwrap().1;
    let turns: Vec<_> = (0..6).map(|_| any(None)).collect();
    assert_eq!(turns, ["a", "b", "c", "a", "b", "c"]);
    assert_eq!(any(Some(1)), "b");
    lose(&mut hosts, 1);
    lose(&mut hosts, 2);
    assert_eq!(hosts.choose(Route::Any, None), Some((3, "c")));
    assert_eq!(hosts.choose(Route::Any, None), Some((3, "c")));
}

#[test]
fn a_host_has_one_connection_however_many_ways_lead_to_it() {
    let mut hosts = seeds(2);
    assert!(connect(&mut hosts, 1, 7, "a"));
    assert!(!connect(&mut hosts, 2, 7, "twin"));
    assert!(hosts.rests(2));
    // Its own address is not called either while it is connected.
    let changes = hosts.learn(&members(1, &[(7, "real:7")]));
    assert!(changes.added.is_empty());
    lose(&mut hosts, 1);
    assert!(!hosts.rests(2));
    assert!(connect(&mut hosts, 2, 7, "twin"));
    assert!(hosts.rests(1));
    // Hosts without a number are never twins.
    let mut hosts = seeds(2);
    assert!(connect(&mut hosts, 1, 0, "a") && connect(&mut hosts, 2, 0, "b"));
}

#[test]
fn members_are_learned_and_let_go_again() {
    let mut hosts = seeds(1);
    assert!(connect(&mut hosts, 1, 1, "a"));
    let view = members(5, &[(1, "x:1"), (2, "x:2"), (3, "")]);
    let added = hosts.learn(&view).added;
    assert_eq!(added, [(2, "x:2".to_owned())]);
    assert!(hosts.learn(&view).added.is_empty(), "once is enough");
    assert!(connect(&mut hosts, 2, 2, "b"));
    // A view from before says nothing.
    let changes = hosts.learn(&members(4, &[(1, "x:1")]));
    assert!(changes.ended.is_empty() && changes.dropped.is_empty());
    let changes = hosts.learn(&members(6, &[(1, "x:1")]));
    assert_eq!((changes.ended, changes.dropped), (vec!["b"], vec![2]));
    // Another address of the same host is another way.
    hosts.learn(&members(7, &[(1, "x:1"), (2, "x:2")]));
    let changes = hosts.learn(&members(8, &[(1, "x:1"), (2, "y:2")]));
    assert_eq!(
        (changes.dropped, changes.added),
        (vec![3], vec![(4, "y:2".to_owned())])
    );
}

#[test]
fn a_seed_whose_host_has_left_rests_but_is_never_forgotten() {
    let mut hosts = three();
    let changes = hosts.learn(&members(2, &[(1, ""), (2, "")]));
    assert_eq!(changes.ended, ["c"]);
    assert!(changes.dropped.is_empty() && hosts.rests(3));
    assert_eq!(hosts.choose(Route::Leader, Some(2)).unwrap().1, "a");
    assert!(!connect(&mut hosts, 3, 3, "c2"), "it is no member");
    // Nobody else answers: it may be the last way in.
    lose(&mut hosts, 1);
    lose(&mut hosts, 2);
    assert!(!hosts.rests(3));
    assert!(connect(&mut hosts, 3, 3, "c3"));
    assert_eq!(chosen(&mut hosts), "c3");
    let changes = hosts.learn(&members(3, &[(1, ""), (2, "")]));
    assert!(changes.ended.is_empty(), "it is the only one");
}

#[test]
fn a_first_call_is_under_way_until_it_comes_to_something() {
    let mut hosts = seeds(2);
    assert!(hosts.calls());
    assert!(connect(&mut hosts, 1, 1, "a"));
    assert!(hosts.calls(), "the second one");
    lose(&mut hosts, 2);
    assert!(!hosts.calls());
    // A member that has just been learned of.
    hosts.learn(&members(5, &[(1, "10.0.0.1:7"), (9, "10.0.0.9:7")]));
    assert!(hosts.calls());
}
