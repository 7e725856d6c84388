//! The checkers: each looks at what passes by, and says when its property does not hold.
//!
//! They know everything, as nobody in the world does: all logs, all answers, what really runs on the
//! nodes. None of them changes anything.

pub mod agreement;
pub mod leaders;
pub mod leases;
pub mod lives;
pub mod needless;
pub mod once;
pub mod parties;
pub mod placed;
pub mod quiet;
pub mod truth;

use std::sync::Arc;

use maitred_registry::{Change, Event, Registry};
use maitred_replica::{Effect, Recovered, Replica};

use super::cover::Cover;
use super::disk::Saved;
use super::host::Host;
use super::world::{Violation, World};
use crate::linear::{History, Loss};
use agreement::{Agreement, Kind};
use leaders::Leaders;
use leases::Leases;
use lives::Lives;
use needless::Needless;
use once::Once;
use parties::Parties;

/// All that need to remember something.
#[derive(Default)]
pub struct Checks {
    /// Committed entries and states.
    pub agreement: Agreement,
    /// Who leads which term.
    pub leaders: Leaders,
    /// Keep-alives and expiries.
    pub leases: Leases,
    /// Incarnations.
    pub lives: Lives,
    /// What is taken away.
    pub needless: Needless,
    /// Requests and their effects.
    pub once: Once,
    /// Parties.
    pub parties: Parties,
    /// What clients saw.
    pub history: History,
}

impl std::fmt::Debug for Checks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checks").finish_non_exhaustive()
    }
}

fn violation(checker: &'static str) -> impl Fn(String) -> Violation {
    move |text| Violation { checker, text }
}

impl Checks {
    /// A machine's process starts from this.
    pub fn started(&mut self, machine: usize, recovered: &Recovered) {
        self.agreement.started(machine, recovered);
        self.lives.forget(machine);
    }

    /// A machine's process is gone.
    pub fn ended(&mut self, machine: usize) {
        self.leases.ended(machine);
    }

    /// A machine's state was replaced by a snapshot.
    pub fn restored(&mut self, machine: usize) {
        self.agreement.restored(machine);
        self.lives.forget(machine);
    }

    /// A snapshot was written.
    pub fn snapshot(&mut self, saved: &Arc<Saved>) -> Result<(), String> {
        let registry = saved.load();
        self.agreement.state(saved.index, &registry)
    }

    /// What a turn is going to write. Says which expiries were proposed.
    pub fn entries(
        &mut self,
        now_us: u64,
        host: &Host,
        effects: &[Effect],
        lease: (u64, u64),
    ) -> Result<(), Violation> {
        let mono_us = host.clock.mono_us(now_us);
        for effect in effects {
            let Effect::Persist(persist) = effect else {
                continue;
            };
            let fresh = self.agreement.written(now_us, host.machine, persist);
            for kind in fresh.map_err(violation("agreement"))? {
                if let Kind::Expire(_, epoch) | Kind::Leave(epoch) | Kind::Dead(_, Some(epoch)) =
                    kind
                {
                    self.leases.ends(epoch);
                }
                // Whoever writes it first is the leader that proposed it.
                if let Kind::Expire(_, epoch) = kind {
                    let found = self.leases.expires(host.machine, epoch, mono_us, lease);
                    found.map_err(violation("leases"))?;
                }
            }
        }
        Ok(())
    }

    /// What a turn has applied. Gives the expiries that nobody had applied before.
    pub fn applied(
        &mut self,
        host: &Host,
        replica: &Replica,
        cover: &mut Cover,
    ) -> Result<Vec<(u64, Kind)>, Violation> {
        let registry = replica.registry();
        let fresh = self.agreement.applied(host.machine, registry, cover);
        let fresh = fresh.map_err(violation("agreement"))?;
        let found = self
            .parties
            .look(host.machine, registry, &self.needless, cover);
        found.map_err(violation("parties"))?;
        Ok(fresh)
    }

    /// What a replica told of changes, and its state after them.
    pub fn events(
        &mut self,
        now_us: u64,
        (machine, revision): (usize, u64),
        registry: &Registry,
        events: &[Event],
    ) -> Result<(), Violation> {
        let found = self
            .parties
            .told((machine, revision), events, &self.agreement);
        found.map_err(violation("parties"))?;
        for event in events {
            let kinds = match event {
                Event::Process(_, record) => self.agreement.kinds(record.revision.0),
                _ => Vec::new(),
            };
            let undone = |record| parties::is_undone(events, record);
            let meant = matches!(event, Event::Process(Change::Removed, record) if undone(record));
            if !meant {
                let found = self.needless.told(event, registry, &kinds);
                found.map_err(violation("needless"))?;
            }
            let Event::Process(change, record) = event else {
                continue;
            };
            if *change == Change::Reserved {
                let found = placed::reserved(registry, record);
                found.map_err(violation("placed"))?;
            }
            let found = self.once.changed(*change, record);
            found.map_err(violation("once"))?;
            let found = self.lives.changed(machine, *change, record);
            found.map_err(violation("lives"))?;
            let lost = self.lives.lost(*change, record);
            let Some(moved) = lost else { continue };
            let index = record.revision.0;
            let (from_us, by_node) = self.agreement.loss(index, record, now_us);
            if moved {
                self.history
                    .lost(record.key(), from_us, Some(now_us), Loss::Moved);
            } else if by_node || parties::is_undone(events, record) {
                self.history
                    .lost(record.key(), from_us, Some(now_us), Loss::Forgotten);
            }
        }
        Ok(())
    }
}

impl World {
    /// Looks at a message that a host sends.
    pub fn note_sent(&mut self, from: usize, message: &raft::eraftpb::Message) {
        use raft::eraftpb::MessageType;
        let leads = matches!(
            message.msg_type,
            MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot
        );
        if leads {
            let host = self.hosts[from].id;
            let found = self.checks.leaders.leads(message.term, host);
            self.verify("leaders", found);
        }
    }
}
