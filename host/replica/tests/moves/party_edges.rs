//! Parties beside other creates and other selectors, and while they wait.

use maitred_protocol::{
    Chooser, CreateParty, CreateProcess, Digest, ModuleKind, ModuleName, OnConflict, PartyRule,
    ProcessKey, Rejection, Request, Response, TypeName, Unavailable,
};
use maitred_registry::PushModule;
use maitred_registry::decide::{Offer, Verdict};
use maitred_replica::{Input, Push, Ticket};

use crate::party::per_node;
use crate::world::{World, key};

/// The ticket of the party.
const TICKET: u64 = 1_000_000;

fn first(offer: &Offer<'_>) -> Verdict {
    Verdict::Choose(offer.slots[0])
}

/// Nothing for parties.
fn parties_wait(offer: &Offer<'_>) -> Verdict {
    match offer.request.party {
        Some(_) => Verdict::Wait(100),
        None => first(offer),
    }
}

fn wants_two_nodes(offer: &Offer<'_>) -> Verdict {
    match offer.slots {
        [_, other, ..] => Verdict::Choose(*other),
        _ => Verdict::Wait(60_000),
    }
}

impl World {
    /// Pushes a version of a selector, and has it decide: for one type only, beside the version
    /// before, when that is said.
    fn selector(&mut self, name: &str, version: u8, types: Vec<TypeName>) -> ModuleName {
        let name = ModuleName::new(name).unwrap();
        let module = PushModule {
            name: name.clone(),
            kind: ModuleKind::Selector,
            digest: Digest([version; 32]),
            bytes: 1,
            title: name.to_string(),
            features: Vec::new(),
            world: "selector".to_owned(),
            abi: "0.2.0".to_owned(),
            hooks: Vec::new(),
            signature: None,
            is_trusted: false,
        };
        let client = self.client;
        // Tickets and sequences of requests are small.
        let number = 2_000_000 + u64::from(version);
        self.step(Input::Push {
            ticket: Ticket(number),
            sequence: number,
            push: Push { client, module },
        });
        self.run();
        let activated = self.ask(Request::ActivateModule {
            client,
            name: name.clone(),
            version: 0,
            config: None,
            percent: 100,
            types,
            guard: String::new(),
        });
        assert!(matches!(activated, Response::Module(_)), "{activated:?}");
        name
    }

    /// Which selector placed a process, in which version.
    fn placed_by(&self, key: &ProcessKey) -> (String, u32) {
        match &*self.record(key).unwrap().why.chooser {
            Chooser::Selector { name, version, .. } => (name.to_string(), *version),
            other => panic!("{other:?}"),
        }
    }
}

/// Two members, and what is special about the second.
fn pair(world: &World, rule: PartyRule, second: fn(&mut CreateProcess)) -> Box<CreateParty> {
    let mut party = world.party(1..3, rule);
    second(&mut party.members[1]);
    party
}

fn created(world: &mut World, ticket: u64) -> usize {
    match world.answered(ticket) {
        Some(Response::Party(records, true)) => records.len(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_that_a_party_wants_is_not_begun_beside_it() {
    let mut world = World::with(&["a", "b"], 100);
    world.hold_select = true;
    let party = world.party(1..3, PartyRule::Any);
    world.send_party(TICKET, party);
    world.run();
    let beside = world.create_of(&key(1), |options| options.deadline_ms = 200);
    let beside = world.send(beside);
    world.run();
    let answer = world.answered(beside);
    let Some(Response::Unavailable(Unavailable::Overloaded(text))) = answer else {
        panic!("{answer:?}");
    };
    assert!(
        text.contains("player/1 is being placed with a party"),
        "{text}"
    );
    world.tell_decisions();
    // Its deadline is nobody's, and whatever wakes creates wakes none of the party's.
    world.pass(400);
    world.join("c", 100);
    world.pass(400);
    assert_eq!(created(&mut world, TICKET), 2);
    assert_eq!(world.diary.len(), 2, "{:?}", world.diary);
}

#[test]
fn a_party_that_waits_is_woken_by_a_node() {
    let mut world = World::with(&["a"], 100);
    world.says = Some(wants_two_nodes);
    let mut party = world.party(1..3, PartyRule::Any);
    party.members[0].options.deadline_ms = 5_000;
    world.send_party(TICKET, party);
    world.pass(1_000);
    assert!(world.answered(TICKET).is_none());
    world.join("b", 100);
    world.pass(100);
    assert_eq!(created(&mut world, TICKET), 2);
}

#[test]
fn a_party_that_was_told_to_wait_waits_while_all_is_full() {
    let mut world = World::with(&["a"], 2);
    world.says = Some(parties_wait);
    let party = world.party(1..3, PartyRule::Any);
    world.send_party(TICKET, party);
    world.run();
    world.fill(50..52);
    world.pass(1_000);
    assert!(world.answered(TICKET).is_none(), "asked again and again");
    world.says = Some(first);
    world.delete(&key(50));
    world.delete(&key(51));
    world.pass(200);
    assert_eq!(created(&mut world, TICKET), 2);
}

#[test]
fn all_that_wait_are_woken_some_at_a_time() {
    let mut world = World::with(&["a"], 10_000);
    world.says = Some(wants_two_nodes);
    let client = world.client;
    let tickets: Vec<u64> = (0..300)
        .map(|number| {
            let party = world.party(2 * number..2 * number + 2, PartyRule::Any);
            world.send(Request::CreateParty(client, party))
        })
        .collect();
    world.pass(1_000);
    assert_eq!(world.running(), 0);
    world.join("b", 10_000);
    assert!(world.running() < 600, "{}", world.running());
    world.pass(200);
    for ticket in tickets {
        assert_eq!(created(&mut world, ticket), 2);
    }
}

#[test]
fn every_member_is_its_own_selector_s_to_place() {
    let mut world = World::with(&["a", "b", "c", "d", "e", "f"], 1);
    let names = [("binpack", 1), ("affinity", 2)]
        .map(|(name, version)| world.selector(name, version, Vec::new()));
    world.says = Some(first);
    let mut party = world.party(1..7, PartyRule::Apart);
    for (member, name) in party.members.iter_mut().zip(names.iter().cycle()) {
        member.selector = Some(name.clone());
    }
    world.send_party(TICKET, party);
    world.pass(40);
    match world.answered(TICKET) {
        Some(Response::Party(records, true)) => assert_eq!(per_node(&records).len(), 6),
        other => panic!("{other:?}"),
    }
    for (id, name) in (1..7).zip(names.iter().cycle()) {
        assert_eq!(world.placed_by(&key(id)), (name.to_string(), 1));
    }
}

#[test]
fn a_canary_decides_for_its_own_members_only() {
    let mut world = World::with(&["a", "b"], 100);
    world.says = Some(first);
    let name = world.selector("least-loaded", 1, Vec::new());
    let room = TypeName::new("room").unwrap();
    world.selector("least-loaded", 2, vec![room]);
    let party = pair(&world, PartyRule::Together, |second| {
        second.key = ProcessKey::new("room", "1").unwrap();
    });
    let rooms = party.members[1].key.clone();
    world.send_party(TICKET, party);
    world.run();
    assert_eq!(created(&mut world, TICKET), 2);
    assert_eq!(world.placed_by(&key(1)), (name.to_string(), 1));
    assert_eq!(world.placed_by(&rooms), (name.to_string(), 2));
}

#[test]
fn a_selector_s_no_is_heard_whoever_came_before_it() {
    let mut world = World::with(&["a"], 100);
    world.selector("affinity", 1, Vec::new());
    world.says = Some(|offer| match offer.request.key.id.as_str() {
        "2" => Verdict::Reject {
            code: 7,
            reason: "not this one".to_owned(),
        },
        _ => first(offer),
    });
    let party = pair(&world, PartyRule::Any, |second| {
        second.selector = Some(ModuleName::new("affinity").unwrap());
    });
    world.send_party(TICKET, party);
    world.run();
    match world.answered(TICKET) {
        Some(Response::Rejected(Rejection::Party { key: culprit, .. })) => {
            assert_eq!(culprit, key(2));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.running(), 0);
}

#[test]
fn together_is_where_every_member_can_be() {
    let mut world = World::new();
    world.says = Some(first);
    // The first one would do for the first member alone.
    let player = TypeName::new("player").unwrap();
    world.join_with("a", 100, |register| register.types = vec![player]);
    world.join_with("b", 100, |register| {
        register.labels = vec![("zone".to_owned(), "2".to_owned())];
    });
    let party = pair(&world, PartyRule::Together, |second| {
        second.key = ProcessKey::new("room", "1").unwrap();
    });
    world.send_party(TICKET, party);
    world.run();
    match world.answered(TICKET) {
        Some(Response::Party(records, true)) => assert_eq!(per_node(&records)["b"], 2),
        other => panic!("{other:?}"),
    }
    let mut party = world.party(10..12, PartyRule::Together);
    party.members[1].options.require = vec![("zone".to_owned(), "2".to_owned())];
    let client = world.client;
    match world.ask(Request::CreateParty(client, party)) {
        Response::Party(records, true) => assert_eq!(per_node(&records)["b"], 2),
        other => panic!("{other:?}"),
    }
}

#[test]
fn whoever_joined_a_member_hears_that_its_party_is_undone() {
    let mut world = World::with(&["a"], 100);
    world.games.get_mut("a").unwrap().slow_spawns = true;
    let mut party = world.party(1..3, PartyRule::Any);
    party.members[0].options.deadline_ms = 400;
    world.send_party(TICKET, party);
    world.run();
    let joins = world.create_of(&key(1), |options| options.on_conflict = OnConflict::Return);
    let joins = world.send(joins);
    world.pass(600);
    assert!(matches!(
        world.answered(TICKET),
        Some(Response::Rejected(_))
    ));
    match world.answered(joins) {
        Some(Response::Rejected(Rejection::Conflict(text))) => {
            assert!(text.contains("with a party, and that is undone"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_party_too_many_may_ask_again() {
    let mut world = World::with(&["a"], 10_000);
    world.games.get_mut("a").unwrap().slow_spawns = true;
    let client = world.client;
    let all: Vec<u64> = (0..4_097)
        .map(|id| {
            let party = world.party(id..id + 1, PartyRule::Any);
            world.send(Request::CreateParty(client, party))
        })
        .collect();
    world.run();
    let answer = world.answered(all[4_096]);
    assert!(
        matches!(
            answer,
            Some(Response::Unavailable(Unavailable::Overloaded(_)))
        ),
        "{answer:?}"
    );
    assert!(world.answered(all[4_095]).is_none());
}

#[test]
fn together_and_their_node_is_lost_is_together_elsewhere() {
    let mut world = World::new();
    world.says = Some(first);
    // While they start: one that is full after one of them, one that lacks what the last wants, and one
    // for all.
    let labels = || vec![("zone".to_owned(), "2".to_owned())];
    world.join_with("a", 3, |register| register.labels = labels());
    world.join_with("b", 1, |register| register.labels = labels());
    world.join("c", 100);
    world.join_with("d", 3, |register| register.labels = labels());
    for game in world.games.values_mut() {
        game.slow_spawns = true;
    }
    let mut party = world.party(1..4, PartyRule::Together);
    party.members[0].options.deadline_ms = 60_000;
    party.members[2].options.require = labels();
    world.send_party(TICKET, party);
    world.run();
    world.games.get_mut("a").unwrap().dead = true;
    world.pass(8_000);
    for node in ["b", "c", "d"] {
        world.go_on(node);
    }
    world.pass(100);
    match world.answered(TICKET) {
        Some(Response::Party(records, true)) => assert_eq!(per_node(&records)["d"], 3),
        other => panic!("{other:?}"),
    }
}

#[test]
fn together_of_two_lanes_is_decided_again_when_others_take_the_room() {
    let mut world = World::with(&["a", "b"], 2);
    world.selector("affinity", 1, Vec::new());
    world.says = Some(first);
    world.hold_select = true;
    let party = pair(&world, PartyRule::Together, |second| {
        second.selector = Some(ModuleName::new("affinity").unwrap());
    });
    world.send_party(TICKET, party);
    world.run();
    // The first of them comes to `a`, and nobody knows yet.
    world.hold_select = false;
    let mut between = world.create_of(&key(50), |_| {});
    if let Request::CreateProcess(_, create) = &mut between {
        create.selector = Some(ModuleName::new("affinity").unwrap());
    }
    let between = world.send(between);
    world.run();
    assert!(matches!(
        world.answered(between),
        Some(Response::Created { .. })
    ));
    assert_eq!(world.on("a"), 1);
    world.tell_decisions();
    match world.answered(TICKET) {
        Some(Response::Party(records, true)) => assert_eq!(per_node(&records)["b"], 2),
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_that_are_tried_again_at_a_time_may_have_each_other_s_places() {
    let mut world = World::with(&["a", "b", "c"], 100);
    world.says = Some(first);
    world.refuses.extend(["a", "b"].map(str::to_owned));
    let mut party = world.party(1..3, PartyRule::Apart);
    let patient = |member: &mut CreateProcess| member.options.attempts = 2;
    party.members.iter_mut().for_each(patient);
    world.send_party(TICKET, party);
    world.run();
    world.refuses.clear();
    // Their lane is busy when their times come.
    world.hold_select = true;
    let other = world.create_of(&key(50), |_| {});
    world.send(other);
    world.pass(400);
    world.tell_decisions();
    match world.answered(TICKET) {
        Some(Response::Party(records, true)) => assert_eq!(per_node(&records).len(), 2),
        other => panic!("{other:?}"),
    }
}

#[test]
fn labels_that_no_node_can_have_are_refused_without_asking() {
    let mut world = World::with(&["a"], 100);
    world.hold_select = true;
    let label = |of: usize, value: &str| (format!("label-{of}"), value.to_owned());
    let mut many = world.party(1..3, PartyRule::Together);
    many.members[0].options.require = (0..32).map(|of| label(of, "")).collect();
    many.members[1].options.require = vec![label(32, "")];
    let mut two = world.party(1..3, PartyRule::Together);
    for (member, value) in two.members.iter_mut().zip(["x", "y"]) {
        member.options.require = vec![label(0, value)];
    }
    let client = world.client;
    for (party, says) in [
        (many, "they want more than 32 labels"),
        (two, "no node has two values of the label label-0"),
    ] {
        let ticket = world.send(Request::CreateParty(client, party));
        world.run();
        match world.answered(ticket) {
            Some(Response::Rejected(no @ Rejection::Party { .. })) => {
                assert!(no.to_string().contains(says), "{no}");
            }
            other => panic!("{other:?}"),
        }
    }
}
