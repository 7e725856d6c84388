//! Committed entries: to the registry, to those who wait, and to the sagas.
//!
//! A waiter belongs to an index and a term. An entry that was committed under another term is
//! somebody else's, and whoever waited at its index is told that the outcome is not known.

use maitred_protocol::{ProcessState, Response, Revision, Unavailable};
use maitred_registry::{Change, Command, Entry, Event, Outcome, Registry};
use raft::eraftpb::{Entry as RaftEntry, EntryType};

use crate::effect::{Effect, TakeSnapshot};
use crate::proposals::Waiter;
use crate::replica::Replica;
use crate::{membership, mutants};

/// Microseconds after which a snapshot that could not be written is tried again.
const SNAPSHOT_RETRY_US: u64 = 10_000_000;

impl Replica {
    pub(crate) fn apply(&mut self, committed: Vec<RaftEntry>) {
        let Some(last) = committed.last().map(|entry| entry.index) else {
            return;
        };
        let mut events = Vec::new();
        for raft_entry in committed {
            let (index, term) = (raft_entry.index, raft_entry.term);
            if raft_entry.entry_type != EntryType::EntryNormal {
                if let Some(change) = membership::read_change(&raft_entry.data) {
                    self.consensus.apply_change(&change);
                    self.peers.followed = false;
                }
                self.registry.skip(index);
                continue;
            }
            if raft_entry.data.is_empty() {
                self.registry.skip(index);
                self.begin_serving(term);
                continue;
            }
            let (entry, waiter) = match self.proposed(index, term) {
                // This host made the entry: no need to read it back.
                Some(own) => (own.entry, own.waiter),
                None => match Entry::decode(&raft_entry.data, self.config.level_max) {
                    Ok(entry) => (entry, Waiter::Nobody),
                    // What a replica cannot read it cannot skip either: it would differ from the
                    // others.
                    Err(error) => {
                        let why = error.to_string();
                        return self.halt(Effect::TooOld { index, why });
                    }
                },
            };
            let entry = mutate(entry, self.now.wall_ms, &self.registry);
            let first_event = events.len();
            let outcome = self.registry.apply(index, entry, &mut events);
            if let Outcome::Type(spec) = &outcome {
                self.type_changed(&spec.name);
            }
            match waiter {
                Waiter::Client(ticket) => self.answer(ticket, outcome),
                Waiter::Reserve(life, placed) => {
                    self.leases.unplace(placed);
                    if !matches!(outcome, Outcome::Reserved(_)) {
                        self.placement_void(placed);
                    }
                    self.reserved(&life, outcome);
                }
                Waiter::Party(number, placed, traces) => {
                    let reserved = matches!(outcome, Outcome::PartyReserved(_));
                    for placed in placed {
                        self.leases.unplace(placed);
                        if !reserved {
                            self.placement_void(placed);
                        }
                    }
                    self.party_reserved(number, traces, outcome);
                }
                Waiter::Saga(life) => self.saga_outcome(&life, outcome),
                Waiter::Nobody => {}
            }
            for event in &events[first_event..] {
                self.follow_up(event);
            }
            self.compensate_party(&events[first_event..]);
        }
        self.consensus.applied(last);
        if !events.is_empty() {
            self.effects.push(Effect::Events(Revision(last), events));
        }
    }

    /// The first entry of a leader's term: from here on it knows all that was promised.
    pub(crate) fn begin_serving(&mut self, term: u64) {
        let standing = self.consensus.standing();
        let leads = self.consensus.is_leader() && standing.term == term;
        // Raft makes an empty entry of a change that it does not take, too.
        if !leads || self.shutting_down || self.serving == Some(term) {
            return;
        }
        self.serving = Some(term);
        self.grant_leases();
        self.want_modules();
        self.announce_self();
        self.take_up_moves();
        if mutants::on("saga-not-resumed") {
            return self.admit_early();
        }
        if !mutants::on("hold-not-resumed") {
            self.take_up_holds();
        }
        self.take_up_parties();
        let unsettled: Vec<_> = self.registry.unsettled().cloned().collect();
        for record in unsettled {
            // The leader before may have decided on another node and not lived to tell the last one.
            for failure in record.failures() {
                if let Some(node) = self.registry.node(&failure.node) {
                    let (epoch, life) = (node.epoch(), (record.key(), failure.incarnation));
                    self.stop(&failure.node, epoch, life);
                }
            }
            self.compensate_again(&record);
            match record.state {
                ProcessState::Starting => self.spawn(&record),
                ProcessState::Pending => self.pending(&record),
                ProcessState::Running => {}
            }
        }
        self.admit_early();
    }

    /// What an event means for what is under way. Only the leader follows up.
    fn follow_up(&mut self, event: &Event) {
        match event {
            Event::Module(_) => self.want_modules(),
            Event::Members => self.peers.followed = false,
            _ => {}
        }
        if self.serving.is_none() {
            return;
        }
        self.follow_moves(event);
        self.follow_capacity(event);
        match event {
            Event::Process(Change::Reserved, record) => self.spawn(record),
            Event::Process(Change::Running, record) => {
                // What a node registers itself was never counted as spawning.
                if record.spec.is_some()
                    && let Some(lease) = self.leases.get_mut(record.epoch)
                {
                    lease.spawning = lease.spawning.saturating_sub(1);
                }
                self.settle(record);
            }
            Event::Process(Change::Pending, record) => {
                self.pending_was_starting(record);
                self.pending(record);
            }
            Event::Process(Change::Removed, record) => self.freed(record),
            Event::Process(Change::Updated, _) => {}
            Event::Ended(record) => {
                if record.state == ProcessState::Starting {
                    if let Some(lease) = self.leases.get_mut(record.epoch) {
                        lease.spawning = lease.spawning.saturating_sub(1);
                    }
                    self.starting_ended(record);
                }
                let life = (record.key(), record.incarnation);
                if !mutants::on("no-tombstone") {
                    self.stop(&record.node, record.epoch, life);
                }
            }
            Event::NodeUp {
                name, superseded, ..
            } => {
                if let Some(superseded) = superseded {
                    self.leases.remove(*superseded);
                }
                if let Some(node) = self.registry.node(name) {
                    self.leases.add(node, self.now.mono_us);
                }
            }
            Event::NodeDown(_, epoch) => {
                self.leases.remove(*epoch);
                self.session_lost(*epoch);
            }
            Event::Linger {
                node,
                epoch,
                key,
                incarnation,
            } => self.stop(node, *epoch, (key.clone(), *incarnation)),
            Event::Released(key) => self.key_released(key),
            Event::Party { index, outcome, .. } => self.party_ended(*index, outcome),
            Event::NodeChanged(_) | Event::Module(_) | Event::Members | Event::Switched(_) => {}
        }
    }

    /// The modules that must be ready: those that decide, for all or for a share or in shadow, what a
    /// rollback would bring back, and the newest, which is most likely to be activated next.
    pub(crate) fn want_modules(&mut self) {
        let mut wanted = Vec::new();
        for (name, module) in self.registry.modules() {
            let active = module.active.as_ref().map(|active| active.version);
            let previous = module.before.last().map(|before| before.version);
            let newest = module.versions.last().map(|version| version.version);
            let canary = module.canary.as_ref().map(|canary| canary.decides.version);
            let shadow = module.shadow.as_ref().map(|shadow| shadow.version);
            for version in &module.versions {
                if [active, previous, newest, canary, shadow].contains(&Some(version.version)) {
                    let signature = version.signature;
                    wanted.push((name.clone(), module.kind, version.digest, signature));
                }
            }
        }
        self.effects.push(Effect::Modules(wanted));
    }

    /// Takes a snapshot when enough has happened since the last.
    pub(crate) fn take_snapshot(&mut self) {
        let index = self.registry.applied();
        let log = self.consensus.log();
        let entries = index.saturating_sub(self.snapshot.index);
        let bytes = log.bytes().saturating_sub(self.snapshot.bytes);
        let due = entries >= self.config.snapshot_entries
            || (entries > 0 && bytes >= self.config.snapshot_bytes);
        let asked = !self.snapshot.asked.is_empty();
        if asked && index == 0 {
            for ticket in std::mem::take(&mut self.snapshot.asked) {
                let text = "there is nothing to take a snapshot of yet".to_owned();
                self.unavailable(ticket, Unavailable::Overloaded(text));
            }
            return;
        }
        let too_soon = self.now.mono_us < self.snapshot.not_before_us && !asked;
        // A peer that needs one cannot wait; it asks again for as long as it does.
        let wanted = !self.snapshot.writing && log.take_wanted() && index > self.snapshot.index;
        if self.snapshot.writing || too_soon || !(due || asked || wanted) {
            return;
        }
        let log = self.consensus.log();
        let Some(term) = log.term_at(index) else {
            return;
        };
        self.snapshot.writing = true;
        self.snapshot.bytes = log.bytes();
        self.snapshot.waiting = std::mem::take(&mut self.snapshot.asked);
        let conf_state = self.consensus.conf_state().clone();
        self.snapshot.under_way = Some((index, term, conf_state.clone()));
        let state = self.registry.snapshot();
        let snapshot = TakeSnapshot {
            state,
            index,
            term,
            conf_state,
        };
        self.effects.push(Effect::Snapshot(Box::new(snapshot)));
    }

    pub(crate) fn snapshot_saved(&mut self, index: Option<u64>, floor: u64) {
        self.snapshot.writing = false;
        let under_way = self.snapshot.under_way.take();
        let waiting = std::mem::take(&mut self.snapshot.waiting);
        match index {
            Some(index) => {
                self.snapshot.index = self.snapshot.index.max(index);
                if let Some((at, term, conf_state)) = under_way
                    && at == index
                {
                    self.consensus.log_mut().set_saved(at, term, conf_state);
                }
                for ticket in waiting {
                    self.reply(ticket, Response::Done(Revision(index)));
                }
            }
            None => {
                self.snapshot.not_before_us = self.now.mono_us + SNAPSHOT_RETRY_US;
                for ticket in waiting {
                    let text = "the snapshot could not be written; the host's log says why";
                    self.unavailable(ticket, Unavailable::Overloaded(text.to_owned()));
                }
            }
        }
        // Never cut what is not applied, whatever storage says; nor what a peer that is fetching a
        // snapshot will need next, within bounds.
        let mut floor = floor.min(self.registry.applied());
        if let Some(fetched) = self.oldest_fetched()
            && fetched < floor
            && self.consensus.log().bytes_after(fetched) <= self.config.log_kept_bytes
        {
            floor = fetched;
        }
        if floor > self.consensus.log().start() {
            self.consensus.log_mut().compact(floor);
            self.effects.push(Effect::Compact(floor));
        }
    }
}

/// A mutant's.
fn mutate(mut entry: Entry, wall_ms: u64, registry: &Registry) -> Entry {
    if mutants::on("apply-uses-clock") {
        entry.time_ms = wall_ms;
    }
    if mutants::on("expire-without-epoch")
        && let Command::Expire { name, epoch } = &mut entry.command
        && let Some(node) = registry.node(name)
    {
        *epoch = node.epoch();
    }
    entry
}
