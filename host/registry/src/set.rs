//! Processes that nodes register themselves, that anybody deletes, and that a node turns out not to
//! have.

use std::collections::BTreeSet;
use std::sync::Arc;

use maitred_protocol::{
    Chooser, Incarnation, NodeEpoch, NodeName, ProcessKey, ProcessState, Rejection, SetProcess, Why,
};

use crate::Registry;
use crate::exit::EndedBy;
use crate::life::At;
use crate::outcome::{Change, Event, Outcome};
use crate::process::Record;

/// A no: another life is the current one.
fn fenced(current: Incarnation) -> Outcome {
    Outcome::rejected(Rejection::Fenced {
        what: "incarnation".to_owned(),
        current: current.0,
    })
}

fn not_found(key: &ProcessKey) -> Outcome {
    Outcome::not_found(format!("process {key}"))
}

impl Registry {
    pub(crate) fn set_process(
        &mut self,
        at: At,
        set: SetProcess,
        events: &mut Vec<Event>,
    ) -> Outcome {
        if let Err(no) = self.live_node(&set.node, set.epoch) {
            return no;
        }
        match (self.record(&set.key), set.incarnation) {
            (None, Some(_)) => not_found(&set.key),
            (None, None) if self.is_held_elsewhere(&set.key, set.epoch) => {
                let holds = self.holds(&set.key).iter();
                let nodes: BTreeSet<&str> = holds.map(|hold| hold.node.as_str()).collect();
                let nodes: Vec<&str> = nodes.into_iter().collect();
                Outcome::Held(format!("on node {}", nodes.join(", ")))
            }
            (None, None) => self.register_process(at, set, events),
            (Some(old), Some(incarnation)) if old.incarnation != incarnation => {
                fenced(old.incarnation)
            }
            (Some(old), incarnation) => {
                let own = *old.node == set.node && old.epoch == set.epoch;
                if !own || old.state != ProcessState::Running {
                    return match incarnation {
                        Some(_) => fenced(old.incarnation),
                        None => self.already_exists(&old),
                    };
                }
                let record = self.put(Record {
                    revision: at.revision(),
                    pid: set.pid.into(),
                    share: set.share.into(),
                    ..(*old).clone()
                });
                events.push(Event::Process(Change::Updated, Arc::clone(&record)));
                Outcome::Process(record)
            }
        }
    }

    /// A no: the key is taken, by this record.
    #[must_use]
    pub fn already_exists(&self, record: &Record) -> Outcome {
        Outcome::rejected(Rejection::AlreadyExists(Box::new(self.to_wire(record))))
    }

    fn register_process(&mut self, at: At, set: SetProcess, events: &mut Vec<Event>) -> Outcome {
        let why = Why {
            chooser: Chooser::Node,
            seed: 0,
            micros: 0,
            candidates: 0,
        };
        let record = Record {
            type_name: self.processes.type_name(&set.key.type_name),
            id: set.key.id.as_str().into(),
            state: ProcessState::Running,
            node: self.shared_name(&set.node),
            epoch: set.epoch,
            incarnation: at.incarnation(),
            revision: at.revision(),
            created_ms: at.time_ms,
            attempt: 1,
            demand: 1,
            pid: set.pid.into(),
            share: set.share.into(),
            spec: None,
            why: self.compact(why),
        };
        let record = self.put(record);
        events.push(Event::Process(Change::Running, Arc::clone(&record)));
        Outcome::Process(record)
    }

    pub(crate) fn del_process(
        &mut self,
        at: At,
        key: &ProcessKey,
        (incarnation, ended): (Option<Incarnation>, bool),
        events: &mut Vec<Event>,
    ) -> Outcome {
        let Some(old) = self.record(key) else {
            return not_found(key);
        };
        if incarnation.is_some_and(|only| only != old.incarnation) {
            return fenced(old.incarnation);
        }
        // Only a node can know that, and it names the life.
        let over = ended && incarnation.is_some();
        if over && old.ended_by() == Some(EndedBy::Exit) {
            // It has said so, and why, before: its callback is being asked.
            return Outcome::Done(at.revision());
        }
        if old.is_placed() && !over {
            self.hold_record(&old);
        }
        self.remove(at, &old, events);
        // A create that is under way when its key is deleted has its answer here.
        if old.is_creating()
            && let Some(request) = old.spec.as_ref().and_then(|spec| spec.request)
        {
            let no =
                Rejection::Conflict(format!("process {key} was deleted while it was starting"));
            self.sessions
                .store(at.index, request, Outcome::rejected(no));
        }
        Outcome::Done(at.revision())
    }

    pub(crate) fn missing(
        &mut self,
        at: At,
        node: (&NodeName, NodeEpoch),
        processes: &[(ProcessKey, Incarnation)],
        events: &mut Vec<Event>,
    ) -> Outcome {
        if let Err(no) = self.live_node(node.0, node.1) {
            return no;
        }
        for (key, incarnation) in processes {
            let here = self.current(key, *incarnation);
            if let Some(record) = here.filter(|record| record.epoch == node.1)
                && record.state == ProcessState::Running
            {
                // The node may have begun it after it said what it runs: it is told.
                self.hold_record(&record);
                events.push(Event::Ended(Arc::clone(&record)));
                // The same rule as for a lost node: wanted processes come back, others are gone.
                self.lose(at, &record, "its node no longer has it", events);
            }
        }
        Outcome::Done(at.revision())
    }
}
