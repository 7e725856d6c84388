//! The standard selector `spread`: evenly over the values of a label, `zone` unless configured.
//!
//! The value with the fewest processes of the request's type wins, and within it the node with the
//! fewest processes; between equal values that node decides too. Nodes without the label are the
//! last resort (as with Kubernetes' topology spread constraints, which pass them over).
//!
//! Another label by configuration: `{"label": "rack"}`. Only candidates are counted: what runs on a
//! node that is full, cordoned or beyond the 1,024th is not seen.

use maitred_guest::compose::{given, low};
use maitred_guest::config::Config;
use maitred_guest::{Answer, Candidates, Host, Request, Row, Selector, export_selector};

/// See the head of this file.
#[derive(Default)]
pub struct Spread {
    label: String,
}

const LABEL: usize = 0;
const OF_TYPE: usize = 1;
const PROCESSES: usize = 2;

impl Selector for Spread {
    const NAME: &'static str = "spread";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const TERMS: &'static [&'static str] = &["same-label", "processes"];

    fn configure(&mut self, host: &dyn Host) -> Result<(), String> {
        let config = Config::parse(&host.config(), &["label"])?;
        self.label = config.text("label")?.unwrap_or("zone").to_owned();
        if self.label.is_empty() {
            Err("configuration: `label` is empty".to_owned())
        } else {
            Ok(())
        }
    }

    fn features(&self) -> Vec<String> {
        vec![
            format!("label:{}", self.label),
            "processes-of-type".to_owned(),
            "processes".to_owned(),
        ]
    }

    fn select(
        &self,
        request: &Request,
        nodes: Candidates<'_>,
        _: &dyn Host,
    ) -> Result<Answer, String> {
        // By the number of the label's value; there are few of them.
        let mut sums: Vec<(f32, f32)> = Vec::new();
        for row in nodes.iter() {
            let Some(value) = row.known(LABEL) else {
                continue;
            };
            let count = row.known(OF_TYPE).unwrap_or(0.0);
            match sums.iter_mut().find(|(have, _)| *have == value) {
                Some((_, sum)) => *sum += count,
                None => sums.push((value, count)),
            }
        }
        // Every comparison with NaN is false: a node without the label has no sum, and comes last.
        let same_label = |row: Row<'_>| {
            let sum = sums.iter().find(|(value, _)| *value == row.value(LABEL));
            sum.map_or(f32::NAN, |&(_, sum)| sum)
        };
        let criteria = [given(&same_label).times(-1.0), low(PROCESSES)];
        Ok(nodes.all().in_order(&criteria, request.seed))
    }
}

export_selector!(Spread);

#[cfg(test)]
mod tests;
