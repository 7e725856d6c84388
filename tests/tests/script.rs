//! Runs every script in `tests/script` and compares what is seen with what it says.
//!
//! `UPDATE=1 cargo test -p maitred-tests --test script` writes what is seen into the scripts; read
//! the difference before you believe it.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop here"
)]

use std::fs;
use std::path::{Path, PathBuf};

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("script");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "txt"))
        .collect();
    paths.sort();
    paths
}

/// The first line that differs, with what was expected there and what was seen.
fn difference(expected: &str, seen: &str) -> String {
    let (mut expected, mut seen) = (expected.lines(), seen.lines());
    for number in 1.. {
        match (expected.next(), seen.next()) {
            (None, None) => break,
            (expected, seen) if expected == seen => {}
            (expected, seen) => {
                let text = |line: Option<&str>| line.unwrap_or("(nothing more)").to_owned();
                return format!(
                    "line {number}\n    expected: {}\n    seen:     {}",
                    text(expected),
                    text(seen)
                );
            }
        }
    }
    "nothing".to_owned()
}

#[test]
fn every_script_is_seen_as_it_is_written() {
    let update = std::env::var_os("UPDATE").is_some();
    let paths = scripts();
    assert!(paths.len() > 20, "the scripts are not where they should be");
    let mut wrong = Vec::new();
    for path in paths {
        let expected = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match maitred_tests::script::run(&expected) {
            Ok(seen) if seen == expected => {}
            Ok(seen) if update => fs::write(&path, seen).unwrap(),
            Ok(seen) => wrong.push(format!("{name}: {}", difference(&expected, &seen))),
            Err(why) => wrong.push(format!("{name}: {why}")),
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
