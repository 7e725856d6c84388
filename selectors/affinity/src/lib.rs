//! The standard selector `affinity`: near the others of the group, or away from them.
//!
//! As the affinity and anti-affinity of Kubernetes' pods and Nomad's jobs, to the group of a create
//! (`--group`, or a party). Together, the default, goes where most of the group is; `{"mode": "apart"}` goes
//! where the fewest are. Equal ones, and creates without a group, go to the node with the fewest
//! processes. `{"most": 4}`, 1 to 1,000,000, lets at most so many of a group onto one node: together
//! fills the next one then, and when every candidate has as many, none will do.
//!
//! A preference, not a promise: two groups that grow at the same moment see each other's placements, but
//! a party that must be placed whole is a party (`party create --rule`).

use maitred_guest::compose::{high, low};
use maitred_guest::config::Config;
use maitred_guest::{Answer, Candidates, Host, Request, Selector, export_selector};

/// See the head of this file.
#[derive(Default)]
pub struct Affinity {
    apart: bool,
    most: Option<u32>,
}

const OF_GROUP: usize = 0;
const PROCESSES: usize = 1;

impl Selector for Affinity {
    const NAME: &'static str = "affinity";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const FEATURES: &'static [&'static str] = &["processes-of-group", "processes"];
    const TERMS: &'static [&'static str] = &["of-group", "processes"];

    fn configure(&mut self, host: &dyn Host) -> Result<(), String> {
        let config = Config::parse(&host.config(), &["mode", "most"])?;
        self.apart = match config.text("mode")? {
            None | Some("together") => false,
            Some("apart") => true,
            Some(other) => {
                return Err(format!(
                    "configuration: `mode` is {other:?}, of \"together\" and \"apart\""
                ));
            }
        };
        self.most = config.number("most", 1..=1_000_000)?;
        Ok(())
    }

    fn select(
        &self,
        request: &Request,
        nodes: Candidates<'_>,
        _: &dyn Host,
    ) -> Result<Answer, String> {
        let most = self.most.map_or(f32::INFINITY, |most| most as f32);
        let of_group = match self.apart {
            true => low(OF_GROUP),
            false => high(OF_GROUP),
        };
        let room = nodes.all().keep(|node| node.value(OF_GROUP) < most);
        Ok(room.in_order(&[of_group, low(PROCESSES)], request.seed))
    }
}

export_selector!(Affinity);

#[cfg(test)]
mod tests;
