//! A writer in a process of its own is killed at whatever it is doing; everything that it had
//! acknowledged is there. A test binary of its own: a process that is about to be started holds the
//! locks of its parent for a moment, and other tests would see them.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use maitred_storage::{DataDir, Log, LogOptions, RecoveredLog, SnapshotMeta, Snapshots};

use support::{Place, entry, hard_state, random};

const DIR: &str = "MAITRED_STORAGE_KILL_DIR";
const ROUNDS: u64 = 12;

fn options() -> LogOptions {
    LogOptions {
        target_file_bytes: 256 << 10,
        ..LogOptions::default()
    }
}

/// The size of an entry's data, from its index: most are small, some are large.
fn size(index: u64) -> usize {
    let dice = random(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    if dice.is_multiple_of(13) {
        40_000
    } else {
        dice as usize % 600
    }
}

/// Writes until it is killed, and says on standard output what is durable.
fn write_until_killed(dir: &Path) {
    let dir = DataDir::open(dir).unwrap();
    let snapshots = Snapshots::open(&dir).unwrap();
    let (mut log, _) = Log::open(&dir, &options()).unwrap();
    let mut out = std::io::stdout();
    let mut dice = log.last_index() + 1;
    loop {
        dice = random(dice);
        let (before, first) = (log.last_index(), log.last_index() + 1);
        let batch: Vec<_> = (first..first + 1 + dice % 30)
            .map(|index| entry(index, 1, size(index)))
            .collect();
        log.write(&batch, Some(&hard_state(1, 3, before))).unwrap();
        writeln!(
            out,
            "durable {} {before} {}",
            log.last_index(),
            log.start().index
        )
        .unwrap();
        if dice.is_multiple_of(8) {
            let meta = SnapshotMeta {
                index: log.last_index(),
                term: 1,
                ..SnapshotMeta::default()
            };
            snapshots.save(&meta, vec![vec![7; 10_000]; 3]).unwrap();
            writeln!(out, "snapshot {}", meta.index).unwrap();
            log.compact(snapshots.compact_floor().unwrap()).unwrap();
            writeln!(
                out,
                "durable {} {before} {}",
                log.last_index(),
                log.start().index
            )
            .unwrap();
        }
    }
}

/// What the writer had acknowledged.
#[derive(Debug, Default, Clone, Copy)]
struct Acknowledged {
    last: u64,
    commit: u64,
    start: u64,
    snapshot: u64,
}

impl Acknowledged {
    fn note(&mut self, line: &str) {
        let numbers: Vec<u64> = line.split(' ').filter_map(|n| n.parse().ok()).collect();
        // The test harness writes to the same pipe, and may do so on the first line.
        match numbers[..] {
            [last, commit, start] if line.contains("durable") => {
                (self.last, self.commit, self.start) = (last, commit, start);
            }
            [snapshot] if line.contains("snapshot") => self.snapshot = snapshot,
            _ => {}
        }
    }
}

fn run_and_kill(place: &Place, lines: u64, known: &mut Acknowledged) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "acknowledged_writes_survive_sigkill",
            "--nocapture",
        ])
        .env(DIR, place.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut seen = 0;
    let mut line = String::new();
    while output.read_line(&mut line).unwrap() > 0 {
        // A line without its end was cut by the kill: the number in it may be, too.
        if line.ends_with('\n') {
            known.note(line.trim_end());
        }
        line.clear();
        seen += 1;
        if seen == lines {
            // While it goes on writing: at any point of a write, a sync, a rotation or a snapshot.
            child.kill().unwrap();
        }
    }
    assert!(!child.wait().unwrap().success());
    assert!(seen >= lines, "the writer ended by itself");
}

fn check(found: &RecoveredLog, snapshots: &Snapshots, known: Acknowledged, case: &str) {
    let last = found.start.index + found.entries.len() as u64;
    assert!(last >= known.last, "{case}: {last} is the last, {known:?}");
    assert!(found.hard_state.commit >= known.commit, "{case}: {known:?}");
    assert!(found.start.index >= known.start, "{case}: {known:?}");
    for (index, found) in (found.start.index + 1..).zip(&found.entries) {
        assert_eq!(*found, entry(index, 1, size(index)), "{case}");
    }
    let mut chunks = 0;
    let loaded = snapshots.latest(found.start.index, |chunk| {
        assert_eq!(chunk, [7; 10_000]);
        chunks += 1;
        Ok::<_, maitred_storage::StorageError>(())
    });
    let loaded = loaded.unwrap().map_or(0, |meta| meta.index);
    assert!(
        loaded >= known.snapshot && loaded <= last,
        "{case}: {loaded}, {known:?}"
    );
    assert_eq!(chunks, if loaded == 0 { 0 } else { 3 });
}

#[test]
fn acknowledged_writes_survive_sigkill() {
    if let Some(dir) = std::env::var_os(DIR) {
        write_until_killed(Path::new(&dir));
    }
    let place = Place::new();
    let mut known = Acknowledged::default();
    for round in 0..ROUNDS {
        run_and_kill(&place, 5 + random(round + 99) % 60, &mut known);
        let case = format!("round {round}");
        let dir = place.dir();
        let (_, found) = Log::open(&dir, &options()).unwrap_or_else(|e| panic!("{case}: {e}"));
        check(&found, &Snapshots::open(&dir).unwrap(), known, &case);
    }
    assert!(known.start > 0, "nothing was ever compacted: {known:?}");
}
