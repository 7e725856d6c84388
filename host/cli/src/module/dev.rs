//! `module dev`: the loop of whoever writes a module: save, and it is built, tested, pushed, active.
//!
//! Holds: a round that fails is told and changes nothing on the host; the next change begins another.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use maitred_client::Pushed;
use maitred_guest_build::{Built, Kind, Project};
use maitred_protocol::ModuleName;
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
/// Files that are looked at; a folder with more is not a module's.
const FILES_MAX: usize = 10_000;
/// Folders that hold what is made, and nothing that is written by hand.
const MADE: [&str; 4] = ["target", "node_modules", "__pycache__", ".git"];

/// Watch a module's folder: at every change build it, run its scenarios, push it and make it decide
///
/// On the host that `maitred dev` runs, or the one that --context or --endpoint name; never on the
/// default context, which may be in production. A version whose scenarios fail is not pushed. Each round
/// is a line; Ctrl-C ends it.
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
}

impl Dev {
    pub(super) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        // What is wrong with the folder is said at once, and not in a loop.
        Project::read(&self.dir)?;
        let mut signals = Signals::new()?;
        let watched = self.dir.clone();
        let mut last = None;
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
                done = self.round(shell) => done,
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

    async fn round(&self, shell: &Shell) -> Result<(ModuleName, Round), Failure> {
        let project = Project::read(&self.dir)?;
        let name = ModuleName::new(&project.name)?;
        let begun = Instant::now();
        let built = build(shell, &project, false).await?;
        let took = begun.elapsed();
        let cases = self.scenarios(&project, &built).await?;
        let host = Shell::new(shell.out, dev(&shell.global));
        let pushed = push(&host, &name, project.kind, &built.bytes).await;
        host.close().await;
        let round = Round {
            bytes: built.bytes.len(),
            built: took,
            cases,
            pushed: pushed?,
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
) -> Result<Pushed, Failure> {
    let client = shell.client().await?;
    let upload = Upload {
        name,
        kind: kind.kind(),
        bytes,
        signature: None,
    };
    let pushed = upload.push(shell, &client).await?;
    client.activate_module(name, pushed.version, None).await?;
    Ok(pushed)
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
        let notes = findings::notes(&round.pushed.findings);
        std::iter::once(line)
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
