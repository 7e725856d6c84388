//! What a guest may do: selectors, callbacks and fences in WebAssembly, their limits, and where they
//! run.
//!
//! A module that somebody uploads is looked at before it is compiled ([`Sandbox::inspect`]), is
//! compiled in a process of its own ([`compile_child`]), and runs within [`Limits`]. Selectors
//! decide in [`Lanes`], callbacks carry starts out as [`Callbacks`], fences say as [`Fences`] whether
//! a lost node is dead. Guests see nothing but what `wit/policy.wit` offers: no clock, no chance, no
//! network, no disk.
//!
//! What holds: a guest cannot delay, crash or read anything else; a selector that fails costs its
//! decision nothing but quality, since the type's fallback makes it; a fence that fails proves
//! nothing; and no module runs that was not scanned. A host's threads block on guests in two places only: a lane's own thread, and
//! whoever calls `inspect` or `load`.
//!
//! It must never name Raft or QUIC, and knows nothing of how a decision is replicated.

mod bindings;
mod breaker;
mod cache;
mod callback;
mod compile;
mod convert;
mod engine;
mod error;
mod fence;
mod fiber;
mod guest;
mod inspect;
mod lane;
mod limits;
mod meter;
mod node;
mod sandbox;
mod scan;
mod selector;
mod shelf;
pub mod signature;
mod tally;
mod trial;
mod worker;
mod world;

pub use callback::{CallbackJob, Callbacks, Placement, SpawnFailure, SpawnRequest};
pub use compile::{CompilerCommand, compile_child};
pub use error::{ModuleError, SandboxError, Stage};
pub use fence::{FenceJob, Fences, LostNode, Verdict};
pub use inspect::Inspected;
pub use lane::Lanes;
pub use limits::{CompileLimits, Limits, ScanLimits};
pub use node::{BoxFuture, NodeFailure, NodePort, Process, RecordsPort, Started};
pub use sandbox::{Sandbox, SandboxConfig};
pub use shelf::CallCounters;
pub use tally::{Fallbacks, LaneCounters, MICROS_BUCKETS};
