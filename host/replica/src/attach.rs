//! A node comes back on another connection, with the session that it had: what it runs is compared with
//! what the registry has of it.

use std::collections::BTreeSet;

use maitred_protocol::{
    Incarnation, NodeEpoch, NodeName, ProcessKey, ProcessState, Rejection, Response, Verdict,
};
use maitred_registry::{Command, Node};

use crate::input::Ticket;
use crate::proposals::Waiter;
use crate::replica::Replica;

/// Processes in one entry that says that their node has lost them: some 100 KiB.
const MISSING_MAX: usize = 1_000;

impl Replica {
    /// A node is back on a new connection, with the session it had. What was confirmed after it asked
    /// (`asked`) cannot be in its inventory, and is not missing.
    pub(crate) fn attach_node(
        &mut self,
        ticket: Ticket,
        (name, epoch): (&NodeName, NodeEpoch),
        inventory: &[(ProcessKey, Incarnation)],
        asked: u64,
    ) {
        // A session whose end is decided counts as over.
        let is_live = |epoch: &NodeEpoch| self.leases.is_live(*epoch);
        let current = self.registry.node(name).map(Node::epoch).filter(is_live);
        if current != Some(epoch) && self.registry.is_forgotten(epoch.0) {
            let what = format!(
                "session {epoch} of node {name}, which is newer than the snapshot that the cluster was restored from,"
            );
            return self.reject(ticket, Rejection::NotFound(what));
        }
        if current != Some(epoch) {
            let current = current.map_or(0, |epoch| epoch.0);
            return self.reject(
                ticket,
                Rejection::Fenced {
                    what: "node epoch".to_owned(),
                    current,
                },
            );
        }
        let runs: BTreeSet<_> = inventory.iter().map(|(key, life)| (key, *life)).collect();
        let is_here = |key: &ProcessKey, incarnation: Incarnation| {
            self.registry.process(key).is_some_and(|record| {
                record.incarnation == incarnation && record.epoch == epoch && record.is_placed()
            })
        };
        let verdicts = inventory.iter().map(|(key, life)| {
            if is_here(key, *life) {
                Verdict::Keep
            } else if self.registry.may_adopt(epoch, &runs, (key, *life)) {
                Verdict::Adopt
            } else {
                Verdict::Stop
            }
        });
        let verdicts: Vec<Verdict> = verdicts.collect();
        // Only processes that this registry had started: others are the node's own to report.
        let missing: Vec<_> = self
            .registry
            .processes_of(name, epoch)
            .filter(|record| record.state == ProcessState::Running && record.spec.is_some())
            .filter(|record| record.revision.0 <= asked)
            .map(|record| (record.key(), record.incarnation))
            .filter(|(key, life)| !runs.contains(&(key, *life)))
            .collect();
        let chunks = missing.chunks(MISSING_MAX);
        for processes in chunks {
            let command = Command::Missing {
                node: name.clone(),
                epoch,
                processes: processes.to_vec(),
            };
            self.queue(None, command, Waiter::Nobody);
        }
        self.reply(ticket, Response::Registered { epoch, verdicts });
        self.stop_held(epoch);
    }
}
