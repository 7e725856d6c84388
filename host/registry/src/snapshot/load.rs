//! A registry from the chunks of a snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use maitred_protocol::{Chooser, ClientId, NodeEpoch, ProcessId, TypeName};

use super::failover::HoldMirror;
use super::mirror::{AtOutcome, Chunk, OutcomeMirror, RecordMirror, SessionMirror};
use super::{SnapshotError, VERSION};
use crate::Registry;
use crate::command::{EntryError, decode_archive};
use crate::holds::{Hold, Key};
use crate::lost::Lost;
use crate::member::Member;
use crate::outcome::Outcome;
use crate::party::Party;
use crate::process::{CompactWhy, Record};
use crate::session::Session;

/// Builds a registry from chunks.
#[derive(Debug)]
pub struct Loader {
    registry: Registry,
    choosers: Vec<Arc<Chooser>>,
    names: BTreeMap<TypeName, Arc<TypeName>>,
    records: u64,
    complete: bool,
}

impl Default for Loader {
    fn default() -> Self {
        Self::new()
    }
}

impl Loader {
    /// Nothing loaded yet.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let (choosers, names) = (Vec::new(), BTreeMap::new());
        Self {
            registry,
            choosers,
            names,
            records: 0,
            complete: false,
        }
    }

    /// Takes one chunk, in the order in which they were made.
    ///
    /// # Errors
    /// [`SnapshotError`] when it is not a chunk of this version, or damaged.
    pub fn chunk(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let chunk = match bytes.split_first() {
            Some((&VERSION, archive)) => decode_archive::<Chunk>(archive),
            Some((&version, _)) => return Err(SnapshotError::Version(version)),
            None => return Err(SnapshotError::Damaged("it is empty".to_owned())),
        };
        let chunk = chunk.map_err(|error| match error {
            EntryError::Version(version) => SnapshotError::Version(version),
            EntryError::Damaged(text) => SnapshotError::Damaged(text),
        })?;
        self.take(chunk)
    }

    fn take(&mut self, chunk: Chunk) -> Result<(), SnapshotError> {
        let registry = &mut self.registry;
        match chunk {
            Chunk::Head {
                index,
                time_ms,
                fleet_revision,
                swept,
            } => {
                registry.applied = index;
                registry.time_ms = time_ms;
                registry.fleet_revision = fleet_revision;
                registry.sessions.swept = swept;
            }
            Chunk::Choosers(more) => self.choosers.extend(more.into_iter().map(Arc::new)),
            Chunk::Nodes(nodes) => {
                for node in nodes {
                    registry.nodes.insert(node.name.clone(), node.into());
                }
            }
            Chunk::Cordoned(names) => registry.cordoned.extend(names),
            Chunk::Modules(modules) => {
                for module in modules {
                    registry.modules.insert(module.name.clone(), module.into());
                }
            }
            Chunk::Types(types) => {
                for spec in types {
                    registry.types.insert(spec.name.clone(), Arc::new(spec));
                }
            }
            Chunk::Records(records) => {
                for mirror in records {
                    let record = Arc::new(self.record(mirror)?);
                    let registry = &mut self.registry;
                    if record.is_placed()
                        && let Some(node) = registry.nodes.get_mut(&*record.node)
                        && node.epoch() == record.epoch
                    {
                        node.add(&record);
                    }
                    registry.processes.put(record);
                    self.records += 1;
                }
            }
            Chunk::Sessions(sessions) => {
                for mirror in sessions {
                    self.session(mirror)?;
                }
            }
            Chunk::Outcomes(client, outcomes) => self.outcomes(client, outcomes)?,
            Chunk::Members(members) => {
                registry
                    .members
                    .extend(members.into_iter().map(<(u64, Member)>::from));
            }
            Chunk::Level(level) => registry.level = level,
            Chunk::Drains(drains) => registry.drains.extend(drains),
            Chunk::Failover(failover) => registry.failover = failover.into(),
            Chunk::Holds(holds) => {
                for hold in holds {
                    let (key, hold) = self.hold(hold);
                    self.registry.holds.add(key, hold);
                }
            }
            Chunk::Parties(parties) => {
                registry
                    .parties
                    .extend(parties.into_iter().map(<(u64, Party)>::from));
            }
            Chunk::Lost(lost) => {
                for (epoch, lost) in lost.into_iter().map(<(NodeEpoch, Lost)>::from) {
                    registry.holds.lose(epoch, lost);
                }
            }
            Chunk::End { records } if records == self.records => self.complete = true,
            Chunk::End { .. } => return Err(SnapshotError::Incomplete),
        }
        Ok(())
    }

    /// The shared name of a type.
    fn type_name(&mut self, name: &TypeName) -> Arc<TypeName> {
        if let Some(shared) = self.names.get(name) {
            return Arc::clone(shared);
        }
        let shared = Arc::new(name.clone());
        self.names.insert(name.clone(), Arc::clone(&shared));
        shared
    }

    fn hold(&mut self, mirror: HoldMirror) -> (Key, Hold) {
        let holder = self.registry.holds.by_session.get(&mirror.epoch);
        let node = holder.map(|holder| Arc::clone(&holder.node));
        let hold = Hold {
            incarnation: mirror.incarnation,
            node: node.unwrap_or_else(|| Arc::new(mirror.node)),
            epoch: mirror.epoch,
            strict: mirror.strict,
        };
        let type_name = self.type_name(&mirror.key.type_name);
        ((type_name, mirror.key.id.as_str().into()), hold)
    }

    fn session(&mut self, mirror: SessionMirror) -> Result<(), SnapshotError> {
        let session = Session {
            outcomes: BTreeMap::new(),
            forgotten_below: mirror.forgotten_below,
            last_index: mirror.last_index,
        };
        let sessions = &mut self.registry.sessions.all;
        sessions.insert(mirror.client, Arc::new(session));
        self.outcomes(mirror.client, mirror.outcomes)
    }

    /// Adds to a session.
    fn outcomes(
        &mut self,
        client: ClientId,
        outcomes: Vec<AtOutcome>,
    ) -> Result<(), SnapshotError> {
        let outcomes = outcomes.into_iter();
        let outcomes = outcomes
            .map(|(sequence, index, outcome)| Ok((sequence, (index, self.outcome(outcome)?))));
        let outcomes: Vec<_> = outcomes.collect::<Result<_, _>>()?;
        let session = self.registry.sessions.all.get_mut(&client);
        let session =
            session.ok_or_else(|| SnapshotError::Damaged("a session is missing".to_owned()))?;
        Arc::make_mut(session).outcomes.extend(outcomes);
        Ok(())
    }

    fn outcome(&mut self, mirror: OutcomeMirror) -> Result<Outcome, SnapshotError> {
        Ok(match mirror {
            OutcomeMirror::Created(record, created) => Outcome::Created {
                record: self.shared_record(*record)?,
                created,
            },
            OutcomeMirror::Process(record) => Outcome::Process(self.shared_record(*record)?),
            OutcomeMirror::Done(revision) => Outcome::Done(revision),
            OutcomeMirror::Registered(epoch, verdicts) => Outcome::Registered {
                epoch,
                verdicts: verdicts.into(),
            },
            OutcomeMirror::Pushed(module, version) => Outcome::Pushed(module.into(), version),
            OutcomeMirror::Module(module) => Outcome::Module(module.into()),
            OutcomeMirror::Type(spec) => Outcome::Type(spec.into()),
            OutcomeMirror::Member(host) => Outcome::Member(host),
            OutcomeMirror::Party(records) => {
                let records = records.into_iter();
                let records = records.map(|record| self.shared_record(record));
                Outcome::Party(records.collect::<Result<_, _>>()?)
            }
            OutcomeMirror::Rejected(rejection) => Outcome::Rejected(rejection.into()),
        })
    }

    /// The record of an outcome: the one in the table, when that has not changed since.
    fn shared_record(&mut self, mirror: RecordMirror) -> Result<Arc<Record>, SnapshotError> {
        let record = self.record(mirror)?;
        let same = self
            .registry
            .processes
            .get(record.type_name.as_str(), &record.id);
        match same {
            Some(same) if **same == record => Ok(Arc::clone(same)),
            _ => Ok(Arc::new(record)),
        }
    }

    fn record(&mut self, mirror: RecordMirror) -> Result<Record, SnapshotError> {
        let id: &ProcessId = &mirror.key.id;
        let chooser = self.choosers.get(mirror.chooser as usize).cloned();
        let chooser =
            chooser.ok_or_else(|| SnapshotError::Damaged("a chooser is missing".to_owned()))?;
        let type_name = self.type_name(&mirror.key.type_name);
        let node = self
            .registry
            .nodes
            .get(&mirror.node)
            .map(|node| Arc::clone(&node.name));
        Ok(Record {
            type_name,
            id: id.as_str().into(),
            state: mirror.state,
            node: node.unwrap_or_else(|| Arc::new(mirror.node)),
            epoch: mirror.epoch,
            incarnation: mirror.incarnation,
            revision: mirror.revision,
            created_ms: mirror.created_ms,
            attempt: mirror.attempt,
            demand: mirror.demand,
            pid: mirror.pid.into(),
            share: mirror.share.into(),
            spec: mirror.spec.map(|spec| Arc::new(spec.into())),
            why: CompactWhy {
                chooser,
                seed: mirror.seed,
                micros: mirror.micros,
                candidates: mirror.candidates,
            },
        })
    }

    /// The registry, when every chunk was there.
    ///
    /// # Errors
    /// [`SnapshotError::Incomplete`] otherwise.
    pub fn finish(self) -> Result<Registry, SnapshotError> {
        if self.complete {
            Ok(self.registry)
        } else {
            Err(SnapshotError::Incomplete)
        }
    }
}
