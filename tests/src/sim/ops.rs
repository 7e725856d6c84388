//! What operators and fence modules do about game nodes: drains, moves, switches, and words on who is dead.
//!
//! They tell the truth: a node is said to be dead only when the very process that had the session is gone
//! for good. Which process that is, is told by the instance that it registered with.

use maitred_protocol::{
    ClientId, Drain, NodeEpoch, NodeName, RebalanceAsk, Request, Response, Switch,
};
use maitred_replica::{Examination, Input, Verdict};

use super::actor::Role;
use super::caller::{Outcome, Purpose};
use super::host::HostEvent;
use super::plan::Fault;
use super::queue::What;
use super::world::{World, say};

/// The session goes into a request when it is sent.
const NO_SESSION: ClientId = ClientId(0);
/// Longest that an operator asks for one thing.
const WITHIN_US: u64 = 60_000_000;

/// Configurations of the selector: by the fewest processes, the same with alternatives, waiting for an
/// empty node, and none at all.
pub const MOODS: [&str; 4] = ["{}", "ranks", "patient", "rejects"];

impl World {
    fn operator_asks(&mut self, request: Request) {
        let operator = self.actors.len() - 1;
        self.ask(operator, Purpose::Scenery, request, WITHIN_US, None);
    }

    /// A node takes no new processes, or does again.
    pub(super) fn cordon(&mut self, node: usize, cordoned: bool) {
        let request = Request::CordonNode {
            client: NO_SESSION,
            name: self.node(node).name.clone(),
            cordoned,
        };
        self.operator_asks(request);
    }

    /// The selector decides in another way, or as before.
    pub(super) fn change_selector(&mut self, percent: u8, mood: u8) {
        let (client, name) = (NO_SESSION, super::operator::selector());
        let request = match percent {
            0 => Request::RollbackModule(client, name, None),
            percent => Request::ActivateModule {
                client,
                name,
                version: 1,
                config: Some(MOODS[usize::from(mood) % MOODS.len()].to_owned()),
                percent,
                types: Vec::new(),
                guard: String::new(),
            },
        };
        self.operator_asks(request);
    }

    /// The leader's guard says that a version is to be taken back.
    pub(super) fn guard_selector(&mut self, active: bool) -> bool {
        let Some(machine) = self.hosts.iter().position(|host| host.serving) else {
            return false;
        };
        let name = super::operator::selector();
        let replica = self.hosts[machine].replica.as_ref();
        let module = replica.and_then(|replica| replica.registry().module(&name));
        let canary = module.and_then(|module| module.canary.as_ref());
        let canary = canary.map(|canary| canary.decides.at);
        let all = module.and_then(|module| module.active.as_ref());
        let Some(activated) = canary.filter(|_| !active).or(all.map(|all| all.at)) else {
            return false;
        };
        let cause = "it did badly".to_owned();
        let input = Input::Guarded {
            name,
            activated,
            cause,
        };
        self.give(machine, input);
        true
    }

    /// A node is drained.
    pub(super) fn drain(&mut self, node: usize, per_second: u32) {
        let deadline_ms = 1_000 + self.chance.below(6_000);
        let drain = Drain {
            deadline_ms,
            per_second,
        };
        self.checks.needless.moves_asked = true;
        let request = Request::DrainNode {
            client: NO_SESSION,
            name: self.node(node).name.clone(),
            drain: Some(drain),
        };
        self.operator_asks(request);
    }

    /// Something is held up, or goes on.
    pub(super) fn suspend(&mut self, recreation: bool, suspended: bool) {
        let what = match recreation {
            true => Switch::Recreation,
            false => Switch::Moves,
        };
        self.operator_asks(Request::Suspend {
            client: NO_SESSION,
            what,
            suspended,
        });
    }

    /// Nothing is held up or emptied any more.
    pub(super) fn let_go_on(&mut self) {
        for node in 0..self.scenario.nodes {
            self.cordon(node, false);
        }
        for recreation in [false, true] {
            self.suspend(recreation, false);
        }
        let changes =
            |(_, fault): &(u64, Fault)| matches!(fault, Fault::Activate(..) | Fault::Guard(_));
        if self.scenario.plan.iter().any(changes) {
            self.change_selector(100, 0);
        }
    }

    /// An operator looks what pending processes and lost sessions wait for.
    pub(super) fn ask_what_waits(&mut self) {
        let pending = Request::ListPending {
            after: None,
            limit: 0,
        };
        for request in [pending, Request::ListLost] {
            self.operator_asks(request);
        }
    }

    /// Moves are planned, to be made at once.
    pub(super) fn plan_rebalance(&mut self) {
        let operator = self.actors.len() - 1;
        let request = Request::PlanRebalance(RebalanceAsk::default());
        self.ask(operator, Purpose::Rebalance, request, 5_000_000, None);
    }

    /// The plan is there.
    pub(super) fn rebalance(&mut self, _operator: usize, outcome: Outcome) {
        let Outcome::Answer(_, Response::Rebalance(plan)) = outcome else {
            return;
        };
        if plan.moves.is_empty() {
            return self.cover.count("nothing to rebalance");
        }
        self.cover.count("moves planned");
        self.checks.needless.moves_asked = true;
        let per_second = 1 + self.chance.below(50);
        self.operator_asks(Request::Rebalance {
            moves: plan.moves,
            per_second,
        });
    }

    /// Whether the process that registered this session is gone for good.
    pub(super) fn is_dead(&self, epoch: NodeEpoch) -> bool {
        let Some(instance) = self.checks.needless.instance_of(epoch) else {
            return false;
        };
        let lives = |role: &Role| matches!(role, Role::Node(node) if node.instance == instance);
        !self
            .actors
            .iter()
            .any(|actor| actor.up && lives(&actor.role))
    }

    /// The operator looks which sessions are of processes that are gone, and says so.
    pub(super) fn confirm_dead(&mut self) -> bool {
        let leader = self.hosts.iter().find(|host| host.serving);
        let registry = leader.and_then(|host| host.replica.as_ref());
        let Some(registry) = registry.map(maitred_replica::Replica::registry) else {
            return false;
        };
        let live = registry.nodes().map(|node| (&*node.name, node.epoch()));
        let lost = registry.lost().map(|(epoch, lost)| (&*lost.name, epoch));
        let dead: Vec<(NodeName, NodeEpoch)> = live
            .chain(lost)
            .filter(|(_, epoch)| self.is_dead(*epoch))
            .map(|(name, epoch)| (name.clone(), epoch))
            .collect();
        for (name, epoch) in &dead {
            self.operator_asks(Request::ConfirmDead {
                client: NO_SESSION,
                name: name.clone(),
                epoch: Some(*epoch),
            });
        }
        !dead.is_empty()
    }

    /// A fence module is asked whether a lost node is dead. It fails now and then, or hangs until nobody
    /// waits for it any more.
    pub(super) fn examine(&mut self, machine: usize, examination: &Examination) {
        let Examination { epoch, fence, .. } = examination;
        say!(self, "h{machine}: is {} dead?", examination.name);
        self.cover.count("fence module asked");
        let fails = self.guests.below(100) < self.scenario.knobs.fence_fails;
        let hangs = fails && self.guests.below(4) == 0;
        let took_us = match hangs {
            true => u64::from(examination.within_ms) * 1_000,
            false => 2_000 + u64::from(self.guests.below(100_000)),
        };
        let dead = self.is_dead(*epoch) || self.mutant("shell-fence-lies");
        let verdict = if fails || examination.module.is_err() {
            Verdict::Failed
        } else if dead {
            self.cover.count("fence module said: dead");
            Verdict::Dead("its process is gone".to_owned())
        } else {
            let again_ms = 100 + self.guests.below(900);
            Verdict::Unknown { again_ms }
        };
        let input = Input::Examined {
            epoch: *epoch,
            fence: fence.clone(),
            verdict,
        };
        let (life, event) = (self.hosts[machine].life, HostEvent::Input(Box::new(input)));
        self.queue
            .push(self.now + took_us, What::Host(machine, life, event));
    }
}
