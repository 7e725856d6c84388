//! The standard selectors as they are committed: in the sandbox, each chooses what its native twin
//! chooses, over random fleets.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::sync::Arc;

use maitred_guest::glue::SelectorInstance;
use maitred_guest::testing::TestHost;
use maitred_guest::{Ask as GuestAsk, Request, Selector, bindings};
use maitred_protocol::{ModuleKind, NodeName};
use maitred_registry::candidates::Column;
use maitred_registry::decide::{Answer, Choose, Decision, Offer, SelectJob, Verdict, decide};
use maitred_registry::feature::{Ask, Manifest};
use maitred_registry::random::Random;
use maitred_sandbox::Lanes;
use support::{batch, bench, cause, decided, fleet, jobs, old, patient, prebuilt};

/// A selector that was compiled for this machine.
struct Native<S> {
    selector: SelectorInstance<S>,
    host: TestHost,
    manifest: Manifest,
}

impl<S: Selector> Native<S> {
    fn new(config: &str) -> Self {
        let host = TestHost::with_config(config);
        let selector = SelectorInstance::<S>::new(&host);
        let manifest = selector.describe();
        let manifest = Manifest {
            title: format!("{} {}", manifest.name, manifest.version),
            features: manifest
                .features
                .iter()
                .map(|name| name.parse().unwrap())
                .collect(),
            terms: manifest.terms,
            ask: match manifest.ask {
                GuestAsk::All => Ask::All,
                GuestAsk::Sample(count) => Ask::Sample(count),
                GuestAsk::Lowest(lowest) => {
                    Ask::Lowest(lowest.feature.parse().unwrap(), lowest.count)
                }
            },
        };
        Self {
            selector,
            host,
            manifest,
        }
    }
}

impl<S: Selector> Choose for Native<S> {
    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn choose(&mut self, offer: Offer<'_>) -> Result<Answer, String> {
        let asked = offer.request;
        let request = Request {
            process_type: asked.key.type_name.to_string(),
            id: asked.key.id.to_string(),
            args: Vec::new(),
            group: asked.group.clone(),
            requester: asked.requester.as_ref().map(ToString::to_string),
            previous: asked.previous.as_ref().map(ToString::to_string),
            demand: asked.demand,
            priority: asked.priority,
            attempt: asked.attempt,
            seed: offer.seed,
            time: offer.time_s,
        };
        let lists = bindings::selector::exports::maitred::policy::selector::Candidates {
            slots: offer.slots.to_vec(),
            features: offer.features.to_vec(),
        };
        let answer = self.selector.select(&request, &lists, &self.host)?;
        Ok(Answer {
            verdict: match answer.verdict {
                maitred_guest::Verdict::Choose(slot) => Verdict::Choose(slot),
                maitred_guest::Verdict::None => Verdict::None,
                maitred_guest::Verdict::Ranked(slots) => Verdict::Ranked(slots),
                maitred_guest::Verdict::Reject(no) => Verdict::Reject {
                    code: no.code,
                    reason: no.reason,
                },
                maitred_guest::Verdict::Wait(ms) => Verdict::Wait(ms),
            },
            scored: answer.scores.slots,
            scores: answer.scores.values,
        })
    }
}

/// Requests that name a node that asks, a node of the life before, and latencies.
fn asking(nodes: u32, seed: u32, random: &mut Random) -> Vec<SelectJob> {
    let mut jobs = jobs(20, seed);
    for job in &mut jobs {
        let request = Arc::make_mut(&mut job.request);
        let mut node = || Some(NodeName::new(format!("node-{}", random.below(nodes))).unwrap());
        (request.requester, request.previous) = (node(), node());
        let zones = ["north", "south", "west"].map(str::to_owned);
        request.latencies = zones.map(|zone| (zone, random.below(200))).to_vec();
    }
    jobs
}

/// Compares 20 decisions on each of 40 fleets, of 1 to 1,500 nodes; and on 10 fleets under each of the
/// configurations.
fn equals_its_native_twin<S: Selector>(name: &str, configs: &[&str]) {
    let guest = prebuilt(name);
    matches_its_native_twin::<S>(name, &guest, "{}", 40);
    for config in configs {
        matches_its_native_twin::<S>(name, &guest, config, 10);
    }
    refuses_what_its_twin_refuses::<S>(name, &guest);
}

/// What no selector takes, and what some do; the texts agree, too.
fn refuses_what_its_twin_refuses<S: Selector>(name: &str, guest: &[u8]) {
    let bench = bench(patient());
    let module = bench.load(name, ModuleKind::Selector, guest, "{}");
    for config in [
        "",
        "[]",
        r#"{"label": ""#,
        r#"{"unheard-of": 1}"#,
        r#"{"label": 7}"#,
        r#"{"margin": -1}"#,
        r#"{"choices": 0}"#,
        r#"{"mode": "beside"}"#,
        r#"{"bound": 0.5}"#,
        r#"{"order": []}"#,
    ] {
        let native = S::default().configure(&TestHost::with_config(config));
        let in_wasm = bench.sandbox.validate(&module.digest, config);
        let in_wasm = in_wasm.map_err(|error| error.reason);
        assert_eq!(in_wasm, native, "{name}, {config}");
    }
}

fn matches_its_native_twin<S: Selector>(name: &str, guest: &[u8], config: &str, fleets: u64) {
    let bench = bench(patient());
    let module = bench.load(name, ModuleKind::Selector, guest, config);
    bench.sandbox.validate(&module.digest, config).unwrap();
    let lanes = Lanes::new(Arc::clone(&bench.sandbox));
    let mut native = Native::<S>::new(config);
    let mut random = Random::new(7);
    for seed in 0..fleets {
        let nodes = if seed % 10 == 9 {
            1_500
        } else {
            1 + random.below(120)
        };
        let mut offered = fleet(nodes, seed);
        let mut counts = || (0..nodes).map(|_| random.below(9)).collect::<Vec<u32>>();
        let request = support::request("p0");
        offered.of_type = vec![Column {
            of: request.key.type_name.clone(),
            counts: counts(),
        }];
        offered.of_group = vec![Column {
            of: request.group.unwrap(),
            counts: counts(),
        }];
        let jobs = asking(nodes, seed as u32 * 1_000, &mut random);
        let mut twin = Arc::new(offered.clone());
        let in_wasm = decided(&lanes, batch(&module, offered, jobs.clone()));
        for (job, got) in jobs.iter().zip(in_wasm) {
            let want = decide(
                &mut twin,
                job,
                &Ok(module.clone()),
                Ok(&mut native),
                1_700_000_000,
                || 0,
            );
            assert_eq!(cause(&got), None, "{name}, fleet {seed}");
            assert_eq!(cause(&want), None, "{name}, fleet {seed}");
            assert_eq!(got.trace.slots, want.trace.slots, "{name}, fleet {seed}");
            let said = |decision: &Decision| {
                let trace = &decision.trace;
                let scores: Vec<u32> = trace.scores.iter().map(|score| score.to_bits()).collect();
                let answered = trace.answered.clone();
                (
                    trace.chosen,
                    answered,
                    trace.scored.clone(),
                    scores,
                    decision.then.clone(),
                )
            };
            assert_eq!(
                said(&got),
                said(&want),
                "{name}, fleet {seed}, job {}",
                job.id
            );
        }
    }
    assert_eq!(lanes.counters()[0].fallbacks.total(), 0);
}

#[test]
fn affinity() {
    equals_its_native_twin::<maitred_selector_affinity::Affinity>(
        "affinity",
        &[
            r#"{"mode": "apart"}"#,
            r#"{"mode": "together", "most": 3}"#,
            r#"{"mode": "apart", "most": 1}"#,
        ],
    );
}

#[test]
fn bin_pack() {
    equals_its_native_twin::<maitred_selector_bin_pack::BinPack>("bin-pack", &[]);
}

#[test]
fn bounded_load() {
    equals_its_native_twin::<maitred_selector_bounded_load::BoundedLoad>(
        "bounded-load",
        &[r#"{"bound": 1.05}"#, r#"{"bound": 2.5}"#],
    );
}

#[test]
fn labels() {
    equals_its_native_twin::<maitred_selector_labels::Labels>(
        "labels",
        &[
            r#"{"require": {"zone": "north"}}"#,
            r#"{"avoid": {"zone": "north"}, "prefer": {"zone": "west", "tier": "gold"}}"#,
            r#"{"require": {"disk": "ssd"}}"#,
        ],
    );
}

#[test]
fn latency() {
    equals_its_native_twin::<maitred_selector_latency::Latency>(
        "latency",
        &[
            r#"{"margin": 50, "cap": 100}"#,
            r#"{"label": "region"}"#,
            r#"{"cap": 1}"#,
        ],
    );
}

#[test]
fn least_loaded() {
    equals_its_native_twin::<maitred_selector_least_loaded::LeastLoaded>("least-loaded", &[]);
}

#[test]
fn ordered() {
    equals_its_native_twin::<maitred_selector_ordered::Ordered>(
        "ordered",
        &[
            r#"{"order": ["local:zone", "-memory-free-mib", "cpu"], "margin": {"memory-free-mib": 500, "cpu": 0.1}}"#,
            r#"{"order": ["previous", "requester", "processes-of-type"]}"#,
        ],
    );
}

#[test]
fn prefer_local() {
    equals_its_native_twin::<maitred_selector_prefer_local::PreferLocal>(
        "prefer-local",
        &[r#"{"label": "region"}"#],
    );
}

#[test]
fn random() {
    equals_its_native_twin::<maitred_selector_random::Random>("random", &[]);
}

#[test]
fn rendezvous() {
    equals_its_native_twin::<maitred_selector_rendezvous::Rendezvous>("rendezvous", &[]);
}

#[test]
fn round_robin() {
    equals_its_native_twin::<maitred_selector_round_robin::RoundRobin>("round-robin", &[]);
}

#[test]
fn spread() {
    equals_its_native_twin::<maitred_selector_spread::Spread>(
        "spread",
        &[r#"{"label": "region"}"#],
    );
}

#[test]
fn sticky() {
    equals_its_native_twin::<maitred_selector_sticky::Sticky>("sticky", &[]);
}

#[test]
fn two_choices() {
    equals_its_native_twin::<maitred_selector_two_choices::TwoChoices>(
        "two-choices",
        &[r#"{"choices": 1}"#, r#"{"choices": 16}"#],
    );
}

#[test]
fn weighted() {
    equals_its_native_twin::<maitred_selector_weighted::Weighted>(
        "weighted",
        &[
            r#"{"cpu": 0, "memory": 1, "processes": 0, "capacity": 0}"#,
            r#"{"margin": 1}"#,
            r#"{"margin": 0, "cpu": 100}"#,
        ],
    );
}

/// Built against the WIT 0.1.0, long before this host: they decide as they did.
#[test]
fn least_loaded_of_the_version_before() {
    matches_its_native_twin::<maitred_selector_least_loaded::LeastLoaded>(
        "least-loaded",
        &old("least-loaded"),
        "{}",
        40,
    );
}
