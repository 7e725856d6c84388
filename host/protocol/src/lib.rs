//! What other machines see: ids, requests, responses, node commands, frames and limits.
//!
//! This crate decides the bytes on the wire and nothing else. Every message is an rkyv archive in a
//! length-prefixed frame ([`codec`]) that carries a version; bytes from outside are validated and
//! checked against [`limits`] before anything else sees them, so a value of [`Request`] that came
//! through [`codec::decode`] is within bounds.
//!
//! It must never name a clock, a socket, a runtime, Raft or wasmtime.

pub mod bounds;
pub mod codec;
pub mod comparison;
pub mod failover;
pub mod id;
pub mod limits;
pub mod member;
pub mod module;
pub mod node;
pub mod peer;
pub mod record;
pub mod request;
pub mod response;
pub mod world;

pub use codec::{Frame, FrameError, Header, Kind, Wire};
pub use comparison::{ComparedVersion, Comparison, Difference, Evenness, Quantiles};
pub use failover::{
    Drain, DrainState, LostNode, Move, OnDrain, PendingProcess, RebalanceAsk, RebalancePlan,
    Restart, Spread, Switch, Waits,
};
pub use id::{
    ClientId, ClusterId, Digest, HostName, Incarnation, InvalidName, ModuleName, NodeEpoch,
    NodeName, ProcessId, ProcessKey, RequestId, Revision, TypeName,
};
pub use member::{MemberRecord, MemberRole, Members, Notice, Progress};
pub use module::{
    CanaryRecord, Findings, Hook, ModuleAction, ModuleEvent, ModuleKind, ModuleRecord,
    ModuleVersion, ShadowRecord, Signature, config_hash,
};
pub use node::{Hello, KeepAlive, KeepAliveAck, Load, NodeAnswer, NodeCommand, Welcome};
pub use peer::{
    Configuration, EntryKind, Join, LogEntry, PeerBatch, PeerGreeting, PeerHello, PeerRefusal,
    PeerRequest, PeerResponse, Purpose, RaftKind, RaftMessage, SnapshotId,
};
pub use record::{
    Answered, Candidate, Chooser, Evidence, Explanation, Fallback, NodeRecord, OnNodeLost,
    ProcessRecord, ProcessState, Refusal, RefusalReason, Status, TypeSpec, Why, WhyNot,
};
pub use request::{
    CreateOptions, CreateParty, CreateProcess, ListProcesses, OnConflict, PartyRule, RegisterNode,
    Request, SaveInputs, SaveSnapshot, SavedInputs, SavedSnapshot, SetProcess, Upload, UploadStage,
};
pub use response::{Attempt, Plan, Rejection, Response, Unavailable, Verdict};
pub use world::World;
