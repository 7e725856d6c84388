//! A node that answers as the test says, for callbacks.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::TestHost;
use crate::glue::CallbackInstance;
use crate::{
    Access, Callback, Node, Placement, Process, Records, Request, SpawnFailure, StartFailure,
    Started,
};

/// A node that gives the same answer to every start, and keeps what it was asked.
#[derive(Debug)]
pub struct TestNode {
    answer: Result<Started, StartFailure>,
    starts: RefCell<Vec<(Vec<u8>, u32)>>,
}

impl TestNode {
    /// A node with that answer.
    #[must_use]
    pub fn answering(answer: Result<Started, StartFailure>) -> Self {
        Self {
            answer,
            starts: RefCell::default(),
        }
    }

    /// Payload and deadline in milliseconds of every start so far.
    #[must_use]
    pub fn starts(&self) -> Vec<(Vec<u8>, u32)> {
        self.starts.borrow().clone()
    }
}

impl Node for TestNode {
    fn start(&self, payload: &[u8], deadline_ms: u32) -> Result<Started, StartFailure> {
        self.starts
            .borrow_mut()
            .push((payload.to_vec(), deadline_ms));
        self.answer.clone()
    }
}

/// A registry of these processes, by type and id.
#[derive(Debug, Default)]
pub struct TestRecords(pub BTreeMap<(String, String), Process>);

impl Records for TestRecords {
    fn get(&self, process_type: &str, id: &str) -> Option<Process> {
        self.0
            .get(&(process_type.to_owned(), id.to_owned()))
            .cloned()
    }
}

/// Runs a fresh instance of a callback without configuration, against an empty registry, for a
/// placement on the node `node` at `node:1`, incarnation 1.
///
/// # Errors
/// The callback's own.
pub fn spawn<C: Callback>(request: &Request, node: &dyn Node) -> Result<Started, SpawnFailure> {
    let host = TestHost::default();
    let placement = Placement {
        node: "node".to_owned(),
        address: "node:1".to_owned(),
        incarnation: "1".to_owned(),
    };
    let access = Access {
        host: &host,
        node,
        records: &TestRecords::default(),
    };
    CallbackInstance::<C>::new(&host).spawn(request, &placement, access)
}
