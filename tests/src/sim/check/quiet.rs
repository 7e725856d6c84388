//! **Property: when everything is mended, everything comes to its end within a bound.** One leader serves;
//! every host of the group has applied the same; every create has ended; every process that the registry
//! shows as running really runs, where it says, and nothing else runs; every request has its answer; every
//! change of the membership is done.

use std::collections::BTreeSet;

use maitred_protocol::{Chooser, Incarnation, ListProcesses, ProcessKey, ProcessState};

use crate::linear::{Limit, Verdict};
use crate::sim::actor::Role;
use crate::sim::client::all_keys;
use crate::sim::host::{Host, State};
use crate::sim::queue::What;
use crate::sim::world::{Phase, World, say};

/// Within this after everything was mended: longer than the longest pause between two attempts of a
/// re-creation (30 s), a lease, and an election.
pub const BOUND_US: u64 = 75_000_000;
/// So long before that the group is asked what it waits for.
const ASKED_US: u64 = 5_000_000;
/// When what holds things up is undone once more.
const LET_GO_US: u64 = 3_000_000;
/// Least time that a quiet world is looked at.
const LEAST_US: u64 = 1_500_000;
/// How often it is.
const LOOK_US: u64 = 200_000;
/// Steps that one key's history may take to check.
const STEPS: u64 = 3_000_000;

type Life = (ProcessKey, Incarnation);

/// Whether everything that is unsettled has lost its node, and is more than any node has room for.
fn is_full(registry: &maitred_registry::Registry) -> bool {
    let no_room = |demand: u32| registry.nodes().all(|node| node.left() < demand);
    let mut unsettled = registry.unsettled();
    unsettled
        .all(|one| one.state == ProcessState::Pending && !one.is_creating() && no_room(one.demand))
}

impl World {
    /// Looks whether the phase is over.
    pub fn look(&mut self) {
        match self.phase {
            Phase::Chaos => {
                self.phase = Phase::Quiet;
                self.heal();
            }
            Phase::Quiet => {
                let since = self.now - self.scenario.chaos_us;
                match self.unsettled() {
                    None if since >= LEAST_US => self.read_all(),
                    Some(what) if since >= BOUND_US => {
                        let bound = BOUND_US / 1_000_000;
                        let text = format!("{bound} s after everything was mended: {what}");
                        return self.fail("quiet", text);
                    }
                    // Of what was asked for before, something may have been on its way.
                    Some(_) if since == LET_GO_US => {
                        self.let_go_on();
                        // Of a process that gave way to another of its name nobody else says so.
                        if self.scenario.twins {
                            self.confirm_dead();
                        }
                    }
                    // The trace of a failure shows what they wait for.
                    Some(_) if since == BOUND_US - ASKED_US => self.ask_what_waits(),
                    _ => {}
                }
            }
            Phase::Last => {
                if self.all_read() {
                    return self.judge();
                }
                if self.now - self.scenario.chaos_us > 2 * BOUND_US {
                    return self.fail("quiet", "reads of a quiet group take for ever".to_owned());
                }
            }
            Phase::Done => return,
        }
        self.queue.push(self.now + LOOK_US, What::Look);
    }

    fn members(&self) -> impl Iterator<Item = &Host> {
        let part = |host: &&Host| host.id != 0 && host.state != State::Removed;
        self.hosts.iter().filter(part)
    }

    /// What has not come to its end yet.
    fn unsettled(&self) -> Option<String> {
        if let Some(host) = self.members().find(|host| host.state != State::Up) {
            return Some(format!("machine {} is {:?}", host.machine, host.state));
        }
        if let Some(host) = self.hosts.iter().find(|host| host.state == State::Joining) {
            return Some(format!("machine {} has not joined", host.machine));
        }
        if self.operator.is_busy() {
            return Some(format!(
                "the membership is still being changed: {:?}",
                self.operator
            ));
        }
        let leaders: Vec<&Host> = self.members().filter(|host| host.serving).collect();
        let [leader] = leaders[..] else {
            return Some(format!("{} hosts serve", leaders.len()));
        };
        let registry = leader.replica.as_ref()?.registry();
        for host in self.members() {
            let applied = host.replica.as_ref()?.registry().applied();
            if applied != registry.applied() {
                return Some(format!(
                    "machine {} has applied {applied}, and the leader {}",
                    host.machine,
                    registry.applied()
                ));
            }
            if let Some((ticket, asker)) = host.tickets.iter().next() {
                return Some(format!(
                    "machine {} has not answered ticket {ticket} of {asker:?}",
                    host.machine
                ));
            }
        }
        if let Some((index, party)) = registry.parties().next() {
            return Some(format!("party {index} is still created: {party:?}"));
        }
        let counts = registry.counts();
        if (counts.starting, counts.pending) != (0, 0) && !is_full(registry) {
            let (starting, pending) = (counts.starting, counts.pending);
            let waits = registry
                .unsettled()
                .map(|one| (one.key(), one.incarnation.0));
            let waits: Vec<_> = waits.take(3).collect();
            return Some(format!(
                "{starting} creates are starting and {pending} wait for a node: {waits:?}"
            ));
        }
        if registry.held() > 0 || registry.lost().count() > 0 {
            let lost: Vec<_> = registry.lost().map(|(_, lost)| &*lost.name).collect();
            let holds = registry.holding();
            let holds: Vec<_> = holds.flat_map(|epoch| registry.held_by(epoch)).collect();
            return Some(format!("{holds:?} are held; lost are {lost:?}"));
        }
        if let Some(actor) = self
            .actors
            .iter()
            .position(|actor| !actor.caller.ops.is_empty())
        {
            let purposes = self.actors[actor].caller.ops.values();
            let purposes: Vec<_> = purposes.map(|op| &op.purpose).collect();
            return Some(format!("actor {actor} still asks: {purposes:?}"));
        }
        self.untrue(registry)
    }

    /// What the registry shows and what really runs are not the same.
    fn untrue(&self, registry: &maitred_registry::Registry) -> Option<String> {
        let page = registry.list(&ListProcesses::default());
        for actor in &self.actors {
            let Role::Node(node) = &actor.role else {
                continue;
            };
            if node.retired {
                continue;
            }
            let known = registry.node(&node.name).map(maitred_registry::Node::epoch);
            if known.is_none() || node.agent.epoch() != known {
                return Some(format!("{} is not registered", node.name));
            }
            let here = page.items.iter().filter(|record| *record.node == node.name);
            let here: Vec<_> = here
                .filter(|one| one.state == ProcessState::Running)
                .collect();
            let shown: BTreeSet<Life> = here
                .iter()
                .map(|record| (record.key(), record.incarnation))
                .collect();
            // Of a node's own process whose registration it never heard of, nothing can be known.
            let owned = |life: &Life| {
                here.iter().any(|record| {
                    record.incarnation == life.1
                        && registry.to_wire(record).why.chooser == Chooser::Node
                })
            };
            let truth: BTreeSet<Life> = node.truth.keys().cloned().collect();
            if let Some((key, life)) = shown.difference(&truth).find(|life| !owned(life)) {
                return Some(format!("{key}@{life} does not run on {}", node.name));
            }
            if let Some((key, life)) = truth.difference(&shown).next() {
                return Some(format!(
                    "{key}@{life} runs on {}, and should not",
                    node.name
                ));
            }
        }
        None
    }

    /// Every key is read on every host.
    fn read_all(&mut self) {
        let took_ms = (self.now - self.scenario.chaos_us) / 1_000;
        say!(self, "all is quiet after {took_ms} ms");
        let found: Vec<_> = self
            .members()
            .filter_map(|host| {
                host.replica
                    .as_ref()
                    .map(|replica| replica.registry().digest())
            })
            .collect();
        if found.windows(2).any(|two| two[0] != two[1]) {
            return self.fail("agreement", "hosts end with different states".to_owned());
        }
        self.phase = Phase::Last;
        let keys = all_keys(self.scenario.knobs.ids());
        let machines: Vec<usize> = self.members().map(|host| host.machine).collect();
        let first = self.scenario.nodes;
        let clients = self.scenario.clients;
        let reads = keys
            .iter()
            .flat_map(|key| machines.iter().map(move |machine| (key.clone(), *machine)));
        for (number, read) in reads.enumerate() {
            if let Role::Client(client) = &mut self.actors[first + number % clients].role {
                client.last.push(read);
            }
        }
        for actor in first..first + clients {
            self.client_later(actor, 1_000);
        }
    }

    fn all_read(&self) -> bool {
        self.actors.iter().all(|actor| match &actor.role {
            Role::Client(client) => client.last.is_empty() && !client.busy,
            _ => true,
        })
    }

    /// The history of everything that was asked.
    fn judge(&mut self) {
        self.phase = Phase::Done;
        let found = self.checks.parties.judge();
        self.verify("parties", found);
        let lives = self.checks.history.check_lives();
        self.verify("history", lives);
        match self.checks.history.check(Limit { steps: STEPS }) {
            Verdict::Linearizable { .. } => self.cover.count("history linearizable"),
            Verdict::GaveUp { .. } => self.cover.count("history too long to check"),
            Verdict::Violation(violation) => self.fail("linear", violation.to_string()),
        }
    }
}
