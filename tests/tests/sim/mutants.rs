//! Bugs that are put in are caught, within a bounded number of seeds; how many it took is printed.

use maitred_tests::sim::{mutant, run_many};

/// Seeds after which a bug counts as not caught.
const SEEDS_MAX: u64 = 3_000;

fn is_caught(name: &'static str) -> bool {
    let sum = run_many(0..SEEDS_MAX, super::threads(), 1, |seed| {
        mutant::scenario(name, seed)
    });
    let Some((scenario, violation)) = sum.failures.first() else {
        println!("{name} SURVIVED {} seeds", sum.seeds);
        return false;
    };
    println!(
        "caught {name} after {} seeds by {}: {}",
        sum.seeds,
        violation.checker,
        violation.text.lines().next().unwrap_or_default()
    );
    scenario.mutant == Some(name)
}

fn all_are_caught(names: &[&'static str]) {
    let survived: Vec<_> = names.iter().filter(|name| !is_caught(name)).collect();
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
