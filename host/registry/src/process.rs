//! A process's entry, and the spec that it was created with.
//!
//! Records are immutable once shared: a change makes a new one. That is what makes a snapshot a
//! cheap clone, and lets an answer hold a record while the state moves on.

use std::sync::Arc;

use maitred_protocol::{
    Attempt, Chooser, CreateOptions, Incarnation, ModuleName, NodeEpoch, NodeName, ProcessId,
    ProcessKey, ProcessRecord, ProcessState, RequestId, Revision, TypeName, Why,
};

use crate::exit::{EndedBy, Ends};

/// What a process was created with, and how its create went so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// For the process.
    pub args: Arc<[u8]>,
    /// The selector.
    pub selector: ModuleName,
    /// The callback.
    pub callback: ModuleName,
    /// With the type's defaults filled in.
    pub options: CreateOptions,
    /// When the create gives up, in milliseconds since 1970.
    pub deadline_at_ms: u64,
    /// Who asked for it.
    pub request: Option<RequestId>,
    /// The party that it was created with: the index of its reservation; 0 for none.
    pub party: u64,
    /// Attempts that failed, since the create or since the process last ran.
    pub failures: Vec<Attempt>,
    /// Whether it ever ran. Until then the create is under way, and can be undone; from then on it
    /// is wanted, and is started again for as long as it takes.
    pub confirmed: bool,
    /// Since when it has no node, in milliseconds since 1970; 0 while it has one.
    pub pending_ms: u64,
    /// How its lives have ended.
    pub ends: Ends,
}

/// Why it is where it is, small enough for every record.
#[derive(Debug, Clone, PartialEq)]
pub struct CompactWhy {
    /// Who chose; shared by all that were placed by the same module.
    pub chooser: Arc<Chooser>,
    /// The seed.
    pub seed: u32,
    /// Microseconds.
    pub micros: u32,
    /// Nodes that were offered.
    pub candidates: u32,
}

impl CompactWhy {
    /// As others see it.
    #[must_use]
    pub fn to_wire(&self) -> Why {
        Why {
            chooser: (*self.chooser).clone(),
            seed: self.seed,
            micros: self.micros,
            candidates: self.candidates,
        }
    }
}

/// A process's entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its type; shared by all of the type.
    pub type_name: Arc<TypeName>,
    /// Its id; shared with the indices.
    pub id: Arc<str>,
    /// How far it is.
    pub state: ProcessState,
    /// Its node; the last one while it is pending.
    pub node: Arc<NodeName>,
    /// That node's session.
    pub epoch: NodeEpoch,
    /// Its fencing token.
    pub incarnation: Incarnation,
    /// When it last changed.
    pub revision: Revision,
    /// When it was first reserved, in milliseconds since 1970.
    pub created_ms: u64,
    /// 1 for the first.
    pub attempt: u32,
    /// Units that it takes.
    pub demand: u32,
    /// What the node calls it.
    pub pid: Box<str>,
    /// What callers are to know.
    pub share: Box<[u8]>,
    /// What it was created with; none when its node registered it.
    pub spec: Option<Arc<Spec>>,
    /// Why it is where it is.
    pub why: CompactWhy,
}

impl Record {
    /// Type and id.
    ///
    /// # Panics
    /// Never: both halves were a key when the record was made.
    #[must_use]
    pub fn key(&self) -> ProcessKey {
        let id = ProcessId::new(&*self.id).expect("was an id before");
        ProcessKey {
            type_name: (*self.type_name).clone(),
            id,
        }
    }

    /// Whether it counts as on its node.
    #[must_use]
    pub fn is_placed(&self) -> bool {
        self.state != ProcessState::Pending
    }

    /// Whether its create is still under way.
    #[must_use]
    pub fn is_creating(&self) -> bool {
        self.state != ProcessState::Running
            && self.spec.as_ref().is_some_and(|spec| !spec.confirmed)
    }

    /// Its party, if any.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        self.spec
            .as_ref()
            .and_then(|spec| spec.options.group.as_deref())
    }

    /// How its last life ended, if it is pending because of that.
    #[must_use]
    pub fn ended_by(&self) -> Option<EndedBy> {
        let ends = self.spec.as_ref().map(|spec| spec.ends);
        ends.filter(|ends| ends.open).and_then(|ends| ends.by)
    }

    /// The failed attempts of its create.
    #[must_use]
    pub fn failures(&self) -> &[Attempt] {
        self.spec.as_ref().map_or(&[], |spec| &spec.failures)
    }

    /// As others see it, given its node's address.
    #[must_use]
    pub fn to_wire(&self, address: &str) -> ProcessRecord {
        let spec = self.spec.as_deref();
        ProcessRecord {
            key: self.key(),
            state: self.state,
            node: (*self.node).clone(),
            node_epoch: self.epoch,
            address: address.to_owned(),
            incarnation: self.incarnation,
            pid: self.pid.to_string(),
            share: self.share.to_vec(),
            revision: self.revision,
            created_ms: self.created_ms,
            attempt: self.attempt,
            args_bytes: spec.map_or(0, |spec| spec.args.len() as u32),
            demand: self.demand,
            group: spec.and_then(|spec| spec.options.group.clone()),
            why: self.why.to_wire(),
        }
    }
}
