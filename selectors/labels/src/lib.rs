//! The standard selector `labels`: labels that a node must have, must not have, or had better have.
//!
//! As the required and preferred terms of Kubernetes' node affinity, and Nomad's constraints and
//! affinities:
//!
//! ```json
//! {"require": {"disk": "ssd"}, "avoid": {"spot": "yes"}, "prefer": {"zone": "eu", "tier": "gold"}}
//! ```
//!
//! A node that lacks a label of `require`, or has one of `avoid`, is not taken; when none is left, none
//! will do. Of those that are, the one with the most labels of `prefer` wins, and then the one with the
//! fewest processes. What a single create demands (`--require`) is filtered by the host already;
//! this is for what holds for a whole type.

use maitred_guest::compose::{given, low};
use maitred_guest::config::Config;
use maitred_guest::{Answer, Candidates, Host, Request, Row, Selector, export_selector};

/// See the head of this file.
#[derive(Default)]
pub struct Labels {
    /// One `has:KEY=VALUE` each; those of `require` first, then those of `avoid`, then the rest.
    features: Vec<String>,
    required: usize,
    avoided: usize,
}

const PROCESSES: usize = 0;

/// Labels in all: with `processes` they have to fit the features that a selector may ask for.
const LABELS_MAX: usize = 31;

impl Selector for Labels {
    const NAME: &'static str = "labels";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const TERMS: &'static [&'static str] = &["preferred", "processes"];

    fn configure(&mut self, host: &dyn Host) -> Result<(), String> {
        let text = host.config();
        let config = Config::parse(&text, &["require", "avoid", "prefer"])?;
        self.features = vec!["processes".to_owned()];
        let mut counts = [0; 3];
        for (count, key) in counts.iter_mut().zip(["require", "avoid", "prefer"]) {
            for (label, value) in config.pairs(key)?.unwrap_or_default() {
                self.features
                    .push(format!("has:{label}={}", value.text(key)?));
                *count += 1;
            }
        }
        [self.required, self.avoided, _] = counts;
        let got = self.features.len() - 1;
        if got > LABELS_MAX {
            return Err(format!(
                "configuration: {got} labels, of at most {LABELS_MAX}"
            ));
        }
        Ok(())
    }

    fn features(&self) -> Vec<String> {
        self.features.clone()
    }

    fn select(
        &self,
        request: &Request,
        nodes: Candidates<'_>,
        _: &dyn Host,
    ) -> Result<Answer, String> {
        let avoided = 1 + self.required;
        let preferred = avoided + self.avoided;
        let fits = nodes.all().keep(|node| {
            (1..avoided).all(|column| node.is(column))
                && !(avoided..preferred).any(|column| node.is(column))
        });
        let count = |node: Row<'_>| {
            let columns = preferred..self.features.len();
            columns.filter(|&column| node.is(column)).count() as f32
        };
        Ok(fits.in_order(&[given(&count), low(PROCESSES)], request.seed))
    }
}

export_selector!(Labels);

#[cfg(test)]
mod tests;
