//! The standard selectors as they are committed: in the sandbox, each chooses what its native twin
//! chooses, over random fleets.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::sync::Arc;

use maitred_guest::glue::SelectorInstance;
use maitred_guest::testing::TestHost;
use maitred_guest::{Ask as GuestAsk, Request, Selector, bindings};
use maitred_protocol::ModuleKind;
use maitred_registry::candidates::{Column, Slot};
use maitred_registry::decide::{Choose, Offer, decide};
use maitred_registry::feature::{Ask, Manifest};
use maitred_registry::random::Random;
use maitred_sandbox::Lanes;
use support::{batch, bench, cause, decided, fleet, jobs, patient, prebuilt};

/// A selector that was compiled for this machine.
struct Native<S> {
    selector: SelectorInstance<S>,
    host: TestHost,
    manifest: Manifest,
}

impl<S: Selector> Native<S> {
    fn new() -> Self {
        let host = TestHost::with_config("{}");
        let selector = SelectorInstance::<S>::new(&host);
        let manifest = selector.describe();
        let manifest = Manifest {
            title: format!("{} {}", manifest.name, manifest.version),
            features: manifest
                .features
                .iter()
                .map(|name| name.parse().unwrap())
                .collect(),
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

    fn choose(&mut self, offer: Offer<'_>) -> Result<Option<Slot>, String> {
        let request = Request {
            process_type: offer.request.key.type_name.to_string(),
            id: offer.request.key.id.to_string(),
            args: Vec::new(),
            group: offer.request.group.clone(),
            requester: offer.request.requester.as_ref().map(ToString::to_string),
            demand: offer.request.demand,
            priority: offer.request.priority,
            attempt: offer.request.attempt,
            seed: offer.seed,
            time: offer.time_s,
        };
        let lists = bindings::selector::exports::maitred::policy::selector::Candidates {
            slots: offer.slots.to_vec(),
            features: offer.features.to_vec(),
        };
        self.selector.select(&request, &lists, &self.host)
    }
}

/// Compares 20 decisions on each of 40 fleets, of 1 to 1,500 nodes.
fn equals_its_native_twin<S: Selector>(name: &str) {
    let bench = bench(patient());
    let module = bench.load(name, ModuleKind::Selector, &prebuilt(name), "{}");
    let lanes = Lanes::new(Arc::clone(&bench.sandbox));
    let mut native = Native::<S>::new();
    let mut random = Random::new(7);
    for seed in 0..40 {
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
        let jobs = jobs(20, seed as u32 * 1_000);
        let mut twin = offered.clone();
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
            assert_eq!(
                got.trace.chosen, want.trace.chosen,
                "{name}, fleet {seed}, job {}",
                job.id
            );
        }
    }
    assert_eq!(lanes.counters()[0].fallbacks.total(), 0);
}

#[test]
fn least_loaded() {
    equals_its_native_twin::<maitred_selector_least_loaded::LeastLoaded>("least-loaded");
}

#[test]
fn two_choices() {
    equals_its_native_twin::<maitred_selector_two_choices::TwoChoices>("two-choices");
}

#[test]
fn rendezvous() {
    equals_its_native_twin::<maitred_selector_rendezvous::Rendezvous>("rendezvous");
}

#[test]
fn bin_pack() {
    equals_its_native_twin::<maitred_selector_bin_pack::BinPack>("bin-pack");
}

#[test]
fn spread() {
    equals_its_native_twin::<maitred_selector_spread::Spread>("spread");
}
