//! Rules that matter, as tests: the crates' edges, file sizes, head comments.
//!
//! What is here is looked up in the sources and in what cargo says; nothing is run.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop here"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn metadata() -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A row of the table in ARCHITECTURE.md.
struct Row {
    uses: BTreeSet<String>,
    forbidden: BTreeSet<String>,
    pure: bool,
}

fn table() -> BTreeMap<String, Row> {
    let text = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let list = |cell: &str| -> BTreeSet<String> {
        cell.split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let rows = text
        .lines()
        .filter(|line| line.starts_with("| maitred-"))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            assert_eq!(cells.len(), 4, "a row has four cells: {line}");
            let name = cells[0].split_whitespace().next().unwrap().to_owned();
            let pure = cells[0].contains("**pure**");
            (
                name,
                Row {
                    uses: list(cells[2]),
                    forbidden: list(cells[3]),
                    pure,
                },
            )
        });
    rows.collect()
}

/// Names of the normal and build dependencies of a package, as its manifest has them.
fn direct(package: &Value) -> BTreeSet<String> {
    let dependencies = package["dependencies"].as_array().unwrap().iter();
    let kept = dependencies.filter(|dependency| dependency["kind"] != "dev");
    kept.map(|dependency| dependency["name"].as_str().unwrap().to_owned())
        .collect()
}

/// Names of everything that a package is built from.
fn closure(metadata: &Value, name: &str) -> BTreeSet<String> {
    let packages = metadata["packages"].as_array().unwrap();
    let name_of: BTreeMap<&str, &str> = packages
        .iter()
        .map(|package| {
            (
                package["id"].as_str().unwrap(),
                package["name"].as_str().unwrap(),
            )
        })
        .collect();
    let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node["id"].as_str().unwrap(), node))
        .collect();
    let start = *name_of.iter().find(|(_, have)| **have == name).unwrap().0;
    let mut seen = BTreeSet::from([start]);
    let mut waiting = vec![start];
    while let Some(id) = waiting.pop() {
        for dependency in nodes[id]["deps"].as_array().unwrap() {
            let kinds = dependency["dep_kinds"].as_array().unwrap();
            let id = dependency["pkg"].as_str().unwrap();
            if kinds.iter().any(|kind| kind["kind"] != "dev") && seen.insert(id) {
                waiting.push(id);
            }
        }
    }
    seen.into_iter().map(|id| name_of[id].to_owned()).collect()
}

#[test]
fn crates_use_what_the_architecture_says_and_nothing_else() {
    let metadata = metadata();
    let table = table();
    let members: BTreeSet<&str> = metadata["workspace_members"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let mut wrong = Vec::new();
    let mut found = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        if !members.contains(package["id"].as_str().unwrap()) || name == "maitred-tests" {
            continue;
        }
        found.insert(name.to_owned());
        let Some(row) = table.get(name) else {
            wrong.push(format!("{name} has no row in docs/ARCHITECTURE.md"));
            continue;
        };
        let direct = direct(package);
        let ours: BTreeSet<_> = direct
            .iter()
            .filter(|d| d.starts_with("maitred-"))
            .cloned()
            .collect();
        for extra in ours.difference(&row.uses) {
            wrong.push(format!("{name} uses {extra}, which its row does not name"));
        }
        for missing in row.uses.difference(&ours) {
            wrong.push(format!(
                "{name} does not use {missing}, which its row names"
            ));
        }
        let reach = if row.pure {
            closure(&metadata, name)
        } else {
            direct
        };
        for forbidden in reach.intersection(&row.forbidden) {
            wrong.push(format!("{name} must not name {forbidden}"));
        }
    }
    for row in table.keys().filter(|row| !found.contains(*row)) {
        wrong.push(format!(
            "{row} has a row in docs/ARCHITECTURE.md and does not exist"
        ));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn pure_crates_ban_clocks_and_unordered_maps() {
    for name in ["protocol", "registry", "replica"] {
        let path = root().join("host").join(name).join("clippy.toml");
        let text = fs::read_to_string(&path).unwrap();
        for banned in [
            "std::time::Instant",
            "std::time::SystemTime",
            "std::collections::HashMap",
        ] {
            assert!(
                text.contains(banned),
                "{} does not ban {banned}",
                path.display()
            );
        }
    }
}

/// What cargo says of a package and all that it uses: each with its features.
fn features_of(package: &str) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let tree = ["tree", "--locked", "-e", "normal,build", "-f", "{p} [{f}]"];
    let mut command = Command::new(cargo);
    let output = command.args(tree).args(["-p", package]).current_dir(root());
    let output = output.output().unwrap();
    assert!(output.status.success(), "cargo tree -p {package}");
    String::from_utf8(output.stdout).unwrap()
}

/// The simulator's deliberate bugs are a feature that only the tests switch on.
#[test]
fn no_product_has_deliberate_bugs() {
    for package in ["maitred-cli", "maitred-client"] {
        assert!(!features_of(package).contains("mutants"), "{package}");
    }
    assert!(features_of("maitred-tests").contains("mutants"));
}

fn sources() -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                walk(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), &mut found);
    found.sort();
    assert!(found.len() > 50, "only {} sources found", found.len());
    found
}

#[test]
fn every_source_says_what_it_decides_and_fits_in_the_head() {
    let mut wrong = Vec::new();
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let shown = path.strip_prefix(root()).unwrap().display().to_string();
        if !text.starts_with("//!") {
            wrong.push(format!("{shown} does not open with a head comment"));
        }
        let lines = text.lines().count();
        if lines > 700 {
            wrong.push(format!("{shown} has {lines} lines; split it (limit 700)"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_open() {
    // Put together here, so that this file does not find itself.
    let marks = [
        ["to", "do!("].concat(),
        ["unimpl", "emented!("].concat(),
        ["#[ig", "nore"].concat(),
    ];
    let mut wrong = Vec::new();
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark.as_str())) {
                let shown = path.strip_prefix(root()).unwrap().display();
                wrong.push(format!("{shown}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
