//! The shapes of a snapshot's chunks: mirrors of what is in memory, frozen with the format's version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use maitred_protocol::{
    Attempt, Chooser, ClientId, CreateOptions, Digest, DrainState, HostName, Incarnation,
    ModuleEvent, ModuleKind, ModuleName, ModuleRecord, ModuleVersion, NodeEpoch, NodeName,
    PartyRule, ProcessKey, ProcessState, Rejection, RequestId, Revision, TypeName, TypeSpec,
    Verdict,
};
use rkyv::{Archive, Deserialize, Serialize};

use super::failover::{EndsMirror, FailoverMirror, HoldMirror, LostMirror};
use crate::candidates::NodeFacts;
use crate::member::Member;
use crate::module::{Active, Canary, Module};
use crate::node::Node;
use crate::outcome::Outcome;
use crate::party::Party;
use crate::process::{Record, Spec};
use crate::session::Session;

#[derive(Archive, Serialize, Deserialize)]
pub(super) enum Chunk {
    Head {
        index: u64,
        time_ms: u64,
        fleet_revision: u64,
        swept: ClientId,
    },
    Choosers(Vec<Chooser>),
    Nodes(Vec<NodeMirror>),
    Cordoned(Vec<NodeName>),
    Modules(Vec<ModuleMirror>),
    Types(Vec<TypeSpec>),
    Records(Vec<RecordMirror>),
    Sessions(Vec<SessionMirror>),
    End {
        records: u64,
    },
    Members(Vec<MemberMirror>),
    Level(u16),
    Drains(Vec<(NodeName, DrainState)>),
    Failover(FailoverMirror),
    Holds(Vec<HoldMirror>),
    Lost(Vec<LostMirror>),
    Parties(Vec<PartyMirror>),
    /// Further outcomes of the session before.
    Outcomes(ClientId, Vec<AtOutcome>),
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub(super) struct NodeMirror {
    pub(super) name: NodeName,
    pub(super) epoch: NodeEpoch,
    pub(super) types: Vec<TypeName>,
    pub(super) address: String,
    pub(super) labels: Vec<(String, String)>,
    pub(super) capacity: u32,
    pub(super) share: Vec<u8>,
    pub(super) ttl_ms: u32,
    pub(super) revision: Revision,
    pub(super) kill_bound_ms: u32,
    pub(super) instance: u64,
    pub(super) registered_ms: u64,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct ModuleMirror {
    pub(super) name: ModuleName,
    pub(super) kind: ModuleKind,
    pub(super) versions: Vec<ModuleVersion>,
    pub(super) last_version: u32,
    pub(super) last_config: u32,
    pub(super) active: Option<ActiveMirror>,
    pub(super) canary: Option<(ActiveMirror, u8, Vec<TypeName>)>,
    pub(super) shadow: Option<ActiveMirror>,
    pub(super) before: Vec<ActiveMirror>,
    pub(super) declined: Vec<Digest>,
    pub(super) history: Vec<ModuleEvent>,
    pub(super) revision: Revision,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct ActiveMirror {
    pub(super) version: u32,
    pub(super) config: String,
    pub(super) config_version: u32,
    pub(super) guard: String,
    pub(super) at: u64,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct PartyMirror {
    pub(super) index: u64,
    pub(super) request: Option<RequestId>,
    pub(super) rule: PartyRule,
    pub(super) deadline_at_ms: u64,
    pub(super) members: Vec<ProcessKey>,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct SpecMirror {
    pub(super) args: Vec<u8>,
    pub(super) selector: ModuleName,
    pub(super) callback: ModuleName,
    pub(super) options: CreateOptions,
    pub(super) deadline_at_ms: u64,
    pub(super) request: Option<RequestId>,
    pub(super) party: u64,
    pub(super) failures: Vec<Attempt>,
    pub(super) confirmed: bool,
    pub(super) pending_ms: u64,
    pub(super) ends: EndsMirror,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct RecordMirror {
    pub(super) key: ProcessKey,
    pub(super) state: ProcessState,
    pub(super) node: NodeName,
    pub(super) epoch: NodeEpoch,
    pub(super) incarnation: Incarnation,
    pub(super) revision: Revision,
    pub(super) created_ms: u64,
    pub(super) attempt: u32,
    pub(super) demand: u32,
    pub(super) pid: String,
    pub(super) share: Vec<u8>,
    pub(super) spec: Option<SpecMirror>,
    pub(super) chooser: u32,
    pub(super) seed: u32,
    pub(super) micros: u32,
    pub(super) candidates: u32,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) enum OutcomeMirror {
    Created(Box<RecordMirror>, bool),
    Process(Box<RecordMirror>),
    Done(Revision),
    Registered(NodeEpoch, Vec<Verdict>),
    Pushed(Box<ModuleRecord>, u32),
    Module(Box<ModuleRecord>),
    Type(Box<TypeSpec>),
    Rejected(Box<Rejection>),
    Member(u64),
    Party(Vec<RecordMirror>),
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct MemberMirror {
    pub(super) host: u64,
    pub(super) name: HostName,
    pub(super) address: String,
    pub(super) instance: u64,
    pub(super) replaces: Option<u64>,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct SessionMirror {
    pub(super) client: ClientId,
    pub(super) forgotten_below: u64,
    pub(super) last_index: u64,
    pub(super) outcomes: Vec<AtOutcome>,
}

/// Sequence, index, and what it came to.
pub(super) type AtOutcome = (u64, u64, OutcomeMirror);

/// Numbers the choosers, which many records share.
#[derive(Default)]
pub(super) struct ChooserTable {
    pub(super) list: Vec<Chooser>,
    pub(super) numbers: hashbrown::HashMap<*const Chooser, u32>,
}

impl ChooserTable {
    pub(super) fn number(&mut self, chooser: &Arc<Chooser>) -> u32 {
        *self.numbers.entry(Arc::as_ptr(chooser)).or_insert_with(|| {
            let same = self.list.iter().rposition(|have| have == &**chooser);
            same.unwrap_or_else(|| {
                self.list.push((**chooser).clone());
                self.list.len() - 1
            }) as u32
        })
    }
}

impl From<&Node> for NodeMirror {
    fn from(node: &Node) -> Self {
        let facts = &*node.facts;
        Self {
            name: facts.name.clone(),
            epoch: facts.epoch,
            types: facts.types.clone(),
            address: facts.address.clone(),
            labels: facts.labels.clone(),
            capacity: facts.capacity,
            share: node.share.to_vec(),
            ttl_ms: node.ttl_ms,
            revision: node.revision,
            kill_bound_ms: node.kill_bound_ms,
            instance: node.instance,
            registered_ms: facts.registered_ms,
        }
    }
}

impl From<NodeMirror> for Node {
    fn from(mirror: NodeMirror) -> Self {
        Self {
            name: Arc::new(mirror.name.clone()),
            facts: Arc::new(NodeFacts {
                name: mirror.name,
                epoch: mirror.epoch,
                types: mirror.types,
                address: mirror.address,
                labels: mirror.labels,
                capacity: mirror.capacity,
                registered_ms: mirror.registered_ms,
            }),
            share: mirror.share.into(),
            ttl_ms: mirror.ttl_ms,
            revision: mirror.revision,
            kill_bound_ms: mirror.kill_bound_ms,
            instance: mirror.instance,
            used: 0,
            of_type: BTreeMap::new(),
            of_group: BTreeMap::new(),
            keys: BTreeSet::new(),
        }
    }
}

impl From<(&ModuleName, &Module)> for ModuleMirror {
    fn from((name, module): (&ModuleName, &Module)) -> Self {
        let canary = module.canary.as_ref();
        Self {
            name: name.clone(),
            kind: module.kind,
            versions: module.versions.clone(),
            last_version: module.last_version,
            last_config: module.last_config,
            active: module.active.as_ref().map(ActiveMirror::from),
            canary: canary.map(|canary| {
                let decides = ActiveMirror::from(&canary.decides);
                (decides, canary.percent, canary.types.clone())
            }),
            shadow: module.shadow.as_ref().map(ActiveMirror::from),
            before: module.before.iter().map(ActiveMirror::from).collect(),
            declined: module.declined.clone(),
            history: module.history.iter().cloned().collect(),
            revision: module.revision,
        }
    }
}

impl From<ModuleMirror> for Module {
    fn from(mirror: ModuleMirror) -> Self {
        Self {
            kind: mirror.kind,
            versions: mirror.versions,
            last_version: mirror.last_version,
            last_config: mirror.last_config,
            active: mirror.active.map(Active::from),
            canary: mirror.canary.map(|(decides, percent, types)| Canary {
                decides: decides.into(),
                percent,
                types,
            }),
            shadow: mirror.shadow.map(Active::from),
            before: mirror.before.into_iter().map(Active::from).collect(),
            declined: mirror.declined,
            history: mirror.history.into(),
            revision: mirror.revision,
        }
    }
}

impl From<&Active> for ActiveMirror {
    fn from(active: &Active) -> Self {
        Self {
            version: active.version,
            config: active.config.to_string(),
            config_version: active.config_version,
            guard: active.guard.clone(),
            at: active.at,
        }
    }
}

impl From<ActiveMirror> for Active {
    fn from(mirror: ActiveMirror) -> Self {
        let config = (mirror.config.into(), mirror.config_version);
        Self::new(mirror.version, config, mirror.guard, mirror.at)
    }
}

impl From<(&u64, &Member)> for MemberMirror {
    fn from((host, member): (&u64, &Member)) -> Self {
        Self {
            host: *host,
            name: member.name.clone(),
            address: member.address.clone(),
            instance: member.instance,
            replaces: member.replaces,
        }
    }
}

impl From<MemberMirror> for (u64, Member) {
    fn from(mirror: MemberMirror) -> Self {
        let member = Member {
            name: mirror.name,
            address: mirror.address,
            instance: mirror.instance,
            replaces: mirror.replaces,
        };
        (mirror.host, member)
    }
}

impl RecordMirror {
    pub(super) fn new(record: &Record, choosers: &mut ChooserTable) -> Self {
        Self {
            key: record.key(),
            state: record.state,
            node: (*record.node).clone(),
            epoch: record.epoch,
            incarnation: record.incarnation,
            revision: record.revision,
            created_ms: record.created_ms,
            attempt: record.attempt,
            demand: record.demand,
            pid: record.pid.to_string(),
            share: record.share.to_vec(),
            spec: record.spec.as_deref().map(SpecMirror::from),
            chooser: choosers.number(&record.why.chooser),
            seed: record.why.seed,
            micros: record.why.micros,
            candidates: record.why.candidates,
        }
    }
}

impl From<(&u64, &Party)> for PartyMirror {
    fn from((index, party): (&u64, &Party)) -> Self {
        Self {
            index: *index,
            request: party.request,
            rule: party.rule,
            deadline_at_ms: party.deadline_at_ms,
            members: party.members.clone(),
        }
    }
}

impl From<PartyMirror> for (u64, Party) {
    fn from(mirror: PartyMirror) -> Self {
        let party = Party {
            request: mirror.request,
            rule: mirror.rule,
            deadline_at_ms: mirror.deadline_at_ms,
            members: mirror.members,
        };
        (mirror.index, party)
    }
}

impl From<&Spec> for SpecMirror {
    fn from(spec: &Spec) -> Self {
        Self {
            args: spec.args.to_vec(),
            selector: spec.selector.clone(),
            callback: spec.callback.clone(),
            options: spec.options.clone(),
            deadline_at_ms: spec.deadline_at_ms,
            request: spec.request,
            party: spec.party,
            failures: spec.failures.clone(),
            confirmed: spec.confirmed,
            pending_ms: spec.pending_ms,
            ends: spec.ends.into(),
        }
    }
}

impl From<SpecMirror> for Spec {
    fn from(mirror: SpecMirror) -> Self {
        Self {
            args: mirror.args.into(),
            selector: mirror.selector,
            callback: mirror.callback,
            options: mirror.options,
            deadline_at_ms: mirror.deadline_at_ms,
            request: mirror.request,
            party: mirror.party,
            failures: mirror.failures,
            confirmed: mirror.confirmed,
            pending_ms: mirror.pending_ms,
            ends: mirror.ends.into(),
        }
    }
}

impl SessionMirror {
    /// A session with some of its outcomes.
    pub(super) fn new(client: ClientId, session: &Session, outcomes: Vec<AtOutcome>) -> Self {
        Self {
            client,
            forgotten_below: session.forgotten_below,
            last_index: session.last_index,
            outcomes,
        }
    }
}

impl OutcomeMirror {
    /// Those of them that are remembered.
    pub(super) fn all<'a>(
        outcomes: impl IntoIterator<Item = (&'a u64, &'a (u64, Outcome))>,
        choosers: &mut ChooserTable,
    ) -> Vec<AtOutcome> {
        let outcomes = outcomes.into_iter();
        let outcomes = outcomes.filter_map(|(sequence, (index, outcome))| {
            Some((*sequence, *index, Self::new(outcome, choosers)?))
        });
        outcomes.collect()
    }

    /// None for outcomes that are never remembered.
    pub(super) fn new(outcome: &Outcome, choosers: &mut ChooserTable) -> Option<Self> {
        Some(match outcome {
            Outcome::Created { record, created } => {
                Self::Created(Box::new(RecordMirror::new(record, choosers)), *created)
            }
            Outcome::Process(record) => {
                Self::Process(Box::new(RecordMirror::new(record, choosers)))
            }
            Outcome::Done(revision) => Self::Done(*revision),
            Outcome::Registered { epoch, verdicts } => Self::Registered(*epoch, verdicts.to_vec()),
            Outcome::Pushed(module, version) => {
                Self::Pushed(Box::new((**module).clone()), *version)
            }
            Outcome::Module(module) => Self::Module(Box::new((**module).clone())),
            Outcome::Type(spec) => Self::Type(Box::new((**spec).clone())),
            Outcome::Rejected(rejection) => Self::Rejected(Box::new((**rejection).clone())),
            Outcome::Member(host) => Self::Member(*host),
            Outcome::Party(records) => {
                let records = records.iter();
                Self::Party(
                    records
                        .map(|record| RecordMirror::new(record, choosers))
                        .collect(),
                )
            }
            Outcome::Session(_)
            | Outcome::Reserved(_)
            | Outcome::PartyReserved(_)
            | Outcome::Stale(_)
            | Outcome::Held(_)
            | Outcome::Forgotten
            | Outcome::NoSession => return None,
        })
    }
}
