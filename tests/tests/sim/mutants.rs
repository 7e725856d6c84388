//! Bugs that are put in are caught, each by a checker that is meant to, within a bounded number of seeds;
//! how many it took is printed. The scenarios that are staged for them fail nowhere without them.

use maitred_tests::sim::mutant::{self, Mutant};
use maitred_tests::sim::{Scenario, explain, run_many, stage};

/// Seeds after which a bug counts as not caught.
const SEEDS_MAX: u64 = 1_500;
/// Seeds of each staged scenario that are run without a bug.
const SOUND: u64 = 25;

fn is_caught(mutant: &Mutant) -> bool {
    let mut from = 0;
    // A failure that another checker sees is no catch: the search goes on.
    while from < SEEDS_MAX {
        let sum = run_many(from..SEEDS_MAX, super::threads(), 1, |seed| {
            mutant.scenario(seed)
        });
        let meant = |checker| mutant.caught_by.contains(&checker);
        let caught = sum
            .failures
            .iter()
            .find(|(_, violation)| meant(violation.checker));
        if let Some((scenario, violation)) = caught {
            println!(
                "caught {} after {} seeds by {}: {}",
                mutant.name,
                scenario.seed + 1,
                violation.checker,
                violation.text.lines().next().unwrap_or_default()
            );
            return true;
        }
        from = sum
            .failures
            .last()
            .map_or(SEEDS_MAX, |(scenario, _)| scenario.seed + 1);
    }
    println!("{} SURVIVED {SEEDS_MAX} seeds", mutant.name);
    false
}

fn all_are_caught(mutants: &[Mutant]) {
    let survived: Vec<_> = mutants
        .iter()
        .filter(|mutant| !is_caught(mutant))
        .map(|mutant| mutant.name)
        .collect();
    println!(
        "{} bugs, {} caught",
        mutants.len(),
        mutants.len() - survived.len()
    );
    assert!(survived.is_empty(), "not caught: {survived:?}");
}

#[test]
fn bugs_of_the_shell_are_caught() {
    all_are_caught(mutant::SHELL);
}

#[cfg(feature = "mutants")]
#[test]
fn bugs_of_the_replica_are_caught() {
    all_are_caught(mutant::REPLICA);
}

#[test]
fn staged_scenarios_without_them_keep_every_promise() {
    for (name, stage) in stage::ALL {
        let sum = run_many(0..SOUND, super::threads(), 1, |seed| {
            let mut scenario = Scenario::new(seed, 3);
            stage(&mut scenario);
            scenario
        });
        if let Some((scenario, violation)) = sum.failures.first() {
            panic!("staged {name}: {}", explain(scenario, violation, 60));
        }
    }
}
