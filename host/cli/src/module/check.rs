//! `module check`: what a host would say of a component, said without a host.

use std::path::PathBuf;

use clap::Args;
use maitred_guest_build::{Inspection, inspect};
use maitred_protocol::limits::MODULE_BYTES_MAX;
use maitred_protocol::world::keep_out;
use maitred_protocol::{Digest, ModuleKind, ModuleName};
use maitred_registry::feature::Ask;
use maitred_sandbox::Inspected;
use maitred_scenario::Scenario;
use serde_json::{Value, json};

use super::findings;
use super::kind::{KindArg, kind_of};
use super::rehearse::{Ran, Tools, Tried};
use super::test::blocking;
use crate::connect::Shell;
use crate::failure::{Exit, Failure};
use crate::files;
use crate::json as shape;
use crate::out::{fields, grouped};

/// Bytes of a module that every host takes.
const SMALL_BYTES: u64 = 4 << 20;
/// Decisions that are made twice, in many fleets: known values and unknown ones, few nodes and many.
const TRIALS: &str = include_str!("check.toml");

/// Say what a host would of a component: which world it fits, what it imports, whether it is accepted
///
/// It goes through what an upload goes through: scan, world, imports, compilation in a process of its own,
/// an instance under the limits, `describe`, a trial. Selectors and scanners then decide in many
/// made-up fleets, twice on fresh instances, which shows whether they are deterministic, and their fuel
/// and time. Exit code 8 when a host would refuse it; foreign imports are listed with the flag that takes
/// them out. No host is needed.
///
/// Example: maitred module check quiet.wasm
///
/// Example: maitred module check warm-up.wasm --kind callback -o json
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The component
    file: PathBuf,
    /// What it is to be pushed as [default: what it exports]
    #[arg(long, value_enum)]
    kind: Option<KindArg>,
}

/// What was found.
struct Report {
    file: String,
    bytes: u64,
    digest: Digest,
    kind: ModuleKind,
    exports: Inspection,
    inspected: Inspected,
    decides: Option<Decides>,
}

/// How a selector or a scanner decides.
struct Decides {
    ask: String,
    decisions: usize,
    /// Decisions that came out otherwise the second time.
    unsteady: usize,
    /// Why it decides nothing without a configuration.
    refuses: Option<String>,
    fuel: Vec<u64>,
    micros: Vec<f64>,
}

impl Check {
    pub(super) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let bytes = files::read("read the module", &self.file, MODULE_BYTES_MAX)?;
        imports(&bytes)?;
        let kind = kind_of(self.kind, &bytes)?;
        let file = self.file.display().to_string();
        let report = blocking(move || Report::of(file, bytes, kind)).await?;
        shell
            .out
            .show("ModuleCheck", report.to_json(), || report.text())
    }
}

/// Whether it imports only what hosts offer. What is no component is for the sandbox to refuse.
fn imports(bytes: &[u8]) -> Result<(), Failure> {
    let foreign = inspect(bytes).map_or(Vec::new(), |found| found.of_others());
    if foreign.is_empty() {
        return Ok(());
    }
    let message = format!(
        "it imports what no host offers:\n  {}",
        foreign.join("\n  ")
    );
    let failure = Failure::new(Exit::Module, "foreign_imports", message, keep_out(None));
    Err(failure.with(json!({ "imports": foreign })))
}

impl Report {
    fn of(file: String, bytes: Vec<u8>, kind: ModuleKind) -> Result<Self, Failure> {
        let tools = Tools::new()?;
        let inspected = tools.sandbox.inspect(kind, &bytes, |_| {})?;
        let exports = inspect(&bytes)?;
        let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
        let decides = match kind {
            ModuleKind::Selector => Some(Decides::of(tools, bytes)?),
            ModuleKind::Callback | ModuleKind::Fence => None,
        };
        Ok(Self {
            file,
            bytes: size,
            digest,
            kind,
            exports,
            inspected,
            decides,
        })
    }

    fn to_json(&self) -> Value {
        let found = &self.inspected;
        json!({
            "file": self.file,
            "accepted": true,
            "bytes": self.bytes.to_string(),
            "large": self.bytes > SMALL_BYTES,
            "digest": self.digest.to_string(),
            "module_kind": shape::module_kind(self.kind),
            "world": format!("{}-module", found.world),
            "abi": found.abi,
            "title": found.title,
            "imports": self.exports.imports,
            "exports": self.exports.exports,
            "features": found.features,
            "terms": found.terms,
            "hooks": found.hooks.iter().map(|one| shape::hook(*one)).collect::<Vec<_>>(),
            "scan": findings::scanned_json(&found.scanned),
            "findings": findings::to_json(&found.findings()),
            "decides": self.decides.as_ref().map(Decides::to_json),
        })
    }

    fn text(&self) -> String {
        let found = &self.inspected;
        let size = match self.bytes > SMALL_BYTES {
            true => format!(
                "{}: more than 4 MiB, so only for hosts that allow large modules",
                grouped(self.bytes)
            ),
            false => grouped(self.bytes),
        };
        let none = |names: &[String]| match names.is_empty() {
            true => "none".to_owned(),
            false => names.join(", "),
        };
        let memory = format!(
            "{}; {} KiB an instance after the trial",
            findings::pages(&found.scanned),
            grouped(found.memory_bytes as u64 >> 10)
        );
        let mut rows = vec![
            (
                "component",
                format!("{} ({})", self.file, self.digest.short()),
            ),
            ("calls itself", found.title.clone()),
            ("bytes", size),
            (
                "fits",
                format!("{}-module of maitred:policy@{}", found.world, found.abi),
            ),
            ("pushed as", shape::module_kind(self.kind).to_owned()),
            ("exports", none(&self.exports.exports)),
            ("imports", none(&self.exports.imports)),
            ("memory", memory),
        ];
        match self.kind {
            ModuleKind::Selector => {
                rows.push(("features", none(&found.features)));
                rows.push(("score terms", none(&found.terms)));
            }
            ModuleKind::Callback => {
                let hooks = found.hooks.iter().map(|one| shape::hook(*one).to_owned());
                rows.push(("hooks", none(&hooks.collect::<Vec<_>>())));
            }
            ModuleKind::Fence => {}
        }
        if let Some(decides) = &self.decides {
            rows.extend(decides.rows());
        }
        rows.extend(found.notes.iter().map(|note| ("note", note.clone())));
        let (rows, scanned) = (fields(&rows), findings::measures(&found.scanned));
        format!("{rows}\n\n{scanned}\n\na host would take it")
    }
}

impl Decides {
    fn of(tools: Tools, bytes: Vec<u8>) -> Result<Self, Failure> {
        let mut tried = Tried::new(tools, ModuleName::new("checked")?, bytes)?;
        let (ask, refuses) = match tried.rehearsal("{}") {
            Ok(rehearsal) => (ask(&rehearsal.manifest().ask), None),
            Err(reason) => (String::new(), Some(reason)),
        };
        let mut this = Self {
            ask,
            decisions: 0,
            unsteady: 0,
            refuses,
            fuel: Vec::new(),
            micros: Vec::new(),
        };
        if this.refuses.is_some() {
            return Ok(this);
        }
        let trials = Scenario::parse(TRIALS).map_err(|error| {
            let help = "this is a bug, please report it";
            Failure::new(Exit::Other, "trials", error.to_string(), help)
        })?;
        for case in trials.cases() {
            let first = tried.case(case)?;
            let second = tried.case(case)?;
            this.add(&first, &second);
        }
        Ok(this)
    }

    fn add(&mut self, first: &Ran, second: &Ran) {
        let pairs = first.came.iter().zip(&second.came);
        let different = pairs.filter(|(one, other)| one != other).count();
        self.decisions += first.came.len();
        self.unsteady += different.max(first.unsteady);
        let made = first.run.first.iter();
        self.fuel.extend(made.clone().filter_map(|made| made.fuel));
        self.micros.extend(made.filter_map(|made| made.micros));
        self.fuel.sort_unstable();
        self.micros.sort_by(f64::total_cmp);
    }

    fn to_json(&self) -> Value {
        json!({
            "ask": self.ask,
            "deterministic": self.refuses.is_none().then_some(self.unsteady == 0),
            "decisions": self.decisions,
            "unsteady": self.unsteady,
            "needs_configuration": self.refuses,
            "fuel_p50": middle(&self.fuel).map(|fuel| fuel.to_string()),
            "fuel_max": self.fuel.last().map(ToString::to_string),
            "micros_p50": middle(&self.micros),
            "micros_max": self.micros.last(),
        })
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        if let Some(reason) = &self.refuses {
            let text = format!("not tried: it wants a configuration ({reason})");
            return vec![("deterministic", text)];
        }
        let decisions = grouped(self.decisions as u64);
        let steady = match self.unsteady {
            0 => format!("yes: {decisions} decisions came out the same again, on fresh instances"),
            some => format!(
                "NO: {} of {decisions} decisions came out otherwise the second time; its decisions cannot be replayed",
                grouped(some as u64)
            ),
        };
        let (fuel, micros) = (middle(&self.fuel), middle(&self.micros));
        let mut rows = vec![("asks for", self.ask.clone()), ("deterministic", steady)];
        if let (Some(middle), Some(most)) = (fuel, self.fuel.last()) {
            let (middle, most) = (grouped(middle), grouped(*most));
            rows.push(("fuel", format!("{middle} a decision, at most {most}")));
        }
        if let (Some(middle), Some(most)) = (micros, self.micros.last()) {
            rows.push((
                "time",
                format!("{middle:.1} µs a decision, at most {most:.1}"),
            ));
        }
        rows
    }
}

fn middle<T: Copy>(sorted: &[T]) -> Option<T> {
    sorted.get(sorted.len() / 2).copied()
}

fn ask(ask: &Ask) -> String {
    match ask {
        Ask::All => "all candidates, up to 1,024".to_owned(),
        Ask::Sample(count) => format!("{count} candidates, drawn by the seed"),
        Ask::Lowest(feature, count) => format!("the {count} candidates with the lowest {feature}"),
        Ask::Scan => "whatever it looks at: it scans the fleet".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_trials_are_a_scenario_of_many_fleets() {
        let trials = Scenario::parse(TRIALS).unwrap();
        let sizes: BTreeSet<usize> = trials
            .cases()
            .iter()
            .map(|case| case.nodes().len())
            .collect();
        assert!(sizes.len() >= 3 && sizes.contains(&1), "{sizes:?}");
    }
}
