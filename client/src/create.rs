//! The options of a create, one call each.

use std::time::Duration;

use maitred_protocol::{
    CreateOptions, CreateProcess, ModuleName, NodeName, OnConflict, Plan, ProcessKey,
};

use crate::error::Error;
use crate::verbs::{Client, Created};

/// A create that is being put together: [`Create::send`] carries it out, [`Create::plan`] only
/// says what it would do. What is not said is the type's default.
#[derive(Debug, Clone)]
#[must_use]
pub struct Create {
    client: Client,
    create: CreateProcess,
}

/// Durations go over the wire in milliseconds, at least 1: 0 means the default.
fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis())
        .unwrap_or(u32::MAX)
        .max(1)
}

impl Create {
    pub(crate) fn new(client: Client, key: ProcessKey) -> Self {
        let create = CreateProcess {
            key,
            args: Vec::new(),
            selector: None,
            callback: None,
            options: CreateOptions::default(),
        };
        Self { client, create }
    }

    /// For the process, at most 64 KiB.
    pub fn args(mut self, args: impl Into<Vec<u8>>) -> Self {
        self.create.args = args.into();
        self
    }

    /// Instead of the type's selector.
    pub fn selector(mut self, name: ModuleName) -> Self {
        self.create.selector = Some(name);
        self
    }

    /// Instead of the type's callback.
    pub fn callback(mut self, name: ModuleName) -> Self {
        self.create.callback = Some(name);
        self
    }

    /// What to do when the key is taken; [`OnConflict::Return`] unless said.
    pub fn on_conflict(mut self, on_conflict: OnConflict) -> Self {
        self.create.options.on_conflict = on_conflict;
        self
    }

    /// Longest that it may take, at most 600 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.create.options.deadline_ms = millis(deadline);
        self
    }

    /// Nodes to try, 1 to 16.
    pub fn attempts(mut self, attempts: u8) -> Self {
        self.create.options.attempts = attempts;
        self
    }

    /// Wait before the second attempt, doubled for each further one; at most 60 s.
    pub fn back_off(mut self, back_off: Duration) -> Self {
        self.create.options.back_off_ms = millis(back_off);
        self
    }

    /// Its party, at most 256 bytes.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.create.options.group = Some(group.into());
        self
    }

    /// A label that the node must have; at most 32 of them.
    pub fn require(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let required = &mut self.create.options.require;
        required.push((key.into(), value.into()));
        self
    }

    /// Units of capacity that it takes; 1 unless said.
    pub fn demand(mut self, units: u32) -> Self {
        self.create.options.demand = units;
        self
    }

    /// -1,000 to 1,000; larger is more important.
    pub fn priority(mut self, priority: i32) -> Self {
        self.create.options.priority = priority;
        self
    }

    /// The node that asks.
    pub fn requester(mut self, node: NodeName) -> Self {
        self.create.options.requester = Some(node);
        self
    }

    /// Milliseconds (as the caller measured them) to the nodes that have this value of a label, such
    /// as a region or a zone; at most 32 of them. Selectors see it as the feature `latency:KEY`.
    pub fn latency(mut self, value: impl Into<String>, latency: Duration) -> Self {
        let millis = u32::try_from(latency.as_millis()).unwrap_or(u32::MAX);
        self.create.options.latencies.push((value.into(), millis));
        self
    }

    pub(crate) fn into_request(self) -> CreateProcess {
        self.create
    }

    /// Carries it out.
    ///
    /// # Errors
    /// [`Error::Rejected`] says why it cannot be, node by node where that helps.
    pub async fn send(self) -> Result<Created, Error> {
        self.client.create_process(self.create).await
    }

    /// Says what it would do; nothing is changed.
    ///
    /// # Errors
    /// As [`Create::send`].
    pub async fn plan(self) -> Result<Plan, Error> {
        self.client.plan(self.create).await
    }
}
