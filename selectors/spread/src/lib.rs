//! The standard selector `spread`: evenly over the values of a label, `zone` unless configured.
//!
//! The value with the fewest processes of the request's type wins, and within it the node with the
//! fewest processes; between equal values that node decides too. Nodes without the label are the
//! last resort (as with Kubernetes' topology spread constraints, which pass them over).
//!
//! Another label by configuration: `{"label": "rack"}`. Only candidates are counted: what runs on a
//! node that is full, cordoned or beyond the 1,024th is not seen.

use maitred_guest::{Candidates, Host, Request, Row, Selector, Slot, config, export_selector};

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

    fn configure(&mut self, host: &dyn Host) -> Result<(), String> {
        self.label = config::text(&host.config(), "label")?.unwrap_or_else(|| "zone".to_owned());
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
    ) -> Result<Option<Slot>, String> {
        let mut sums: Vec<(f32, f32)> = Vec::new();
        let sum_of = |sums: &[(f32, f32)], row: Row<'_>| {
            // Every comparison with NaN is false: a node without the label has no sum.
            sums.iter()
                .position(|&(value, _)| value == row.value(LABEL))
        };
        for row in nodes.iter() {
            let count = row.known(OF_TYPE).unwrap_or(0.0);
            match (sum_of(&sums, row), row.known(LABEL)) {
                (Some(at), _) => sums[at].1 += count,
                (None, Some(value)) => sums.push((value, count)),
                (None, None) => {}
            }
        }
        let fewest = sums.iter().map(|&(_, sum)| sum).reduce(f32::min);
        let eligible = |row: Row<'_>| sum_of(&sums, row).map(|at| sums[at].1) == fewest;
        Ok(nodes.lowest(request.seed, |row| {
            eligible(row).then(|| row.value(PROCESSES))
        }))
    }
}

export_selector!(Spread);

#[cfg(test)]
mod tests;
