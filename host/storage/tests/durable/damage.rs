//! A log with damaged files: what a crash explains is cut and reported, all else is refused, and no
//! entry that comes back is ever wrong.

use std::fs;
use std::path::Path;

use maitred_storage::{LogOptions, RecoveredLog, StorageError};

use crate::support::{Place, entries, hard_state, random};

const FILE_HEADER: u64 = 69;
const SECTOR: usize = 512;

fn accepting() -> LogOptions {
    LogOptions {
        accept_damaged_tail: true,
        ..LogOptions::default()
    }
}

/// A file of a log: its bytes, and where its records begin and the last one ends.
struct Sample {
    bytes: Vec<u8>,
    records: Vec<usize>,
    end: usize,
}

impl Sample {
    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let mut records = Vec::new();
        let mut at = FILE_HEADER as usize;
        while let Some(length) = bytes.get(at..at + 8).filter(|length| *length != [0; 8]) {
            records.push(at);
            at += (u64::from_be_bytes(length.try_into().unwrap()) >> 8) as usize;
        }
        Self {
            bytes,
            records,
            end: at,
        }
    }

    fn last(&self) -> usize {
        *self.records.last().unwrap()
    }
}

/// Ten writes of two entries; the file as a clean end leaves it, or as a kill does, with room
/// allocated after the last record.
fn ten_writes(place: &Place, clean: bool, bytes: usize) -> Sample {
    let (mut log, _) = place.log();
    for write in 0..10 {
        let state = hard_state(1, 1, write * 2);
        log.write(
            &entries(write * 2 + 1..=write * 2 + 2, 1, bytes),
            Some(&state),
        )
        .unwrap();
    }
    let path = &place.log_files()[0];
    let mut killed = Sample::read(path);
    // Less of it, since it is written a thousand times.
    killed.bytes.truncate(killed.end + 8192);
    drop(log);
    if clean {
        let closed = Sample::read(path);
        assert_eq!(closed.bytes.len(), killed.end);
        return closed;
    }
    assert!(killed.bytes.len() > killed.end + 1000);
    killed
}

fn open_with(
    place: &Place,
    bytes: &[u8],
    options: &LogOptions,
) -> Result<RecoveredLog, StorageError> {
    fs::write(&place.log_files()[0], bytes).unwrap();
    place.try_log(options).map(|(_, found)| found)
}

/// Opens, and finds all but the last write, which is reported.
fn assert_torn(place: &Place, bytes: &[u8], sample: &Sample, size: usize, case: &str) {
    let found = open_with(place, bytes, &LogOptions::default())
        .unwrap_or_else(|error| panic!("{case}: {error}"));
    assert_eq!(found.entries, entries(1..=18, 1, size), "{case}");
    assert_eq!(found.hard_state.commit, 16, "{case}");
    let [torn] = &found.torn[..] else {
        panic!("{case}: {:?}", found.torn);
    };
    assert_eq!(torn.offset as usize, sample.last(), "{case}");
    assert!(
        torn.bytes > 0 && torn.bytes as usize <= sample.end - sample.last(),
        "{case}"
    );
    // And what was cut does not come back.
    let (mut log, found) = place.log();
    assert!(found.torn.is_empty(), "{case}");
    log.write(&entries(19..=19, 2, size), Some(&hard_state(2, 1, 16)))
        .unwrap();
}

fn assert_refused(place: &Place, bytes: &[u8], options: &LogOptions, offset: usize, case: &str) {
    match open_with(place, bytes, options) {
        Err(error @ StorageError::LogDamaged { offset: at, .. }) => {
            assert_eq!(at as usize, offset, "{case}: {error}");
            let text = error.to_string();
            assert!(
                text.contains(".raftlog") && text.contains("restore"),
                "{text}"
            );
        }
        Err(error) => panic!("{case}: {error}"),
        Ok(found) => panic!("{case}: opened with {} entries", found.entries.len()),
    }
}

#[test]
fn a_file_cut_within_its_last_record_is_torn() {
    for size in [20, 3000] {
        let place = Place::new();
        let sample = ten_writes(&place, true, size);
        let record = sample.end - sample.last();
        for cut in [1, 2, 4, 17, record / 2, record - 16, record - 9] {
            let case = format!("{cut} bytes off records of {record}");
            let bytes = &sample.bytes[..sample.end - cut];
            assert_torn(&place, bytes, &sample, size, &case);
        }
    }
}

#[test]
fn a_cut_between_records_is_a_shorter_log() {
    // Nothing can show it; the promise is only that what comes back is right.
    let place = Place::new();
    let sample = ten_writes(&place, true, 20);
    let found = open_with(
        &place,
        &sample.bytes[..sample.last()],
        &LogOptions::default(),
    )
    .unwrap();
    assert_eq!(found.entries, entries(1..=18, 1, 20));
}

#[test]
fn what_a_kill_leaves_is_all_there() {
    let place = Place::new();
    let sample = ten_writes(&place, false, 3000);
    let found = open_with(&place, &sample.bytes, &LogOptions::default()).unwrap();
    assert_eq!(found.entries, entries(1..=20, 1, 3000));
    assert!(found.torn.is_empty());
}

#[test]
fn a_last_record_whose_end_or_whose_sectors_are_missing_is_torn() {
    for clean in [true, false] {
        let place = Place::new();
        let sample = ten_writes(&place, clean, 3000);
        let mut cases: Vec<(String, std::ops::Range<usize>)> = [5, 100, 2000, 6000]
            .map(|zeros| {
                (
                    format!("{zeros} bytes at the end"),
                    sample.end - zeros..sample.end,
                )
            })
            .into();
        let first = sample.last().next_multiple_of(SECTOR);
        for sector in (first..sample.end - SECTOR).step_by(SECTOR) {
            cases.push((format!("the sector at {sector}"), sector..sector + SECTOR));
        }
        cases.push(("the first sector".to_owned(), sample.last()..first));
        for (case, missing) in cases {
            let mut bytes = sample.bytes.clone();
            bytes[missing].fill(0);
            assert_torn(&place, &bytes, &sample, 3000, &case);
        }
    }
}

#[test]
fn a_flipped_bit_in_the_last_record_is_refused_unless_the_operator_accepts() {
    for clean in [true, false] {
        let place = Place::new();
        let sample = ten_writes(&place, clean, 90);
        for at in sample.last()..sample.end {
            for bit in 0..8 {
                let mut bytes = sample.bytes.clone();
                bytes[at] ^= 1 << bit;
                let case = format!("bit {bit} of byte {at}, clean {clean}");
                assert_refused(&place, &bytes, &LogOptions::default(), sample.last(), &case);
            }
        }
        let mut bytes = sample.bytes.clone();
        bytes[sample.last() + 40] ^= 4;
        let found = open_with(&place, &bytes, &accepting()).unwrap();
        assert_eq!(found.entries, entries(1..=18, 1, 90));
        assert_eq!(found.torn[0].bytes as usize, sample.end - sample.last());
    }
}

#[test]
fn damage_before_valid_records_is_always_refused() {
    let place = Place::new();
    let sample = ten_writes(&place, false, 90);
    for record in 0..9 {
        for at in (sample.records[record]..sample.records[record + 1]).step_by(3) {
            for bit in [0, 7] {
                let mut bytes = sample.bytes.clone();
                bytes[at] ^= 1 << bit;
                let case = format!("bit {bit} of byte {at}");
                assert_refused(&place, &bytes, &accepting(), sample.records[record], &case);
            }
        }
        let mut bytes = sample.bytes.clone();
        bytes[sample.records[record]..sample.records[record + 1]].fill(0);
        assert_refused(
            &place,
            &bytes,
            &accepting(),
            sample.records[record],
            "zeros",
        );
    }
    let mut bytes = sample.bytes.clone();
    bytes[5] ^= 1;
    assert_refused(&place, &bytes, &accepting(), 0, "the file's header");
}

#[test]
fn garbage_after_the_last_record_is_refused_unless_the_operator_accepts() {
    let place = Place::new();
    let sample = ten_writes(&place, true, 90);
    let mut bytes = sample.bytes.clone();
    let mut state = 7;
    for _ in 0..5000 {
        state = random(state);
        bytes.push(state as u8 | 1);
    }
    assert_refused(
        &place,
        &bytes,
        &LogOptions::default(),
        sample.end,
        "garbage",
    );
    let found = open_with(&place, &bytes, &accepting()).unwrap();
    assert_eq!(found.entries, entries(1..=20, 1, 90));
    assert_eq!(found.torn[0].bytes, 5000);
}

#[test]
fn damage_in_an_older_file_and_a_missing_file_are_refused() {
    let options = LogOptions {
        target_file_bytes: 16 << 10,
        ..accepting()
    };
    let place = Place::new();
    let (mut log, _) = place.try_log(&options).unwrap();
    log.write(&[], Some(&hard_state(1, 0, 0))).unwrap();
    for index in 1..=100 {
        log.write(&entries(index..=index, 1, 1000), None).unwrap();
    }
    drop(log);
    let files = place.log_files();
    assert!(files.len() >= 4);
    for (at, path) in files.iter().enumerate() {
        let kept = fs::read(path).unwrap();
        if at + 1 < files.len() {
            let last = Sample::read(path).last();
            let mut bytes = kept.clone();
            bytes[last + 100] ^= 1;
            fs::write(path, bytes).unwrap();
            let error = place.try_log(&options).err().unwrap().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
            fs::write(path, &kept[..kept.len() - 3]).unwrap();
            assert!(place.try_log(&options).is_err());
            fs::remove_file(path).unwrap();
            let error = place.try_log(&options).err().unwrap();
            assert!(matches!(error, StorageError::LogDamaged { .. }), "{error}");
            fs::write(path, &kept).unwrap();
        }
    }
    assert_eq!(
        place.try_log(&options).unwrap().1.entries,
        entries(1..=100, 1, 1000)
    );
}

#[test]
fn a_file_that_was_begun_and_never_written_is_no_damage() {
    let place = Place::new();
    drop(ten_writes(&place, true, 20));
    let next = place.path().join("raft/0000000000000002.raftlog");
    for content in [vec![], vec![0; 4096], b"RAFT-LOG".to_vec()] {
        fs::write(&next, &content).unwrap();
        let (mut log, found) = place.log();
        assert_eq!(found.entries, entries(1..=20, 1, 20));
        log.write(&[], Some(&hard_state(1, 1, 20))).unwrap();
    }
}

#[test]
fn no_random_damage_ever_yields_a_wrong_or_missing_entry_in_silence() {
    let place = Place::new();
    let sample = ten_writes(&place, false, 700);
    let expected = entries(1..=20, 1, 700);
    let mut state = 0x5eed;
    let mut below = |limit: usize| {
        state = random(state);
        (state >> 16) as usize % limit
    };
    let (mut opened, mut refused) = (0, 0);
    for round in 0..400 {
        let mut bytes = sample.bytes[..sample.end + 8192].to_vec();
        let damages = 1 + below(3);
        for _ in 0..damages {
            let from = FILE_HEADER as usize + below(sample.end + 1000 - FILE_HEADER as usize);
            let upto = (from + 1 + below(1500)).min(bytes.len());
            let sector = from / SECTOR * SECTOR;
            match below(3) {
                0 => bytes[from] ^= 1 << below(8),
                1 => bytes[sector.max(FILE_HEADER as usize)..sector + SECTOR].fill(0),
                _ => bytes[from..upto]
                    .iter_mut()
                    .for_each(|byte| *byte = below(256) as u8),
            }
        }
        match open_with(&place, &bytes, &LogOptions::default()) {
            Ok(found) => {
                opened += 1;
                let kept = found.entries.len();
                assert_eq!(found.entries, expected[..kept], "round {round}");
                assert!(
                    kept == 20 || !found.torn.is_empty(),
                    "round {round}: {kept} kept"
                );
                // Several lost sectors may look like one write that was cut short.
                assert!(kept >= 18 || damages > 1, "round {round}: {kept} kept");
            }
            Err(StorageError::LogDamaged { .. }) => refused += 1,
            Err(error) => panic!("round {round}: {error}"),
        }
    }
    assert!(
        opened > 10 && refused > 10,
        "{opened} opened, {refused} refused"
    );
}
