//! Parties: all of them or none, and each where the rule wants it.

use std::collections::{BTreeMap, BTreeSet};

use maitred_protocol::{
    CreateParty, CreateProcess, OnConflict, PartyRule, ProcessRecord, Rejection, Request, Response,
};
use maitred_replica::{Input, Ticket};

use crate::world::{World, key};

/// The sequence of the party's request; nothing else uses it.
const SEQUENCE: u64 = 1_000_000;

impl World {
    pub(crate) fn party(&self, ids: std::ops::Range<u32>, rule: PartyRule) -> Box<CreateParty> {
        let members = ids.map(|id| match self.create_of(&key(id), |_| {}) {
            Request::CreateProcess(_, create) => *create,
            other => panic!("{other:?}"),
        });
        Box::new(CreateParty {
            group: "red".to_owned(),
            rule,
            members: members.collect(),
        })
    }

    /// Asks for a party under the one request id, with this ticket.
    pub(crate) fn send_party(&mut self, ticket: u64, party: Box<CreateParty>) {
        let client = self.client;
        self.step(Input::Request {
            ticket: Ticket(ticket),
            sequence: SEQUENCE,
            request: Request::CreateParty(client, party),
        });
    }

    fn ask_party(&mut self, ids: std::ops::Range<u32>, rule: PartyRule) -> Response {
        let party = self.party(ids, rule);
        let client = self.client;
        self.ask(Request::CreateParty(client, party))
    }

    /// How many of a party came to each node.
    fn placed(&mut self, ids: std::ops::Range<u32>, rule: PartyRule) -> BTreeMap<String, usize> {
        match self.ask_party(ids, rule) {
            Response::Party(records, true) => per_node(&records),
            other => panic!("{other:?}"),
        }
    }

    /// Why a party was not created.
    fn refused(&mut self, ids: std::ops::Range<u32>, rule: PartyRule) -> String {
        match self.ask_party(ids, rule) {
            Response::Rejected(no @ Rejection::Party { .. }) => no.to_string(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn running(&self) -> usize {
        self.games.values().map(|game| game.running.len()).sum()
    }
}

pub(crate) fn per_node(records: &[ProcessRecord]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for record in records {
        assert_eq!(record.group.as_deref(), Some("red"));
        *counts.entry(record.node.to_string()).or_default() += 1;
    }
    counts
}

#[test]
fn together_is_one_node_that_has_room_for_all() {
    let mut world = World::with(&["a", "b"], 3);
    world.fill(90..91);
    // One node has two units left, and is the emptier one for each member by itself at times.
    assert_eq!(world.placed(1..4, PartyRule::Together).len(), 1);
    let why = world.refused(4..7, PartyRule::Together);
    assert!(why.contains("because of player/4"), "{why}");
    assert!(why.contains("capacity: 2 left, 3 needed"), "{why}");
    assert_eq!(world.running(), 4, "none of them was started");
    assert_eq!(world.placed(4..6, PartyRule::Together).len(), 1);
}

#[test]
fn apart_is_a_node_each_and_so_many_is_so_many_at_most() {
    let mut world = World::with(&["a", "b", "c"], 100);
    let apart = world.placed(1..4, PartyRule::Apart);
    assert!(apart.values().all(|&count| count == 1), "{apart:?}");
    let why = world.refused(10..14, PartyRule::Apart);
    assert!(why.contains("the rule of the party keeps it out"), "{why}");
    let two = world.placed(20..26, PartyRule::AtMost(2));
    assert!(two.values().all(|&count| count == 2), "{two:?}");
    world.refused(30..37, PartyRule::AtMost(2));
    assert_eq!(world.running(), 9);
}

#[test]
fn the_members_of_a_large_party_see_each_other_whatever_is_decided_with_them() {
    let names: Vec<String> = (0..64).map(|node| format!("n-{node}")).collect();
    let nodes: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::with(&nodes, 100);
    let batch_max = 1_024;
    for id in 0..batch_max - 32 {
        let create = world.create_of(&key(1_000 + id), |_| {});
        world.send(create);
    }
    let apart = world.placed(0..64, PartyRule::Apart);
    assert_eq!(apart.len(), 64);
}

#[test]
fn one_that_cannot_start_undoes_all_and_the_keys_are_free_again() {
    let mut world = World::with(&["a", "b"], 100);
    world.refuses.insert("b".to_owned());
    // Apart: one of the two must come to `b`, and there is no other node for it.
    let why = world.refused(1..3, PartyRule::Apart);
    assert!(why.contains("it would not start"), "{why}");
    world.pass(100);
    assert_eq!(world.running(), 0, "{:?}", world.diary);
    let starts = world.diary.iter().filter(|line| line.starts_with("start"));
    let stops = world.diary.iter().filter(|line| line.starts_with("stop"));
    assert_eq!(starts.count(), stops.count());
    world.refuses.clear();
    assert_eq!(world.placed(1..3, PartyRule::Apart).len(), 2);
}

#[test]
fn another_try_keeps_to_the_rule() {
    let mut world = World::with(&["a", "b", "c"], 100);
    world.refuses.insert("b".to_owned());
    let apart = world.placed(1..3, PartyRule::Apart);
    let nodes: BTreeSet<&str> = apart.keys().map(String::as_str).collect();
    assert_eq!(nodes, BTreeSet::from(["a", "c"]));
    // All on `b` were no good; elsewhere is not allowed one by one.
    let mut alone = World::with(&["b"], 100);
    alone.join("a", 1);
    alone.refuses.insert("b".to_owned());
    alone.refused(1..4, PartyRule::Together);
    assert_eq!(alone.running(), 0);
}

#[test]
fn the_same_request_again_hears_the_same_before_and_after() {
    let mut world = World::with(&["a"], 100);
    world.games.get_mut("a").unwrap().slow_spawns = true;
    let party = world.party(1..3, PartyRule::Any);
    for ticket in [901, 902] {
        world.send_party(ticket, party.clone());
        world.pass(40);
        assert!(world.answered(ticket).is_none());
    }
    world.go_on("a");
    world.send_party(903, party);
    world.pass(40);
    let answers: Vec<_> = [901, 902, 903]
        .iter()
        .map(|ticket| world.answered(*ticket).unwrap())
        .collect();
    assert!(matches!(answers[0], Response::Party(_, true)));
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(world.running(), 2);
}

#[test]
fn a_new_leader_carries_on_what_is_reserved() {
    let mut world = World::with(&["a", "b"], 100);
    for game in world.games.values_mut() {
        game.slow_spawns = true;
    }
    let party = world.party(1..5, PartyRule::AtMost(2));
    world.send_party(901, party.clone());
    world.pass(40);
    world.restart();
    world.send_party(902, party);
    world.pass(40);
    assert!(world.answered(902).is_none());
    world.go_on("a");
    world.go_on("b");
    world.pass(40);
    match world.answered(902) {
        Some(Response::Party(records, true)) => {
            assert!(per_node(&records).values().all(|&count| count == 2));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.running(), 4);
}

#[test]
fn the_deadline_undoes_what_is_not_running() {
    let mut world = World::with(&["a", "b"], 100);
    world.games.get_mut("b").unwrap().slow_spawns = true;
    let mut party = world.party(1..3, PartyRule::Apart);
    party.members[0].options.deadline_ms = 400;
    world.send_party(901, party);
    world.pass(380);
    assert_eq!(world.running(), 1);
    assert!(world.answered(901).is_none());
    world.pass(100);
    let answer = world.answered(901);
    let Some(Response::Rejected(Rejection::Party { reason, .. })) = answer else {
        panic!("{answer:?}");
    };
    assert!(reason.contains("deadline"), "{reason}");
    world.go_on("b");
    world.pass(100);
    assert_eq!(world.running(), 0, "{:?}", world.diary);
}

#[test]
fn what_is_there_is_answered_or_named() {
    let mut world = World::with(&["a"], 100);
    world.placed(1..3, PartyRule::Any);
    match world.ask_party(1..3, PartyRule::Any) {
        Response::Party(records, false) => assert_eq!(records.len(), 2),
        other => panic!("{other:?}"),
    }
    let mut fails = world.party(1..3, PartyRule::Any);
    let fail = |member: &mut CreateProcess| member.options.on_conflict = OnConflict::Fail;
    fails.members.iter_mut().for_each(fail);
    let client = world.client;
    match world.ask(Request::CreateParty(client, fails)) {
        Response::Rejected(no) => {
            let no = no.to_string();
            assert!(
                no.contains("player/1: it exists already, on node a"),
                "{no}"
            );
        }
        other => panic!("{other:?}"),
    }
    // One more than what is there: it is named, and nothing is created.
    world.refused(2..4, PartyRule::Any);
    assert_eq!(world.running(), 2);
}

#[test]
fn two_that_fail_in_one_batch_are_counted_once_each() {
    let mut world = World::with(&["a", "b", "c"], 100);
    world.refuses.insert("c".to_owned());
    // Two on each of three nodes, and `c` takes none: those two have to go where two are already, and
    // may not.
    world.refused(1..7, PartyRule::AtMost(2));
    // With room for them they come to the others, whatever they were tried with.
    let placed = world.placed(10..14, PartyRule::AtMost(2));
    assert_eq!(placed.values().sum::<usize>(), 4);
    assert!(placed.values().all(|&count| count == 2), "{placed:?}");
}
