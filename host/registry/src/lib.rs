//! The replicated state: `apply(index, entry) -> outcome`, and events.
//!
//! This crate decides what an entry of the log means. Applying the same entries in the same order
//! gives the same state, the same outcomes and the same events on every host, whatever its clock,
//! its memory layout or its version of wasmtime: it owns no clock, no dice, no file and no socket,
//! stores no floats, and walks no map in no order ([`index`] is the one exception, and says why).
//! Applying cannot fail; a no is an [`Outcome::Rejected`].
//!
//! **Invariants.** A key has at most one record, and its incarnations only grow. A node's counts are
//! those of the records that name its session. A request that is remembered is not applied again.

pub mod candidates;
pub mod command;
pub mod compare;
pub mod decide;
mod drain;
mod exit;
mod fallback;
pub mod feature;
pub mod guard;
pub mod histogram;
mod holds;
mod index;
pub mod inputs;
mod life;
pub mod limits;
mod lost;
mod member;
mod module;
pub mod mutants;
mod node;
mod outcome;
mod party;
mod process;
mod query;
pub mod random;
mod register;
mod session;
mod set;
mod snapshot;
mod trace;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use maitred_protocol::{
    Chooser, DrainState, ModuleName, NodeName, Rejection, Revision, TypeName, TypeSpec,
};

pub use command::{AbortCause, Command, Entry, EntryError, Place, PushModule, Reserve};
pub use exit::{EndedBy, Ends};
pub use holds::Hold;
pub use index::Counts;
pub use lost::Lost;
pub use member::Member;
pub use module::{Active, Canary, Module};
pub use node::Node;
pub use outcome::{Change, Event, Outcome, Stale};
pub use party::Party;
pub use process::{CompactWhy, Record, Spec};
pub use query::Page;
pub use session::Known;
pub use snapshot::{Loader, Snapshot, SnapshotError};

use drain::Failover;
use holds::Holds;
use index::Processes;
use life::At;
use limits::TYPES_MAX;
use lost::End;
use module::change::Activation;
use node::NodeChange;
use session::Sessions;

/// A registry does not go back to an index that it has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the state is at index {applied} already, which is not before {index}; give a larger one")]
pub struct RebaseError {
    /// The last index that was applied.
    pub applied: u64,
    /// The one that was asked for.
    pub index: u64,
}

/// Everything that the group agrees on.
#[derive(Debug)]
pub struct Registry {
    applied: u64,
    time_ms: u64,
    processes: Processes,
    nodes: BTreeMap<NodeName, Node>,
    cordoned: BTreeSet<NodeName>,
    drains: BTreeMap<NodeName, DrainState>,
    holds: Holds,
    failover: Failover,
    parties: BTreeMap<u64, Party>,
    modules: BTreeMap<ModuleName, Module>,
    types: BTreeMap<TypeName, Arc<TypeSpec>>,
    sessions: Sessions,
    members: BTreeMap<u64, Member>,
    level: u16,
    /// When what selectors see of the nodes (not their counts) last changed.
    fleet_revision: u64,
    /// Lets records share their chooser, newest last; not part of the state.
    choosers: VecDeque<Arc<Chooser>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// The state before the first entry.
    #[must_use]
    pub fn new() -> Self {
        Self {
            applied: 0,
            time_ms: 0,
            processes: Processes::new(),
            nodes: BTreeMap::new(),
            cordoned: BTreeSet::new(),
            drains: BTreeMap::new(),
            holds: Holds::default(),
            failover: Failover::default(),
            parties: BTreeMap::new(),
            modules: BTreeMap::new(),
            types: BTreeMap::new(),
            sessions: Sessions::default(),
            members: BTreeMap::new(),
            level: 1,
            fleet_revision: 0,
            choosers: VecDeque::new(),
        }
    }

    /// Applies the entry at `index`, which must be larger than every index before. What happened
    /// is appended to `events`, in order.
    pub fn apply(&mut self, index: u64, entry: Entry, events: &mut Vec<Event>) -> Outcome {
        debug_assert!(index > self.applied, "entries are applied in order");
        self.applied = index;
        self.time_ms = self.time_ms.max(entry.time_ms);
        self.sessions.sweep(index);
        if let Some(request) = entry.request {
            match self.sessions.lookup(request) {
                Known::Fresh => {}
                Known::Done(outcome) => return outcome,
                Known::Forgotten => return Outcome::Forgotten,
                Known::NoSession => return Outcome::NoSession,
            }
        }
        let at = At {
            index,
            time_ms: self.time_ms,
            request: entry.request,
        };
        let outcome = self.carry_out(at, entry.command, events);
        if let Some(request) = entry.request
            && outcome.is_final()
        {
            self.sessions.store(index, request, outcome.clone());
        }
        outcome
    }

    /// An entry without a command (a new leader's first) still moves the applied index.
    pub fn skip(&mut self, index: u64) {
        self.applied = self.applied.max(index);
    }

    /// Moves the applied index on without entries, for a group that is made from a snapshot of
    /// another: what is registered from then on is newer than whatever that one may have done since.
    /// The members are forgotten, the first one is host 1 as in every new cluster, and the level is 1;
    /// all else stays.
    ///
    /// # Errors
    /// [`RebaseError`] when the index is not larger; nothing has changed then.
    pub fn rebase(&mut self, index: u64) -> Result<(), RebaseError> {
        if index <= self.applied {
            let applied = self.applied;
            return Err(RebaseError { applied, index });
        }
        self.failover.forgotten = Some((self.applied + 1, index));
        self.applied = index;
        self.set_founders(&[1]);
        self.level = 1;
        Ok(())
    }

    fn carry_out(&mut self, at: At, command: Command, events: &mut Vec<Event>) -> Outcome {
        let index = at.index;
        match command {
            Command::OpenSession => Outcome::Session(self.sessions.open(index)),
            Command::Reserve(reserve) => self.reserve(at, *reserve, events),
            Command::Reassign {
                key,
                incarnation,
                cause,
                place,
            } => self.reassign(at, (&key, incarnation), cause, place, events),
            Command::Confirm {
                key,
                incarnation,
                pid,
                share,
            } => self.confirm(at, (&key, incarnation), pid, share, events),
            Command::Abort {
                key,
                incarnation,
                failure,
                cause,
                over,
            } => self.abort(at, (&key, incarnation), (failure, over), cause, events),
            Command::Unplace {
                key,
                incarnation,
                cause,
                over,
            } => self.take_off(at, (&key, incarnation), (&cause, over), None, events),
            Command::SetProcess(set) => self.set_process(at, *set, events),
            Command::DelProcess {
                key,
                incarnation,
                ended,
            } => self.del_process(at, &key, (incarnation, ended), events),
            Command::Missing {
                node,
                epoch,
                processes,
            } => self.missing(at, (&node, epoch), &processes, events),
            Command::RegisterNode(register) => self.register_node(at, *register, events),
            Command::UpdateNode {
                name,
                epoch,
                labels,
                capacity,
                share,
            } => {
                let change = NodeChange {
                    labels,
                    capacity,
                    share,
                };
                self.update_node(index, &name, epoch, change, events)
            }
            Command::DeregisterNode { name, epoch } => {
                self.end_node(at, &name, epoch, End::Left, events)
            }
            Command::Expire { name, epoch } => {
                self.end_node(at, &name, epoch, End::Expired, events)
            }
            Command::CordonNode { name, cordoned } => {
                self.cordon_node(index, &name, cordoned, events)
            }
            Command::PushModule(push) => self.push_module(at, *push, events),
            Command::ActivateModule {
                name,
                version,
                config,
                percent,
                types,
                guard,
            } => {
                let ask = Activation {
                    version,
                    config,
                    percent,
                    types,
                    guard,
                };
                self.activate_module(at, &name, ask, events)
            }
            Command::RollbackModule {
                name,
                activated,
                cause,
            } => self.rollback_module(at, &name, activated, cause, events),
            Command::ShadowModule { name, shadow } => self.put_shadow(at, &name, shadow, events),
            Command::ReserveParty { rule, members } => {
                self.reserve_party(at, rule, members, events)
            }
            Command::EndParty(index) => self.end_of_party(at, index, events),
            Command::Exited {
                key,
                incarnation,
                reason,
                ask,
            } => self.exited(at, (&key, incarnation), (reason, ask), events),
            Command::RemoveModule(name, version) => self.remove_module(at, &name, version, events),
            Command::PutType(spec) => self.put_type(index, *spec),
            Command::PutMember {
                host,
                name,
                address,
                instance,
                replaces,
            } => {
                let member = Member {
                    name,
                    address,
                    instance,
                    replaces,
                };
                self.put_member(index, host, member, events)
            }
            Command::RemoveMember(host) => self.remove_member(index, host, events),
            Command::SetLevel(level) => self.set_level(index, level, events),
            Command::CloseSession(client) => {
                self.sessions.close(client);
                Outcome::Done(Revision(index))
            }
            Command::Released(lives) => self.released(index, &lives, events),
            Command::KillBoundPassed(epoch) => self.kill_bound_passed(index, epoch, events),
            Command::RaiseKillBound {
                name,
                epoch,
                kill_bound_ms,
            } => self.raise_kill_bound(index, (&name, epoch), kill_bound_ms, events),
            Command::ConfirmDead {
                name, epoch, types, ..
            } => self.confirm_dead(at, (&name, epoch), &types, events),
            Command::DrainNode { name, drain } => {
                self.drain_node((index, at.time_ms), &name, drain, events)
            }
            Command::GiveUp { key, incarnation } => self.give_up(at, (&key, incarnation), events),
            Command::Suspend { what, suspended } => self.suspend(index, what, suspended, events),
        }
    }

    fn put_type(&mut self, index: u64, mut spec: TypeSpec) -> Outcome {
        if !self.types.contains_key(&spec.name) && self.types.len() >= TYPES_MAX {
            return Outcome::rejected(Rejection::Conflict(format!(
                "there are {TYPES_MAX} types already, which is the limit"
            )));
        }
        spec.revision = Revision(index);
        let spec = Arc::new(spec);
        self.types.insert(spec.name.clone(), Arc::clone(&spec));
        Outcome::Type(spec)
    }
}
