//! One decision as the host makes it: what is offered, and what an answer is worth.

use std::fmt;

use super::fleet::draw;
use super::{
    CANDIDATES_MAX, FEATURES_MAX, Fleet, Lists, ScannerInstance, SelectorInstance, TestHost,
};
use crate::{
    Answer, Ask, Nodes, RANKED_MAX, Request, SCORED_MAX, Scanner, Selector, Slot, TERMS_MAX,
    Verdict, WAIT_MS,
};

/// Why a policy's answer could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The manifest is out of bounds, or names a feature that the catalogue does not have.
    Manifest(String),
    /// The policy answered with an error.
    Broken(String),
    /// The policy answered with a slot that was not offered.
    BadSlot(Slot),
    /// The answer is out of bounds.
    Bounds(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest(wrong) => write!(f, "manifest: {wrong}"),
            Self::Broken(error) => f.write_str(error),
            Self::BadSlot(slot) => write!(f, "slot {slot} was not offered"),
            Self::Bounds(wrong) => write!(f, "answer: {wrong}"),
        }
    }
}

/// What a policy answered, with names for slots.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// What becomes of the process.
    pub choice: Choice,
    /// The nodes that were scored, best first, each with one value for each of `TERMS`.
    pub scores: Vec<(String, Vec<f32>)>,
}

/// What becomes of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// It goes to this node.
    Node(String),
    /// No candidate will do, or there was none.
    None,
    /// It goes to the first of these that takes it.
    Ranked(Vec<String>),
    /// It must not be created.
    Reject {
        /// The policy's own number.
        code: u32,
        /// For people.
        reason: String,
    },
    /// Again after so many milliseconds.
    Wait(u32),
}

impl Choice {
    /// The node that the process goes to first.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Node(name) => Some(name),
            Self::Ranked(names) => names.first().map(String::as_str),
            Self::None | Self::Reject { .. } | Self::Wait(_) => None,
        }
    }
}

impl Fleet {
    /// The node that a fresh instance of `S` without configuration chooses.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn decide<S: Selector>(&self, request: &Request) -> Result<Option<String>, Refusal> {
        self.decide_configured::<S>(request, "{}")
    }

    /// The same for a fresh instance with a configuration.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn decide_configured<S: Selector>(
        &self,
        request: &Request,
        config: &str,
    ) -> Result<Option<String>, Refusal> {
        let outcome = self.answer::<S>(request, config)?;
        Ok(outcome.choice.node().map(str::to_owned))
    }

    /// All that a fresh instance of `S` with a configuration answers.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn answer<S: Selector>(&self, request: &Request, config: &str) -> Result<Outcome, Refusal> {
        let host = TestHost::with_config(config);
        let answer = self.answer_with(&SelectorInstance::<S>::new(&host), request, &host)?;
        Ok(self.named(&answer, S::TERMS.len()))
    }

    /// The same for a scanner.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn scan<S: Scanner>(&self, request: &Request, config: &str) -> Result<Outcome, Refusal> {
        let host = TestHost::with_config(config);
        let answer = self.scan_with(&ScannerInstance::<S>::new(&host), request, &host)?;
        Ok(self.named(&answer, S::TERMS.len()))
    }

    /// Decides, and puts the process on the node that was chosen.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn place<S: Selector>(&mut self, request: &Request) -> Result<Option<String>, Refusal> {
        self.place_configured::<S>(request, "{}")
    }

    /// The same with a configuration.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn place_configured<S: Selector>(
        &mut self,
        request: &Request,
        config: &str,
    ) -> Result<Option<String>, Refusal> {
        let host = TestHost::with_config(config);
        let answer = self.answer_with(&SelectorInstance::<S>::new(&host), request, &host)?;
        Ok(first(&answer).map(|slot| {
            self.put(slot as usize, request);
            self.nodes[slot as usize].name.clone()
        }))
    }

    /// What an instance answers, in slots, once it is known to be within bounds.
    pub(super) fn answer_with<S: Selector>(
        &self,
        instance: &SelectorInstance<S>,
        request: &Request,
        host: &TestHost,
    ) -> Result<Answer, Refusal> {
        let lists = self.offer(instance, request)?;
        if lists.slots.is_empty() {
            return Ok(Answer::none());
        }
        let answer = instance.select(request, &lists, host);
        bounded(answer.map_err(Refusal::Broken)?, &lists.slots)
    }

    /// The same for a scanner.
    pub(super) fn scan_with<S: Scanner>(
        &self,
        instance: &ScannerInstance<S>,
        request: &Request,
        host: &TestHost,
    ) -> Result<Answer, Refusal> {
        let manifest = instance.describe();
        manifest_bounds(&manifest.name, &manifest.version, &manifest.features)?;
        terms_bounds(&manifest.terms)?;
        for feature in &manifest.features {
            self.column(feature, request, &[0])?;
        }
        let seen = Seen {
            passed: self.passed(request).collect(),
            features: manifest.features,
            fleet: self,
            request,
        };
        if seen.passed.is_empty() {
            return Ok(Answer::none());
        }
        let answer = instance.scan(request, &seen, host);
        bounded(answer.map_err(Refusal::Broken)?, &seen.passed)
    }

    /// The candidates as an instance of `S` would get them; empty when no node passes the filter.
    ///
    /// # Errors
    /// `Refusal::Manifest` alone.
    pub fn offer<S: Selector>(
        &self,
        instance: &SelectorInstance<S>,
        request: &Request,
    ) -> Result<Lists, Refusal> {
        let manifest = instance.describe();
        manifest_bounds(&manifest.name, &manifest.version, &manifest.features)?;
        terms_bounds(&manifest.terms)?;
        let mut slots: Vec<Slot> = self.passed(request).collect();
        let count = match &manifest.ask {
            Ask::All => CANDIDATES_MAX,
            Ask::Sample(count) => *count as usize,
            Ask::Lowest(lowest) => lowest.count as usize,
        };
        if !(1..=CANDIDATES_MAX).contains(&count) {
            return Err(Refusal::Manifest(format!("{count} candidates asked for")));
        }
        // The order means nothing to `all` and `sample`, and it breaks the ties of `lowest`.
        if let Ask::Lowest(lowest) = &manifest.ask {
            draw(&mut slots, usize::MAX, request.seed);
            let column = self.column(&lowest.feature, request, &slots)?;
            let mut order: Vec<_> = column.into_iter().zip(slots).collect();
            // NaN (of this sign) is the last in the total order.
            order.sort_by(|(one, _), (other, _)| one.total_cmp(other));
            slots = order.into_iter().map(|(_, slot)| slot).collect();
        } else {
            draw(&mut slots, count, request.seed);
        }
        slots.truncate(count);
        let columns = manifest.features.iter();
        let columns: Vec<_> = columns
            .map(|name| self.column(name, request, &slots))
            .collect::<Result<_, _>>()?;
        let rows = 0..slots.len();
        let features = rows.flat_map(|row| columns.iter().map(move |column| column[row]));
        Ok(Lists {
            features: features.collect(),
            slots,
        })
    }

    fn passed(&self, request: &Request) -> impl Iterator<Item = Slot> {
        let nodes = self.nodes.iter().zip(0..);
        nodes
            .filter(|(node, _)| node.passes(request, &self.require))
            .map(|(_, slot)| slot)
    }

    fn name(&self, slot: Slot) -> String {
        self.nodes[slot as usize].name.clone()
    }

    fn named(&self, answer: &Answer, terms: usize) -> Outcome {
        let values = answer.scores.values.chunks(terms.max(1));
        let choice = match &answer.verdict {
            Verdict::Choose(slot) => Choice::Node(self.name(*slot)),
            Verdict::None => Choice::None,
            Verdict::Ranked(slots) => {
                Choice::Ranked(slots.iter().map(|&slot| self.name(slot)).collect())
            }
            Verdict::Reject(no) => Choice::Reject {
                code: no.code,
                reason: no.reason.clone(),
            },
            Verdict::Wait(milliseconds) => Choice::Wait(*milliseconds),
        };
        let scored = answer.scores.slots.iter().zip(values);
        Outcome {
            choice,
            scores: scored
                .map(|(&slot, values)| (self.name(slot), values.to_vec()))
                .collect(),
        }
    }
}

/// The fleet as a scanner sees it.
struct Seen<'a> {
    fleet: &'a Fleet,
    request: &'a Request,
    passed: Vec<Slot>,
    features: Vec<String>,
}

impl Nodes for Seen<'_> {
    fn passed(&self) -> Vec<Slot> {
        self.passed.clone()
    }

    fn matching(&self, labels: &[(String, String)]) -> Vec<Slot> {
        let carries = |slot: &Slot| {
            let have = &self.fleet.nodes[*slot as usize].labels;
            labels
                .iter()
                .all(|(key, value)| have.get(key) == Some(value))
        };
        self.passed.iter().copied().filter(carries).collect()
    }

    fn column(&self, feature: &str, slots: &[Slot]) -> Vec<f32> {
        let named = self.features.iter().any(|name| name == feature);
        let column = named.then(|| self.fleet.column(feature, self.request, slots).ok());
        let unknown = || vec![f32::NAN; slots.len()];
        column.flatten().unwrap_or_else(unknown)
    }

    fn names(&self, slots: &[Slot]) -> Vec<String> {
        let name = |slot: &Slot| {
            let node = self.fleet.nodes.get(*slot as usize);
            node.map(|node| node.name.clone()).unwrap_or_default()
        };
        slots.iter().take(CANDIDATES_MAX).map(name).collect()
    }

    fn sample(&self, count: u32, seed: u32) -> Vec<Slot> {
        let mut slots = self.passed.clone();
        draw(&mut slots, count as usize, seed);
        slots.truncate(count as usize);
        slots
    }
}

/// The slot that the process goes to first.
pub(super) fn first(answer: &Answer) -> Option<Slot> {
    match &answer.verdict {
        Verdict::Choose(slot) => Some(*slot),
        Verdict::Ranked(slots) => slots.first().copied(),
        Verdict::None | Verdict::Reject(_) | Verdict::Wait(_) => None,
    }
}

/// The answer, when it is within the bounds of the WIT and names nothing that was not offered.
pub(super) fn bounded(answer: Answer, offered: &[Slot]) -> Result<Answer, Refusal> {
    let bounds = |wrong: String| Err(Refusal::Bounds(wrong));
    let named = match &answer.verdict {
        Verdict::Choose(slot) => std::slice::from_ref(slot),
        Verdict::Ranked(slots) => slots.as_slice(),
        _ => &[],
    };
    if let Some(&slot) = named
        .iter()
        .chain(&answer.scores.slots)
        .find(|slot| !offered.contains(slot))
    {
        return Err(Refusal::BadSlot(slot));
    }
    match &answer.verdict {
        Verdict::Ranked(slots) if !(1..=RANKED_MAX).contains(&slots.len()) => {
            bounds(format!("{} nodes ranked", slots.len()))
        }
        Verdict::Reject(no) if no.reason.len() > 512 => {
            bounds(format!("a reason of {} bytes", no.reason.len()))
        }
        Verdict::Wait(ms) if !WAIT_MS.contains(ms) => bounds(format!("a wait of {ms} ms")),
        _ if answer.scores.slots.len() > SCORED_MAX => {
            bounds(format!("{} nodes scored", answer.scores.slots.len()))
        }
        _ => Ok(answer),
    }
}

fn manifest_bounds(name: &str, version: &str, features: &[String]) -> Result<(), Refusal> {
    if features.len() > FEATURES_MAX || name.len().max(version.len()) > 64 {
        let wrong = "more than 32 features, or a name over 64 bytes";
        return Err(Refusal::Manifest(wrong.to_owned()));
    }
    Ok(())
}

fn terms_bounds(terms: &[String]) -> Result<(), Refusal> {
    if terms.len() > TERMS_MAX || terms.iter().any(|name| name.len() > 32) {
        let wrong = "more than 8 terms, or one over 32 bytes";
        return Err(Refusal::Manifest(wrong.to_owned()));
    }
    Ok(())
}
