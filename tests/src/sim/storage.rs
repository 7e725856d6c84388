//! What a machine's threads do with its disk: the log's writer, the snapshots' writer, and fetching a
//! peer's snapshot. As in `server/storage_thread.rs`: messages leave, and the replica hears, only after
//! the write has ended; a full disk is waited out with the same tasks in hand; any other failure ends the
//! process.

use std::sync::Arc;

use maitred_replica::{Disk as Room, Input, Persist, TakeSnapshot};
use raft::eraftpb::Message;

use super::disk::{Job, Saved};
use super::host::{HostEvent, State};
use super::network::delay_us;
use super::plan::Mend;
use super::queue::What;
use super::world::{World, say};

/// Times that a snapshot is asked for before the leader has to offer it again.
const FETCH_TRIES: u32 = 3;

impl World {
    fn write_us(&mut self, machine: usize, base_us: u32) -> u64 {
        let random = &mut self.storage;
        let took = u64::from(base_us / 4 + random.below(base_us));
        let hiccup = if random.below(200) == 0 { 20 } else { 1 };
        // The worse of both: multiplied, a snapshot that began while the disk was slow would be written
        // long after everything was mended.
        took * u64::from(self.hosts[machine].disk.slowness.max(hiccup))
    }

    /// Something for the log.
    pub fn log(&mut self, machine: usize, job: Job) {
        let job = match job {
            Job::Persist(persist) => Job::Persist(self.with_flaws(machine, persist)),
            compact @ Job::Compact(_) => compact,
        };
        self.hosts[machine].disk.put(job);
        self.begin_write(machine);
    }

    /// What a faulty server does with a write, for mutants.
    fn with_flaws(&mut self, machine: usize, mut persist: Persist) -> Persist {
        if self.mutant("shell-release-unsynced") {
            self.post(machine, std::mem::take(&mut persist.release));
        }
        if self.mutant("shell-persisted-unsynced") {
            self.give(machine, Input::Persisted(persist.number));
        }
        let flaws = super::disk::Flaws {
            lose_hard_state: self.mutant("shell-lose-hard-state"),
            keep_log_at_reset: self.mutant("shell-install-keeps-log"),
        };
        self.hosts[machine].disk.flaws = flaws;
        persist
    }

    fn begin_write(&mut self, machine: usize) {
        if !self.hosts[machine].disk.begin() {
            return;
        }
        let took = self.write_us(machine, 800);
        let host = &self.hosts[machine];
        let at = (self.now + took).max(host.disk.stalled_until_us);
        self.queue
            .push(at, What::Host(machine, host.life, HostEvent::Written));
    }

    /// The write under way has come to its end, one way or the other.
    pub fn written(&mut self, machine: usize) {
        let disk = &mut self.hosts[machine].disk;
        if disk.full {
            let again = self.now + 100_000;
            let life = self.hosts[machine].life;
            return self
                .queue
                .push(again, What::Host(machine, life, HostEvent::Written));
        }
        if std::mem::take(&mut disk.failing) {
            say!(self, "h{machine}: its fsync failed");
            self.cover.count("host died of a failed fsync");
            self.kill_host(machine);
            let start = Mend::Start(machine, self.hosts[machine].life);
            return self.queue.push(self.now + 500_000, What::Mend(start));
        }
        let (release, number) = disk.finish();
        self.post(machine, release);
        if let Some(number) = number {
            self.give(machine, Input::Persisted(number));
        }
        self.begin_write(machine);
    }

    /// The disk has no room, or has room again.
    pub fn set_full(&mut self, machine: usize, full: bool) {
        self.hosts[machine].disk.full = full;
        let room = if full { Room::Low(0) } else { Room::Ok };
        self.give(machine, Input::Disk(room));
    }

    /// A snapshot is to be written.
    pub fn snapshot(&mut self, machine: usize, take: Box<TakeSnapshot>) {
        let at = self.now + self.write_us(machine, 20_000);
        let life = self.hosts[machine].life;
        self.queue
            .push(at, What::Host(machine, life, HostEvent::Saved(take)));
    }

    /// A snapshot is written, or could not be.
    pub fn saved(&mut self, machine: usize, take: TakeSnapshot) {
        let host = &mut self.hosts[machine];
        let (index, floor) = if host.disk.full {
            (None, host.disk.floor())
        } else {
            let mut chunks = Vec::new();
            let encoded = take.state.encode(|chunk| {
                chunks.push(chunk);
                Ok::<(), std::convert::Infallible>(())
            });
            encoded.expect("writing to memory");
            let saved = Arc::new(Saved {
                index: take.index,
                term: take.term,
                conf_state: take.conf_state,
                chunks,
            });
            self.cover.count("snapshot taken");
            let found = self.checks.snapshot(&saved);
            let floor = self.hosts[machine].disk.save(Arc::clone(&saved));
            self.verify("agreement", found);
            (Some(take.index), floor)
        };
        say!(self, "h{machine}: snapshot {index:?}, floor {floor}");
        self.give(machine, Input::SnapshotSaved { index, floor });
    }

    /// A peer says that its snapshot is to be fetched. One at a time.
    pub fn fetch(&mut self, machine: usize, from: usize, message: Message) {
        let host = &mut self.hosts[machine];
        if host.fetching || host.replica.is_none() {
            return;
        }
        host.fetching = true;
        self.cover.count("snapshot fetched");
        self.fetch_later(machine, from, message, 1);
    }

    fn fetch_later(&mut self, machine: usize, from: usize, message: Message, tries: u32) {
        let slow = self.storage.below(10) == 0;
        let took = 2_000 + u64::from(self.storage.below(if slow { 1_500_000 } else { 40_000 }));
        let (life, message) = (self.hosts[machine].life, Box::new(message));
        let event = HostEvent::Fetched(from, message, tries);
        self.queue
            .push(self.now + took, What::Host(machine, life, event));
    }

    /// The last byte has come, if the sender was there all the time and still has it.
    pub fn fetched(&mut self, machine: usize, from: usize, message: Message, tries: u32) {
        if self.hosts[machine].state == State::Paused {
            return self.fetch_later(machine, from, message, tries);
        }
        let index = message.get_snapshot().get_metadata().index;
        let sender = &self.hosts[from];
        let there = sender.state == State::Up && sender.id == message.from;
        let reached = self.is_open(machine, from);
        let found = self.hosts[from].disk.snapshot(index);
        match found {
            Some(saved) if there && reached && !self.hosts[machine].disk.full => {
                let at = self.now + self.write_us(machine, 4_000) + delay_us(&mut self.network);
                let life = self.hosts[machine].life;
                let event = HostEvent::Fetchable(Box::new(message), saved);
                self.queue.push(at, What::Host(machine, life, event));
            }
            Some(_) if tries < FETCH_TRIES => {
                self.cover.count("snapshot fetch tried again");
                self.fetch_later(machine, from, message, tries + 1);
            }
            found => {
                let what = if found.is_none() && there && reached {
                    "snapshot gone when fetched"
                } else {
                    "snapshot fetch failed"
                };
                self.cover.count(what);
                self.hosts[machine].fetching = false;
            }
        }
    }

    /// A fetched snapshot's file is durable.
    pub fn install(&mut self, machine: usize, message: Message, saved: Arc<Saved>) {
        self.hosts[machine].fetching = false;
        let registry = saved.load();
        say!(
            self,
            "h{machine}: has fetched snapshot {} of {}",
            saved.index,
            registry.applied()
        );
        if !self.mutant("shell-snapshot-not-durable") {
            self.hosts[machine].disk.save(saved);
        }
        let install = maitred_replica::Install { message, registry };
        self.give(machine, Input::Install(Box::new(install)));
    }
}
