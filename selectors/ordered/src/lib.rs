//! The standard selector `ordered`: one criterion after the other, in the order that you give.
//!
//! As the priorities of Amazon GameLift's queues (latency, cost, destination, location) and of Agones'
//! allocation: the best node by the first criterion wins; nodes that are within its margin of the
//! best are equal, and the next criterion decides among them.
//!
//! ```json
//! {"order": ["latency:region", "-counter:quality", "has:tier=gold", "processes"],
//!  "margin": {"latency:region": 10}}
//! ```
//!
//! A criterion is a feature of the catalogue; the lowest is best, or the highest with a `-` in front.
//! Flags (`has:`, `local:`, `requester`, `previous`) are best where they hold. At most 8 criteria. A
//! node where a criterion is not known is behind all where it is. Without configuration: `processes`.

use maitred_guest::config::Config;
use maitred_guest::{Answer, Candidates, Host, Request, Selector, export_selector};

#[derive(Debug, Clone)]
struct Criterion {
    feature: String,
    highest: bool,
    margin: f32,
}

/// See the head of this file.
#[derive(Default)]
pub struct Ordered {
    criteria: Vec<Criterion>,
}

const CRITERIA_MAX: usize = 8;

impl Selector for Ordered {
    const NAME: &'static str = "ordered";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn configure(&mut self, host: &dyn Host) -> Result<(), String> {
        let text = host.config();
        let config = Config::parse(&text, &["order", "margin"])?;
        let order = config.texts("order")?.unwrap_or_else(|| vec!["processes"]);
        let count = order.len();
        if !(1..=CRITERIA_MAX).contains(&count) {
            return Err(format!(
                "configuration: {count} criteria, of 1 to {CRITERIA_MAX}"
            ));
        }
        let margins = config.pairs("margin")?.unwrap_or_default();
        for (feature, _) in margins {
            if !order
                .iter()
                .any(|one| one.trim_start_matches('-') == *feature)
            {
                return Err(format!(
                    "configuration: `margin` names {feature:?}, which is no criterion"
                ));
            }
        }
        self.criteria.clear();
        for criterion in order {
            let feature = criterion.trim_start_matches('-');
            let margin = margins.iter().find(|(of, _)| *of == feature);
            let margin = margin
                .map(|(_, value)| value.real("margin", 0..=1_000_000_000))
                .transpose()?;
            let flags = ["has:", "local:", "requester", "previous"];
            let is_flag = flags.iter().any(|flag| feature.starts_with(flag));
            self.criteria.push(Criterion {
                feature: feature.to_owned(),
                highest: criterion.starts_with('-') != is_flag,
                margin: margin.unwrap_or(0.0),
            });
        }
        Ok(())
    }

    fn features(&self) -> Vec<String> {
        let features = self.criteria.iter();
        features
            .map(|criterion| criterion.feature.clone())
            .collect()
    }

    fn select(
        &self,
        request: &Request,
        nodes: Candidates<'_>,
        _: &dyn Host,
    ) -> Result<Answer, String> {
        let mut kept = nodes.all();
        for (column, criterion) in self.criteria.iter().enumerate() {
            let sign = if criterion.highest { -1.0 } else { 1.0 };
            kept = kept.within(criterion.margin, |node| sign * node.value(column));
        }
        Ok(kept.random(request.seed).into())
    }
}

export_selector!(Ordered);

#[cfg(test)]
mod tests;
