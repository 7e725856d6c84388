//! Parties in the registry: one entry reserves all keys or none, and what becomes of one becomes of all.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop here"
)]

use std::convert::Infallible;

use maitred_protocol::{
    Chooser, ClientId, CreateOptions, Incarnation, ModuleName, NodeEpoch, NodeName, PartyRule,
    ProcessKey, ProcessState, RegisterNode, Rejection, RequestId, Why,
};
use maitred_registry::{
    AbortCause, Command, Entry, Event, Known, Loader, Outcome, Place, Registry, Reserve, Stale,
};

const REQUEST: RequestId = RequestId {
    client: ClientId(1),
    sequence: 7,
};

struct World {
    registry: Registry,
    events: Vec<Event>,
}

fn key(id: &str) -> ProcessKey {
    ProcessKey::new("player", id).unwrap()
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

impl World {
    /// A session, and three nodes of three units each.
    fn new() -> Self {
        let mut world = Self {
            registry: Registry::new(),
            events: Vec::new(),
        };
        world.apply(None, Command::OpenSession);
        for name in ["eu-1", "eu-2", "eu-3"] {
            let register = RegisterNode {
                name: node(name),
                types: Vec::new(),
                address: format!("{name}:7000"),
                labels: Vec::new(),
                capacity: 3,
                share: Vec::new(),
                ttl_ms: 3_000,
                inventory: Vec::new(),
                kill_bound_ms: 1_000,
                instance: 1,
                last_epoch: None,
            };
            world.apply(None, Command::RegisterNode(Box::new(register)));
        }
        world
    }

    fn apply(&mut self, request: Option<RequestId>, command: Command) -> Outcome {
        self.events.clear();
        let entry = Entry {
            time_ms: 1_000,
            request,
            command,
        };
        let index = self.registry.applied() + 1;
        self.registry.apply(index, entry, &mut self.events)
    }

    fn epoch(&self, name: &str) -> NodeEpoch {
        self.registry.node(&node(name)).unwrap().epoch()
    }

    fn member(&self, id: &str, name: &str) -> Reserve {
        Reserve {
            key: key(id),
            args: Vec::new(),
            selector: ModuleName::new("spread").unwrap(),
            callback: ModuleName::new("start").unwrap(),
            options: CreateOptions {
                attempts: 1,
                demand: 1,
                group: Some("red".to_owned()),
                ..CreateOptions::default()
            },
            deadline_at_ms: 9_000,
            place: Place {
                node: node(name),
                epoch: self.epoch(name),
                activated: None,
                why: Why {
                    chooser: Chooser::Node,
                    seed: 1,
                    micros: 1,
                    candidates: 2,
                },
            },
        }
    }

    /// Reserves a party with these members.
    fn reserve(&mut self, members: &[(&str, &str)]) -> Outcome {
        self.reserve_by(PartyRule::Any, members)
    }

    fn reserve_by(&mut self, rule: PartyRule, members: &[(&str, &str)]) -> Outcome {
        let members = members.iter().map(|(id, name)| self.member(id, name));
        let members = members.collect();
        self.apply(Some(REQUEST), Command::ReserveParty { rule, members })
    }

    /// Gives a member that is starting to another node.
    fn reassign(&mut self, id: &str, name: &str) -> Outcome {
        let reassign = Command::Reassign {
            key: key(id),
            incarnation: self.registry.process(&key(id)).unwrap().incarnation,
            cause: Some("busy".to_owned()),
            place: self.member(id, name).place,
        };
        self.apply(None, reassign)
    }

    fn confirm(&mut self, id: &str, incarnation: Incarnation) -> Outcome {
        let confirm = Command::Confirm {
            key: key(id),
            incarnation,
            pid: "1".to_owned(),
            share: Vec::new(),
        };
        self.apply(None, confirm)
    }

    fn state(&self, id: &str) -> Option<ProcessState> {
        self.registry.process(&key(id)).map(|record| record.state)
    }

    /// What the party came to, as its event says and as its request is answered.
    fn ended(&self) -> Outcome {
        let mut ended = self.events.iter().filter_map(|event| match event {
            Event::Party { outcome, .. } => Some(outcome.clone()),
            _ => None,
        });
        let outcome = ended.next().unwrap();
        match self.registry.known(REQUEST) {
            Known::Done(remembered) => assert_eq!(remembered, outcome),
            other => panic!("{other:?}"),
        }
        assert_eq!(self.registry.parties().count(), 0);
        outcome
    }
}

fn lives(outcome: Outcome) -> Vec<Incarnation> {
    match outcome {
        Outcome::PartyReserved(records) => {
            records.iter().map(|record| record.incarnation).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_party_is_answered_when_all_of_it_runs() {
    let mut world = World::new();
    let lives = lives(world.reserve(&[("1", "eu-1"), ("2", "eu-2")]));
    assert_eq!(lives[0], lives[1], "one entry");
    assert!(matches!(world.registry.known(REQUEST), Known::Fresh));
    world.confirm("2", lives[1]);
    assert_eq!(world.registry.parties().count(), 1);
    // A snapshot in the middle changes nothing.
    let mut loader = Loader::new();
    let snapshot = world.registry.snapshot();
    let encoded = snapshot.encode(|chunk| {
        loader.chunk(&chunk).unwrap();
        Ok::<(), Infallible>(())
    });
    encoded.unwrap();
    let digest = world.registry.digest();
    world.registry = loader.finish().unwrap();
    assert_eq!(world.registry.digest(), digest);
    world.confirm("1", lives[0]);
    match world.ended() {
        Outcome::Party(records) => {
            let ids: Vec<_> = records.iter().map(|record| record.id.to_string()).collect();
            assert_eq!(ids, ["1", "2"]);
            let runs = records.iter().all(|one| one.state == ProcessState::Running);
            assert!(runs);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn none_is_reserved_when_one_cannot_be() {
    let mut world = World::new();
    // Each would fit alone; four do not.
    let four = ["1", "2", "3", "4"].map(|id| (id, "eu-1"));
    assert_eq!(world.reserve(&four), Outcome::Stale(Stale::Node));
    assert_eq!(world.state("1"), None);
    world.reserve(&[("2", "eu-1")]);
    let taken = world.reserve(&[("1", "eu-1"), ("2", "eu-2")]);
    assert_eq!(taken, Outcome::Stale(Stale::KeyTaken));
    assert_eq!(world.state("1"), None);
    let twice = world.reserve(&[("5", "eu-1"), ("5", "eu-2")]);
    assert_eq!(twice, Outcome::Stale(Stale::KeyTaken));
}

#[test]
fn one_that_cannot_be_started_takes_all_with_it() {
    let mut world = World::new();
    let lives = lives(world.reserve(&[("1", "eu-1"), ("2", "eu-2"), ("3", "eu-2")]));
    world.confirm("1", lives[0]);
    let abort = Command::Abort {
        key: key("2"),
        incarnation: lives[1],
        failure: Some("no disk".to_owned()),
        cause: AbortCause::SpawnFailed,
        over: true,
    };
    world.apply(None, abort);
    match world.ended() {
        Outcome::Rejected(no) => match &*no {
            Rejection::Party {
                key: culprit,
                reason,
            } => {
                assert_eq!(*culprit, key("2"));
                assert!(reason.contains("on eu-2: no disk"), "{reason}");
            }
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
    for id in ["1", "2", "3"] {
        assert_eq!(world.state(id), None);
    }
    // What runs, or may, keeps its key until its node has said that it is over.
    assert!(world.registry.is_held(&key("1")) && world.registry.is_held(&key("3")));
    assert!(!world.registry.is_held(&key("2")));
    let told = world
        .events
        .iter()
        .filter(|event| matches!(event, Event::Ended(_)));
    assert_eq!(told.count(), 3);
}

#[test]
fn deleting_one_while_others_start_undoes_the_party() {
    let mut world = World::new();
    let lives = lives(world.reserve(&[("1", "eu-1"), ("2", "eu-2")]));
    world.confirm("1", lives[0]);
    let delete = Command::DelProcess {
        key: key("1"),
        incarnation: None,
        ended: false,
    };
    world.apply(None, delete);
    assert!(matches!(world.ended(), Outcome::Rejected(_)));
    assert_eq!(world.state("2"), None);
}

#[test]
fn a_member_that_is_lost_with_its_node_is_found_out_when_the_last_one_runs() {
    let mut world = World::new();
    let lives = lives(world.reserve(&[("1", "eu-1"), ("2", "eu-2")]));
    world.confirm("1", lives[0]);
    let expire = Command::Expire {
        name: node("eu-1"),
        epoch: world.epoch("eu-1"),
    };
    world.apply(None, expire);
    assert_eq!(
        world.state("1"),
        None,
        "its type is forgotten with its node"
    );
    world.confirm("2", lives[1]);
    assert!(matches!(world.ended(), Outcome::Rejected(_)));
    assert_eq!(world.state("2"), None);
}

#[test]
fn the_end_of_its_time_undoes_it_and_a_settled_one_knows_no_end() {
    let mut world = World::new();
    let first = lives(world.reserve(&[("1", "eu-1"), ("2", "eu-2")]));
    world.confirm("1", first[0]);
    world.apply(None, Command::EndParty(first[0].0));
    assert!(matches!(world.ended(), Outcome::Rejected(_)));
    assert_eq!((world.state("1"), world.state("2")), (None, None));
    let gone = world.apply(None, Command::EndParty(first[0].0));
    assert_eq!(gone, Outcome::Stale(Stale::Incarnation));
}

#[test]
fn decisions_made_side_by_side_do_not_break_the_rule() {
    let members = [("1", "eu-1"), ("2", "eu-2")];
    let overtaken = Outcome::Stale(Stale::Node);
    for rule in [PartyRule::Apart, PartyRule::AtMost(1)] {
        let mut world = World::new();
        lives(world.reserve_by(rule, &members));
        assert!(matches!(world.reassign("1", "eu-3"), Outcome::Reserved(_)));
        // It was decided when the other one was not there yet.
        assert_eq!(world.reassign("2", "eu-3"), overtaken);
        assert!(matches!(world.reassign("2", "eu-1"), Outcome::Reserved(_)));
    }
    let mut world = World::new();
    lives(world.reserve_by(PartyRule::AtMost(2), &members));
    world.reassign("1", "eu-3");
    assert!(matches!(world.reassign("2", "eu-3"), Outcome::Reserved(_)));
    let mut world = World::new();
    lives(world.reserve_by(PartyRule::Together, &[("1", "eu-1"), ("2", "eu-1")]));
    assert_eq!(world.reassign("1", "eu-2"), overtaken);
    // A process by itself, and one whose party has come to something, go where they like.
    let mut world = World::new();
    let lives = lives(world.reserve_by(PartyRule::Apart, &members));
    world.confirm("1", lives[0]);
    world.confirm("2", lives[1]);
    world.ended();
    let unplace = Command::Unplace {
        key: key("1"),
        incarnation: lives[0],
        cause: "its node is drained".to_owned(),
        over: true,
    };
    world.apply(None, unplace);
    assert!(matches!(world.reassign("1", "eu-2"), Outcome::Reserved(_)));
}
