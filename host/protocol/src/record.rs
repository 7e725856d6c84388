//! The shapes of what the registry keeps, as others see them: processes, nodes, types, and
//! why a process is where it is.
//!
//! These are copies made for an answer. The registry's own structures are its own business.

use rkyv::{Archive, Deserialize, Serialize};

use crate::failover::{DrainState, OnDrain, Restart};
use crate::id::{
    Digest, Incarnation, InvalidName, ModuleName, NodeEpoch, NodeName, ProcessKey, Revision,
    TypeName,
};
use crate::node::Load;

/// How far a process's life has come.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProcessState {
    /// Reserved on a node; the callback is starting it.
    Starting,
    /// Started, or registered by its node.
    Running,
    /// Without a node: its last one was lost or failed, and a new one is being sought.
    Pending,
}

/// A process's entry.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct ProcessRecord {
    /// Type and id.
    pub key: ProcessKey,
    /// How far it is.
    pub state: ProcessState,
    /// The node it is on; its last one while it is pending.
    pub node: NodeName,
    /// The session of that node.
    pub node_epoch: NodeEpoch,
    /// Where that node can be reached; empty when the node is gone.
    pub address: String,
    /// Its fencing token.
    pub incarnation: Incarnation,
    /// What the node calls it; empty while it is starting.
    pub pid: String,
    /// What the node wants callers to know; at most 4 KiB.
    pub share: Vec<u8>,
    /// When it last changed.
    pub revision: Revision,
    /// Milliseconds since 1970 of the first reservation, by the leader's clock.
    pub created_ms: u64,
    /// Which attempt of its create or re-creation this is; 1 at first.
    pub attempt: u32,
    /// Bytes of the arguments that it was created with (the arguments go only to the node).
    pub args_bytes: u32,
    /// Units of capacity that it takes.
    pub demand: u32,
    /// Its party, if any.
    pub group: Option<String>,
    /// Why it is where it is.
    pub why: Why,
}

/// Who chose a node.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Chooser {
    /// Nobody: the node registered the process itself.
    Node,
    /// A selector module.
    Selector {
        /// Its name.
        name: ModuleName,
        /// Its version.
        version: u32,
        /// Its identity.
        digest: Digest,
        /// The hash of its configuration: [`crate::config_hash`].
        config: u64,
        /// Whether it decided as a canary, for a share of the ids.
        canary: bool,
    },
    /// The type's native fallback, because the selector failed.
    Fallback {
        /// Which one.
        fallback: Fallback,
        /// The selector that failed, if one was named.
        selector: Option<ModuleName>,
        /// How it failed, for people.
        cause: String,
    },
    /// Rebalancing moved it to the node that its plan named.
    Rebalance,
    /// Its callback advised to start it where it ran.
    Advice,
}

/// The compact reason that every record keeps.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Why {
    /// Who chose.
    pub chooser: Chooser,
    /// The seed of the decision.
    pub seed: u32,
    /// Microseconds that the decision took.
    pub micros: u32,
    /// Nodes that were offered.
    pub candidates: u32,
}

/// What a type does when its selector fails: a native policy that cannot.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Fallback {
    /// The node with the fewest processes.
    #[default]
    LeastLoaded,
    /// The better of two random nodes.
    TwoChoices,
    /// Highest random weight of id and node name.
    Rendezvous,
}

/// What becomes of a type's processes when their node is lost.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum OnNodeLost {
    /// Their records are removed.
    #[default]
    Forget,
    /// They are started again elsewhere, with a new incarnation.
    Recreate,
}

/// The defaults of a process type.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct TypeSpec {
    /// Its name.
    pub name: TypeName,
    /// The selector of creates that name none.
    pub selector: ModuleName,
    /// The callback of creates that name none.
    pub callback: ModuleName,
    /// What chooses when the selector fails.
    pub fallback: Fallback,
    /// What becomes of its processes when their node is lost.
    pub on_node_lost: OnNodeLost,
    /// Attempts of creates that say nothing else; 1 to 16.
    pub attempts: u8,
    /// Milliseconds before the second attempt, doubled for each further one; at most 60,000.
    pub back_off_ms: u32,
    /// Milliseconds that a create may take when it says nothing else; at most 600,000.
    pub deadline_ms: u32,
    /// When it last changed; 0 in a request.
    pub revision: Revision,
    /// When its keys may be given to another node.
    pub restart: Restart,
    /// The module that may say of a lost node that it is dead, for [`Restart::Strict`].
    pub fence: Option<ModuleName>,
    /// What becomes of its processes when their node is drained.
    pub on_drain: OnDrain,
    /// Failed attempts in a row after which a process that has lost its node is given up; 0 for
    /// never.
    pub recreate_attempts: u16,
    /// Milliseconds without a node after which a process is given up, at most 86,400,000; 0 for
    /// never.
    pub pending_deadline_ms: u32,
}

impl TypeSpec {
    /// The defaults of a type that nobody described: selector `least-loaded`, callback `start`,
    /// three attempts, 50 ms back-off, 10 s deadline, forgotten with its node, restart `safe`, moved
    /// by drains, never given up.
    ///
    /// # Panics
    /// Never: the two names are within bounds.
    #[must_use]
    pub fn new(name: TypeName) -> Self {
        let module = |name: &str| ModuleName::new(name).expect("a valid constant");
        Self {
            name,
            selector: module("least-loaded"),
            callback: module("start"),
            fallback: Fallback::default(),
            on_node_lost: OnNodeLost::default(),
            attempts: 3,
            back_off_ms: 50,
            deadline_ms: 10_000,
            revision: Revision(0),
            restart: Restart::default(),
            fence: None,
            on_drain: OnDrain::default(),
            recreate_attempts: 0,
            pending_deadline_ms: 0,
        }
    }
}

/// A node's entry.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct NodeRecord {
    /// Its name.
    pub name: NodeName,
    /// Its session.
    pub epoch: NodeEpoch,
    /// The types it hosts; empty for all.
    pub types: Vec<TypeName>,
    /// Where its processes can be reached.
    pub address: String,
    /// Key and value pairs.
    pub labels: Vec<(String, String)>,
    /// Units of capacity.
    pub capacity: u32,
    /// What it wants others to know; at most 4 KiB.
    pub share: Vec<u8>,
    /// Milliseconds of its lease.
    pub ttl_ms: u32,
    /// Whether it takes no new processes.
    pub cordoned: bool,
    /// Processes that it has, starting ones included.
    pub processes: u32,
    /// Units of capacity that those take.
    pub used: u32,
    /// Whether keep-alives are missing, short of the lease; such a node gets no new processes.
    pub suspect: bool,
    /// Milliseconds of lease left, as the leader sees it.
    pub lease_left_ms: u32,
    /// Its last load report, and how many milliseconds old that is.
    pub load: Option<(Load, u32)>,
    /// When it last changed.
    pub revision: Revision,
    /// Milliseconds that it takes at most to stop what it runs: as it said, or as was measured when
    /// that is more.
    pub kill_bound_ms: u32,
    /// Milliseconds for which it gets no new processes although its keep-alives come: it was suspect
    /// again and again. 0 when it is not so.
    pub damped_ms: u32,
    /// The drain that is emptying it, or has.
    pub drain: Option<DrainState>,
    /// Processes that it has no more and has not said yet that it has stopped. Whoever switches it off
    /// should wait for these, too.
    pub stopping: u32,
}

/// Why a node was not offered to a selector, or was not good enough.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash)]
pub enum RefusalReason {
    /// It takes no new processes.
    Cordoned,
    /// Its keep-alives are missing.
    Suspect,
    /// Its lease has run out.
    Expired,
    /// It does not host the type.
    TypeNotHosted,
    /// It lacks a label that the create demands.
    Label {
        /// The label.
        key: String,
        /// The value demanded.
        value: String,
    },
    /// Too little capacity is left.
    Capacity {
        /// Units left.
        left: u32,
        /// Units demanded.
        demand: u32,
    },
    /// It failed an earlier attempt of this create.
    FailedBefore,
    /// The selector would not take it.
    NotChosen,
    /// It was suspect again and again; so many milliseconds of steady keep-alives bring it back.
    Damped(u32),
    /// It has been given as many processes of lost nodes in this second as it may.
    Budget,
    /// The rule of the party keeps it out: together elsewhere, or enough of the party there.
    Party,
}

impl std::fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cordoned => f.write_str("cordoned"),
            Self::Suspect => f.write_str("suspect: its keep-alives are missing"),
            Self::Expired => f.write_str("its lease has run out"),
            Self::TypeNotHosted => f.write_str("does not host the type"),
            Self::Label { key, value } => write!(f, "label {key} is not {value}"),
            Self::Capacity { left, demand } => write!(f, "capacity: {left} left, {demand} needed"),
            Self::FailedBefore => f.write_str("failed an earlier attempt"),
            Self::NotChosen => f.write_str("the selector would not take it"),
            Self::Damped(left_ms) => write!(
                f,
                "damped: its keep-alives come and go; back after {left_ms} ms of steady ones"
            ),
            Self::Budget => {
                f.write_str("budget: it was given enough processes of lost nodes for now")
            }
            Self::Party => f.write_str("the rule of the party keeps it out"),
        }
    }
}

/// A node and why it was not taken.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The node.
    pub node: NodeName,
    /// Why.
    pub reason: RefusalReason,
}

/// A node that was offered, with what the selector saw of it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The node.
    pub node: NodeName,
    /// One value a feature; NaN where it was unknown.
    pub values: Vec<f32>,
    /// Whether it was chosen.
    pub chosen: bool,
    /// Milliseconds since its last load report; NaN when there is none.
    pub load_age_ms: f32,
    /// One value for each of [`Evidence::terms`], for the best nodes that the selector scored; else
    /// empty.
    pub scores: Vec<f32>,
}

/// What a selector answered.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub enum Answered {
    /// It was not asked: there was nothing to choose from, or it failed.
    #[default]
    Nothing,
    /// One node.
    Chose,
    /// So many nodes, best first; the first was taken.
    Ranked(u32),
    /// No candidate will do.
    None,
    /// The process must not be created.
    Rejected {
        /// The selector's number for the reason.
        code: u32,
        /// For people.
        reason: String,
    },
    /// Ask again, after so many milliseconds at the latest.
    Wait(u32),
}

/// Everything that a decision was made from.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Evidence {
    /// The compact reason.
    pub why: Why,
    /// Names of the features, in the order of [`Candidate::values`].
    pub features: Vec<String>,
    /// Who was offered, in the order in which the selector saw them; at most 1,024.
    pub candidates: Vec<Candidate>,
    /// Who was not, and why; at most 200.
    pub refusals: Vec<Refusal>,
    /// Refusals beyond those.
    pub refusals_more: u32,
    /// Milliseconds since 1970.
    pub decided_ms: u64,
    /// How many nodes each native filter took out, by the filter's name; those that took none are
    /// left out.
    pub filtered: Vec<(String, u32)>,
    /// Names of the terms in [`Candidate::scores`].
    pub terms: Vec<String>,
    /// What the selector answered.
    pub answered: Answered,
}

/// Why a process is where it is.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The process.
    pub record: ProcessRecord,
    /// What the decision was made from; none when the host no longer has it.
    pub evidence: Option<Evidence>,
    /// What became of the node that was asked about.
    pub why_not: Option<WhyNot>,
    /// What the decision cost in fuel (WebAssembly instructions, about), found by making it again
    /// from its recorded input; none when that is no longer kept or the selector is gone.
    pub fuel: Option<u64>,
}

/// Why a process is not on a node.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum WhyNot {
    /// It is.
    Chosen,
    /// It was offered, and the selector preferred another one; its rank among those that it scored, from 1.
    Offered(Option<u32>),
    /// It passed the filter, and the selector asked for fewer candidates.
    NotSampled,
    /// It was not offered.
    Refused(RefusalReason),
    /// There was no such node then, as far as is known.
    Unknown,
}

/// How a host is.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Status {
    /// Version of the program.
    pub build: String,
    /// This host's number in its group.
    pub host: u64,
    /// `leader`, `follower`, `candidate` or `learner`.
    pub role: String,
    /// The leader, when one is known.
    pub leader: Option<u64>,
    /// Why there is no leader, when there is none: who is not heard of, and how many are needed.
    pub no_leader: Option<String>,
    /// The members, as this host sees them.
    pub members: Vec<crate::member::MemberRecord>,
    /// The commands that the cluster may use; see `docs/UPGRADE.md`.
    pub level: u16,
    /// The Raft term.
    pub term: u64,
    /// Highest index known to be committed.
    pub commit: u64,
    /// Highest index applied.
    pub applied: u64,
    /// Entries in the log.
    pub log_entries: u64,
    /// Index of the newest snapshot.
    pub snapshot: u64,
    /// Milliseconds since the host started.
    pub uptime_ms: u64,
    /// Nodes with a live lease.
    pub nodes: u32,
    /// Processes running.
    pub running: u64,
    /// Processes starting.
    pub starting: u64,
    /// Processes without a node.
    pub pending: u64,
    /// Client sessions that the registry remembers.
    pub clients: u32,
    /// Active modules that this host cannot run, with the reason; their types use the fallback.
    pub unavailable_modules: Vec<(ModuleName, String)>,
    /// Decisions that fell back since the host started.
    pub fallbacks: u64,
    /// Why creates are refused, when they are.
    pub shedding: Option<String>,
    /// Keys that wait because an earlier life of them may still go on.
    pub held: u64,
    /// Sessions that were lost and of which something may still go on.
    pub lost: u32,
    /// Why processes of lost nodes are not created again, when they are not.
    pub recreation_paused: Option<String>,
    /// Whether an operator has suspended moves.
    pub moves_suspended: bool,
    /// Moves of rebalancing that are still to be made.
    pub moves_left: u32,
    /// Selectors that this host does not ask for now because they failed too often, and for how many
    /// more seconds.
    pub bypassed_modules: Vec<(ModuleName, u32)>,
}

impl TypeSpec {
    pub(crate) fn check_names(&self) -> Result<(), InvalidName> {
        self.name.check()?;
        self.selector.check()?;
        self.fence.as_ref().map_or(Ok(()), ModuleName::check)?;
        self.callback.check()
    }
}
