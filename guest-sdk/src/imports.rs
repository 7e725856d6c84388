//! The seam as a component has it: each trait method is one import of the WIT.
//!
//! Compiled for wasm only. The panic hook is here too, since it is the one other caller of an import.

use std::panic;

use crate::bindings::callback::maitred::policy::{node, records};
use crate::bindings::scanner::maitred::policy::nodes;
use crate::bindings::selector::maitred::policy::host;
use crate::{Host, Level, Node, Nodes, Process, Records, Slot, StartFailure, Started};

/// `maitred:policy/host`.
pub struct HostImport;

/// `maitred:policy/nodes`.
pub struct NodesImport;

/// `maitred:policy/node`.
pub struct NodeImport;

/// `maitred:policy/records`.
pub struct RecordsImport;

impl Host for HostImport {
    fn log(&self, level: Level, text: &str) {
        host::log(level, text);
    }

    fn config(&self) -> String {
        host::config()
    }
}

impl Nodes for NodesImport {
    fn passed(&self) -> Vec<Slot> {
        nodes::passed()
    }

    fn matching(&self, labels: &[(String, String)]) -> Vec<Slot> {
        nodes::matching(labels)
    }

    fn column(&self, feature: &str, slots: &[Slot]) -> Vec<f32> {
        nodes::column(feature, slots)
    }

    fn names(&self, slots: &[Slot]) -> Vec<String> {
        nodes::names(slots)
    }

    fn sample(&self, count: u32, seed: u32) -> Vec<Slot> {
        nodes::sample(count, seed)
    }
}

impl Node for NodeImport {
    fn start(&self, payload: &[u8], deadline_ms: u32) -> Result<Started, StartFailure> {
        node::start(payload, deadline_ms)
    }

    fn stop(&self, deadline_ms: u32) -> Result<(), StartFailure> {
        node::stop(deadline_ms)
    }

    fn pause(&self, milliseconds: u32) {
        node::pause(milliseconds);
    }
}

impl Records for RecordsImport {
    fn get(&self, process_type: &str, id: &str) -> Option<Process> {
        records::get(process_type, id)
    }
}

/// Makes a panic say what it is: without this the host sees a trap and no text.
pub fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        host::log(Level::Error, &panic.to_string())
    }));
}
