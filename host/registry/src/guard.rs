//! The rule that takes a version back by itself: `traps>0 || reject_rate>1% || p99>200us`.
//!
//! ```text
//! rule   = clause { "||" clause }          one that holds is enough
//! clause = test { "&&" test }              all must hold
//! test   = term op number [unit]           op: > >= < <= ==
//! ```
//! Counts are whole numbers. Rates are a part of the decisions, as `1%` or `0.01`, and hold only from
//! [`RATES_FROM`] decisions on; `p50` and `p99` are in `us` (also without a unit) or `ms`, and hold only
//! from [`QUANTILES_FROM`] on: one slow call of three is no p99. Everything is compared in whole numbers.
//! Who counts, and what happens when a rule holds, is not known here.

mod parse;

use std::cmp::Ordering;
use std::fmt;

pub use parse::GuardError;

/// Tests in one rule.
pub const TESTS_MAX: usize = 16;

/// Decisions from which on rates count.
pub const RATES_FROM: u64 = 50;

/// Decisions from which on quantiles count.
pub const QUANTILES_FROM: u64 = 100;

/// Parts of 1 that a rate is kept in.
const MILLION: u64 = 1_000_000;

/// What a version has done since it was activated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GuardStats {
    /// All that it was asked for, those that failed included.
    pub decisions: u64,
    /// It trapped.
    pub traps: u64,
    /// It took too long.
    pub timeouts: u64,
    /// It named what was not a candidate, and the like.
    pub bad_answers: u64,
    /// It could not be asked.
    pub errors: u64,
    /// It said that a process must not be created.
    pub rejected: u64,
    /// It said that no candidate will do.
    pub none: u64,
    /// It wants to be asked again.
    pub waits: u64,
    /// Half of its calls took at most so many microseconds.
    pub p50_us: u64,
    /// 99 of 100 did.
    pub p99_us: u64,
}

/// A rule; written with [`fmt::Display`], it is what it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    text: String,
    /// One that holds is enough; of each, all tests must.
    clauses: Vec<Vec<Test>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Test {
    term: Term,
    op: Op,
    /// A count, millionths, or microseconds, as the term has it.
    limit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Count,
    Rate,
    Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Term {
    Decisions,
    Traps,
    Timeouts,
    BadAnswers,
    Errors,
    Failures,
    FailureRate,
    RejectRate,
    NoneRate,
    WaitRate,
    P50,
    P99,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    More,
    AtLeast,
    Less,
    AtMost,
    Equal,
}

impl Guard {
    /// Reads a rule of at most [`maitred_protocol::limits::GUARD_BYTES_MAX`] bytes and [`TESTS_MAX`]
    /// tests.
    ///
    /// # Errors
    /// [`GuardError`] says where, and what could stand there.
    pub fn parse(text: &str) -> Result<Self, GuardError> {
        parse::parse(text)
    }

    /// Why the version is to be taken back, for people: `p99 412 µs > 200 µs over 1,234 decisions`;
    /// none when it may stay.
    #[must_use]
    pub fn check(&self, stats: &GuardStats) -> Option<String> {
        let holds = |clause: &&Vec<Test>| clause.iter().all(|test| test.holds(stats));
        let clause = self.clauses.iter().find(holds)?;
        let reasons: Vec<String> = clause.iter().map(|test| test.reason(stats)).collect();
        let decisions = grouped(stats.decisions);
        Some(format!("{} over {decisions} decisions", reasons.join(", ")))
    }
}

impl Test {
    fn holds(&self, stats: &GuardStats) -> bool {
        let value = self.term.value(stats);
        let order = match self.term.kind() {
            Kind::Count => value.cmp(&self.limit),
            Kind::Rate if stats.decisions < RATES_FROM => return false,
            // Exact, where a quotient would round.
            Kind::Rate => (u128::from(value) * u128::from(MILLION))
                .cmp(&(u128::from(self.limit) * u128::from(stats.decisions))),
            Kind::Time if stats.decisions < QUANTILES_FROM => return false,
            Kind::Time => value.cmp(&self.limit),
        };
        match self.op {
            Op::More => order == Ordering::Greater,
            Op::AtLeast => order != Ordering::Less,
            Op::Less => order == Ordering::Less,
            Op::AtMost => order != Ordering::Greater,
            Op::Equal => order == Ordering::Equal,
        }
    }

    fn reason(&self, stats: &GuardStats) -> String {
        let (term, op, limit) = (self.term.name(), self.op.sign(), self.limit);
        let value = self.term.value(stats);
        match self.term.kind() {
            Kind::Count => format!("{term} {} {op} {}", grouped(value), grouped(limit)),
            Kind::Rate => {
                let percent = value as f64 * 100.0 / stats.decisions as f64;
                format!("{term} {percent:.2} % {op} {} %", percents(limit))
            }
            Kind::Time => format!("{term} {} µs {op} {} µs", grouped(value), grouped(limit)),
        }
    }
}

impl Term {
    const ALL: [Self; 12] = [
        Self::Decisions,
        Self::Traps,
        Self::Timeouts,
        Self::BadAnswers,
        Self::Errors,
        Self::Failures,
        Self::FailureRate,
        Self::RejectRate,
        Self::NoneRate,
        Self::WaitRate,
        Self::P50,
        Self::P99,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Decisions => "decisions",
            Self::Traps => "traps",
            Self::Timeouts => "timeouts",
            Self::BadAnswers => "bad_answers",
            Self::Errors => "errors",
            Self::Failures => "failures",
            Self::FailureRate => "failure_rate",
            Self::RejectRate => "reject_rate",
            Self::NoneRate => "none_rate",
            Self::WaitRate => "wait_rate",
            Self::P50 => "p50",
            Self::P99 => "p99",
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::FailureRate | Self::RejectRate | Self::NoneRate | Self::WaitRate => Kind::Rate,
            Self::P50 | Self::P99 => Kind::Time,
            _ => Kind::Count,
        }
    }

    /// A count (of a rate, what it is a part of the decisions), or microseconds.
    fn value(self, stats: &GuardStats) -> u64 {
        match self {
            Self::Decisions => stats.decisions,
            Self::Traps => stats.traps,
            Self::Timeouts => stats.timeouts,
            Self::BadAnswers => stats.bad_answers,
            Self::Errors => stats.errors,
            Self::Failures | Self::FailureRate => stats
                .traps
                .saturating_add(stats.timeouts)
                .saturating_add(stats.bad_answers)
                .saturating_add(stats.errors),
            Self::RejectRate => stats.rejected,
            Self::NoneRate => stats.none,
            Self::WaitRate => stats.waits,
            Self::P50 => stats.p50_us,
            Self::P99 => stats.p99_us,
        }
    }
}

impl Op {
    /// Longer ones before those that they begin with.
    const ALL: [Self; 5] = [
        Self::AtLeast,
        Self::AtMost,
        Self::Equal,
        Self::More,
        Self::Less,
    ];

    fn sign(self) -> &'static str {
        match self {
            Self::More => ">",
            Self::AtLeast => ">=",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Equal => "==",
        }
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Millionths as percent, exactly.
fn percents(millionths: u64) -> String {
    let (whole, rest) = (millionths / 10_000, millionths % 10_000);
    let text = format!("{whole}.{rest:04}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `1,234,567`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
