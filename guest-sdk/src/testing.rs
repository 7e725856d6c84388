//! A native harness: a fleet of nodes that offers candidates as the host does, and runs a policy on
//! them, so that policies are unit-tested with plain `cargo test`.
//!
//! It decides what `wit/policy.wit` promises a selector: the filter, the three kinds of `ask`, the
//! catalogue of features, and the check of the answer. It keeps exact loads: what a decision placed,
//! the next one sees. [`scenario()`] runs scenario files; the tool `maitred module test` runs the same
//! ones on the component. Callbacks have a node and a registry that answer as the test says, fences
//! the registry. It knows no component; the conformance tests run those.

mod decide;
mod features;
mod fence;
mod fleet;
mod node;
mod properties;
mod scenario;

pub use decide::{Choice, Outcome, Refusal};
pub use fence::{examine, lost_node};
pub use fleet::Fleet;
pub use node::{TestNode, TestRecords, ended, spawn, spawn_with};
pub use properties::{check, check_configured};
pub use scenario::{ScenarioFile, scenario};

/// The two lists that cross the border in a `select`.
pub use crate::bindings::selector::exports::maitred::policy::selector::Candidates as Lists;
pub use crate::glue::{CallbackInstance, FenceInstance, ScannerInstance, SelectorInstance};

use std::cell::RefCell;

use crate::{Host, Level, Request};

/// The most candidates that a selector is offered.
pub const CANDIDATES_MAX: usize = 1_024;
/// The most columns that a selector may ask for.
pub const FEATURES_MAX: usize = 32;

/// A request for one process of `process_type`: demand 1, first attempt, nothing optional. Its
/// other fields are public; set what the test is about.
///
/// The seed is a hash of the id, so that different ids draw differently and a test repeats exactly.
#[must_use]
pub fn request(process_type: &str, id: &str) -> Request {
    Request {
        process_type: process_type.to_owned(),
        id: id.to_owned(),
        args: Vec::new(),
        group: None,
        requester: None,
        previous: None,
        demand: 1,
        priority: 0,
        attempt: 1,
        seed: crate::stable_hash(id.as_bytes()) as u32,
        time: 1_700_000_000,
    }
}

/// A host that gives a configuration and keeps what was logged.
#[derive(Debug, Default)]
pub struct TestHost {
    config: Option<String>,
    lines: RefCell<Vec<(Level, String)>>,
}

impl TestHost {
    /// A host that gives `config`, a JSON text.
    #[must_use]
    pub fn with_config(config: &str) -> Self {
        Self {
            config: Some(config.to_owned()),
            lines: RefCell::default(),
        }
    }

    /// What was logged so far.
    #[must_use]
    pub fn lines(&self) -> Vec<(Level, String)> {
        self.lines.borrow().clone()
    }
}

impl Host for TestHost {
    fn log(&self, level: Level, text: &str) {
        self.lines.borrow_mut().push((level, text.to_owned()));
    }

    fn config(&self) -> String {
        self.config.clone().unwrap_or_else(|| "{}".to_owned())
    }
}

#[cfg(test)]
mod tests;
