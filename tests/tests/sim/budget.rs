//! Groups of three and five hosts under faults: every property holds, every kind of fault and of
//! interesting event occurred, and a run can be repeated.

use std::time::Instant;

use maitred_tests::sim::{Scenario, Sum, explain, run, run_many};

/// Seeds of a three-host group.
const SEEDS: u64 = 2_000;
/// Of five hosts.
const SEEDS_OF_FIVE: u64 = 150;
/// Lines of a trace that a failure shows.
const LINES: usize = 60;

/// What must occur over the budget; a simulator in which something of this never happens proves less
/// than it seems to.
const MUST_OCCUR: &[&str] = &[
    "fault: all hosts crash",
    "fault: canary",
    "fault: disk lost",
    "fault: failing fsync",
    "fault: full disk",
    "fault: guests trap",
    "fault: host added",
    "fault: host crash",
    "fault: host isolated one way",
    "fault: host isolated",
    "fault: host pause",
    "fault: host removed",
    "fault: host shutdown",
    "fault: leader alone with the nodes",
    "fault: leader transfer",
    "fault: link cut one way",
    "fault: link cut",
    "fault: no datagrams",
    "fault: node confirmed dead",
    "fault: node cordoned",
    "fault: node crash",
    "fault: node cut off from the leader",
    "fault: node cut",
    "fault: node drained",
    "fault: node leaves",
    "fault: node pause",
    "fault: packet loss",
    "fault: partition",
    "fault: process exits",
    "fault: rebalance",
    "fault: reconnect",
    "fault: selector replaced",
    "fault: selector taken back",
    "fault: selector's rule",
    "fault: slow disk",
    "fault: slow link",
    "fault: snapshot asked for",
    "fault: stuck fsync",
    "fault: suspended",
    "fault: wall clock step",
    "advice: as usual",
    "advice: back off",
    "advice: elsewhere",
    "advice: give up",
    "advice: here",
    "answered: unknown",
    "attempt of unknown outcome",
    "callback asked for advice",
    "callback compensates",
    "callback never advised",
    "callback trapped after its answer",
    "callback trapped",
    "change acknowledged",
    "command sent again",
    "connection lost at a cut",
    "create done",
    "fence module asked",
    "fence module said: dead",
    "frame in real bytes",
    "history linearizable",
    "hold released by its node",
    "host crashed within a turn",
    "host died of a failed fsync",
    "host joined",
    "host removed",
    "keep-alive acknowledged",
    "keep-alive on the stream",
    "kill bound passed",
    "leader serves",
    "lease expired",
    "log cut",
    "membership change done",
    "moves planned",
    "node fenced itself",
    "node registered a process",
    "node said that it has stopped",
    "node woke after its lease",
    "packet doubled",
    "packet in real bytes",
    "packet lost",
    "packet overtaken",
    "party done",
    "party of two selectors done",
    "party refused",
    "party was there",
    "process started",
    "request asked again after a lost connection",
    "selector ranked nodes",
    "selector rejected a process",
    "selector trapped",
    "selector wanted to wait",
    "session confirmed dead",
    "snapshot fetched",
    "snapshot installed",
    "snapshot taken",
    "spawn timed out",
    "state compared",
    "tombstone",
    "watchdog ended a node",
];

fn check(name: &str, sum: &Sum, began: Instant) {
    let took = began.elapsed().as_secs_f64();
    let simulated = sum.simulated_us as f64 / 1e6;
    println!(
        "{name}: {} seeds, {:.1} simulated hours in {took:.1} s, {:.0} x real time\n{}",
        sum.seeds,
        simulated / 3_600.0,
        simulated / took,
        sum.cover
    );
    if let Some((scenario, violation)) = sum.failures.first() {
        panic!("{}", explain(scenario, violation, LINES));
    }
}

#[test]
fn three_hosts_keep_every_promise() {
    let began = Instant::now();
    let seeds = super::number("RUNS").unwrap_or(SEEDS);
    let sum = run_many(0..seeds, super::threads(), 1, |seed| Scenario::new(seed, 3));
    check("three hosts", &sum, began);
    if seeds >= SEEDS {
        let never: Vec<_> = MUST_OCCUR
            .iter()
            .filter(|what| sum.cover.get(what) == 0)
            .collect();
        assert!(never.is_empty(), "never occurred: {never:?}");
    }
}

#[test]
fn five_hosts_keep_every_promise() {
    let began = Instant::now();
    let seeds = super::number("RUNS").unwrap_or(SEEDS_OF_FIVE);
    let sum = run_many(0..seeds, super::threads(), 1, |seed| Scenario::new(seed, 5));
    check("five hosts", &sum, began);
}

#[test]
fn a_seed_gives_the_same_run_every_time() {
    for seed in 0..5 {
        let scenario = Scenario::new(seed, 3);
        let (one, two) = (run(&scenario, true), run(&scenario, true));
        assert_eq!(one.events, two.events, "seed {seed}");
        assert!(
            one.trace.last(usize::MAX).eq(two.trace.last(usize::MAX)),
            "seed {seed} has two traces"
        );
    }
}
