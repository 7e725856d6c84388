//! Histories made by an object that really is sequential, with clients that overlap and answers
//! that get lost: all must hold. And by one with a bug: those must be caught.

use std::collections::BTreeMap;

use maitred_protocol::ProcessKey;
use maitred_registry::random::Random;
use maitred_tests::linear::process::Sight;
use maitred_tests::linear::{Answer, CallId, History, Limit, Loss, Verb, Verdict};

use super::processes::running;

/// What the object does wrong, now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    /// A get answers from the state of a while ago.
    StaleGet,
    /// A set is acknowledged and forgotten.
    LostSet,
    /// A create does not look whether the key is taken.
    DoubleCreate,
    /// A delete does not look at its guard.
    Unguarded,
    /// A delete is acknowledged and forgotten.
    LostDelete,
    /// A new life begins under the incarnation of the last.
    SameIncarnation,
    /// A create is acknowledged and forgotten.
    LostCreate,
    /// A create that has failed leaves its record behind.
    HalfDone,
}

/// What the key holds: incarnation, pid when it runs, and who is creating it.
#[derive(Debug, Clone, Default)]
struct Entry {
    incarnation: u64,
    pid: Option<String>,
    maker: Option<u64>,
}

struct World {
    random: Random,
    bug: Bug,
    now: u64,
    /// Grows with every change, as a log does.
    index: u64,
    entry: Option<Entry>,
    before: Vec<Option<Entry>>,
    history: History,
}

/// How far a call has come.
enum Stage {
    Asked,
    /// A create that has the key.
    Reserved,
    Answered(Answer),
}

struct Client {
    id: CallId,
    call: u64,
    verb: Verb,
    stage: Stage,
}

fn key() -> ProcessKey {
    ProcessKey::new("player", "7").unwrap()
}

impl World {
    fn chance(&mut self, percent: u32) -> bool {
        self.random.below(100) < percent
    }

    fn buggy(&mut self, bug: Bug) -> bool {
        self.bug == bug && self.chance(30)
    }

    fn put(&mut self, entry: Option<Entry>) {
        self.index += 1;
        self.before.push(std::mem::replace(&mut self.entry, entry));
    }

    fn sight(entry: &Entry) -> Sight {
        match &entry.pid {
            Some(pid) => running(entry.incarnation, pid),
            None => Sight {
                incarnation: entry.incarnation,
                running: None,
            },
        }
    }

    fn verb(&mut self) -> Verb {
        let index = self.index;
        // A guard is mostly the current incarnation.
        let guard = match (&self.entry, self.random.below(8)) {
            (Some(entry), 0..6) => Some(entry.incarnation),
            (_, 6) => Some(index),
            _ => None,
        };
        match self.random.below(10) {
            0..2 => Verb::Create,
            2..4 => Verb::Set(guard, format!("pid {}", self.random.next_u32())),
            4..6 => Verb::Delete(guard),
            _ => Verb::Get,
        }
    }

    /// The object takes one step for a call.
    fn step(&mut self, call: u64, verb: &Verb, reserved: bool) -> Stage {
        let entry = self.entry.clone();
        Stage::Answered(match (verb, entry) {
            (Verb::Create | Verb::Party, _) => return self.create(call, reserved),
            (Verb::Get, entry) => {
                let back = self.random.below(6) as usize + 1;
                let old = self.before.len().checked_sub(back);
                let entry = match old {
                    Some(old) if self.buggy(Bug::StaleGet) => self.before[old].clone(),
                    _ => entry,
                };
                entry.map_or(Answer::Missing, |entry| Answer::Found(Self::sight(&entry)))
            }
            (Verb::Set(only, pid), entry) => self.set(*only, pid, entry),
            (Verb::Delete(_), None) => Answer::Missing,
            (Verb::Delete(only), Some(entry)) => {
                let fits = only.is_none_or(|only| only == entry.incarnation);
                if !fits && !self.buggy(Bug::Unguarded) {
                    return Stage::Answered(Answer::Fenced(entry.incarnation));
                }
                if !self.buggy(Bug::LostDelete) {
                    self.put(None);
                }
                Answer::Deleted
            }
        })
    }

    fn set(&mut self, only: Option<u64>, pid: &str, entry: Option<Entry>) -> Answer {
        let pid = Some(pid.to_owned());
        match (entry, only) {
            (None, Some(_)) => Answer::Missing,
            (None, None) => {
                let incarnation = self.index + 1;
                self.put(Some(Entry {
                    incarnation,
                    pid,
                    maker: None,
                }));
                Answer::Set(incarnation)
            }
            (Some(entry), only) => {
                let incarnation = entry.incarnation;
                if only.is_some_and(|only| only != incarnation) || entry.pid.is_none() {
                    return match only {
                        Some(_) => Answer::Fenced(incarnation),
                        None => Answer::Found(Self::sight(&entry)),
                    };
                }
                if !self.buggy(Bug::LostSet) {
                    self.put(Some(Entry {
                        incarnation,
                        pid,
                        maker: None,
                    }));
                }
                Answer::Set(incarnation)
            }
        }
    }

    fn create(&mut self, call: u64, reserved: bool) -> Stage {
        let entry = self.entry.clone();
        if !reserved {
            return match entry {
                Some(entry) if !self.buggy(Bug::DoubleCreate) => match entry.pid {
                    Some(_) => Stage::Answered(Answer::Found(Self::sight(&entry))),
                    None => Stage::Asked,
                },
                _ => {
                    let last = self.before.iter().rev().flatten().next();
                    let last = last.map(|entry| entry.incarnation);
                    let incarnation = match last {
                        Some(last) if self.buggy(Bug::SameIncarnation) => last,
                        _ => self.index + 1,
                    };
                    let maker = Some(call);
                    self.put(Some(Entry {
                        incarnation,
                        pid: None,
                        maker,
                    }));
                    Stage::Reserved
                }
            };
        }
        let Some(entry) = entry.filter(|entry| entry.maker == Some(call)) else {
            return Stage::Answered(Answer::Refused);
        };
        match self.random.below(10) {
            // It failed there, and is tried elsewhere.
            0..2 => {
                let incarnation = self.index + 1;
                self.put(Some(Entry {
                    incarnation,
                    ..entry
                }));
                Stage::Reserved
            }
            2..4 => {
                if !self.buggy(Bug::HalfDone) {
                    self.put(None);
                }
                Stage::Answered(Answer::Refused)
            }
            _ => {
                let pid = Some(format!("pid {}", self.random.next_u32()));
                let entry = Entry {
                    pid,
                    maker: None,
                    ..entry
                };
                let sight = Self::sight(&entry);
                let lost = self.buggy(Bug::LostCreate);
                self.put((!lost).then_some(entry));
                Stage::Answered(Answer::Created(sight))
            }
        }
    }

    /// Nobody hears what came of a call that is over; sometimes it is known that it is.
    fn forget(&mut self, call: CallId) {
        if self.chance(80) {
            self.history.expire(call, self.now);
        }
    }

    /// A node is lost, and its process is forgotten or moves.
    fn lose(&mut self) {
        let Some(entry) = self.entry.clone().filter(|entry| entry.pid.is_some()) else {
            return;
        };
        let from = self.now;
        self.now += 2;
        if self.chance(50) {
            self.history.lost(key(), from, None, Loss::Forgotten);
            return self.put(None);
        }
        self.history.lost(key(), from, Some(self.now), Loss::Moved);
        let pid = Some(format!("pid {}", self.random.next_u32()));
        let incarnation = self.index + 2;
        self.put(Some(Entry {
            pid: None,
            ..entry.clone()
        }));
        self.put(Some(Entry {
            incarnation,
            pid,
            maker: None,
        }));
    }
}

/// A history of about `calls` calls of `width` clients.
fn run(seed: u64, bug: Bug, width: u64, calls: u64) -> History {
    let mut world = World {
        random: Random::new(seed),
        bug,
        now: 0,
        index: 1,
        entry: None,
        before: Vec::new(),
        history: History::new(),
    };
    let mut clients: BTreeMap<u64, Client> = BTreeMap::new();
    // Calls whose clients have gone away: they go on, or not.
    let mut orphans: Vec<Client> = Vec::new();
    let mut made = 0;
    while made < calls {
        world.now += 1;
        if world.chance(1) {
            world.lose();
        }
        if !orphans.is_empty() && world.chance(10) {
            let at = world.random.below(orphans.len() as u32) as usize;
            let reserved = matches!(orphans[at].stage, Stage::Reserved);
            let (call, verb) = (orphans[at].call, orphans[at].verb.clone());
            match world.step(call, &verb, reserved) {
                Stage::Answered(_) => {
                    let orphan = orphans.swap_remove(at);
                    world.forget(orphan.id);
                }
                stage => orphans[at].stage = stage,
            }
        }
        let who = u64::from(world.random.below(width as u32));
        let Some(client) = clients.get_mut(&who) else {
            made += 1;
            let verb = world.verb();
            let id = world.history.invoke(world.now, who, key(), verb.clone());
            let stage = Stage::Asked;
            clients.insert(
                who,
                Client {
                    id,
                    call: made,
                    verb,
                    stage,
                },
            );
            continue;
        };
        if let Stage::Answered(answer) = &client.stage {
            if world.random.below(100) >= 5 {
                world.history.answer(client.id, world.now, answer.clone());
            } else {
                world.forget(client.id);
            }
            clients.remove(&who);
        } else if world.chance(3) {
            orphans.extend(clients.remove(&who));
        } else {
            let reserved = matches!(client.stage, Stage::Reserved);
            client.stage = world.step(client.call, &client.verb, reserved);
        }
    }
    world.history
}

#[test]
fn a_sequential_object_always_holds() {
    for seed in 0..150 {
        let width = 1 + seed % 12;
        let history = run(seed, Bug::None, width, 300);
        let verdict = history.check(Limit::default());
        assert!(
            matches!(verdict, Verdict::Linearizable { .. }),
            "seed {seed}: {verdict}"
        );
        history
            .check_lives()
            .unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
}

#[test]
fn every_bug_is_caught() {
    let bugs = [
        Bug::StaleGet,
        Bug::LostSet,
        Bug::DoubleCreate,
        Bug::Unguarded,
        Bug::LostDelete,
        Bug::SameIncarnation,
        Bug::LostCreate,
        Bug::HalfDone,
    ];
    for bug in bugs {
        let seeds = 1_000..1_020;
        let caught = seeds.filter(|seed| {
            let verdict = run(*seed, bug, 2 + seed % 5, 300).check(Limit { steps: 300_000 });
            matches!(verdict, Verdict::Violation(_))
        });
        let caught = caught.count();
        println!("{bug:?}: caught in {caught} of 20 seeds");
        assert!(caught >= 5, "{bug:?} was caught in {caught} of 20 seeds");
    }
}

#[test]
fn a_history_has_one_verdict() {
    let verdict = |_| run(1_003, Bug::StaleGet, 4, 300).check(Limit::default());
    let verdicts: Vec<Verdict> = (0..3).map(verdict).collect();
    assert!(
        matches!(verdicts[0], Verdict::Violation(_)),
        "{}",
        verdicts[0]
    );
    assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]));
}
