//! What game nodes in processes of their own really did, as they wrote it: one line an event, in one file,
//! so that lives can be judged by their intervals afterwards.
//!
//! Holds: times are of the boot-time clock, which all processes of a machine share; an interval is never
//! shorter than the life. It must not know what the registry says.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use maitred_protocol::{Incarnation, NodeEpoch, ProcessKey};
use rustix::time::{ClockId, clock_gettime};

/// Microseconds of the boot-time clock.
pub(super) fn boot_us() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let [seconds, nanos] = [time.tv_sec, time.tv_nsec].map(|part| u64::try_from(part).unwrap_or(0));
    seconds * 1_000_000 + nanos / 1_000
}

/// What happened on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// It is registered, and serves.
    Ready(NodeEpoch),
    /// A life begins.
    Start(ProcessKey, Incarnation),
    /// It has been told to stop.
    Stopping(ProcessKey, Incarnation),
    /// It is over.
    Stopped(ProcessKey, Incarnation),
    /// The node has lost its lease.
    LeaseLost,
    /// The node has ended, and whether because it was superseded.
    Ended(bool),
}

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// When, by [`boot_us`].
    pub(super) at_us: u64,
    /// The operating system's number of the node's process.
    pub(super) pid: u32,
    /// The node.
    pub(super) node: String,
    /// What.
    pub(super) event: Event,
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(6, ' ');
        let at_us = words.next()?.parse().ok()?;
        let pid = words.next()?.parse().ok()?;
        let node = words.next()?.to_owned();
        let (what, of) = (words.next()?, words.next()?);
        let mut life = || {
            let key = words.next()?.parse().ok()?;
            Some((key, Incarnation(of.parse().ok()?)))
        };
        let event = match what {
            "ready" => Event::Ready(NodeEpoch(of.parse().ok()?)),
            "start" => life().map(|(key, life)| Event::Start(key, life))?,
            "stopping" => life().map(|(key, life)| Event::Stopping(key, life))?,
            "stopped" => life().map(|(key, life)| Event::Stopped(key, life))?,
            "lease_lost" => Event::LeaseLost,
            "ended" => Event::Ended(of.parse().ok()?),
            _ => return None,
        };
        Some(Self {
            at_us,
            pid,
            node,
            event,
        })
    }
}

/// Reads all that was written.
pub(super) fn read(path: &Path) -> io::Result<Vec<Entry>> {
    let text = std::fs::read_to_string(path)?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |line: &str| Entry::parse(line).ok_or_else(|| io::Error::other(line.to_owned()));
    whole.lines().map(parse).collect()
}

/// One life of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Life {
    /// Which process.
    pub(super) key: ProcessKey,
    /// Which life of it.
    pub(super) incarnation: Incarnation,
    /// Where.
    pub(super) node: String,
    /// In which process of the operating system.
    pub(super) pid: u32,
    /// When it began.
    pub(super) began_us: u64,
    /// When it was over; none when it is not.
    pub(super) over_us: Option<u64>,
}

/// All lives of all processes, in the order of their keys and beginnings.
#[derive(Debug, Clone, Default)]
pub(super) struct Lives {
    /// Those.
    pub(super) all: Vec<Life>,
    /// What no node may ever do.
    pub(super) breaches: Vec<String>,
}

impl Lives {
    /// Puts lives together. `deaths` are of processes of the operating system: what those ran was over
    /// then.
    pub(super) fn of(entries: &[Entry], deaths: &BTreeMap<u32, u64>) -> Self {
        let mut lives: BTreeMap<(ProcessKey, Incarnation), Life> = BTreeMap::new();
        let mut breaches = Vec::new();
        for entry in entries {
            match &entry.event {
                Event::Start(key, incarnation) => {
                    let life = Life {
                        key: key.clone(),
                        incarnation: *incarnation,
                        node: entry.node.clone(),
                        pid: entry.pid,
                        began_us: entry.at_us,
                        over_us: None,
                    };
                    if let Some(first) = lives.insert((key.clone(), *incarnation), life) {
                        breaches.push(format!("started twice: {entry:?}, and before: {first:?}"));
                    }
                }
                Event::Stopped(key, incarnation) => {
                    match lives.get_mut(&(key.clone(), *incarnation)) {
                        Some(life) if life.pid == entry.pid && life.over_us.is_none() => {
                            life.over_us = Some(entry.at_us);
                        }
                        _ => breaches.push(format!("stopped what did not run: {entry:?}")),
                    }
                }
                _ => {}
            }
        }
        let mut all: Vec<Life> = lives.into_values().collect();
        for life in &mut all {
            life.over_us = life.over_us.or(deaths.get(&life.pid).copied());
        }
        all.sort_by(|a, b| (&a.key, a.began_us).cmp(&(&b.key, b.began_us)));
        Self { all, breaches }
    }

    /// What goes on, by key, node and incarnation.
    pub(super) fn running(&self) -> BTreeSet<(ProcessKey, String, Incarnation)> {
        let running = self.all.iter().filter(|life| life.over_us.is_none());
        running
            .map(|life| (life.key.clone(), life.node.clone(), life.incarnation))
            .collect()
    }

    /// The lives of one process, in the order of their beginnings.
    pub(super) fn of_key(&self, key: &ProcessKey) -> impl Iterator<Item = &Life> {
        let first = self.all.partition_point(|life| life.key < *key);
        self.all[first..]
            .iter()
            .take_while(move |life| life.key == *key)
    }

    /// Two lives of one key of which the second began before the first was over, or has no higher
    /// incarnation.
    pub(super) fn overlaps(&self) -> impl Iterator<Item = (&Life, &Life)> {
        let pairs = self.all.iter().zip(self.all.iter().skip(1));
        pairs.filter(|(one, next)| {
            let over = one.over_us.is_some_and(|over_us| over_us <= next.began_us);
            one.key == next.key && !(over && one.incarnation < next.incarnation)
        })
    }

    /// The most lives that went on at a time on a node.
    pub(super) fn peak(&self, node: &str) -> usize {
        let mut steps = Vec::new();
        for life in self.all.iter().filter(|life| life.node == node) {
            steps.push((life.began_us, 1));
            steps.extend(life.over_us.map(|over_us| (over_us, -1)));
        }
        steps.sort_unstable();
        let (mut now, mut most) = (0_isize, 0);
        for (_, step) in steps {
            now += step;
            most = most.max(now);
        }
        most.unsigned_abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at_us: u64, pid: u32, event: Event) -> Entry {
        Entry {
            at_us,
            pid,
            node: format!("node-{pid}"),
            event,
        }
    }

    fn key() -> ProcessKey {
        ProcessKey::new("room", "a b/c").unwrap()
    }

    #[test]
    fn a_line_is_read_as_it_is_written() {
        let life = Incarnation(7);
        for (text, event) in [
            ("ready 3", Event::Ready(NodeEpoch(3))),
            ("start 7 room/a b/c", Event::Start(key(), life)),
            ("stopping 7 room/a b/c", Event::Stopping(key(), life)),
            ("stopped 7 room/a b/c", Event::Stopped(key(), life)),
            ("lease_lost -", Event::LeaseLost),
            ("ended true", Event::Ended(true)),
        ] {
            let line = format!("12 34 node-34 {text}");
            assert_eq!(Entry::parse(&line), Some(entry(12, 34, event)));
        }
        assert_eq!(Entry::parse("1 2 node start"), None);
    }

    #[test]
    fn two_lives_at_a_time_are_seen_and_one_after_the_other_is_not() {
        let start = |at, pid, life| entry(at, pid, Event::Start(key(), Incarnation(life)));
        let stopped = |at, pid, life| entry(at, pid, Event::Stopped(key(), Incarnation(life)));
        let none = BTreeMap::new();
        let good = [start(1, 1, 1), stopped(2, 1, 1), start(2, 2, 2)];
        let lives = Lives::of(&good, &none);
        assert_eq!((lives.overlaps().count(), lives.running().len()), (0, 1));
        assert_eq!(lives.breaches, Vec::<String>::new());
        let early = [start(1, 1, 1), start(2, 2, 2), stopped(3, 1, 1)];
        assert_eq!(Lives::of(&early, &none).overlaps().count(), 1);
        let never = [start(1, 1, 1), start(2, 2, 2)];
        assert_eq!(Lives::of(&never, &none).overlaps().count(), 1);
        assert_eq!(Lives::of(&never, &[(1, 2)].into()).overlaps().count(), 0);
        let older = [start(1, 1, 2), stopped(2, 1, 2), start(3, 2, 1)];
        assert_eq!(Lives::of(&older, &none).overlaps().count(), 1);
        let twice = [start(1, 1, 1), stopped(2, 1, 1), start(3, 2, 1)];
        assert_eq!(Lives::of(&twice, &none).breaches.len(), 1);
        let other = [start(1, 1, 1), stopped(2, 2, 1)];
        assert_eq!(Lives::of(&other, &none).breaches.len(), 1);
    }

    #[test]
    fn the_most_at_a_time_is_counted() {
        let mut entries = Vec::new();
        for number in 1..=3 {
            let key = ProcessKey::new("room", &number.to_string()).unwrap();
            let life = Incarnation(number);
            entries.push(entry(number, 1, Event::Start(key.clone(), life)));
            entries.push(entry(number + 2, 1, Event::Stopped(key, life)));
        }
        let lives = Lives::of(&entries, &BTreeMap::new());
        assert_eq!((lives.peak("node-1"), lives.peak("node-2")), (2, 0));
    }
}
