//! Requests at the door: answer now, read, propose, or begin a saga.
//!
//! One verb, one arm. Whatever only the registry can judge is proposed and judged there; what is
//! checked here is what the leader alone knows, or what would waste an entry.

use std::sync::Arc;

use maitred_protocol::{
    CreateProcess, ModuleKind, Rejection, Request, RequestId, Response, Revision, Unavailable,
};
use maitred_registry::decide::cut;
use maitred_registry::guard::Guard;
use maitred_registry::{Command, Known, Outcome};

use crate::effect::{Answer, Effect};
use crate::input::Ticket;
use crate::moves::MOVED;
use crate::mutants;
use crate::proposals::Waiter;
use crate::replica::Replica;
use crate::saga::{Joined, selector_of};

/// Requests that wait for a leader's first entry; more are told to look for a leader.
const EARLY_MAX: usize = 4_096;

/// Microseconds after which they are told so too: a group whose disks are stuck elects, and does not
/// serve.
const EARLY_US: u64 = 2_000_000;

/// Whether any host can answer it.
fn is_read(request: &Request) -> bool {
    // These need what only the leader knows.
    let leaders = matches!(
        request,
        Request::AttachNode { .. }
            | Request::Plan(_)
            | Request::TransferLeader { .. }
            | Request::ListPending { .. }
            | Request::PlanRebalance(_)
            | Request::Rebalance { .. }
    );
    !request.is_change() && !leaders
}

/// What a game says of an end cannot make it look like a move.
fn exit_reason(reason: String) -> String {
    match reason.starts_with(MOVED) {
        true => cut(format!("exited: {reason}")),
        false => reason,
    }
}

impl Replica {
    /// Whether this host has been elected, and its first entry is on its way: who asks now is better
    /// off waiting a moment than looking for a leader elsewhere.
    fn is_about_to_serve(&self) -> bool {
        self.consensus.is_leader() && self.serving.is_none() && !self.shutting_down && !self.halted
    }

    /// Takes what came before this host served.
    pub(crate) fn admit_early(&mut self) {
        for (_, ticket, sequence, request) in std::mem::take(&mut self.early) {
            self.admit(ticket, sequence, request);
        }
    }

    /// Sends those away who waited for this host to serve, when it does not lead after all, or the
    /// first of them has waited for too long.
    pub(crate) fn refuse_early(&mut self) {
        let Some((first_us, ..)) = self.early.first() else {
            return;
        };
        let is_late = self.now.mono_us.saturating_sub(*first_us) >= EARLY_US;
        if self.is_about_to_serve() && !is_late {
            return;
        }
        let why = match self.shutting_down {
            true => Unavailable::ShuttingDown,
            false => self.not_leader(),
        };
        for (_, ticket, ..) in std::mem::take(&mut self.early) {
            self.unavailable(ticket, why.clone());
        }
    }

    pub(crate) fn admit(&mut self, ticket: Ticket, sequence: u64, request: Request) {
        if let Request::Status = request {
            let status = Box::new(self.status());
            return self.reply(ticket, Response::Status(status));
        }
        if let Request::ListMembers = request {
            let members = Box::new(self.members());
            return self.reply(ticket, Response::Members(members));
        }
        if let Request::GetProcess { stale: true, .. } = request {
            return self.answer_read(ticket, request);
        }
        if self.is_about_to_serve() && self.early.len() < EARLY_MAX {
            let at_us = self.now.mono_us;
            return self.early.push((at_us, ticket, sequence, request));
        }
        if is_read(&request) && !self.shutting_down {
            // Any host answers these; the leader once it knows what its predecessors promised.
            return match (self.consensus.is_leader(), self.serving) {
                (true, None) => self.unavailable(ticket, self.not_leader()),
                _ => self.reads.push(ticket, request, self.registry.applied()),
            };
        }
        // A create is refused for room later, when it is known that it is not a retry.
        let grows = matches!(request, Request::SetProcess(..) | Request::PutType(..));
        if let Some(why) = self.refusal(grows) {
            return self.unavailable(ticket, why);
        }
        let id = request
            .client()
            .map(|client| RequestId { client, sequence });
        let command = match request {
            Request::CreateProcess(client, create) => {
                let request = RequestId { client, sequence };
                return self.admit_new_create(ticket, request, create, false);
            }
            Request::Plan(create) => return self.admit_plan(ticket, *create),
            Request::OpenSession => Command::OpenSession,
            Request::CloseSession(client) => {
                let command = Command::CloseSession(client);
                if self.registry.level() < command.level() {
                    // A courtesy that not every host of the group understands yet.
                    let now = Revision(self.registry.applied());
                    return self.reply(ticket, Response::Done(now));
                }
                return self.queue(None, command, Waiter::Client(ticket));
            }
            Request::AddMember { name, address, .. } => Command::PutMember {
                host: 0,
                name,
                address,
                instance: 0,
                replaces: None,
            },
            Request::ReplaceMember {
                client,
                host,
                address,
            } => {
                let request = RequestId { client, sequence };
                return self.admit_replace(ticket, request, host, address);
            }
            Request::RemoveMember { client, host } => {
                let request = RequestId { client, sequence };
                return self.admit_remove(ticket, request, host);
            }
            Request::TransferLeader { to } => return self.admit_transfer(ticket, to),
            Request::SetProcess(_, set) => Command::SetProcess(set),
            Request::DelProcess {
                key,
                incarnation,
                ended,
                ..
            } => {
                let current = self.registry.process(&key);
                let current = current.filter(|_| mutants::on("hold-skipped-on-delete"));
                Command::DelProcess {
                    incarnation: incarnation.or(current.map(|record| record.incarnation)),
                    ended: ended || current.is_some(),
                    key,
                }
            }
            Request::RegisterNode(_, register) => Command::RegisterNode(register),
            Request::UpdateNode {
                name,
                epoch,
                labels,
                capacity,
                share,
                ..
            } => Command::UpdateNode {
                name,
                epoch,
                labels,
                capacity,
                share,
            },
            Request::DeregisterNode { name, epoch, .. } => Command::DeregisterNode { name, epoch },
            Request::CordonNode { name, cordoned, .. } => Command::CordonNode { name, cordoned },
            Request::DrainNode { name, drain, .. } => Command::DrainNode { name, drain },
            Request::ConfirmDead { name, epoch, .. } => Command::ConfirmDead {
                name,
                epoch,
                types: Vec::new(),
                proof: "an operator said so".to_owned(),
            },
            Request::Suspend {
                what, suspended, ..
            } => Command::Suspend { what, suspended },
            Request::PlanRebalance(ask) => return self.plan_rebalance(ticket, &ask),
            Request::Rebalance { moves, per_second } => {
                return self.begin_rebalance(ticket, moves, per_second);
            }
            Request::ActivateModule {
                name,
                version,
                config,
                percent,
                types,
                guard,
                ..
            } => {
                if let Err(no) = check_guard(&guard) {
                    return self.reject(ticket, no);
                }
                Command::ActivateModule {
                    name,
                    version,
                    config,
                    percent,
                    types,
                    guard,
                }
            }
            Request::RollbackModule(_, name, activated) => Command::RollbackModule {
                name,
                activated: activated.map(|Revision(at)| at),
                cause: None,
            },
            Request::ShadowModule { name, shadow, .. } => Command::ShadowModule { name, shadow },
            Request::CreateParty(client, party) => {
                let request = RequestId { client, sequence };
                return self.reads.push_party(ticket, request, party);
            }
            Request::ProcessExited {
                key,
                incarnation,
                reason,
                ..
            } => {
                let ask = self.asks_of_exits(&key);
                let reason = match ask {
                    true => exit_reason(reason),
                    false => String::new(),
                };
                Command::Exited {
                    key,
                    incarnation,
                    reason,
                    ask,
                }
            }
            Request::RemoveModule(_, name, version) => Command::RemoveModule(name, version),
            Request::PutType(_, spec) => Command::PutType(spec),
            read @ (Request::GetProcess { .. }
            | Request::ListProcesses(_)
            | Request::AttachNode { .. }
            | Request::ListPending { .. }
            | Request::GetNode(_)
            | Request::ListNodes { .. }
            | Request::GetModule(_)
            | Request::ListModules { .. }
            | Request::GetType(_)
            | Request::ListTypes { .. }
            | Request::Explain { .. }
            | Request::ModuleHistory(_)
            | Request::CompareModule(_)
            | Request::ReplayModule { .. }
            | Request::ListLost
            | Request::ListMembers
            | Request::Status) => {
                return self.reads.push(ticket, read, self.registry.applied());
            }
        };
        self.queue(id, command, Waiter::Client(ticket));
    }

    /// Fills in the type's defaults, and checks that the modules that are named exist.
    pub(crate) fn fill_in(&self, create: &mut CreateProcess) -> Result<(), Rejection> {
        let named = [
            (&create.selector, ModuleKind::Selector),
            (&create.callback, ModuleKind::Callback),
        ];
        for (name, kind) in named {
            if let Some(name) = name {
                let found = self.registry.active_module(name, kind);
                found.map_err(|why| Rejection::NotFound(format!("module {name} ({why}):")))?;
            }
        }
        let spec = self.registry.type_spec(&create.key.type_name);
        create.selector.get_or_insert_with(|| spec.selector.clone());
        create.callback.get_or_insert_with(|| spec.callback.clone());
        let options = &mut create.options;
        if options.attempts == 0 {
            options.attempts = spec.attempts;
        }
        if options.back_off_ms == 0 {
            options.back_off_ms = spec.back_off_ms;
        }
        if options.deadline_ms == 0 {
            options.deadline_ms = spec.deadline_ms;
        }
        options.demand = options.demand.max(1);
        Ok(())
    }

    fn admit_plan(&mut self, ticket: Ticket, mut create: CreateProcess) {
        if let Err(no) = self.fill_in(&mut create) {
            return self.reject(ticket, no);
        }
        let lane = selector_of(&create);
        self.plan(ticket, &lane, &create);
    }

    /// A create as it came. What this host does not know another leader may: a no waits until it is
    /// `certain` that this one leads, and knows what is committed.
    pub(crate) fn admit_new_create(
        &mut self,
        ticket: Ticket,
        request: RequestId,
        mut create: Box<CreateProcess>,
        certain: bool,
    ) {
        let no = match self.registry.known(request) {
            Known::Done(outcome) => return self.answer(ticket, outcome),
            Known::Forgotten => return self.answer(ticket, Outcome::Forgotten),
            Known::NoSession => Some(Outcome::NoSession),
            Known::Fresh => match self.refusal(true) {
                Some(why) => return self.unavailable(ticket, why),
                None => self.fill_in(&mut create).err().map(Outcome::rejected),
            },
        };
        match no {
            Some(no) if certain => return self.answer(ticket, no),
            Some(_) => return self.reads.push_new_create(ticket, request, create),
            None => {}
        }
        let allowed_us = u64::from(create.options.deadline_ms) * 1_000;
        self.admit_create(Joined {
            ticket,
            request,
            create: Arc::from(create),
            deadline_us: self.now.mono_us + allowed_us,
            late: None,
        });
    }

    /// What a request came to, if it was carried out before.
    pub(crate) fn outcome_of(&self, request: RequestId) -> Option<Outcome> {
        match self.registry.known(request) {
            Known::Done(outcome) => Some(outcome),
            Known::Fresh | Known::Forgotten | Known::NoSession => None,
        }
    }

    /// Answers with an outcome of the registry.
    pub(crate) fn answer(&mut self, ticket: Ticket, outcome: Outcome) {
        let response = match outcome {
            Outcome::Created { record, created } => return self.created(ticket, &record, created),
            Outcome::Process(record) => {
                let node = self.node_of(&record);
                let revision = Revision(self.registry.applied());
                let answer = Answer::Process { record, node, revision };
                return self.effects.push(Effect::Reply(ticket, answer));
            }
            Outcome::Party(records) => {
                return self.answer_party(ticket, &records, true);
            }
            Outcome::Session(client) => Response::Session(client),
            Outcome::Done(revision) => Response::Done(revision),
            Outcome::Member(host) => match self.registry.members().get(&host) {
                Some(member) => Response::Member(Box::new(self.member_record(host, member))),
                None => Response::Rejected(Rejection::NotFound(format!("host {host}"))),
            },
            Outcome::Registered { epoch, verdicts } => {
                Response::Registered { epoch, verdicts: verdicts.to_vec() }
            }
            Outcome::Pushed(module, version) => {
                // What was found out is for whoever took the upload in to add.
                Response::Pushed(Box::new((*module).clone()), version, Box::default())
            }
            Outcome::Module(module) => Response::Module(Box::new((*module).clone())),
            Outcome::Type(spec) => Response::Type(Box::new((*spec).clone())),
            Outcome::Rejected(rejection) => Response::Rejected((*rejection).clone()),
            Outcome::Forgotten => {
                Response::Unknown("the request may have been carried out long ago; its outcome is no longer remembered".to_owned())
            }
            Outcome::NoSession => Response::Unavailable(Unavailable::NoSession),
            Outcome::Held(r#where) => Response::Unavailable(Unavailable::Held(r#where)),
            Outcome::Reserved(_) | Outcome::PartyReserved(_) | Outcome::Stale(_) => {
                debug_assert!(false, "a saga's outcome is not a client's");
                Response::Unknown("the outcome is not known; look the process up".to_owned())
            }
        };
        self.reply(ticket, response);
    }
}

/// Whether a rule that takes a version back can be read; an empty one takes nothing back.
fn check_guard(guard: &str) -> Result<(), Rejection> {
    if guard.is_empty() {
        return Ok(());
    }
    match Guard::parse(guard) {
        Ok(_) => Ok(()),
        Err(error) => Err(Rejection::Invalid(format!("the rule {guard:?}: {error}"))),
    }
}
