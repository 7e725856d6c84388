//! What `witness` believes, and that it believes nothing else.

use super::*;
use maitred_guest::testing::{TestHost, TestRecords, examine, lost_node};

/// The record that a watcher on another node registers for the node `n`.
fn record(share: &[u8]) -> Process {
    Process {
        node: "watcher".to_owned(),
        address: "watcher:1".to_owned(),
        pid: "1".to_owned(),
        share: share.to_vec(),
        incarnation: "3".to_owned(),
        running: true,
    }
}

/// Asks about the epoch 7 of `n`, while the record `key` is `record`.
fn asked(config: &str, key: (&str, &str), record: Process) -> Result<FenceVerdict, String> {
    let key = (key.0.to_owned(), key.1.to_owned());
    examine::<Witness>(
        &lost_node("n", 7),
        &TestHost::with_config(config),
        &TestRecords([(key, record)].into()),
    )
}

const KEY: (&str, &str) = ("fence", "n");
const UNKNOWN: Result<FenceVerdict, String> = Ok(FenceVerdict::AliveOrUnknown(PAUSE_MS));

#[test]
fn the_lost_epoch_and_later_ones_are_dead() {
    for (share, epoch) in [
        ("dead 7", "7"),
        ("dead 8\n", "8"),
        ("dead 18446744073709551615", "18446744073709551615"),
    ] {
        assert_eq!(
            asked("{}", KEY, record(share.as_bytes())),
            Ok(FenceVerdict::Dead(format!(
                "fence/n, registered by watcher, says: dead {epoch}"
            )))
        );
    }
}

#[test]
fn everything_else_is_unknown() {
    for share in [
        &b""[..],
        b"dead",
        b"dead ",
        b"dead 6",
        b"dead -7",
        b"dead +7",
        b"dead  7",
        b" dead 7",
        b"dead 7 or not",
        b"dead 7.0",
        b"dead 18446744073709551616",
        b"dead \xff7",
        b"alive 7",
        b"DEAD 7",
    ] {
        assert_eq!(asked("{}", KEY, record(share)), UNKNOWN, "{share:?}");
    }
    for key in [("fence", "m"), ("watch", "n")] {
        assert_eq!(asked("{}", key, record(b"dead 7")), UNKNOWN, "{key:?}");
    }
    let starting = Process {
        running: false,
        ..record(b"dead 7")
    };
    assert_eq!(asked("{}", KEY, starting), UNKNOWN);
    let its_own = Process {
        node: "n".to_owned(),
        ..record(b"dead 7")
    };
    assert_eq!(asked("{}", KEY, its_own), UNKNOWN);
}

#[test]
fn type_and_pause_are_configured() {
    let config = r#"{"retry_ms": 250, "type": "watch"}"#;
    assert!(matches!(
        asked(config, ("watch", "n"), record(b"dead 9")),
        Ok(FenceVerdict::Dead(_))
    ));
    assert_eq!(
        asked(config, KEY, record(b"dead 9")),
        Ok(FenceVerdict::AliveOrUnknown(250))
    );
}

#[test]
fn a_wrong_configuration_answers_every_question() {
    for (config, says) in [
        (r#"{"retry_ms": 99}"#, "`retry_ms`"),
        (r#"{"retry_ms": 60001}"#, "`retry_ms`"),
        (r#"{"retry_ms": "1000"}"#, "`retry_ms`"),
        (r#"{"type": ""}"#, "`type`"),
        (r#"{"type": "Fence"}"#, "`type`"),
        (r#"{"type": 7}"#, "`type`"),
        ("fence", "configuration"),
    ] {
        let reason = asked(config, KEY, record(b"dead 7")).unwrap_err();
        assert!(reason.contains(says), "{config}: {reason}");
    }
}

#[test]
fn an_epoch_that_is_no_number_is_an_error() {
    let lost = LostNode {
        epoch: "seven".to_owned(),
        ..lost_node("n", 7)
    };
    let answer = examine::<Witness>(&lost, &TestHost::default(), &TestRecords::default());
    assert!(answer.unwrap_err().contains("`seven`"));
}

#[test]
fn the_longest_names_make_a_proof_that_fits() {
    let long = "x".repeat(128);
    let lost = LostNode {
        node: long.clone(),
        ..lost_node("n", 7)
    };
    let watched = Process {
        node: "y".repeat(128),
        ..record(b"dead 7")
    };
    let config = format!("{{\"type\": \"{}\"}}", "t".repeat(64));
    let records = TestRecords([(("t".repeat(64), long), watched)].into());
    let verdict = examine::<Witness>(&lost, &TestHost::with_config(&config), &records);
    assert!(matches!(verdict, Ok(FenceVerdict::Dead(_))), "{verdict:?}");
}
