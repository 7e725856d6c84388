//! The guest SDK as it is embedded: a workspace of its own, in a folder beside an author's source.
//!
//! Holds: its manifests are as they are in the repository. What they take from the repository's
//! workspace (versions, lints, the edition) is taken from its manifest and added, so that nothing is
//! said twice.

use toml::{Table, Value};

/// Path in the SDK's folder, and text.
const SDK: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/sdk.rs"));
const WORKSPACE: &str = include_str!("../../../../Cargo.toml");
/// Where the SDK is in the repository.
const HOME: &str = "guest-sdk";

/// The files of the folder `sdk`.
///
/// # Errors
/// When the manifests that were embedded do not fit each other; a test sees to it that they do.
pub(super) fn files() -> Result<Vec<(String, String)>, String> {
    let mut files = Vec::new();
    let mut manifest = None;
    let mut packages = Vec::new();
    for (path, text) in SDK {
        if path.ends_with("Cargo.toml") {
            let parsed = text.parse::<Table>();
            packages.push((*path, parsed.map_err(|error| format!("{path}: {error}"))?));
        }
        if *path == "Cargo.toml" {
            manifest = Some(*text);
        } else {
            files.push((format!("sdk/{path}"), (*text).to_owned()));
        }
    }
    let manifest = manifest.ok_or("the SDK has no manifest")?;
    let text = format!("{manifest}\n{}", workspace(&packages)?);
    files.push(("sdk/Cargo.toml".to_owned(), text));
    Ok(files)
}

/// The tables that make the SDK's package the root of a workspace.
fn workspace(packages: &[(&str, Table)]) -> Result<String, String> {
    let root: Table = WORKSPACE
        .parse()
        .map_err(|error| format!("the workspace's manifest: {error}"))?;
    let root = root.get("workspace").and_then(Value::as_table);
    let root = root.ok_or("the workspace's manifest has no workspace")?;
    let of = |name: &str| root.get(name).and_then(Value::as_table);
    let all = of("dependencies").ok_or("the workspace has no dependencies")?;

    let mut dependencies = Table::new();
    for name in packages.iter().flat_map(|(_, package)| inherited(package)) {
        let found = all
            .get(&name)
            .ok_or(format!("{name} is not in the workspace"))?;
        dependencies.insert(name, moved(found)?);
    }
    let inside = |path: &str| path.strip_suffix("/Cargo.toml").map(str::to_owned);
    let members = packages.iter().filter_map(|(path, _)| inside(path));
    let mut workspace = Table::new();
    workspace.insert("members".to_owned(), members.collect::<Vec<_>>().into());
    workspace.insert("resolver".to_owned(), "3".into());
    workspace.insert("dependencies".to_owned(), dependencies.into());
    for name in ["package", "lints"] {
        let table = of(name).ok_or(format!("the workspace has no {name}"))?;
        workspace.insert(name.to_owned(), table.clone().into());
    }
    let mut whole = Table::new();
    whole.insert("workspace".to_owned(), workspace.into());
    toml::to_string(&whole).map_err(|error| error.to_string())
}

/// The dependencies that a package takes from its workspace.
fn inherited(package: &Table) -> Vec<String> {
    const KINDS: [&str; 2] = ["dependencies", "dev-dependencies"];
    let targets = package.get("target").and_then(Value::as_table);
    let targets = targets.into_iter().flat_map(Table::values);
    let tables = targets
        .filter_map(Value::as_table)
        .chain([package])
        .flat_map(|table| KINDS.map(|kind| table.get(kind).and_then(Value::as_table)));
    let named = tables.flatten().flat_map(Table::iter);
    let named = named.filter(|(_, value)| value.get("workspace").is_some());
    named.map(|(name, _)| name.clone()).collect()
}

/// A dependency of the repository's workspace, as it is for one whose root is the SDK.
fn moved(dependency: &Value) -> Result<Value, String> {
    let mut moved = dependency.clone();
    if let Some(path) = moved.get_mut("path") {
        let from = path.as_str().unwrap_or_default();
        let inside = from
            .strip_prefix(HOME)
            .map(|rest| rest.trim_start_matches('/'));
        *path = match inside {
            Some("") => ".".into(),
            Some(inside) => inside.into(),
            None => return Err(format!("the SDK uses {from}, which is not embedded")),
        };
    }
    Ok(moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sdk_stands_on_its_own() {
        let files = files().unwrap();
        let text = |name: &str| &files.iter().find(|(path, _)| path == name).unwrap().1;
        let manifest: Table = text("sdk/Cargo.toml").parse().unwrap();
        let workspace = manifest["workspace"].as_table().unwrap();
        assert_eq!(workspace["members"], Value::from(vec!["scenario"]));
        let dependencies = workspace["dependencies"].as_table().unwrap();
        assert_eq!(dependencies["maitred-scenario"]["path"], "scenario".into());
        assert!(dependencies.contains_key("wit-bindgen"));
        // What nobody there uses stays away.
        assert!(!dependencies.contains_key("wasmtime"));
        text("sdk/src/lib.rs");
        text("sdk/scenario/src/lib.rs");
    }
}
