//! `module dev`: the loop of whoever writes a module: save, and it is built, tested, pushed, active.
//!
//! Holds: a round that fails is told and changes nothing on the host; the next change begins another.
//! Versions that others pushed stay; those of this loop make room for its next ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use maitred_client::Pushed;
use maitred_guest_build::{Built, Kind, Project};
use maitred_protocol::{ModuleName, ModuleRecord};
use serde_json::json;

use super::build::build;
use super::findings;
use super::push::Upload;
use super::test::{blocking, of_project, results};
use crate::args::Global;
use crate::connect::Shell;
use crate::failure::{Exit, Failure};
use crate::host::Signals;
use crate::out::{grouped, short};

/// How often the folder is looked at.
const LOOK: Duration = Duration::from_millis(300);
/// How long to wait for a host that is not there.
const AGAIN: Duration = Duration::from_secs(5);
/// Versions of a module from which on this loop removes its own: a host keeps 64.
const VERSIONS_KEPT: usize = 32;
/// Files that are looked at; a folder with more is not a module's.
const FILES_MAX: usize = 10_000;
/// Folders that hold what is made, and nothing that is written by hand.
const MADE: [&str; 4] = ["target", "node_modules", "__pycache__", ".git"];

/// Watch a module's folder: at every change build it, run its scenarios, push it and make it decide
///
/// On the host that `maitred dev` runs, or the one that --context or --endpoint name; never on the
/// default context, which may be in production. A version whose scenarios fail is not pushed. Each round
/// is a line; Ctrl-C ends it. From 32 versions on it removes older ones that it has pushed itself: a host
/// keeps 64 of a module.
///
/// Example: maitred module dev
///
/// Example: maitred module dev quiet --endpoint 127.0.0.1:7600
#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// The folder with maitred.toml
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Do it once, and end
    #[arg(long)]
    once: bool,
}

/// What a round came to.
struct Round {
    bytes: usize,
    built: Duration,
    /// Cases that passed; none without a scenario.
    cases: Option<usize>,
    pushed: Pushed,
    /// Versions that it has removed for being too many.
    removed: Vec<u32>,
}

impl Dev {
    pub(super) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        // What is wrong with the folder is said at once, and not in a loop.
        Project::read(&self.dir)?;
        let mut signals = Signals::new()?;
        let watched = self.dir.clone();
        let mut last = None;
        let mut own = Vec::new();
        loop {
            let folder = watched.clone();
            let now = blocking(move || Ok(stamp(&folder))).await?;
            if last == Some(now) {
                tokio::select! {
                    () = signals.next() => return Ok(()),
                    () = tokio::time::sleep(LOOK) => continue,
                }
            }
            // What is written while a round goes on begins the next one.
            last = Some(now);
            let done = tokio::select! {
                () = signals.next() => return Ok(()),
                done = self.round(shell, &mut own) => done,
            };
            match done {
                Ok((name, round)) => tell(shell, &name, &round)?,
                Err(failure) if self.once => return Err(failure),
                Err(failure) => {
                    shell.out.failure(&failure);
                    // A host that is not there may come without a change here.
                    if failure.exit == Exit::Unavailable || failure.code == "no_context" {
                        last = None;
                        tokio::select! {
                            () = signals.next() => return Ok(()),
                            () = tokio::time::sleep(AGAIN) => {}
                        }
                    }
                }
            }
            if self.once {
                return Ok(());
            }
        }
    }

    /// `own`: the versions that this loop has pushed, oldest first.
    async fn round(
        &self,
        shell: &Shell,
        own: &mut Vec<u32>,
    ) -> Result<(ModuleName, Round), Failure> {
        let project = Project::read(&self.dir)?;
        let name = ModuleName::new(&project.name)?;
        let begun = Instant::now();
        let built = build(shell, &project, false).await?;
        let took = begun.elapsed();
        let cases = self.scenarios(&project, &built).await?;
        let host = Shell::new(shell.out, dev(&shell.global));
        let pushed = push(&host, &name, project.kind, &built.bytes, own).await;
        host.close().await;
        let (pushed, removed) = pushed?;
        let round = Round {
            bytes: built.bytes.len(),
            built: took,
            cases,
            pushed,
            removed,
        };
        Ok((name, round))
    }

    /// How many cases passed; all of them, or it fails.
    async fn scenarios(&self, project: &Project, built: &Built) -> Result<Option<usize>, Failure> {
        if !matches!(project.kind, Kind::Selector | Kind::Scanner) {
            return Ok(None);
        }
        let Some(scenario) = of_project(&self.dir)? else {
            return Ok(None);
        };
        let (name, bytes) = (project.name.clone(), built.bytes.clone());
        let tested = blocking(move || results(&name, bytes, &scenario)).await?;
        let complaints: Vec<String> = tested
            .iter()
            .filter_map(super::test::Tested::complaint)
            .collect();
        if complaints.is_empty() {
            return Ok(Some(tested.len()));
        }
        let message = format!(
            "{} of {} cases failed, so it was not pushed\n  {}",
            complaints.len(),
            tested.len(),
            complaints.join("\n  ")
        );
        let help = "all of it: maitred module test";
        Err(Failure::new(Exit::Other, "scenario", message, help))
    }
}

async fn push(
    shell: &Shell,
    name: &ModuleName,
    kind: Kind,
    bytes: &[u8],
    own: &mut Vec<u32>,
) -> Result<(Pushed, Vec<u32>), Failure> {
    let client = shell.client().await?;
    let upload = Upload {
        name,
        kind: kind.kind(),
        bytes,
        signature: None,
    };
    let pushed = upload.push(shell, &client).await?;
    // The same bytes may be somebody's older version; a new one is the last of all.
    let newest = pushed.record.versions.last();
    let is_new = newest.is_some_and(|newest| newest.version == pushed.version);
    if is_new && own.last().is_none_or(|last| *last < pushed.version) {
        own.push(pushed.version);
    }
    let record = client.activate_module(name, pushed.version, None).await?;
    let mut removed = Vec::new();
    for version in outdated(&record, own) {
        client.remove_module(name, version).await?;
        own.retain(|have| *have != version);
        removed.push(version);
    }
    Ok((pushed, removed))
}

/// Those of its own that are to go, oldest first: they neither run nor are the way back.
fn outdated(record: &ModuleRecord, own: &[u32]) -> Vec<u32> {
    let canary = record.canary.as_ref().map(|canary| canary.version);
    let shadow = record.shadow.as_ref().map(|shadow| shadow.version);
    let used = [record.active, record.previous, canary, shadow];
    let versions = record.versions.iter().map(|version| version.version);
    let spare = versions.filter(|version| own.contains(version) && !used.contains(&Some(*version)));
    let many = record.versions.len().saturating_sub(VERSIONS_KEPT);
    spare.take(many).collect()
}

/// The same surroundings, with the context `dev` unless others are named.
fn dev(global: &Global) -> Global {
    let mut global = global.clone();
    if global.endpoint.is_empty() && global.context.is_none() {
        global.context = Some("dev".to_owned());
    }
    global
}

fn tell(shell: &Shell, name: &ModuleName, round: &Round) -> Result<(), Failure> {
    let body = json!({
        "name": name.as_str(),
        "version": round.pushed.version,
        "bytes": round.bytes.to_string(),
        "build_ms": round.built.as_millis().to_string(),
        "cases": round.cases,
        "findings": findings::to_json(&round.pushed.findings),
        "removed": round.removed,
    });
    shell.out.show("ModuleDev", body, || {
        let cases = match round.cases {
            Some(cases) => format!("{cases} cases ok"),
            None => "no scenario.toml".to_owned(),
        };
        let line = format!(
            "{name}@{} decides: built {} bytes in {}, {cases}",
            round.pushed.version,
            grouped(round.bytes as u64),
            short(round.built)
        );
        let removed = round.removed.iter().map(|version| {
            format!("{name}@{version} removed: there were more than {VERSIONS_KEPT} versions")
        });
        let notes = findings::notes(&round.pushed.findings);
        std::iter::once(line)
            .chain(removed)
            .chain(notes)
            .collect::<Vec<_>>()
            .join("\n")
    })
}

/// What changes when a file of the project does: the newest change, and how many files there are.
fn stamp(folder: &Path) -> (Option<SystemTime>, usize) {
    let mut newest = None;
    let mut files = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            let Ok(found) = entry.metadata() else {
                continue;
            };
            if found.is_dir() {
                if !MADE.contains(&&*name) {
                    folders.push(path);
                }
                continue;
            }
            // What a build writes would begin the next one.
            if name.ends_with(".wasm") || name == "Cargo.lock" {
                continue;
            }
            files += 1;
            newest = newest.max(found.modified().ok());
            if files >= FILES_MAX {
                return (newest, files);
            }
        }
    }
    (newest, files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use maitred_protocol::{ModuleKind, ModuleVersion, Revision};

    #[test]
    fn versions_of_its_own_make_room_and_those_of_others_stay() {
        let digest = |number: u32| maitred_protocol::Digest([number as u8; 32]);
        let version = |number: u32| ModuleVersion {
            version: number,
            digest: digest(number),
            bytes: 1,
            title: String::new(),
            features: Vec::new(),
            pushed_ms: 0,
            world: String::new(),
            abi: String::new(),
            hooks: Vec::new(),
            signature: None,
        };
        let mut record = ModuleRecord {
            name: ModuleName::new("quiet").unwrap(),
            kind: ModuleKind::Selector,
            versions: (1..=40).map(version).collect(),
            active: Some(40),
            previous: Some(7),
            config: "{}".to_owned(),
            config_version: 0,
            guard: String::new(),
            canary: None,
            shadow: None,
            declined: Vec::new(),
            activated: Revision(0),
            revision: Revision(0),
        };
        let mut own = Vec::new();
        for number in 41..=240 {
            record.versions.push(version(number));
            own.push(number);
            (record.previous, record.active) = (record.active, Some(number));
            for old in outdated(&record, &own) {
                assert!(old < number - 1);
                record.versions.retain(|have| have.version != old);
                own.retain(|have| *have != old);
            }
            assert!(record.versions.len() <= 42);
        }
        assert!((1..=40).all(|one| record.versions[one - 1].version == one as u32));
    }

    #[test]
    fn a_change_is_seen_and_what_a_build_makes_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("policy.js"), "1").unwrap();
        let before = stamp(folder.path());
        fs::create_dir(path("target")).unwrap();
        fs::write(path("target/x"), "1").unwrap();
        fs::write(path("x.wasm"), "1").unwrap();
        assert_eq!(stamp(folder.path()), before);
        fs::create_dir(path("src")).unwrap();
        fs::write(path("src/lib.rs"), "1").unwrap();
        let after = stamp(folder.path());
        assert_ne!(after, before);
        let later = SystemTime::now() + Duration::from_secs(5);
        let file = fs::File::options().write(true).open(path("policy.js"));
        file.unwrap().set_modified(later).unwrap();
        assert_ne!(stamp(folder.path()), after);
    }
}
