//! A scanner: looks at the whole fleet for the node with the fewest processes, near the requester
//! when there is one.
//!
//! A selector is simpler and faster; this is for policies that need more than 1,024 nodes, or other
//! columns for other requests. It has no clock, no random numbers and no IO. The same request, fleet,
//! configuration and `request.seed` must give the same answer.
//! `cargo doc --open -p maitred-guest` shows what else there is.

use maitred_guest::compose::{flag, low};
use maitred_guest::{Answer, Host, Nodes, Request, Scanner, Table, export_scanner};

/// One instance of the policy. What it keeps between calls is a cache: hosts replace instances.
#[derive(Default)]
pub struct Policy;

/// The columns that are fetched, in this order.
const COLUMNS: [&str; 2] = ["processes", "local:zone"];
const PROCESSES: usize = 0;
const LOCAL: usize = 1;

impl Scanner for Policy {
    const NAME: &'static str = env!("CARGO_PKG_NAME");
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    /// What it may ask for; others are unknown to it.
    const FEATURES: &'static [&'static str] = &COLUMNS;
    /// What `maitred process explain` shows beside each of the best nodes.
    const TERMS: &'static [&'static str] = &["processes", "local"];

    /// 5 ms of processor time; an error makes the host decide by the type's fallback. Each call of
    /// `nodes` crosses the border: ask for a column of many slots at once.
    fn scan(
        &self,
        request: &Request,
        nodes: &dyn Nodes,
        _: &dyn Host,
    ) -> Result<Answer, String> {
        let table = Table::fetch(nodes, nodes.passed(), &COLUMNS)?;
        let answer = table
            .rows()
            .all()
            .score(&[low(PROCESSES), flag(LOCAL).times(0.5)])
            .best(request.seed);
        Ok(answer)
    }
}

export_scanner!(Policy);

#[cfg(test)]
mod tests {
    use super::*;
    use maitred_guest::testing::scenario;

    #[test]
    fn scenarios() {
        scenario("scenario.toml").check_scanner::<Policy>();
    }
}
