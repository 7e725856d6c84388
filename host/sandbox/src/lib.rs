//! What a guest may do: selectors, scanners, callbacks and fences in WebAssembly, their limits, and
//! where they run.
//!
//! A module that somebody uploads is looked at before it is compiled ([`Sandbox::inspect`]), is
//! compiled in a process of its own ([`compile_child`]), and runs within [`Limits`]. Selectors and
//! scanners decide in [`Lanes`], callbacks carry starts out as [`Callbacks`], fences say as
//! [`Fences`] whether a lost node is dead. What a version would decide, without deciding, is a
//! [`Rehearsal`]; [`Shadows`] rehearse behind the lanes. Guests see nothing but what `wit/policy.wit`
//! offers: no clock, no chance, no network, no disk. Those of the version before run, too (`v0_1`).
//!
//! What holds: a guest cannot delay, crash or read anything else; a selector that fails costs its
//! decision nothing but quality, since the type's fallback makes it; a fence that fails proves
//! nothing; and no module runs that was not scanned. Threads block on guests in these places only: a
//! lane's own, the one of the shadows, and whoever calls `inspect`, `load`, `validate` or a rehearsal.
//!
//! It must never name Raft or QUIC, and knows nothing of how a decision is replicated.

mod bindings;
mod breaker;
mod cache;
mod callback;
mod caught;
mod compile;
mod convert;
mod engine;
mod error;
mod fence;
mod fiber;
mod forge;
mod gate;
mod guest;
mod inspect;
mod lane;
mod limits;
mod log;
mod meter;
mod node;
mod nodes;
mod rehearsal;
mod sandbox;
mod scan;
mod selector;
mod shadow;
mod shelf;
pub mod signature;
mod tally;
mod trial;
mod trial_select;
mod turns;
mod v0_1;
mod worker;
mod world;

pub use callback::{
    Advice, CallbackJob, Callbacks, Ended, EndedJob, Placement, SpawnFailure, SpawnRequest,
};
pub use compile::{CompilerCommand, compile_child};
pub use error::{ModuleError, SandboxError, Stage};
pub use fence::{FenceJob, Fences, LostNode, Verdict};
pub use inspect::Inspected;
pub use lane::Lanes;
pub use limits::{BreakerLimits, CompileLimits, Limits, ScanLimits};
pub use node::{BoxFuture, NodeFailure, NodePort, Process, RecordsPort, Started};
pub use rehearsal::{Rehearsal, Rehearsed, give_way};
pub use sandbox::{Sandbox, SandboxConfig};
pub use scan::{Measure, MemoryPages, Scanned};
pub use selector::Failed;
pub use shadow::{ShadowReport, Shadows};
pub use shelf::CallCounters;
pub use tally::{Fallbacks, LaneCounters, MICROS_BUCKETS, Verdicts, quantile_micros};
