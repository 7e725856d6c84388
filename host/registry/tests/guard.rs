//! The rule of `--auto-rollback`: what is read, what is refused, and when it holds.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use maitred_registry::guard::{Guard, GuardError, GuardStats};
use proptest::prelude::*;

/// 1,234 decisions, of which 3 trapped and 20 were rejected.
fn stats() -> GuardStats {
    GuardStats {
        decisions: 1_234,
        traps: 3,
        rejected: 20,
        p50_us: 90,
        p99_us: 412,
        ..GuardStats::default()
    }
}

fn check(rule: &str, stats: &GuardStats) -> Option<String> {
    Guard::parse(rule).unwrap().check(stats)
}

#[test]
fn the_reason_says_what_was_measured() {
    for (rule, reason) in [
        (
            "p99>200us",
            Some("p99 412 µs > 200 µs over 1,234 decisions"),
        ),
        ("p99 > 1.5ms", None),
        ("p50<=90", Some("p50 90 µs <= 90 µs over 1,234 decisions")),
        ("traps>0", Some("traps 3 > 0 over 1,234 decisions")),
        ("failures>=4", None),
        ("failures==3", Some("failures 3 == 3 over 1,234 decisions")),
        (
            "reject_rate>1%",
            Some("reject_rate 1.62 % > 1 % over 1,234 decisions"),
        ),
        ("reject_rate>0.0163", None),
        (
            "reject_rate>0.016",
            Some("reject_rate 1.62 % > 1.6 % over 1,234 decisions"),
        ),
        (
            "decisions>=1234",
            Some("decisions 1,234 >= 1,234 over 1,234 decisions"),
        ),
        ("timeouts>0||bad_answers>0||errors>0", None),
        (
            "timeouts>0 || traps>0 && p99>400 || decisions>0",
            Some("traps 3 > 0, p99 412 µs > 400 µs over 1,234 decisions"),
        ),
        // `&&` binds tighter: read the other way, the first would be refused.
        (
            "traps>0 || timeouts>0 && timeouts>0",
            Some("traps 3 > 0 over 1,234 decisions"),
        ),
    ] {
        assert_eq!(check(rule, &stats()).as_deref(), reason, "{rule}");
    }
}

#[test]
fn few_decisions_have_no_rates_and_no_quantiles() {
    let of = |decisions| GuardStats {
        decisions,
        traps: 1,
        none: decisions,
        waits: decisions,
        p99_us: 9_000,
        ..GuardStats::default()
    };
    assert!(check("none_rate>1%", &of(49)).is_none());
    assert!(check("none_rate<=1%", &of(49)).is_none());
    assert!(check("none_rate>1%", &of(50)).is_some());
    assert!(check("wait_rate==100%", &of(50)).is_some());
    assert!(check("p99>1ms", &of(99)).is_none());
    assert!(check("p99>1ms", &of(100)).is_some());
    // Counts need no patience: one trap is one too many.
    assert!(check("traps>0", &of(1)).is_some());
}

#[test]
fn rates_are_exact_at_the_limit() {
    let of = |traps| GuardStats {
        decisions: 300,
        traps,
        ..GuardStats::default()
    };
    assert!(check("failure_rate>1%", &of(3)).is_none());
    assert!(check("failure_rate==1%", &of(3)).is_some());
    assert!(check("failure_rate>1%", &of(4)).is_some());
}

#[test]
fn an_error_says_where_and_what_is_known() {
    for (rule, message) in [
        (
            "",
            "the rule at 1: \"\" is no term; known are decisions, traps",
        ),
        (
            "traps>0 || rejct_rate>1%",
            "the rule at 12: \"rejct_rate\" is no term; known are",
        ),
        (
            "traps>0 || (p99>1)",
            "the rule at 12: \"(p99>1)\" is no term",
        ),
        (
            "traps=0",
            "the rule at 6: \"=0\" where one of > >= < <= == should be",
        ),
        (
            "traps>0 or p99>1",
            "the rule at 9: \"or\" where '||', '&&' or the end should be",
        ),
        ("traps>0 ||", "the rule at 11: \"\" is no term"),
        (
            "traps>1%",
            "the rule at 7: \"1%\" is no limit of traps: give a whole number",
        ),
        ("traps>-1", "the rule at 7: \"-1\" is no limit of traps"),
        ("traps>99999999999999999999", "is no limit of traps"),
        ("p99>2s", "\"2s\" is no limit of p99: give microseconds"),
        ("p99>1.", "\"1.\" is no limit of p99"),
        ("p99>0.0001ms", "\"0.0001ms\" is no limit of p99"),
        (
            "none_rate>5",
            "\"5\" is no limit of none_rate: give 0% to 100%, or 0 to 1",
        ),
        ("none_rate>0.00001%", "in steps of 0.0001%"),
    ] {
        let error = Guard::parse(rule).unwrap_err().to_string();
        assert!(error.contains(message), "{rule}: {error}");
    }
}

#[test]
fn a_rule_is_bounded() {
    let rule = |tests: usize| vec!["traps>0"; tests].join("||");
    assert!(Guard::parse(&rule(16)).is_ok());
    assert_eq!(Guard::parse(&rule(17)), Err(GuardError::TooMany));
    let long = " ".repeat(250) + "traps>0";
    assert_eq!(Guard::parse(&long), Err(GuardError::TooLong(257)));
}

#[test]
fn it_is_written_as_it_was_read() {
    let rule = " traps>0 || reject_rate>=0.5% && p99>1.5ms||none_rate>0.0001% ";
    let guard = Guard::parse(rule).unwrap();
    assert_eq!(guard.to_string(), rule.trim());
    assert_eq!(Guard::parse(&guard.to_string()), Ok(guard));
}

proptest! {
    #[test]
    fn no_text_breaks_it(text in "(traps|p99|none_rate|[a-zµ]{0,4})[><=]{1,2}[0-9.]{0,4}(us|ms|%| )?[|&]{0,2}.{0,20}") {
        if let Ok(guard) = Guard::parse(&text) {
            prop_assert_eq!(Guard::parse(&guard.to_string()), Ok(guard));
        }
    }
}
