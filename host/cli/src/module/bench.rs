//! `module bench`: how long the decisions of selectors take, beside the native function.
//!
//! Holds: a decision is what a host's lane makes (native filter, features, call, check, trace) under the
//! limits of hosts; one that its selector did not make is counted apart. No host is asked.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use maitred_protocol::limits::MODULE_BYTES_MAX;
use maitred_protocol::{
    Chooser, Digest, Fallback, ModuleKind, ModuleName, NodeEpoch, NodeName, ProcessKey,
};
use maitred_registry::candidates::{Fleet, NodeFacts, NodeLive, SelectRequest};
use maitred_registry::decide::{Choose, Decision, ModuleRef, SelectJob, decide};
use maitred_registry::random::Random;
use serde_json::{Value, json};

use super::kind::kind_of;
use super::rehearse::Tools;
use super::test::blocking;
use crate::connect::Shell;
use crate::failure::{Exit, Failure};
use crate::files;
use crate::out::{grouped, table};

/// Instances among which the decisions of one size of fleet are shared; each gives one cold decision
/// besides. One that fails makes room for another.
const INSTANCES: u32 = 20;
/// Instances that share what they take of memory, when that is measured.
const MEASURED: u64 = 12;
/// Longest that one size of fleet is measured.
const TIME: Duration = Duration::from_secs(10);
/// The moment of the fleets.
const NOW_US: u64 = 60_000_000;
const NOW_S: u32 = 1_700_000_000;

/// Measure how long the decisions of selectors take, beside the native function
///
/// Each decision is made as a host makes it: native filter, features, the call into the component, the
/// check of the answer, the trace that `explain` shows; one after the other over a made-up fleet. COLD
/// is the first decision of a new instance, with making it; WARM are those after it; FELL BACK counts
/// what the selector did not decide, which is in neither. The first rows are
/// the native function that decides when a selector fails (`least-loaded`). PREPARE is scan, compilation
/// and trial, as an upload does them; MODULE and INSTANCE are resident memory. No host is needed.
///
/// Example: maitred module bench quiet.wasm
///
/// Example: maitred module bench rust.wasm python.wasm --nodes 100,10000 -o json
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// The components: selectors or scanners, up to 16
    #[arg(value_name = "FILE.wasm", required = true, num_args = 1..=16)]
    files: Vec<PathBuf>,
    /// Sizes of the fleet
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "10,100,1000,10000",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    nodes: Vec<u32>,
    /// Decisions for each size, warm ones and those that fell back, or as many as are made in 10 s
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    decisions: u32,
    /// The configuration of all of them: JSON, or @FILE
    #[arg(long, value_name = "JSON")]
    config: Option<String>,
}

/// One component, or the native function.
struct Subject {
    name: String,
    /// None is native.
    module: Option<Prepared>,
}

struct Prepared {
    module: ModuleRef,
    prepare: Duration,
    /// Bytes of resident memory; none where it cannot be read.
    module_bytes: Option<u64>,
    instance_bytes: Option<u64>,
}

/// What came out for one size of fleet.
struct Row {
    nodes: u32,
    cold: Histogram<u64>,
    warm: Histogram<u64>,
    /// Decisions that the native function made, and why the last of them.
    fell_back: u64,
    cause: Option<String>,
}

impl Bench {
    pub(super) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let mut modules = Vec::new();
        for path in &self.files {
            let bytes = files::read("read the module", path, MODULE_BYTES_MAX)?;
            if kind_of(None, &bytes)? != ModuleKind::Selector {
                let message = format!("{} is no selector", path.display());
                let help = "only selectors and scanners decide; a callback's time is its nodes'";
                return Err(Failure::usage(message, help));
            }
            modules.push((path.display().to_string(), bytes));
        }
        let config = super::config(self.config.as_deref())?;
        let config: Arc<str> = config.unwrap_or_else(|| "{}".to_owned()).into();
        let (nodes, decisions) = (self.nodes.clone(), self.decisions);
        let quiet = shell.out.is_json();
        let measured = blocking(move || {
            let native = Subject {
                name: "native".to_owned(),
                module: None,
            };
            let rows = measure(None, &native, &nodes, decisions, quiet)?;
            let mut measured = vec![(rows, native)];
            for (name, bytes) in modules {
                // Its own sandbox: places for instances that another one has touched would cost nothing.
                let tools = Tools::new()?;
                let module = Some(Prepared::new(&tools, &bytes, &config)?);
                let subject = Subject { name, module };
                let rows = measure(Some(&tools), &subject, &nodes, decisions, quiet)?;
                measured.push((rows, subject));
            }
            Ok(measured)
        });
        let measured = measured.await?;
        let body = json!({
            "items": measured.iter().map(|(rows, subject)| subject.to_json(rows)).collect::<Vec<_>>(),
        });
        shell.out.show("ModuleBench", body, || text(&measured))
    }
}

impl Prepared {
    fn new(tools: &Tools, bytes: &[u8], config: &Arc<str>) -> Result<Self, Failure> {
        let sandbox = &tools.sandbox;
        let begun = Instant::now();
        sandbox.inspect(ModuleKind::Selector, bytes, |_| {})?;
        let prepare = begun.elapsed();
        let digest = Digest::of(bytes);
        let name = ModuleName::new("measured")?;
        let module = ModuleRef::new(name, 1, digest, Arc::clone(config), 1);
        let before = resident();
        sandbox.load(digest, ModuleKind::Selector, bytes)?;
        let loaded = resident();
        sandbox.validate(&digest, config)?;
        // Each has decided once: memory counts when it has been touched.
        let mut instances = Vec::new();
        let mut fleet = Arc::new(fleet(10));
        let unused = resident();
        for number in 0..MEASURED {
            let mut instance = sandbox.selector(&module)?;
            one(&mut fleet, &module, Some(&mut instance), number);
            instances.push(instance);
        }
        let used = resident();
        let grown = |from: Option<u64>, to: Option<u64>| Some(to?.saturating_sub(from?));
        Ok(Self {
            module,
            prepare,
            module_bytes: grown(before, loaded),
            instance_bytes: grown(unused, used).map(|bytes| bytes / MEASURED),
        })
    }
}

fn measure(
    tools: Option<&Tools>,
    subject: &Subject,
    sizes: &[u32],
    decisions: u32,
    quiet: bool,
) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for &nodes in sizes {
        let row = match (&subject.module, tools) {
            (Some(prepared), Some(tools)) => {
                let module = &prepared.module;
                Row::of(module, nodes, decisions, || {
                    Ok(tools.sandbox.selector(module)?)
                })?
            }
            _ => Row::native(nodes, decisions)?,
        };
        if !quiet {
            let p50 = micros(&row.warm, 0.5);
            eprintln!(
                "{}: {} nodes, {p50:.1} µs",
                subject.name,
                grouped(nodes.into())
            );
        }
        rows.push(row);
    }
    Ok(rows)
}

impl Row {
    fn new(nodes: u32) -> Result<Self, Failure> {
        // Nanoseconds, up to a minute.
        let histogram = || {
            Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(|error| {
                let help = "this is a bug, please report it";
                Failure::new(Exit::Other, "histogram", error.to_string(), help)
            })
        };
        Ok(Self {
            nodes,
            cold: histogram()?,
            warm: histogram()?,
            fell_back: 0,
            cause: None,
        })
    }

    /// As many as are asked for, by one instance after the other.
    fn of<S: Choose>(
        module: &ModuleRef,
        nodes: u32,
        decisions: u32,
        mut instance: impl FnMut() -> Result<S, Failure>,
    ) -> Result<Self, Failure> {
        let mut row = Self::new(nodes)?;
        let mut fleet = Arc::new(fleet(nodes));
        let begun = Instant::now();
        let each = decisions.div_ceil(INSTANCES);
        let mut have: Option<(S, u32)> = None;
        for number in 0.. {
            if row.warm.len() + row.fell_back >= u64::from(decisions) || begun.elapsed() > TIME {
                break;
            }
            let first = Instant::now();
            let (mut selector, left, cold) = match have.take() {
                Some((selector, left)) => (selector, left - 1, false),
                None => (instance()?, each, true),
            };
            let (decision, took) = one(&mut fleet, module, Some(&mut selector), number);
            if let Chooser::Fallback { cause, .. } = &decision.trace.why.chooser {
                row.fell_back += 1;
                row.cause = Some(cause.clone());
                // An instance that failed is not asked again.
                continue;
            }
            match cold {
                true => row
                    .cold
                    .saturating_record(first.elapsed().as_nanos() as u64),
                false => row.warm.saturating_record(took),
            }
            have = (left > 0).then_some((selector, left));
        }
        Ok(row)
    }

    fn native(nodes: u32, decisions: u32) -> Result<Self, Failure> {
        let mut row = Self::new(nodes)?;
        let mut fleet = Arc::new(fleet(nodes));
        let module = ModuleRef::new(
            ModuleName::new("native")?,
            1,
            Digest::of(b""),
            "{}".into(),
            1,
        );
        let begun = Instant::now();
        for number in 0..u64::from(decisions) {
            let (_, took) = one(&mut fleet, &module, None, number);
            row.warm.saturating_record(took);
            if begun.elapsed() > TIME {
                break;
            }
        }
        Ok(row)
    }
}

/// One decision and its nanoseconds; natively without a selector.
fn one(
    fleet: &mut Arc<Fleet>,
    module: &ModuleRef,
    selector: Option<&mut dyn Choose>,
    number: u64,
) -> (Decision, u64) {
    let key = ProcessKey::new("player", &format!("p{number}"));
    let job = SelectJob {
        id: number,
        request: Arc::new(SelectRequest::new(key.expect("a letter and a number"))),
        fallback: Fallback::LeastLoaded,
        seed: number as u32,
    };
    let begun = Instant::now();
    let micros = || u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX);
    let decision = match selector {
        Some(selector) => decide(
            fleet,
            &job,
            &Ok(module.clone()),
            Ok(selector),
            NOW_S,
            micros,
        ),
        None => {
            let unmade = Err((module.name.clone(), String::new()));
            decide(fleet, &job, &unmade, Err(String::new()), NOW_S, micros)
        }
    };
    (decision, begun.elapsed().as_nanos() as u64)
}

/// Nodes with loads that differ, one in ten of which says nothing of them, and room for everything.
fn fleet(nodes: u32) -> Fleet {
    let mut random = Random::new(1);
    let facts = |number: u32| {
        let zone = ["north", "south", "west"][number as usize % 3];
        Arc::new(NodeFacts {
            name: NodeName::new(format!("node-{number}")).expect("a word and a number"),
            epoch: NodeEpoch(u64::from(number) + 1),
            types: Vec::new(),
            address: format!("node-{number}.example:7000"),
            labels: vec![("zone".to_owned(), zone.to_owned())],
            capacity: 100_000_000,
            registered_ms: u64::from(NOW_S) * 1_000,
        })
    };
    let facts: Arc<[Arc<NodeFacts>]> = (0..nodes).map(facts).collect();
    let live = facts.iter().map(|facts| {
        let processes = random.below(50);
        let blank = NodeLive {
            processes,
            used: processes,
            name_hash: facts.name_hash(),
            ..NodeLive::BLANK
        };
        match random.below(10) {
            0 => blank,
            _ => NodeLive {
                cpu: random.below(100) as f32 / 100.0,
                memory_free_mib: random.below(16_384) as f32,
                load_at_us: NOW_US - u64::from(random.below(2_000)) * 1_000,
                ..blank
            },
        }
    });
    let live = live.collect();
    Fleet {
        now_us: NOW_US,
        now_ms: u64::from(NOW_S) * 1_000,
        ..Fleet::new(facts, live)
    }
}

/// Bytes of resident memory of this process; none where the system does not say.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

fn micros(times: &Histogram<u64>, share: f64) -> f64 {
    times.value_at_quantile(share) as f64 / 1_000.0
}

impl Subject {
    fn to_json(&self, rows: &[Row]) -> Value {
        let prepared = self.module.as_ref();
        let bytes = |bytes: Option<u64>| bytes.map(|bytes| bytes.to_string());
        json!({
            "module": self.name,
            "prepare_ms": prepared.map(|one| one.prepare.as_secs_f64() * 1_000.0),
            "module_bytes": bytes(prepared.and_then(|one| one.module_bytes)),
            "instance_bytes": bytes(prepared.and_then(|one| one.instance_bytes)),
            "rows": rows.iter().map(Row::to_json).collect::<Vec<_>>(),
        })
    }
}

impl Row {
    fn to_json(&self) -> Value {
        let quantiles = |times: &Histogram<u64>| {
            json!({
                "decisions": times.len().to_string(),
                "micros_p50": micros(times, 0.5),
                "micros_p99": micros(times, 0.99),
            })
        };
        json!({
            "nodes": self.nodes,
            "cold": quantiles(&self.cold),
            "warm": quantiles(&self.warm),
            "fell_back": self.fell_back.to_string(),
            "cause": self.cause,
        })
    }
}

fn text(measured: &[(Vec<Row>, Subject)]) -> String {
    let time = |times: &Histogram<u64>, share: f64| match times.len() {
        0 => "-".to_owned(),
        _ => format!("{:.1} µs", micros(times, share)),
    };
    let kib = |bytes: Option<u64>| match bytes {
        Some(bytes) => format!("{} KiB", grouped(bytes >> 10)),
        None => "-".to_owned(),
    };
    let mut lines = Vec::new();
    let mut notes = Vec::new();
    for (rows, subject) in measured {
        for (at, row) in rows.iter().enumerate() {
            let mut line = vec![
                subject.name.clone(),
                grouped(row.nodes.into()),
                time(&row.cold, 0.5),
                time(&row.cold, 0.99),
                time(&row.warm, 0.5),
                time(&row.warm, 0.99),
                grouped(row.fell_back),
            ];
            line.extend(match &subject.module {
                Some(one) if at == 0 => [
                    format!("{} ms", grouped(one.prepare.as_millis() as u64)),
                    kib(one.module_bytes),
                    kib(one.instance_bytes),
                ],
                _ => ["", "", ""].map(str::to_owned),
            });
            lines.push(line);
            if let Some(cause) = &row.cause {
                let nodes = grouped(row.nodes.into());
                notes.push(format!(
                    "{}, {nodes} nodes: fell back: {cause}",
                    subject.name
                ));
            }
        }
    }
    let header = [
        "MODULE",
        "NODES",
        "COLD P50",
        "P99",
        "WARM P50",
        "P99",
        "FELL BACK",
        "PREPARE",
        "MODULE",
        "INSTANCE",
    ];
    let mut text = table(&header, lines);
    for note in notes {
        text += &format!("\n{note}");
    }
    text
}

#[cfg(test)]
mod tests {
    use maitred_registry::decide::{Answer, Offer, Verdict};
    use maitred_registry::feature::{Ask, Manifest};

    use super::*;

    /// Fails at its third decision; as slow as nothing that decides.
    struct Third(Manifest, u32);

    impl Choose for Third {
        fn manifest(&self) -> &Manifest {
            &self.0
        }

        fn choose(&mut self, offer: Offer<'_>) -> Result<Answer, String> {
            self.1 += 1;
            match self.1 {
                3 => Err("trapped".to_owned()),
                _ => Ok(Verdict::Choose(offer.slots[0]).into()),
            }
        }
    }

    #[test]
    fn what_fell_back_is_counted_apart_and_does_not_end_the_measurement() {
        let name = ModuleName::new("third").unwrap();
        let module = ModuleRef::new(name, 1, Digest::of(b"third"), "{}".into(), 1);
        let mut made = 0;
        let row = Row::of(&module, 10, 1_000, || {
            made += 1;
            let manifest = Manifest {
                title: String::new(),
                features: Vec::new(),
                terms: Vec::new(),
                ask: Ask::All,
            };
            Ok(Third(manifest, 0))
        });
        let row = row.unwrap();
        // Each instance: one cold, one warm, and the one that fails.
        assert_eq!((row.warm.len(), row.fell_back, made), (500, 500, 500));
        assert_eq!(row.cold.len(), 500);
        assert!(row.cause.unwrap().contains("trapped"));
    }
}
