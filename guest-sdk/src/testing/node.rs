//! A node that answers as the test says, for callbacks.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use super::TestHost;
use crate::glue::CallbackInstance;
use crate::{
    Access, Callback, Ended, Node, Placement, Process, Records, Request, SpawnFailure,
    StartFailure, Started,
};

/// A node that answers one start after another as it was told, the last answer again and again, and
/// keeps what it was asked. After a success every start gets that answer, as on a real node.
#[derive(Debug)]
pub struct TestNode {
    answers: RefCell<VecDeque<Result<Started, StartFailure>>>,
    stop: Result<(), StartFailure>,
    starts: RefCell<Vec<(Vec<u8>, u32)>>,
    stops: RefCell<Vec<u32>>,
    pauses: RefCell<Vec<u32>>,
}

impl TestNode {
    /// A node with that answer to starts; it stops whatever it is told to.
    #[must_use]
    pub fn answering(answer: Result<Started, StartFailure>) -> Self {
        Self {
            answers: RefCell::new([answer].into()),
            stop: Ok(()),
            starts: RefCell::default(),
            stops: RefCell::default(),
            pauses: RefCell::default(),
        }
    }

    /// The same node, which answers the next start so.
    #[must_use]
    pub fn then(self, answer: Result<Started, StartFailure>) -> Self {
        self.answers.borrow_mut().push_back(answer);
        self
    }

    /// The same node, which answers so to every stop.
    #[must_use]
    pub fn stopping(self, stop: Result<(), StartFailure>) -> Self {
        Self { stop, ..self }
    }

    /// Payload and deadline in milliseconds of every start so far.
    #[must_use]
    pub fn starts(&self) -> Vec<(Vec<u8>, u32)> {
        self.starts.borrow().clone()
    }

    /// Deadlines in milliseconds of every stop so far.
    #[must_use]
    pub fn stops(&self) -> Vec<u32> {
        self.stops.borrow().clone()
    }

    /// Milliseconds of every pause so far; none of them took any time.
    #[must_use]
    pub fn pauses(&self) -> Vec<u32> {
        self.pauses.borrow().clone()
    }
}

impl Node for TestNode {
    fn start(&self, payload: &[u8], deadline_ms: u32) -> Result<Started, StartFailure> {
        self.starts
            .borrow_mut()
            .push((payload.to_vec(), deadline_ms));
        let mut answers = self.answers.borrow_mut();
        let answer = answers.front().cloned().expect("there is always an answer");
        if answer.is_err() && answers.len() > 1 {
            answers.pop_front();
        }
        answer
    }

    fn stop(&self, deadline_ms: u32) -> Result<(), StartFailure> {
        self.stops.borrow_mut().push(deadline_ms);
        self.stop.clone()
    }

    fn pause(&self, milliseconds: u32) {
        self.pauses.borrow_mut().push(milliseconds);
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
    spawn_with::<C>(request, node, &TestHost::default(), &TestRecords::default())
}

/// The same with a configuration and a registry.
///
/// # Errors
/// The callback's own.
pub fn spawn_with<C: Callback>(
    request: &Request,
    node: &dyn Node,
    host: &TestHost,
    records: &dyn Records,
) -> Result<Started, SpawnFailure> {
    let placement = Placement {
        node: "node".to_owned(),
        address: "node:1".to_owned(),
        incarnation: "1".to_owned(),
    };
    let access = Access {
        host,
        node,
        records,
    };
    CallbackInstance::<C>::new(host).spawn(request, &placement, access)
}

/// The first life of a process on the node `node`, which ended after a second. Its fields are public;
/// set what the test is about, and ask with [`CallbackInstance::advise`].
#[must_use]
pub fn ended(process_type: &str, id: &str) -> Ended {
    Ended {
        process_type: process_type.to_owned(),
        id: id.to_owned(),
        group: None,
        node: "node".to_owned(),
        incarnation: "1".to_owned(),
        reason: String::new(),
        times: 1,
        lasted_ms: 1_000,
        seed: crate::stable_hash(id.as_bytes()) as u32,
        time: 1_700_000_000,
    }
}
