//! Runs simulations: many seeds for their rate and what they meet, or one for its trace.

#![expect(clippy::print_stdout, reason = "a program for people at a terminal")]

use std::process::ExitCode;
use std::time::Instant;

use maitred_tests::sim::mutant::{self, Mutant};
use maitred_tests::sim::{Scenario, Sum, explain, run, run_many, stage};

const USAGE: &str = "usage: sim [--seeds A..B] [--hosts 3|5] [--threads N] [--failures N] [--lines N] [--brief yes] [--mutant NAME | --stage NAME]
       sim --trace SEED [--hosts 3|5] [--lines N] [--mutant NAME]";

struct Args {
    seeds: std::ops::Range<u64>,
    hosts: usize,
    threads: usize,
    failures: u64,
    lines: usize,
    brief: bool,
    trace: Option<u64>,
    mutant: Option<&'static Mutant>,
    /// What its scenarios are staged for.
    stage: Option<stage::Stage>,
}

fn parse() -> Option<Args> {
    let mut args = Args {
        seeds: 0..1_000,
        hosts: 3,
        threads: 2,
        failures: 3,
        lines: 80,
        brief: false,
        trace: None,
        mutant: None,
        stage: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next()?;
        match word.as_str() {
            "--seeds" => {
                let (from, to) = value.split_once("..")?;
                args.seeds = from.parse().ok()?..to.parse().ok()?;
            }
            "--hosts" => args.hosts = value.parse().ok().filter(|hosts| [3, 5].contains(hosts))?,
            "--threads" => args.threads = value.parse().ok()?,
            "--failures" => args.failures = value.parse().ok()?,
            "--brief" => args.brief = value == "yes",
            "--lines" => args.lines = value.parse().ok()?,
            "--trace" => args.trace = Some(value.parse().ok()?),
            "--stage" => args.stage = Some(stage::ALL.iter().find(|one| one.0 == value)?.1),
            "--mutant" => args.mutant = Some(mutant::all().find(|one| one.name == value)?),
            _ => return None,
        }
    }
    Some(args)
}

impl Args {
    fn scenario(&self, seed: u64) -> Scenario {
        match (self.mutant, self.stage) {
            (Some(mutant), _) => mutant.scenario(seed),
            (None, stage) => {
                let mut scenario = Scenario::new(seed, self.hosts);
                stage.unwrap_or(stage::anything)(&mut scenario);
                scenario
            }
        }
    }
}

fn main() -> ExitCode {
    let Some(args) = parse() else {
        println!("{USAGE}");
        return ExitCode::from(2);
    };
    if let Some(seed) = args.trace {
        return trace(&args, seed);
    }
    let began = Instant::now();
    let sum = run_many(args.seeds.clone(), args.threads, args.failures, |seed| {
        args.scenario(seed)
    });
    let took = began.elapsed().as_secs_f64();
    println!("what occurred:\n{}", sum.cover);
    rate(&sum, took, args.threads);
    for (scenario, violation) in &sum.failures {
        if args.brief {
            println!(
                "FAILED {} {}: {}",
                scenario.seed, violation.checker, violation.text
            );
        } else {
            println!("\nFAILED {}", explain(scenario, violation, args.lines));
        }
    }
    match sum.failures.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn rate(sum: &Sum, took: f64, threads: usize) {
    let simulated = sum.simulated_us as f64 / 1e6;
    println!(
        "{} seeds in {took:.1} s on {threads} threads: {:.1} seeds/s, {:.1} simulated hours/s, {:.0} x real time ({:.0} x a thread), {:.2} M events/s",
        sum.seeds,
        sum.seeds as f64 / took,
        simulated / 3600.0 / took,
        simulated / took,
        simulated / took / threads as f64,
        sum.events as f64 / took / 1e6,
    );
}

fn trace(args: &Args, seed: u64) -> ExitCode {
    let scenario = args.scenario(seed);
    println!("{:?}", scenario.knobs);
    for (at, fault) in &scenario.plan {
        println!("{:9.6} s  {fault}", *at as f64 / 1e6);
    }
    let report = run(&scenario, true);
    for line in report.trace.last(args.lines) {
        println!("{line}");
    }
    match report.violation {
        None => {
            println!(
                "seed {seed}: every property held, {:.1} s simulated",
                report.simulated_us as f64 / 1e6
            );
            ExitCode::SUCCESS
        }
        Some(violation) => {
            println!(
                "seed {seed} violates {}: {}",
                violation.checker, violation.text
            );
            ExitCode::FAILURE
        }
    }
}
