//! What a scanner may ask about the nodes, within one call of `scan`. The bounds of `wit/policy.wit`
//! are kept here; outside of a call every answer is empty.
//!
//! It holds a share of the fleet, so it must be gone when the call is over: a decision is counted
//! into the fleet next, which would copy it.

use std::collections::BTreeSet;
use std::sync::Arc;

use maitred_registry::candidates::{Fleet, SelectRequest, Slot};
use maitred_registry::decide::Offer;
use maitred_registry::feature::Feature;
use maitred_registry::random::Random;

use crate::bindings::scanner::maitred::policy::nodes;
use crate::guest::Guest;
use crate::limits::{MATCHING_MAX, NAMES_MAX};

/// What a scanner sees.
pub(crate) struct View {
    fleet: Arc<Fleet>,
    request: SelectRequest,
    passed: Vec<Slot>,
    /// What its manifest names.
    features: Arc<[Feature]>,
    /// Numbers of the values of labels that were asked for, one a slot: equal values have equal
    /// numbers throughout the call.
    labels: Vec<(Feature, Vec<f32>)>,
}

impl View {
    pub(crate) fn new(offer: &Offer<'_>, features: &Arc<[Feature]>) -> Self {
        Self {
            fleet: Arc::clone(offer.fleet),
            request: offer.request.clone(),
            passed: offer.slots.to_vec(),
            features: Arc::clone(features),
            labels: Vec::new(),
        }
    }

    fn matching(&self, labels: &[(String, String)]) -> Vec<Slot> {
        if labels.len() > MATCHING_MAX {
            return Vec::new();
        }
        // What is asked for twice is looked for once.
        let labels: BTreeSet<&(String, String)> = labels.iter().collect();
        let carries = |slot: &Slot| {
            let facts = &self.fleet.facts[*slot as usize];
            let mut labels = labels.iter();
            labels.all(|(key, value)| facts.label(key) == Some(value))
        };
        self.passed.iter().copied().filter(carries).collect()
    }

    fn column(&mut self, name: &str, slots: &[Slot]) -> Vec<f32> {
        let feature = name.parse::<Feature>().ok();
        let feature = feature.filter(|feature| self.features.contains(feature));
        let Some(feature) = feature else {
            return vec![f32::NAN; slots.len()];
        };
        if matches!(feature, Feature::Label(_)) {
            let column = self.label(feature);
            let value = |slot: &Slot| column.get(*slot as usize).copied();
            return slots
                .iter()
                .map(|slot| value(slot).unwrap_or(f32::NAN))
                .collect();
        }
        let nodes = self.fleet.live.len();
        if slots.iter().all(|&slot| (slot as usize) < nodes) {
            return self.fleet.gather(&[feature], slots, &self.request);
        }
        let known: Vec<Slot> = slots
            .iter()
            .copied()
            .filter(|&slot| (slot as usize) < nodes)
            .collect();
        let mut values = self
            .fleet
            .gather(&[feature], &known, &self.request)
            .into_iter();
        let value = |slot: &Slot| match (*slot as usize) < nodes {
            true => values.next().unwrap_or(f32::NAN),
            false => f32::NAN,
        };
        slots.iter().map(value).collect()
    }

    /// The numbers of a label's values on all nodes.
    fn label(&mut self, feature: Feature) -> &[f32] {
        let at = self.labels.iter().position(|(have, _)| *have == feature);
        let at = at.unwrap_or_else(|| {
            let all: Vec<Slot> = (0..self.fleet.live.len() as Slot).collect();
            let column = self
                .fleet
                .gather(std::slice::from_ref(&feature), &all, &self.request);
            self.labels.push((feature, column));
            self.labels.len() - 1
        });
        &self.labels[at].1
    }

    fn names(&self, slots: &[Slot]) -> Vec<String> {
        let name = |slot: &Slot| {
            let facts = self.fleet.facts.get(*slot as usize);
            facts.map_or_else(String::new, |facts| facts.name.to_string())
        };
        slots.iter().take(NAMES_MAX).map(name).collect()
    }

    fn sample(&self, count: u32, seed: u32) -> Vec<Slot> {
        let mut slots = self.passed.clone();
        let count = (count as usize).min(slots.len());
        let mut random = Random::new(u64::from(seed));
        // The first steps of Fisher and Yates.
        for at in 0..count {
            let other = at + random.below((slots.len() - at) as u32) as usize;
            slots.swap(at, other);
        }
        slots.truncate(count);
        slots
    }
}

impl nodes::Host for Guest {
    fn passed(&mut self) -> Vec<Slot> {
        let view = self.view.as_ref();
        view.map_or_else(Vec::new, |view| view.passed.clone())
    }

    fn matching(&mut self, labels: Vec<(String, String)>) -> Vec<Slot> {
        let view = self.view.as_ref();
        view.map_or_else(Vec::new, |view| view.matching(&labels))
    }

    fn column(&mut self, feature: String, slots: Vec<Slot>) -> Vec<f32> {
        let view = self.view.as_mut();
        view.map_or_else(Vec::new, |view| view.column(&feature, &slots))
    }

    fn names(&mut self, slots: Vec<Slot>) -> Vec<String> {
        let view = self.view.as_ref();
        view.map_or_else(Vec::new, |view| view.names(&slots))
    }

    fn sample(&mut self, count: u32, seed: u32) -> Vec<Slot> {
        let view = self.view.as_ref();
        view.map_or_else(Vec::new, |view| view.sample(count, seed))
    }
}
