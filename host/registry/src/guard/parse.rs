//! A rule's text to a rule, or what is wrong with it and where.

use maitred_protocol::limits::GUARD_BYTES_MAX;

use super::{Guard, Kind, MILLION, Op, TESTS_MAX, Term, Test};

/// A text that is no rule. Positions count bytes from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// Cut it.
    #[error("the rule has {0} bytes, of at most {GUARD_BYTES_MAX}")]
    TooLong(usize),
    /// Cut it.
    #[error("the rule has more than {TESTS_MAX} tests")]
    TooMany,
    /// Something else must stand there.
    #[error(
        "the rule at {at}: {found:?} is no term; known are decisions, traps, timeouts, bad_answers, \
         errors, failures (all four), failure_rate, reject_rate, none_rate, wait_rate, p50 and p99"
    )]
    Term {
        /// Where.
        at: usize,
        /// What stands there, cut to 40 characters.
        found: String,
    },
    /// Something else must stand there.
    #[error("the rule at {at}: {found:?} where {expected} should be")]
    Expected {
        /// Where.
        at: usize,
        /// What stands there, cut to 40 characters.
        found: String,
        /// What could.
        expected: &'static str,
    },
    /// The number is not one that the term can have.
    #[error("the rule at {at}: {found:?} is no limit of {term}: give {expected}")]
    Number {
        /// Where.
        at: usize,
        /// What stands there, cut to 40 characters.
        found: String,
        /// Of what.
        term: &'static str,
        /// What could.
        expected: &'static str,
    },
}

pub(super) fn parse(text: &str) -> Result<Guard, GuardError> {
    if text.len() > GUARD_BYTES_MAX {
        return Err(GuardError::TooLong(text.len()));
    }
    let mut reader = Reader { text, at: 0 };
    let mut clauses = vec![Vec::new()];
    for tests in 1.. {
        if tests > TESTS_MAX {
            return Err(GuardError::TooMany);
        }
        let test = reader.test()?;
        if let Some(clause) = clauses.last_mut() {
            clause.push(test);
        }
        reader.blanks();
        if reader.rest().is_empty() {
            break;
        }
        if reader.eat("||") {
            clauses.push(Vec::new());
        } else if !reader.eat("&&") {
            return Err(reader.expected("'||', '&&' or the end"));
        }
    }
    let text = text.trim().to_owned();
    Ok(Guard { text, clauses })
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start_matches([' ', '\t']).len();
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    /// What is there up to the first character that is not `of`; moves past it.
    fn run(&mut self, of: fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !of(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// What stands at a place, up to the next blank.
    fn found(&self, at: usize) -> String {
        let rest = &self.text[at..];
        let word = rest.split([' ', '\t']).next().unwrap_or_default();
        word.chars().take(40).collect()
    }

    fn expected(&self, expected: &'static str) -> GuardError {
        GuardError::Expected {
            at: self.at + 1,
            found: self.found(self.at),
            expected,
        }
    }

    fn test(&mut self) -> Result<Test, GuardError> {
        self.blanks();
        let at = self.at;
        let word = self.run(|c| c.is_ascii_alphanumeric() || c == '_');
        let Some(term) = Term::ALL.into_iter().find(|term| term.name() == word) else {
            let found = if word.is_empty() {
                self.found(at)
            } else {
                word.chars().take(40).collect()
            };
            return Err(GuardError::Term { at: at + 1, found });
        };
        self.blanks();
        let Some(op) = Op::ALL.into_iter().find(|op| self.eat(op.sign())) else {
            return Err(self.expected("one of > >= < <= =="));
        };
        self.blanks();
        let at = self.at;
        let number = self.run(|c| c.is_ascii_digit() || c == '.');
        let unit = self.run(|c| c.is_ascii_alphabetic() || c == '%');
        let Some(limit) = limit(term.kind(), number, unit) else {
            return Err(GuardError::Number {
                at: at + 1,
                found: self.found(at),
                term: term.name(),
                expected: match term.kind() {
                    Kind::Count => "a whole number",
                    Kind::Rate => "0% to 100%, or 0 to 1, in steps of 0.0001%",
                    Kind::Time => "microseconds as 200 or 200us, or milliseconds as 1.5ms",
                },
            });
        };
        Ok(Test { term, op, limit })
    }
}

fn limit(kind: Kind, number: &str, unit: &str) -> Option<u64> {
    match (kind, unit) {
        (Kind::Count, "") => scaled(number, 0),
        (Kind::Rate, "%") => scaled(number, 4).filter(|rate| *rate <= MILLION),
        (Kind::Rate, "") => scaled(number, 6).filter(|rate| *rate <= MILLION),
        (Kind::Time, "" | "us") => scaled(number, 0),
        (Kind::Time, "ms") => scaled(number, 3),
        _ => None,
    }
}

/// A decimal number times a power of ten; none unless that is whole.
fn scaled(number: &str, power: usize) -> Option<u64> {
    let (whole, rest) = number.split_once('.').unwrap_or((number, ""));
    let rest = rest.trim_end_matches('0');
    let pointless = number.contains('.') && number.ends_with('.');
    if whole.is_empty() || pointless || rest.len() > power || rest.contains('.') {
        return None;
    }
    let zeros = "0".repeat(power - rest.len());
    format!("{whole}{rest}{zeros}").parse().ok()
}
