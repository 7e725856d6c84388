//! The standard selector `prefer-local`: the node that asked, if it can take the process; else one like it.
//!
//! As Orleans' `PreferLocalPlacement`, one step further: where the node that asked is no candidate (it
//! is full, cordoned, hosts other types, or nobody said who asks), a node with the same value of a label
//! as it is preferred (`zone` unless configured: `{"label": "rack"}`), and among those the one with
//! the fewest processes.

use maitred_guest::compose::{flag, low};
use maitred_guest::config::Config;
use maitred_guest::{Answer, Candidates, Host, Request, Selector, export_selector};

/// See the head of this file.
#[derive(Default)]
pub struct PreferLocal {
    label: String,
}

const REQUESTER: usize = 0;
const LOCAL: usize = 1;
const PROCESSES: usize = 2;

impl Selector for PreferLocal {
    const NAME: &'static str = "prefer-local";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const TERMS: &'static [&'static str] = &["requester", "same-label", "processes"];

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
            "requester".to_owned(),
            format!("local:{}", self.label),
            "processes".to_owned(),
        ]
    }

    fn select(
        &self,
        request: &Request,
        nodes: Candidates<'_>,
        _: &dyn Host,
    ) -> Result<Answer, String> {
        let criteria = [flag(REQUESTER), flag(LOCAL), low(PROCESSES)];
        Ok(nodes.all().in_order(&criteria, request.seed))
    }
}

export_selector!(PreferLocal);

#[cfg(test)]
mod tests;
