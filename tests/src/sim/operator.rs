//! The operator: makes the scenery at first, then adds, replaces and removes hosts as faults demand.
//!
//! One change of the membership at a time, and no disk is lost while another one's host has not been
//! replaced: a group survives the loss of a minority of its disks, and no more.

use std::collections::VecDeque;

use maitred_protocol::{
    ClientId, Digest, Hook, HostName, MemberRole, ModuleKind, ModuleName, OnNodeLost, Request,
    Response, Restart, TypeName, TypeSpec,
};
use maitred_registry::PushModule;
use maitred_replica::{Input, Push};

use super::caller::{Outcome, Purpose};
use super::client::TYPES;
use super::host::{Asker, State, address_of};
use super::plan::Mend;
use super::queue::What;
use super::world::{World, say};

const NO_SESSION: ClientId = ClientId(0);
/// The selector's name.
const SELECTOR: &str = "least-loaded";
/// The other selector's name; it never changes.
const OTHER: &str = "fewest";
/// The fence module's name.
const FENCE: &str = "witness";
/// Longest that one change of the membership is asked for.
const WITHIN_US: u64 = 120_000_000;

/// A change of the membership.
#[derive(Debug, Clone)]
enum Job {
    /// This machine has lost the disk of this host; replaced, or removed.
    Lost(usize, u64, bool),
    /// This machine joins; announced first or not.
    Add(usize, bool),
    /// This host goes.
    Remove(u64),
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Operator {
    jobs: VecDeque<Job>,
    /// What is waited for: a host that is to go, and a machine whose host is to vote.
    waits: Option<(Option<u64>, Option<usize>)>,
    asking: bool,
    /// The members as a host last said: number and role.
    seen: Vec<(u64, MemberRole)>,
}

/// The selector of all types, but perhaps the last one.
pub(super) fn selector() -> ModuleName {
    ModuleName::new(SELECTOR).expect("a valid constant")
}

impl Operator {
    /// Whether a change is under way.
    pub fn is_busy(&self) -> bool {
        !self.jobs.is_empty() || self.waits.is_some()
    }
}

impl World {
    fn operator_actor(&self) -> usize {
        self.actors.len() - 1
    }

    /// Types and modules, as an operator would make them.
    pub fn make_scenery(&mut self, actor: usize) {
        for (name, manner) in TYPES.iter().zip(self.scenario.knobs.types) {
            let mut spec = TypeSpec::new(TypeName::new(*name).expect("a valid constant"));
            if manner.recreate {
                spec.on_node_lost = OnNodeLost::Recreate;
            }
            if self.has_other_selector(name) {
                spec.selector = ModuleName::new(OTHER).expect("a valid constant");
            }
            spec.restart = manner.restart;
            spec.on_drain = manner.on_drain;
            let fence = manner.fence && manner.restart == Restart::Strict;
            spec.fence = fence.then(|| ModuleName::new(FENCE).expect("a valid constant"));
            let put = Request::PutType(NO_SESSION, Box::new(spec));
            self.ask(actor, Purpose::Scenery, put, WITHIN_US, None);
        }
        self.push_modules(actor);
    }

    /// Whether a type's processes are placed by another selector than those of the others.
    pub(super) fn has_other_selector(&self, type_name: &str) -> bool {
        self.scenario.knobs.two_selectors && TYPES.last() == Some(&type_name)
    }

    /// Modules are pushed at whichever host leads; until then creates use the fallback.
    fn push_modules(&mut self, actor: usize) {
        self.actor_later(actor, 700_000, super::actor::ActorEvent::Next);
    }

    /// Uploads come to a host's own service, which tells the replica.
    pub fn operator_next(&mut self, actor: usize) {
        let client = self.actors[actor].caller.session();
        let leader = (0..self.hosts.len()).find(|at| self.hosts[*at].serving);
        let Some(machine) = leader.filter(|_| client.0 != 0) else {
            return self.push_modules(actor);
        };
        let all = vec![Hook::NodeLost, Hook::Exit, Hook::Compensate];
        for (at, (name, kind)) in [
            (SELECTOR, ModuleKind::Selector),
            (OTHER, ModuleKind::Selector),
            ("start", ModuleKind::Callback),
            (FENCE, ModuleKind::Fence),
        ]
        .into_iter()
        .enumerate()
        {
            let name = ModuleName::new(name).expect("a valid constant");
            let module = PushModule {
                digest: Digest::of(name.as_str().as_bytes()),
                name: name.clone(),
                kind,
                bytes: 5,
                title: "simulated".to_owned(),
                features: vec!["processes".to_owned()],
                world: "selector".to_owned(),
                abi: "0.2.0".to_owned(),
                hooks: match kind {
                    ModuleKind::Callback if self.scenario.knobs.hooks => all.clone(),
                    _ => Vec::new(),
                },
                signature: None,
                is_trusted: false,
            };
            let push = Push { client, module };
            let ticket = self.ticket(machine, Asker::Nobody);
            let sequence = 1_000_000 + at as u64;
            let input = Input::Push {
                ticket,
                sequence,
                push,
            };
            self.give(machine, input);
            let activate = Request::ActivateModule {
                client: NO_SESSION,
                name,
                version: 0,
                config: None,
                percent: 100,
                types: Vec::new(),
                guard: String::new(),
            };
            self.ask(actor, Purpose::Scenery, activate, 10_000_000, None);
        }
    }

    /// Some of the scenery is there, or could not be made: then creates do without.
    pub fn scenery_made(&mut self, _actor: usize, outcome: Outcome) {
        if matches!(outcome, Outcome::Answer(..)) {
            self.cover.count("scenery made");
        }
    }

    /// A machine's disk is lost.
    pub fn lose_disk(&mut self, machine: usize, replace: bool) -> bool {
        let host = &self.hosts[machine];
        if self.operator.is_busy() || !host.is_up() || self.voters_elsewhere(machine) < 2 {
            return false;
        }
        let old = host.id;
        self.kill_host(machine);
        let instance = 1_000 + u64::from(self.hosts[machine].life) * 100 + machine as u64;
        self.hosts[machine].lose_disk(instance);
        say!(self, "h{machine}: the disk of host {old} is lost");
        let start = Mend::Start(machine, self.hosts[machine].life);
        self.queue.push(self.now + 300_000, What::Mend(start));
        self.operator
            .jobs
            .push_back(Job::Lost(machine, old, replace));
        self.next_job();
        true
    }

    /// Hosts besides this machine's whose process runs: enough of them must be there.
    fn voters_elsewhere(&self, machine: usize) -> usize {
        let up = |host: &&super::host::Host| host.machine != machine && host.is_up();
        self.hosts.iter().filter(up).count()
    }

    /// A machine that has no host yet gets one.
    pub fn add_host(&mut self) -> bool {
        if self.operator.is_busy() {
            return false;
        }
        let free = |host: &super::host::Host| host.state == State::Down && host.id == 0;
        let Some(machine) = self.hosts.iter().position(free) else {
            return false;
        };
        let announced = self.chance.below(2) == 0;
        self.operator.jobs.push_back(Job::Add(machine, announced));
        self.next_job();
        true
    }

    /// A machine's host is taken out.
    pub fn remove_host(&mut self, machine: usize) -> bool {
        if self.operator.is_busy()
            || !self.hosts[machine].is_up()
            || self.voters_elsewhere(machine) < 3
        {
            return false;
        }
        let host = self.hosts[machine].id;
        self.operator.jobs.push_back(Job::Remove(host));
        self.next_job();
        true
    }

    /// Those that are not founders join one after another.
    pub fn found(&mut self) {
        let joiners = self.scenario.founders..self.scenario.hosts;
        let jobs = joiners.map(|machine| Job::Add(machine, false));
        self.operator.jobs.extend(jobs);
        self.next_job();
    }

    fn next_job(&mut self) {
        if self.operator.asking || self.operator.waits.is_some() {
            return;
        }
        let Some(job) = self.operator.jobs.front().cloned() else {
            return;
        };
        let client = NO_SESSION;
        let request = match job {
            Job::Lost(machine, host, true) => Request::ReplaceMember {
                client,
                host,
                address: Some(address_of(machine)),
            },
            Job::Lost(_, host, false) | Job::Remove(host) => Request::RemoveMember { client, host },
            Job::Add(machine, announced) => {
                self.boot(machine);
                if !announced {
                    return self.wait_for(None, Some(machine));
                }
                Request::AddMember {
                    client,
                    name: HostName::new(format!("host-{}", machine + 1))
                        .expect("letters and digits"),
                    address: address_of(machine),
                }
            }
        };
        self.operator.asking = true;
        let actor = self.operator_actor();
        self.ask(actor, Purpose::Member, request, WITHIN_US, None);
    }

    fn boot(&mut self, machine: usize) {
        say!(self, "h{machine} begins to join");
        self.start_host(machine);
    }

    fn wait_for(&mut self, gone: Option<u64>, voter: Option<usize>) {
        self.operator.jobs.pop_front();
        self.operator.waits = Some((gone, voter));
        self.ask_members();
    }

    fn ask_members(&mut self) {
        self.operator.asking = true;
        let actor = self.operator_actor();
        self.ask(
            actor,
            Purpose::Member,
            Request::ListMembers,
            WITHIN_US,
            None,
        );
    }

    /// The operator's question is answered.
    pub fn member_answered(&mut self, _actor: usize, outcome: Outcome) {
        self.operator.asking = false;
        let Outcome::Answer(_, response) = outcome else {
            return self.operator_pause();
        };
        match response {
            Response::Members(members) => {
                // Any host's view will do: what it waits for does not become undone.
                let roles = members.items.iter().map(|item| (item.host, item.role));
                self.operator.seen = roles.collect();
                self.settle();
                self.operator_pause();
            }
            Response::Rejected(no) => {
                say!(self, "operator: refused: {no}");
                self.cover.count("membership change refused");
                // A host that is no longer a member has been dealt with; the rest is asked again.
                match self.operator.jobs.front() {
                    Some(Job::Lost(machine, host, _)) => {
                        let (machine, host) = (*machine, *host);
                        if no.to_string().contains("not found") {
                            return self.wait_for(Some(host), Some(machine));
                        }
                    }
                    _ => drop(self.operator.jobs.pop_front()),
                }
                self.operator_pause();
            }
            _ => {
                self.cover.count("membership change accepted");
                match self.operator.jobs.front().cloned() {
                    Some(Job::Lost(machine, host, _)) => self.wait_for(Some(host), Some(machine)),
                    Some(Job::Add(machine, _)) => self.wait_for(None, Some(machine)),
                    Some(Job::Remove(host)) => self.wait_for(Some(host), None),
                    None => self.operator_pause(),
                }
            }
        }
    }

    fn settle(&mut self) {
        let Some((gone, voter)) = self.operator.waits else {
            return;
        };
        let seen = &self.operator.seen;
        let is_gone = gone.is_none_or(|host| seen.iter().all(|(have, _)| *have != host));
        let votes = voter.is_none_or(|machine| {
            let host = self.hosts[machine].id;
            seen.iter()
                .any(|(have, role)| *have == host && *role == MemberRole::Voter)
        });
        if is_gone && votes {
            say!(self, "operator: done");
            self.cover.count("membership change done");
            self.operator.waits = None;
        }
    }

    fn operator_pause(&mut self) {
        if self.operator.is_busy() {
            let actor = self.operator_actor();
            self.actor_later(actor, 200_000, super::actor::ActorEvent::Member);
        }
    }

    /// The operator looks again.
    pub fn operator_again(&mut self) {
        if self.operator.asking {
            return;
        }
        if self.operator.waits.is_some() {
            self.ask_members();
        } else {
            self.next_job();
        }
    }

    /// Leadership is to be handed over.
    pub fn transfer(&mut self) {
        let actor = self.operator_actor();
        let request = Request::TransferLeader { to: None };
        self.ask(actor, Purpose::Scenery, request, 2_000_000, None);
    }
}
