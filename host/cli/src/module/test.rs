//! `module test`: the scenarios of a module, run on its component in the sandbox of hosts.

use std::path::{Path, PathBuf};

use clap::Args;
use maitred_guest_build::{Kind, Project, inspect};
use maitred_protocol::ModuleName;
use maitred_protocol::limits::MODULE_BYTES_MAX;
use maitred_scenario::{Case, Made, Scenario, TEXT_BYTES_MAX};
use serde_json::{Value, json};

use super::build::build;
use super::rehearse::{Ran, Tools, Tried};
use crate::connect::Shell;
use crate::failure::{Exit, Failure};
use crate::files;
use crate::out::{grouped, table};

/// The file beside `maitred.toml`.
const SCENARIO: &str = "scenario.toml";

/// Run a module's scenarios in the sandbox of hosts, and judge what it decides
///
/// Builds the project, then makes every decision of scenario.toml with a real fleet, the native filters
/// of hosts, and their limits; each on an instance of its own. FUEL is the most that a decision took,
/// about one for each WebAssembly instruction, and the same on every machine; TIME is the median. Exit
/// code 1 when a case fails. No host is needed.
///
/// Example: maitred module test
///
/// Example: maitred module test quiet/other-scenario.toml
///
/// Example: maitred module test scenario.toml --component quiet.wasm
#[derive(Debug, Args)]
pub(crate) struct Test {
    /// The folder of the project, or a scenario file in it
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Test this component instead of building the project
    #[arg(long, value_name = "FILE.wasm")]
    component: Option<PathBuf>,
}

impl Test {
    pub(super) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let (folder, file) = self.places();
        if self.component.is_none() {
            // Before its scenario is missed, which it has none of.
            if let Ok(project) = Project::read(&folder) {
                decides(Some(project.kind))?;
            }
        }
        let scenario = read(&file)?;
        let (name, bytes) = match &self.component {
            Some(path) => {
                let bytes = files::read("read the module", path, MODULE_BYTES_MAX)?;
                (
                    path.file_stem()
                        .unwrap_or_default()
                        .to_string_lossy()
                        .into_owned(),
                    bytes,
                )
            }
            None => {
                let project = Project::read(&folder)?;
                let built = build(shell, &project, false).await?;
                (project.name, built.bytes)
            }
        };
        decides(inspect(&bytes)?.kind)?;
        let results = blocking(move || results(&name, bytes, &scenario)).await?;
        let failed = results.iter().filter(|one| !one.passed()).count();
        let body = json!({
            "scenario": file.display().to_string(),
            "cases": results.len(),
            "failed": failed,
            "items": results.iter().map(Tested::to_json).collect::<Vec<_>>(),
        });
        shell.out.show("ModuleTest", body, || text(&results))?;
        if failed == 0 {
            return Ok(());
        }
        let message = format!("{failed} of {} cases failed", results.len());
        let help = format!(
            "change the policy, or what {} expects of it",
            file.display()
        );
        Err(Failure::new(Exit::Other, "scenario", message, help))
    }

    /// The project's folder, and the scenario.
    fn places(&self) -> (PathBuf, PathBuf) {
        if self.path.is_dir() {
            return (self.path.clone(), self.path.join(SCENARIO));
        }
        let folder = self
            .path
            .parent()
            .filter(|path| !path.as_os_str().is_empty());
        (
            folder.unwrap_or(Path::new(".")).to_owned(),
            self.path.clone(),
        )
    }
}

/// The scenario of a project; none when it has no such file.
pub(super) fn of_project(folder: &Path) -> Result<Option<Scenario>, Failure> {
    let file = folder.join(SCENARIO);
    match file.exists() {
        true => read(&file).map(Some),
        false => Ok(None),
    }
}

fn read(file: &Path) -> Result<Scenario, Failure> {
    let text = files::read_text("read the scenario", file, TEXT_BYTES_MAX as u64)?;
    Scenario::parse(&text).map_err(|error| {
        let message = format!("{}: {error}", file.display());
        let help = "SCENARIO.md of a new project describes the keys (guest-sdk/scenario/README.md)";
        Failure::new(Exit::Usage, "scenario", message, help)
    })
}

/// Whether it is one that decides: there are no scenarios of others.
fn decides(kind: Option<Kind>) -> Result<(), Failure> {
    match kind {
        Some(Kind::Selector | Kind::Scanner) => Ok(()),
        kind => {
            let is = kind.map_or("nothing that hosts know".to_owned(), |kind| {
                format!("a {kind}")
            });
            let message = format!("it is {is}, and only selectors and scanners have scenarios");
            let help = "look at it with `maitred module check`, or try it on `maitred dev`";
            Err(Failure::usage(message, help))
        }
    }
}

/// A case and what came of it.
pub(super) struct Tested {
    name: String,
    line: usize,
    decisions: usize,
    failures: Vec<String>,
    /// The most that a decision took; none when it was never asked.
    fuel: Option<u64>,
    /// The median.
    micros: Option<f64>,
}

/// Runs all cases. Blocks.
pub(super) fn results(
    name: &str,
    bytes: Vec<u8>,
    scenario: &Scenario,
) -> Result<Vec<Tested>, Failure> {
    let name = ModuleName::new(name).or_else(|_| ModuleName::new("module"))?;
    let mut tried = Tried::new(Tools::new()?, name, bytes)?;
    let cases = scenario.cases().iter();
    cases
        .map(|case| Ok(Tested::of(case, &tried.case(case)?)))
        .collect()
}

/// On a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        let help = "this is a bug, please report it";
        Err(Failure::new(Exit::Other, "broken", error.to_string(), help))
    })
}

impl Tested {
    fn of(case: &Case, ran: &Ran) -> Self {
        let mut failures: Vec<String> = case
            .judge(&ran.run)
            .iter()
            .map(ToString::to_string)
            .collect();
        if ran.unsteady > 0 {
            failures.push(format!(
                "{} decisions come out otherwise when the same instance is asked again: it must not depend on earlier calls",
                ran.unsteady
            ));
        }
        let all = || ran.run.first.iter().chain(&ran.run.again);
        Self {
            name: case.name.clone(),
            line: case.line,
            decisions: all().count(),
            failures,
            fuel: all().filter_map(|made| made.fuel).max(),
            micros: median(all()),
        }
    }

    pub(super) fn passed(&self) -> bool {
        self.failures.is_empty()
    }

    fn to_json(&self) -> Value {
        json!({
            "case": self.name,
            "line": self.line,
            "passed": self.passed(),
            "failures": self.failures,
            "decisions": self.decisions,
            "fuel_max": self.fuel.map(|fuel| fuel.to_string()),
            "micros_p50": self.micros,
        })
    }

    /// In a line: which case, and what is wrong first.
    pub(super) fn complaint(&self) -> Option<String> {
        let first = self.failures.first()?;
        Some(format!("{} (line {}): {first}", self.name, self.line))
    }
}

fn median<'a>(made: impl Iterator<Item = &'a Made>) -> Option<f64> {
    let mut all: Vec<f64> = made.filter_map(|made| made.micros).collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied()
}

fn text(results: &[Tested]) -> String {
    let header = ["CASE", "RESULT", "DECISIONS", "FUEL", "TIME"];
    let row = |one: &Tested| {
        vec![
            one.name.clone(),
            if one.passed() { "ok" } else { "FAIL" }.to_owned(),
            one.decisions.to_string(),
            one.fuel.map_or("-".to_owned(), grouped),
            one.micros
                .map_or("-".to_owned(), |micros| format!("{micros:.1} µs")),
        ]
    };
    let mut text = table(&header, results.iter().map(row));
    for one in results.iter().filter(|one| !one.passed()) {
        text += &format!("\n\n{} (line {})", one.name, one.line);
        for failure in &one.failures {
            text += &format!("\n  {failure}");
        }
    }
    text
}
