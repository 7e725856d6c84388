//! Creates of a key that is taken: who joins the one under way, who waits for the key to be free,
//! and what each of them hears.
//!
//! **Invariants.** A create that waits is in one place (a saga's waiters, or parked) and has a timer
//! for its own deadline, unless it is the maker of its saga, whose deadline is the saga's. Whatever
//! it waits for, and however often that begins anew, its deadline stays the one it came with.

use std::sync::Arc;

use maitred_protocol::{OnConflict, ProcessKey, ProcessState, Rejection, Unavailable};
use maitred_registry::Record;

use crate::effect::{Answer, Effect};
use crate::input::Ticket;
use crate::mutants;
use crate::replica::Replica;
use crate::saga::{Joined, KeyOf, Saga};
use crate::timer::Due;

impl Replica {
    /// A create whose defaults are filled in: begins it, joins the one that is under way, or answers
    /// with what is there, once it is certain that this host still leads.
    pub(crate) fn admit_create(&mut self, joined: Joined) {
        let options = &joined.create.options;
        let taken = self
            .registry
            .process(&joined.create.key)
            .is_some_and(|record| {
                record.state == ProcessState::Running
                    || options.on_conflict == OnConflict::Fail && !is_makers(record, &joined)
            });
        if taken && options.on_conflict != OnConflict::Wait && !mutants::on("exists-without-round")
        {
            self.reads.push_create(joined);
        } else {
            self.admit_certain_create(joined);
        }
    }

    /// The same, when that is certain, or does not matter.
    pub(crate) fn admit_certain_create(&mut self, joined: Joined) {
        let key = &joined.create.key;
        let fails = joined.create.options.on_conflict == OnConflict::Fail;
        let saga = self.sagas.all.get(key);
        let is_under_way = saga.is_some_and(|saga| saga.maker == Some(joined.request));
        match self.registry.process(key).cloned() {
            // A retry of the very request that is under way waits for its own outcome, whatever else
            // has come to run meanwhile.
            _ if is_under_way => self.join(joined),
            Some(record) if record.state == ProcessState::Running => self.conflict(joined, &record),
            Some(record) if fails && !is_makers(&record, &joined) => self.conflict(joined, &record),
            _ if self.sagas.all.contains_key(key) => self.join(joined),
            Some(_) => {
                // Every unsettled record has a saga while this host serves.
                debug_assert!(false, "{key} is unsettled and has no saga");
                let text = "the host is taking up creates that were under way; try again";
                self.unavailable(joined.ticket, Unavailable::Overloaded(text.to_owned()));
            }
            // It would be overtaken by the party's reservation, with its own deadline and waits.
            None if self.parties.wants(key) => {
                let text = format!("{key} is being placed with a party");
                self.unavailable(joined.ticket, Unavailable::Overloaded(text));
            }
            None if self.sagas.creates() >= self.config.creates_max => self.too_many(joined.ticket),
            None => self.begin_create(joined),
        }
    }

    fn too_many(&mut self, ticket: Ticket) {
        let text = format!("{} creates are under way", self.config.creates_max);
        self.unavailable(ticket, Unavailable::Overloaded(text));
    }

    fn join(&mut self, mut joined: Joined) {
        let key = joined.create.key.clone();
        let due = Due::Late(key.clone(), joined.ticket);
        joined.late = Some(self.timers.set(joined.deadline_us, due));
        if let Some(saga) = self.sagas.all.get_mut(&key) {
            saga.waiters.push(joined);
        }
    }

    /// Parks a create until its key is free.
    fn park(&mut self, mut joined: Joined) {
        if self.sagas.creates() >= self.config.creates_max {
            return self.too_many(joined.ticket);
        }
        let key = joined.create.key.clone();
        let due = Due::Late(key.clone(), joined.ticket);
        joined.late = Some(self.timers.set(joined.deadline_us, due));
        self.sagas.parked.entry(key).or_default().push(joined);
        self.sagas.parked_count += 1;
    }

    /// The deadline of a create that waits has passed.
    pub(crate) fn late(&mut self, key: &ProcessKey, ticket: Ticket) {
        if let Some(parked) = self.sagas.parked.get_mut(key)
            && let Some(at) = parked.iter().position(|joined| joined.ticket == ticket)
        {
            parked.remove(at);
            self.sagas.parked_count -= 1;
            if parked.is_empty() {
                self.sagas.parked.remove(key);
            }
            return self.reject(ticket, Rejection::Deadline(Vec::new()));
        }
        let Some(saga) = self.sagas.all.get_mut(key) else {
            return;
        };
        // A retry of the saga's own request hears what becomes of the saga: it may yet succeed.
        let maker = saga.maker;
        let is_late = |joined: &Joined| joined.ticket == ticket && Some(joined.request) != maker;
        if let Some(at) = saga.waiters.iter().position(is_late) {
            saga.waiters.remove(at);
            self.waited_in_vain(key, ticket);
        }
    }

    /// A create waited for a process that is there and has no node: it undoes nothing, and so should
    /// not say so.
    fn waited_in_vain(&mut self, key: &ProcessKey, ticket: Ticket) {
        let record = self.registry.process(key);
        let is_wanted = record.is_some_and(|record| !record.is_creating());
        match (is_wanted, self.registry.is_held(key)) {
            (false, _) => self.reject(ticket, Rejection::Deadline(Vec::new())),
            (true, true) => self.unavailable(ticket, Unavailable::Held(self.who_holds(key))),
            (true, false) => {
                let text = format!(
                    "{key} exists, and waits for a node; `maitred process ls --state pending` says why"
                );
                self.unavailable(ticket, Unavailable::Overloaded(text));
            }
        }
    }

    /// A create has come to nothing: its maker is told. So are those who joined it, except those
    /// who would have waited for the key in any case, and those whose own time is not up.
    pub(crate) fn fail(&mut self, saga: Saga, no: &Rejection) {
        let is_deadline = matches!(no, Rejection::Deadline(_));
        let (again, told): (Vec<_>, Vec<_>) = saga.waiters.into_iter().partition(|joined| {
            let waits = joined.create.options.on_conflict == OnConflict::Wait;
            Some(joined.request) != saga.maker && (waits || is_deadline)
        });
        for joined in told {
            self.timers.cancel(joined.late);
            self.reject(joined.ticket, no.clone());
        }
        self.admit_again(again);
    }

    /// A process runs: whoever waits for it is told.
    pub(crate) fn settle(&mut self, record: &Arc<Record>) {
        let key = KeyOf::of(record);
        let reserves =
            |saga: &Saga| saga.incarnation.0 == 0 && saga.step == crate::saga::Step::Proposed;
        if self.sagas.all.get(&key).is_some_and(reserves) {
            // A node has registered it meanwhile. The reservation that is on its way finds that out,
            // or takes effect: only then can its maker be told.
            return;
        }
        let Some(saga) = self.end_saga(&key) else {
            return;
        };
        for mut joined in saga.waiters {
            self.timers.cancel(joined.late.take());
            if is_makers(record, &joined) {
                self.created(joined.ticket, record, true);
            } else if mutants::on("joined-answered-at-once") {
                self.conflict(joined, record);
            } else {
                // What settled it may have been committed, and overtaken, before this one asked.
                self.admit_create(joined);
            }
        }
    }

    pub(crate) fn created(&mut self, ticket: Ticket, record: &Arc<Record>, created: bool) {
        let answer = Answer::Created {
            record: Arc::clone(record),
            node: self.node_of(record),
            created,
        };
        self.effects.push(Effect::Reply(ticket, answer));
    }

    /// The key of a create is taken.
    fn conflict(&mut self, joined: Joined, record: &Arc<Record>) {
        match joined.create.options.on_conflict {
            OnConflict::Return => self.created(joined.ticket, record, false),
            OnConflict::Fail => {
                let outcome = self.registry.already_exists(record);
                self.answer(joined.ticket, outcome);
            }
            OnConflict::Wait => self.park(joined),
        }
    }

    /// A key is free: those that wait for it go on, and those whose create was deleted are told.
    pub(crate) fn freed(&mut self, record: &Arc<Record>) {
        let key = KeyOf::of(record);
        let deleted = self
            .sagas
            .all
            .get(&key)
            .is_some_and(|saga| saga.incarnation == record.incarnation);
        if deleted && let Some(saga) = self.end_saga(&key) {
            let is_partys = record.spec.as_ref().is_some_and(|spec| spec.party != 0);
            let how = if record.is_creating() && is_partys {
                "was being created with a party, and that is undone"
            } else if record.is_creating() {
                "was deleted while it was starting"
            } else {
                "was deleted, or given up, while it waited to run again"
            };
            let text = format!("process {}/{} {how}", record.type_name, record.id);
            self.fail(saga, &Rejection::Conflict(text));
        }
        if let Some(parked) = self.sagas.parked.remove(&key) {
            self.sagas.parked_count -= parked.len();
            self.admit_again(parked);
        }
    }

    pub(crate) fn admit_again(&mut self, waiters: Vec<Joined>) {
        for mut joined in waiters {
            self.timers.cancel(joined.late.take());
            if joined.deadline_us <= self.now.mono_us {
                self.reject(joined.ticket, Rejection::Deadline(Vec::new()));
            } else {
                self.admit_create(joined);
            }
        }
    }
}

/// Whether the record is what this very request made, or is making.
fn is_makers(record: &Record, joined: &Joined) -> bool {
    record.spec.as_ref().and_then(|spec| spec.request) == Some(joined.request)
}
