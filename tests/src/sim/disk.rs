//! A machine's disk: a log, a hard state and two snapshots, durable only after a while.
//!
//! As in production, everything that waits is written together, and what waits behind a write is the
//! next one. A crash keeps what was durable and, of the write under way, a drawn prefix: whole tasks,
//! and of the last one perhaps its hard state and some of its entries.
//! The duties that storage has at start are here too: a snapshot beyond the log, or at odds with it,
//! makes the log begin anew after it.

use std::collections::VecDeque;
use std::sync::Arc;

use maitred_registry::random::Random;
use maitred_registry::{Loader, Registry};
use maitred_replica::{Persist, Recovered, RecoveredSnapshot};
use raft::eraftpb::{ConfState, Entry, HardState, Message};

/// Something for the log, in order.
#[derive(Debug)]
pub enum Job {
    /// Make it durable.
    Persist(Persist),
    /// Cut the log through this index.
    Compact(u64),
}

/// A snapshot's file.
#[derive(Debug)]
pub struct Saved {
    /// The last index that it contains.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The members at that index.
    pub conf_state: ConfState,
    /// The state.
    pub chunks: Vec<Vec<u8>>,
}

impl Saved {
    /// Reads the state back.
    pub fn load(&self) -> Registry {
        let mut loader = Loader::new();
        for chunk in &self.chunks {
            loader.chunk(chunk).expect("a chunk that was written");
        }
        loader.finish().expect("all chunks are there")
    }
}

/// What survives a crash.
#[derive(Debug, Default)]
struct Durable {
    hard_state: HardState,
    entries: Vec<Entry>,
    start: (u64, u64),
    snapshots: Vec<Arc<Saved>>,
}

impl Durable {
    fn append(&mut self, mut entries: Vec<Entry>) {
        let Some(first) = entries.first() else { return };
        let at = first.index.checked_sub(self.start.0 + 1);
        let at = at.expect("nothing is appended below the log's beginning") as usize;
        assert!(at <= self.entries.len(), "the log has a gap");
        self.entries.truncate(at);
        self.entries.append(&mut entries);
    }

    fn write(&mut self, job: Job, flaws: &Flaws) -> Vec<Message> {
        let persist = match job {
            Job::Compact(through) => {
                self.compact(through);
                return Vec::new();
            }
            Job::Persist(persist) => persist,
        };
        if let Some(start) = persist.reset
            && !flaws.keep_log_at_reset
        {
            self.reset(start);
        }
        if let Some(hard_state) = persist.hard_state
            && !flaws.lose_hard_state
        {
            self.hard_state = hard_state;
        }
        self.append(persist.entries);
        persist.release
    }

    fn reset(&mut self, start: (u64, u64)) {
        self.entries.clear();
        self.start = start;
        // Nothing beyond it is in the log yet.
        self.hard_state.commit = start.0;
        if self.hard_state.term < start.1 {
            self.hard_state.term = start.1;
            self.hard_state.vote = 0;
        }
    }

    fn compact(&mut self, through: u64) {
        let cut = through.saturating_sub(self.start.0) as usize;
        if cut > self.entries.len() {
            return;
        }
        if let Some(last) = self.entries.drain(..cut).next_back() {
            self.start = (last.index, last.term);
        }
    }

    fn last(&self) -> u64 {
        self.start.0 + self.entries.len() as u64
    }

    fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.start.0 {
            return Some(self.start.1);
        }
        let at = index.checked_sub(self.start.0 + 1)?;
        self.entries.get(at as usize).map(|entry| entry.term)
    }
}

/// What a faulty storage does; for mutants.
#[derive(Debug, Clone, Default)]
pub struct Flaws {
    /// The hard state is not written.
    pub lose_hard_state: bool,
    /// A log is not begun anew when a snapshot was installed.
    pub keep_log_at_reset: bool,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Disk {
    durable: Durable,
    waiting: VecDeque<Job>,
    writing: Vec<Job>,
    /// Whether a write is under way.
    pub busy: bool,
    /// Nothing can be written.
    pub full: bool,
    /// Writes end no earlier than this, in true time.
    pub stalled_until_us: u64,
    /// How many times slower than usual writes are.
    pub slowness: u32,
    /// The next write fails.
    pub failing: bool,
    /// For mutants.
    pub flaws: Flaws,
}

impl Disk {
    /// Something to be written.
    pub fn put(&mut self, job: Job) {
        self.waiting.push_back(job);
    }

    /// Begins to write everything that waits; false when nothing does, or a write is under way.
    pub fn begin(&mut self) -> bool {
        if self.busy || self.waiting.is_empty() {
            return false;
        }
        self.writing.extend(self.waiting.drain(..));
        self.busy = true;
        true
    }

    /// The write under way is durable: what may be sent now, and the number that is durable.
    pub fn finish(&mut self) -> (Vec<Message>, Option<u64>) {
        self.busy = false;
        let (mut release, mut number) = (Vec::new(), None);
        for job in self.writing.drain(..) {
            if let Job::Persist(persist) = &job {
                number = Some(persist.number);
            }
            release.append(&mut self.durable.write(job, &self.flaws));
        }
        (release, number)
    }

    /// The process dies, and perhaps the machine with it.
    pub fn crash(&mut self, random: &mut Random) {
        self.busy = false;
        self.waiting.clear();
        self.stalled_until_us = 0;
        let under_way: Vec<Job> = self.writing.drain(..).collect();
        let whole = random.below(under_way.len() as u32 + 1) as usize;
        let mut jobs = under_way.into_iter();
        for job in jobs.by_ref().take(whole) {
            self.durable.write(job, &self.flaws);
        }
        if let Some(Job::Persist(torn)) = jobs.next()
            && torn.reset.is_none()
            && random.below(2) == 0
        {
            self.tear(torn, random);
        }
    }

    /// Some of a write was there already.
    fn tear(&mut self, mut torn: Persist, random: &mut Random) {
        torn.entries
            .truncate(random.below(torn.entries.len() as u32 + 1) as usize);
        self.durable.append(torn.entries);
        if let Some(mut hard_state) = torn.hard_state {
            // What it says is committed may be among what was lost.
            hard_state.commit = hard_state.commit.min(self.durable.last());
            hard_state.commit = hard_state.commit.max(self.durable.hard_state.commit);
            self.durable.hard_state = hard_state;
        }
    }

    /// A snapshot's file is durable; the two newest are kept. Says what the older one contains.
    pub fn save(&mut self, saved: Arc<Saved>) -> u64 {
        let all = &mut self.durable.snapshots;
        all.retain(|have| have.index != saved.index);
        all.push(saved);
        all.sort_by_key(|saved| saved.index);
        let old = all.len().saturating_sub(2);
        all.drain(..old);
        self.floor()
    }

    /// What the older kept snapshot contains.
    pub fn floor(&self) -> u64 {
        let all = &self.durable.snapshots;
        if all.len() < 2 { 0 } else { all[0].index }
    }

    /// The snapshot of this index, if it is still kept.
    pub fn snapshot(&self, index: u64) -> Option<Arc<Saved>> {
        let found = self.durable.snapshots.iter();
        found.rev().find(|saved| saved.index == index).cloned()
    }

    /// The term that is durable.
    pub fn term(&self) -> u64 {
        self.durable.hard_state.term
    }

    /// What a start finds.
    pub fn recovered(&mut self) -> Recovered {
        let newest = self.durable.snapshots.last().cloned();
        if let Some(newest) = &newest {
            let durable = &mut self.durable;
            // A crash came between installing a snapshot and beginning the log anew.
            let beyond = newest.index > durable.last();
            let at_odds = durable
                .term_at(newest.index)
                .is_some_and(|term| term != newest.term);
            if beyond || at_odds {
                durable.reset((newest.index, newest.term));
            }
        }
        let snapshot = newest.map(|saved| RecoveredSnapshot {
            index: saved.index,
            term: saved.term,
            conf_state: saved.conf_state.clone(),
            registry: saved.load(),
        });
        Recovered {
            hard_state: self.durable.hard_state.clone(),
            entries: self.durable.entries.clone(),
            start_index: self.durable.start.0,
            start_term: self.durable.start.1,
            snapshot,
        }
    }
}
