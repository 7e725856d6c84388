//! The standard selector `round-robin`: the node that was given nothing for the longest time.
//!
//! As Akka's and Proto.Actor's round-robin, without a counter to keep: the turn is told by the time of
//! the last placement on each node, which every host knows, so that a new leader goes on in the same
//! turn as far as it has seen it. Nodes that were placed on within one millisecond take turns by how
//! many placements they had in the last minute. A node that has just come has its turn first, and
//! then like the others: it is not flooded.

use maitred_guest::compose::{high, low};
use maitred_guest::{Answer, Candidates, Host, Request, Selector, export_selector};

/// See the head of this file.
#[derive(Default)]
pub struct RoundRobin;

const SINCE: usize = 0;
const PLACED: usize = 1;

impl Selector for RoundRobin {
    const NAME: &'static str = "round-robin";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const FEATURES: &'static [&'static str] = &["since-placed-ms", "placed-60s"];
    const TERMS: &'static [&'static str] = &["since-placed-ms", "placed-60s"];

    fn select(
        &self,
        request: &Request,
        nodes: Candidates<'_>,
        _: &dyn Host,
    ) -> Result<Answer, String> {
        let never = |node: &maitred_guest::Row<'_>| node.known(SINCE).is_none();
        let turn = if nodes.iter().any(|node| never(&node)) {
            nodes.all().keep(|node| never(&node))
        } else {
            nodes.all()
        };
        Ok(turn.in_order(&[high(SINCE), low(PLACED)], request.seed))
    }
}

export_selector!(RoundRobin);

#[cfg(test)]
mod tests;
