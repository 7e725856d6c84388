//! Runs scenario files natively. What they say and how they are judged is `maitred-scenario`'s.

use maitred_scenario::{Case, Decision, Made, Node as Described, Outcome, Run, Scenario};

use super::decide::first;
use super::features::Node;
use super::{Fleet, Refusal, ScannerInstance, SelectorInstance, TestHost};
use crate::{Answer, Request, Scanner, Selector, Slot, Verdict};

/// A scenario file, to run policies on.
pub struct ScenarioFile(Scenario);

/// Reads a scenario file: `path_or_text` is the text itself when it has a line break, and otherwise
/// the path of a file, from the folder of the crate under `cargo test`.
///
/// ```no_run
/// # use maitred_guest::{Answer, Candidates, Host, Request, Selector};
/// # #[derive(Default)] struct Policy;
/// # impl Selector for Policy {
/// #     const NAME: &'static str = "policy"; const VERSION: &'static str = "1";
/// #     fn select(&self, _: &Request, _: Candidates<'_>, _: &dyn Host) -> Result<Answer, String> { Ok(Answer::none()) }
/// # }
/// maitred_guest::testing::scenario("scenario.toml").check::<Policy>();
/// ```
///
/// # Panics
/// When the file cannot be read, or is wrong; the text says in which line.
#[must_use]
pub fn scenario(path_or_text: &str) -> ScenarioFile {
    let read;
    let text = if path_or_text.contains('\n') {
        path_or_text
    } else {
        read = std::fs::read_to_string(path_or_text)
            .unwrap_or_else(|error| panic!("{path_or_text}: {error}"));
        &read
    };
    ScenarioFile(Scenario::parse(text).unwrap_or_else(|error| panic!("{error}")))
}

impl ScenarioFile {
    /// Runs all cases on a selector.
    ///
    /// # Panics
    /// When something is not as expected: the text has a line for each failure.
    pub fn check<S: Selector>(&self) {
        passed(&self.failures::<S>());
    }

    /// Runs all cases on a scanner.
    ///
    /// # Panics
    /// As [`check`](Self::check).
    pub fn check_scanner<S: Scanner>(&self) {
        passed(&self.failures_of_scanner::<S>());
    }

    /// A line for each failure of a selector.
    #[must_use]
    pub fn failures<S: Selector>(&self) -> Vec<String> {
        self.judged(|case| {
            let host = TestHost::with_config(&case.config);
            let valid = S::validate(&case.config, &host);
            let instance = SelectorInstance::<S>::new(&host);
            run(case, valid, |fleet, request| {
                fleet.answer_with(&instance, request, &host)
            })
        })
    }

    /// A line for each failure of a scanner.
    #[must_use]
    pub fn failures_of_scanner<S: Scanner>(&self) -> Vec<String> {
        self.judged(|case| {
            let host = TestHost::with_config(&case.config);
            let valid = S::validate(&case.config, &host);
            let instance = ScannerInstance::<S>::new(&host);
            run(case, valid, |fleet, request| {
                fleet.scan_with(&instance, request, &host)
            })
        })
    }

    fn judged(&self, run: impl Fn(&Case) -> Run) -> Vec<String> {
        let cases = self.0.cases().iter();
        let failures = cases.flat_map(|case| {
            let failures = case.judge(&run(case)).into_iter();
            failures.map(|failure| format!("line {}, {}: {failure}", case.line, case.name))
        });
        failures.collect()
    }
}

fn passed(failures: &[String]) {
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n"));
}

/// Makes the decisions of a case, and makes them again without a node when it asks for that.
fn run(
    case: &Case,
    valid: Result<(), String>,
    mut decide: impl FnMut(&Fleet, &Request) -> Result<Answer, Refusal>,
) -> Run {
    let mut pass = |removed: Option<usize>| {
        let nodes = case.nodes();
        // Places of what is left, so that both passes speak of the same nodes.
        let places: Vec<usize> = (0..nodes.len()).filter(|&at| Some(at) != removed).collect();
        let mut fleet = Fleet {
            nodes: places.iter().map(|&at| node(&nodes[at])).collect(),
            now_ms: 0,
            latencies: latencies(case),
            require: case.request.require.clone(),
        };
        let mut made = Vec::with_capacity(case.count());
        for decision in case.decisions() {
            let request = request(case, decision);
            let outcome = match &valid {
                Ok(()) => decide(&fleet, &request),
                Err(error) => Err(Refusal::Broken(error.clone())),
            };
            if let Some(slot) = outcome.as_ref().ok().and_then(first).filter(|_| case.place) {
                fleet.put(slot as usize, &request);
            }
            made.push(Made {
                outcome: told(outcome, &places),
                fuel: None,
                micros: None,
            });
        }
        made
    };
    Run {
        first: pass(None),
        again: case.removed().map_or_else(Vec::new, |at| pass(Some(at))),
    }
}

fn told(answer: Result<Answer, Refusal>, places: &[usize]) -> Outcome {
    let place = |slot: Slot| places[slot as usize];
    match answer {
        Ok(answer) => match answer.verdict {
            Verdict::Choose(slot) => Outcome::Node(place(slot)),
            Verdict::None => Outcome::None,
            Verdict::Ranked(slots) => Outcome::Ranked(slots.into_iter().map(place).collect()),
            Verdict::Reject(no) => Outcome::Reject {
                code: no.code,
                reason: no.reason,
            },
            Verdict::Wait(milliseconds) => Outcome::Wait(milliseconds),
        },
        Err(refusal) => Outcome::Error(refusal.to_string()),
    }
}

fn request(case: &Case, decision: Decision) -> Request {
    Request {
        process_type: case.request.process_type.clone(),
        id: decision.id,
        args: Vec::new(),
        group: decision.group,
        requester: case.request.requester.clone(),
        previous: case.request.previous.clone(),
        demand: decision.demand,
        priority: case.request.priority,
        attempt: 1,
        seed: decision.seed,
        time: case.time,
    }
}

fn latencies(case: &Case) -> std::collections::BTreeMap<String, f32> {
    let said = case.request.latencies.iter();
    said.map(|(value, &milliseconds)| (value.clone(), milliseconds as f32))
        .collect()
}

fn node(from: &Described) -> Node {
    let typed: u32 = from.processes_of_type.values().sum();
    let mut processes = from.processes_of_type.clone();
    *processes.entry(String::new()).or_default() += from.processes.saturating_sub(typed);
    let [second, ten, minute] = from.placed.map(|count| Some(count as f32));
    let whole = |value: Option<u32>| value.map(|value| value as f32);
    let said = [
        ("in-flight", Some(from.in_flight as f32)),
        ("placed-1s", second),
        ("placed-10s", ten),
        ("placed-60s", minute),
        ("since-placed-ms", whole(from.since_placed_ms)),
        ("node-age-ms", whole(from.node_age_ms)),
        ("load-age-ms", whole(from.load_age_ms)),
        ("cpu", from.cpu),
        ("memory-free-mib", from.memory_free_mib),
    ];
    let said = said
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let counters = from.counters.iter();
    let counters = counters.map(|(name, &value)| (format!("counter:{name}"), value));
    Node {
        name: from.name.clone(),
        cordoned: from.cordoned,
        hosts: from.types.clone(),
        processes,
        groups: from.processes_of_group.clone(),
        capacity: from.capacity,
        used: from.used,
        labels: from.labels.clone(),
        features: said.chain(counters).collect(),
        placed: [].into(),
        last_placed: None,
    }
}
