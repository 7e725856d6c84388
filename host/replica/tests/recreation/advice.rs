//! What becomes of processes that have ended by themselves, or lost their node, when their callback
//! wants to be asked.

use maitred_protocol::{
    CreateParty, Digest, Hook, ModuleKind, ModuleName, NodeEpoch, PartyRule, ProcessKey,
    ProcessState, Request, Response, Restart, Waits,
};
use maitred_registry::{EndedBy, PushModule};
use maitred_replica::{Advice, Input, Push, Ticket};

use crate::world::{World, key, spec};

impl World {
    /// The callback of all types has these hooks from now on.
    pub(crate) fn hooks(&mut self, version: u32, hooks: &[Hook]) {
        self.hooks_of("start", version, hooks);
    }

    /// A callback has them; `number` is that of the push, for all callbacks.
    fn hooks_of(&mut self, name: &str, number: u32, hooks: &[Hook]) {
        let name = ModuleName::new(name).unwrap();
        let module = PushModule {
            name: name.clone(),
            kind: ModuleKind::Callback,
            digest: Digest([number as u8; 32]),
            bytes: 1,
            title: "start".to_owned(),
            features: Vec::new(),
            world: "callback".to_owned(),
            abi: "0.2.0".to_owned(),
            hooks: hooks.to_vec(),
            signature: None,
            is_trusted: false,
        };
        let client = self.client;
        // Tickets and sequences of requests are small.
        let number = 1_000_000 + u64::from(number);
        self.step(Input::Push {
            ticket: Ticket(number),
            sequence: number,
            push: Push { client, module },
        });
        self.run();
        let pushed = self.answered(number);
        assert!(matches!(pushed, Some(Response::Pushed(..))), "{pushed:?}");
        let activated = self.ask(Request::ActivateModule {
            client,
            name,
            version: 0,
            config: None,
            percent: 100,
            types: Vec::new(),
            guard: String::new(),
        });
        assert!(matches!(activated, Response::Module(_)), "{activated:?}");
    }

    /// Its node says that a process has ended by itself.
    pub(crate) fn exits(&mut self, key: &ProcessKey, reason: &str) {
        let incarnation = self.record(key).unwrap().incarnation;
        self.done(Request::ProcessExited {
            client: self.client,
            key: key.clone(),
            incarnation,
            reason: reason.to_owned(),
        });
    }

    fn node_of(&self, key: &ProcessKey) -> String {
        assert!(self.runs(key), "{:?}", self.record(key));
        self.record(key).unwrap().node.to_string()
    }
}

/// A process on `a` beside one that nothing happens to, and an empty node.
fn world(hooks: &[Hook]) -> World {
    let mut world = World::new(|_| {});
    world.hooks(1, hooks);
    world.join("a", 9);
    let stays = ProcessKey::new("mob", "1").unwrap();
    world.create(&stays, |_| {});
    world.fill(1..2);
    world.join("b", 9);
    world
}

#[test]
fn an_exit_is_forgotten_where_no_hook_asks_for_it() {
    let mut world = world(&[Hook::NodeLost, Hook::Compensate]);
    world.advice = Some(Advice::Here);
    world.exits(&key(1), "crash");
    assert!(world.record(&key(1)).is_none());
    assert!(world.questions.is_empty());
}

#[test]
fn the_callback_is_told_how_a_process_ended_and_how_often() {
    let mut world = world(&[Hook::Exit]);
    world.advice = Some(Advice::Here);
    let mut before = 0;
    for (after_ms, times) in [(3_000, 1), (20, 2), (60_001, 1)] {
        world.pass(after_ms);
        world.exits(&key(1), "crash");
        let question = world.questions.pop().unwrap();
        assert_eq!(question.key, key(1));
        assert_eq!((question.by, question.times), (EndedBy::Exit, times));
        assert_eq!(question.reason, "crash");
        assert_eq!(question.node.as_str(), "a");
        assert!(question.incarnation.0 > before);
        before = question.incarnation.0;
        assert!(
            u64::from(question.lasted_ms).abs_diff(after_ms) <= 1,
            "{question:?}"
        );
        assert_eq!(world.node_of(&key(1)), "a");
        assert!(world.record(&key(1)).unwrap().incarnation.0 > before);
    }
}

#[test]
fn advice_is_followed_after_an_exit() {
    for (advice, after_ms, node) in [
        (Advice::Usual, 0, None),
        (Advice::GiveUp, 0, None),
        (Advice::Here, 0, Some("a")),
        // The selector likes the emptier one.
        (Advice::Elsewhere, 0, Some("b")),
        (Advice::BackOff(2_000), 2_000, Some("b")),
        (Advice::BackOff(0), 10, Some("b")),
    ] {
        let mut world = world(&[Hook::Exit]);
        world.advice = Some(advice);
        world.exits(&key(1), "crash");
        if after_ms > 20 {
            world.pass(after_ms - 100);
            assert!(!world.runs(&key(1)));
            assert!(matches!(world.waits(&key(1)), Waits::BackOff(1..=100)));
        }
        world.pass(100 + after_ms.min(100));
        match node {
            None => assert!(world.record(&key(1)).is_none(), "{advice:?}"),
            Some(node) => assert_eq!(world.node_of(&key(1)), node, "{advice:?}"),
        }
        assert_eq!(world.questions.len(), 1, "{advice:?}");
        assert_eq!(world.pending(), 0);
    }
}

#[test]
fn a_node_that_cannot_take_it_again_is_passed_by() {
    let mut world = world(&[Hook::Exit]);
    world.advice = Some(Advice::Here);
    world.cordon("a", true);
    world.exits(&key(1), "crash");
    assert_eq!(world.node_of(&key(1)), "b");
}

#[test]
fn whoever_deletes_it_need_not_wait_for_advice_which_then_is_void() {
    let mut world = world(&[Hook::Exit]);
    world.exits(&key(1), "crash");
    assert_eq!(world.record(&key(1)).unwrap().state, ProcessState::Pending);
    assert_eq!(world.waits(&key(1)), Waits::Nothing);
    world.delete(&key(1));
    let question = world.questions[0].clone();
    world.create(&key(1), |_| {});
    let lives = world.record(&key(1)).unwrap().incarnation;
    world.advise(question.key, question.incarnation, Advice::GiveUp);
    world.run();
    assert_eq!(world.record(&key(1)).unwrap().incarnation, lives);
    assert!(world.runs(&key(1)));
}

#[test]
fn an_end_that_is_told_twice_is_asked_about_once() {
    let mut world = world(&[Hook::Exit]);
    for _ in 0..2 {
        world.exits(&key(1), "crash");
    }
    // What the node says when it finds the record still there, after it attached anew.
    world.done(Request::DelProcess {
        client: world.client,
        key: key(1),
        incarnation: Some(world.questions[0].incarnation),
        ended: true,
    });
    assert_eq!(world.questions.len(), 1);
    let question = world.questions[0].clone();
    world.advise(question.key, question.incarnation, Advice::Elsewhere);
    world.run();
    assert!(world.runs(&key(1)));
}

#[test]
fn a_new_leader_asks_again_and_an_old_answer_counts_as_well() {
    for hook in [Hook::Exit, Hook::NodeLost] {
        let mut world = world(&[hook]);
        match hook {
            Hook::Exit => world.exits(&key(1), "crash"),
            _ => world.lose(&["a"]),
        }
        world.pass(5_000);
        assert!(!world.runs(&key(1)), "nobody has answered");
        world.restart();
        assert_eq!(world.questions.len(), 2, "{hook:?}");
        let [first, second] = &world.questions[..] else {
            panic!("{:?}", world.questions);
        };
        assert_eq!((first.by, first.times), (second.by, second.times));
        assert_eq!(first.lasted_ms, second.lasted_ms);
        let question = second.clone();
        world.advise(question.key, question.incarnation, Advice::Elsewhere);
        world.pass(1_000);
        assert!(world.runs(&key(1)), "{hook:?}");
        world.restart();
        assert_eq!(world.questions.len(), 2, "it has a node again");
    }
}

#[test]
fn a_callback_that_is_taken_back_meanwhile_is_not_waited_for() {
    let mut world = world(&[Hook::Exit]);
    world.exits(&key(1), "crash");
    world.hooks(2, &[]);
    world.restart();
    assert!(
        world.record(&key(1)).is_none(),
        "it exited, and that is usual"
    );
}

#[test]
fn a_lost_node_is_asked_about_only_where_processes_come_back_and_a_hook_wants_it() {
    let mut world = world(&[Hook::Exit]);
    world.lose(&["a"]);
    world.pass(1_000);
    assert_eq!(world.node_of(&key(1)), "b");
    assert!(world.questions.is_empty());

    let mut world = world_of_two_types();
    world.lose(&["a"]);
    assert_eq!(world.questions.len(), 1, "{:?}", world.questions);
    let question = world.questions[0].clone();
    assert_eq!(question.key, key(1));
    assert_eq!((question.by, question.times), (EndedBy::NodeLost, 1));
    assert_eq!((&*question.reason, question.node.as_str()), ("", "a"));
    assert!(question.lasted_ms >= 1_000);
}

/// Of which one is forgotten with its node.
fn world_of_two_types() -> World {
    let mut world = World::new(|_| {});
    world.hooks(1, &[Hook::NodeLost]);
    world.join("a", 9);
    world.fill(1..2);
    let mob = ProcessKey::new("mob", "1").unwrap();
    world.create(&mob, |_| {});
    world.join("b", 9);
    world
}

#[test]
fn advice_is_followed_after_a_loss() {
    for (advice, after_ms, node) in [
        (Advice::Usual, 0, Some("b")),
        (Advice::Elsewhere, 0, Some("b")),
        (Advice::Here, 0, Some("b")),
        (Advice::BackOff(3_000), 3_000, Some("b")),
        (Advice::GiveUp, 0, None),
    ] {
        let mut world = world(&[Hook::NodeLost]);
        world.advice = Some(advice);
        world.lose(&["a"]);
        if after_ms > 0 {
            world.pass(1_000);
            assert!(!world.runs(&key(1)));
        }
        world.pass(after_ms + 200);
        match node {
            None => assert!(world.record(&key(1)).is_none(), "{advice:?}"),
            Some(node) => assert_eq!(world.node_of(&key(1)), node, "{advice:?}"),
        }
    }
}

#[test]
fn here_after_a_loss_is_the_node_that_came_back() {
    let mut world = World::new(|_| {});
    world.hooks(1, &[Hook::NodeLost]);
    // The kill bound is waited for: half a second.
    let mut player = spec("player");
    player.restart = Restart::Safe;
    world.put_type(player);
    world.join("a", 9);
    world.fill(1..4);
    world.join("b", 9);
    world.lose(&["a"]);
    assert_eq!(world.questions.len(), 3);
    let epoch = world.epoch("a");
    world.join_as("a", 9, (2, None));
    assert_ne!(world.epoch("a"), epoch);
    for question in world.questions.clone() {
        world.advise(question.key, question.incarnation, Advice::Here);
    }
    world.pass(1_000);
    for id in 1..4 {
        assert_eq!(world.node_of(&key(id)), "a");
        let why = &world.record(&key(id)).unwrap().why;
        assert_eq!(*why.chooser, maitred_protocol::Chooser::Advice);
    }
    assert_ne!(world.record(&key(1)).unwrap().epoch, NodeEpoch(0));
}

#[test]
fn advice_that_comes_early_does_not_end_the_wait_for_the_life_before() {
    let mut world = World::new(|_| {});
    world.hooks(1, &[Hook::NodeLost]);
    world.advice = Some(Advice::Elsewhere);
    let mut player = spec("player");
    player.restart = Restart::Strict;
    world.put_type(player);
    world.join("a", 9);
    world.fill(1..2);
    world.join("b", 9);
    world.lose(&["a"]);
    world.pass(5_000);
    assert!(matches!(world.waits(&key(1)), Waits::Held { .. }));
    world.done(Request::ConfirmDead {
        client: world.client,
        name: crate::world::name("a"),
        epoch: None,
    });
    world.pass(100);
    assert_eq!(world.node_of(&key(1)), "b");
}

#[test]
fn many_questions_are_asked_a_few_at_a_time_and_in_order() {
    let mut world = World::new(|_| {});
    world.hooks(1, &[Hook::NodeLost]);
    world.join("a", 2_000);
    world.fill(0..1_000);
    world.join("b", 2_000);
    world.lose(&["a"]);
    let out = world.questions.len();
    assert!((1..=256).contains(&out), "{out}");
    let mut answered = 0;
    while answered < world.questions.len() {
        let question = world.questions[answered].clone();
        world.advise(question.key, question.incarnation, Advice::Usual);
        world.run();
        answered += 1;
        assert!(world.questions.len() - answered <= out);
    }
    assert_eq!(answered, 1_000);
    world.pass(3_000);
    assert_eq!(world.on("b"), 1_000);
}

/// 200 players on a node that is lost, whose callback does not answer, and some mobs with another
/// callback; all of them can go on on `b`.
fn world_of_two_callbacks(priorities: &[i32]) -> World {
    let mut world = World::new(|_| {});
    world.hooks(1, &[Hook::NodeLost]);
    world.hooks_of("other", 2, &[Hook::NodeLost]);
    let mut mob = spec("mob");
    mob.callback = ModuleName::new("other").unwrap();
    world.put_type(mob);
    world.join("a", 2_000);
    world.fill(0..200);
    for (id, priority) in (0..).zip(priorities) {
        world.create(&mob_key(id), |options| options.priority = *priority);
    }
    world.join("b", 2_000);
    world
}

fn mob_key(id: u32) -> ProcessKey {
    ProcessKey::new("mob", &id.to_string()).unwrap()
}

#[test]
fn a_callback_that_does_not_answer_holds_up_nobody_elses_question() {
    let mut world = world_of_two_callbacks(&[0]);
    world.lose(&["a"]);
    let asked = |world: &World, of: &str| {
        let questions = world.questions.iter();
        let questions = questions.filter(|question| question.key.type_name.as_str() == of);
        questions.count()
    };
    assert_eq!(asked(&world, "mob"), 1, "in the turn of the loss");
    assert!(asked(&world, "player") < 64, "{}", world.questions.len());
}

#[test]
fn the_more_important_are_asked_about_first() {
    // More than may be out at one time: the last ones are asked about when others are answered.
    let priorities: Vec<i32> = (0..100).collect();
    let mut world = world_of_two_callbacks(&priorities);
    world.lose(&["a"]);
    let mut order = Vec::new();
    let mut at = 0;
    while at < world.questions.len() {
        let question = world.questions[at].clone();
        at += 1;
        if question.key.type_name.as_str() == "mob" {
            order.push(question.key.id.as_str().parse::<u32>().unwrap());
            world.advise(question.key, question.incarnation, Advice::Usual);
            world.run();
        }
    }
    let expected: Vec<u32> = (0..100).rev().collect();
    assert_eq!(order, expected);
}

impl World {
    /// Nobody answers what is asked from the `from`th question on: what the host says of that in time.
    fn time_out(&mut self, from: usize) -> usize {
        let out = self.questions[from..].to_vec();
        self.pass(5_000);
        for question in &out {
            self.advise(question.key.clone(), question.incarnation, Advice::Usual);
        }
        self.run();
        out.len()
    }
}

#[test]
fn a_callback_that_lets_questions_time_out_is_not_asked_for_a_while() {
    let mut world = world_of_two_callbacks(&[]);
    world.lose(&["a"]);
    let mut asked = 0;
    for _ in 0..3 {
        assert!(world.questions.len() > asked);
        asked += world.time_out(asked);
    }
    assert!(asked < 150, "{asked}");
    world.pass(2_000);
    assert_eq!(world.on("b"), 200, "the usual, for all");
    assert_eq!(world.questions.len(), asked);
    assert_eq!(world.unasked, [("start".to_owned(), 200 - asked)]);
    // After a while it is asked again.
    world.join("c", 2_000);
    world.pass(10_000);
    world.advice = Some(Advice::Usual);
    world.lose(&["b"]);
    world.pass(2_000);
    assert_eq!(world.on("c"), 200);
    assert_eq!(world.questions.len(), asked + 200);
}

#[test]
fn a_hiccup_costs_no_process_that_was_not_asked_about_its_advice() {
    for rounds in [1, 2] {
        let mut world = World::new(|_| {});
        world.hooks(1, &[Hook::Exit]);
        world.join("a", 2_000);
        world.fill(0..200);
        for id in 0..200 {
            world.exits(&key(id), "shutdown");
        }
        let mut late = 0;
        for round in 1..=rounds {
            if round == rounds {
                world.advice = Some(Advice::Elsewhere);
            }
            late += world.time_out(late);
        }
        assert!(late <= 32 * rounds, "{late}");
        world.pass(20_000);
        assert_eq!(world.on("a") as usize, 200 - late);
        assert_eq!(world.questions.len(), 200);
        assert!(world.unasked.is_empty());
    }
}

#[test]
fn a_process_that_is_waited_for_too_long_is_given_up_though_nobody_has_answered() {
    let mut world = World::new(|_| {});
    world.hooks(1, &[Hook::Exit]);
    let mut player = spec("player");
    player.pending_deadline_ms = 2_000;
    world.put_type(player);
    world.join("a", 9);
    world.fill(1..2);
    world.exits(&key(1), "crash");
    world.pass(1_900);
    assert!(world.record(&key(1)).is_some());
    world.pass(200);
    assert!(world.record(&key(1)).is_none());
    let question = world.questions[0].clone();
    world.advise(question.key, question.incarnation, Advice::Here);
    world.pass(100);
    assert!(world.record(&key(1)).is_none());
}

#[test]
fn a_start_that_fails_after_advice_goes_on_without_asking_again() {
    let mut world = world(&[Hook::Exit]);
    world.advice = Some(Advice::Here);
    world.game("a").refuses = true;
    world.game("b").refuses = true;
    world.exits(&key(1), "crash");
    world.pass(2_000);
    assert_eq!(world.questions.len(), 1);
    assert_eq!(world.starts[0].node, "a", "the advice");
    assert!(
        world.starts.len() >= 3,
        "and then as ever: {:?}",
        world.starts
    );
    world.game("a").refuses = false;
    world.game("b").refuses = false;
    world.pass(60_000);
    assert!(world.runs(&key(1)));
}

#[test]
fn no_reason_makes_an_end_look_like_a_move() {
    let mut world = world(&[Hook::Exit]);
    world.advice = Some(Advice::BackOff(1_000));
    world.exits(&key(1), "moved: to the cellar");
    assert_eq!(world.questions[0].reason, "exited: moved: to the cellar");
    world.pass(2_000);
    assert!(world.runs(&key(1)));
}

#[test]
fn the_node_where_it_ran_is_no_advice_when_its_party_keeps_it_out() {
    let mut world = World::new(|_| {});
    world.hooks(1, &[Hook::Exit]);
    for node in ["a", "b", "c"] {
        world.join(node, 9);
    }
    world.game("b").refuses = true;
    // Its member keeps the party from being settled.
    world.game("c").dead = true;
    let members =
        [1, 2, 3].map(
            |id| match world.create_of(&key(id), |options| options.back_off_ms = 100) {
                Request::CreateProcess(_, create) => *create,
                other => panic!("{other:?}"),
            },
        );
    let party = CreateParty {
        group: "raid".to_owned(),
        rule: PartyRule::Apart,
        members: members.into(),
    };
    let client = world.client;
    world.send(Request::CreateParty(client, Box::new(party)));
    world.run();
    let on = |world: &World, node: &str| {
        let mut members = (1..4).map(key);
        let is_there = |key: &ProcessKey| world.record(key).unwrap().node.as_str() == node;
        members.find(is_there).unwrap()
    };
    let (ran, other) = (on(&world, "a"), on(&world, "b"));
    let life = world.record(&ran).unwrap().incarnation;
    world.exits(&ran, "out of memory");
    world.pass(200);
    assert_eq!(world.node_of(&other), "a", "it is the only one left for it");
    world.game("b").refuses = false;
    world.advise(ran.clone(), life, Advice::Here);
    world.run();
    assert_eq!(world.node_of(&ran), "b");
}
