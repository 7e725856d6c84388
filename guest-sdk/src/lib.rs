//! What a module author links: the traits [`Selector`], [`Scanner`], [`Callback`] and [`Fence`], a
//! macro for each that makes a component of a type, pieces to compose a choice of ([`compose`]), and a
//! native harness ([`testing`]) with scenario files.
//!
//! A complete selector. Its crate has `crate-type = ["cdylib", "rlib"]` and this one dependency:
//!
//! ```
//! use maitred_guest::{Answer, Ask, Candidates, Host, Request, Selector, export_selector};
//!
//! /// Chooses the node whose last load report shows the most free memory.
//! #[derive(Default)]
//! pub struct Roomiest;
//!
//! impl Selector for Roomiest {
//!     const NAME: &'static str = "roomiest";
//!     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
//!     const FEATURES: &'static [&'static str] = &["memory-free-mib"];
//!
//!     fn ask(&self) -> Ask {
//!         Ask::Sample(64)
//!     }
//!
//!     fn select(
//!         &self,
//!         request: &Request,
//!         nodes: Candidates<'_>,
//!         _: &dyn Host,
//!     ) -> Result<Answer, String> {
//!         Ok(nodes.lowest(request.seed, |row| Some(-row.value(0))).into())
//!     }
//! }
//!
//! export_selector!(Roomiest);
//!
//! // And its unit test, which runs natively:
//! use maitred_guest::testing::{Fleet, request};
//! let fleet = Fleet::new().node("small").feature("memory-free-mib", 512.0)
//!     .node("large").feature("memory-free-mib", 4096.0)
//!     .node("silent");
//! let chosen = fleet.decide::<Roomiest>(&request("player", "p1")).expect("the policy holds");
//! assert_eq!(chosen.as_deref(), Some("large"));
//! ```
//!
//! Three things hold for every policy. It has no clock, no random numbers and no IO: whatever it
//! may depend on is an argument, and the same arguments must give the same answer. What it keeps
//! between calls is a cache, since the host replaces instances as it likes. And it reaches the host
//! only through the traits of [`seam`], never through the bindings: an imported function called
//! natively ends the process, so a policy that used one could not be unit-tested.
//!
//! Guests stay small (some 30 KiB, most of it Rust's allocator and the text of panics): in a
//! component this crate has no dependency but the bindings' generator.
//! Writing an `f32` into a text (`format!`) adds 17 KiB; write a whole number instead.

mod answer;
#[doc(hidden)]
pub mod bindings;
mod callback;
mod candidates;
pub mod chance;
pub mod compose;
pub mod config;
mod export;
mod fence;
#[doc(hidden)]
pub mod glue;
#[cfg(target_arch = "wasm32")]
mod imports;
pub mod seam;
mod selector;
mod table;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use answer::{RANKED_MAX, SCORED_MAX, TERMS_MAX, WAIT_MS};
pub use bindings::callback::exports::maitred::policy::callback::{
    Advice, Ended, Failure as SpawnFailure, Hook, Manifest as CallbackManifest, Placement,
};
pub use bindings::callback::maitred::policy::node::{Failure as StartFailure, Started};
pub use bindings::callback::maitred::policy::records::Process;
pub use bindings::fence::exports::maitred::policy::fence::{
    LostNode, Manifest as FenceManifest, Verdict as FenceVerdict,
};
pub use bindings::scanner::exports::maitred::policy::scanner::Manifest as ScannerManifest;
pub use bindings::selector::exports::maitred::policy::selector::{Ask, Lowest, Manifest};
pub use bindings::selector::maitred::policy::answers::{Answer, Rejection, Scores, Verdict};
pub use bindings::selector::maitred::policy::host::Level;
pub use bindings::selector::maitred::policy::types::{Request, Slot};
pub use callback::{Access, Callback};
pub use candidates::{Candidates, Row};
pub use chance::{Chance, stable_hash};
pub use fence::{Fence, PROOF_BYTES_MAX, RETRY_MS};
pub use seam::{Host, Node, Nodes, Records};
pub use selector::{Scanner, Selector, lowest};
pub use table::Table;
