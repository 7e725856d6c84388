//! The standard selector `sticky`: back to the node where the last life of the process ran.
//!
//! For processes whose node keeps something of theirs: a warm cache, a file, an open map. As Nomad's
//! sticky disks and Kubernetes' StatefulSets, but never in the way: where that node is no candidate,
//! or there was no life before, the node with the fewest processes takes it.
//!
//! What is remembered is the record's own last node: a process that was deleted and created again
//! begins anew. Where the same id is to come back to the same node without a record, `rendezvous` and
//! `bounded-load` do that.

use maitred_guest::compose::{flag, low};
use maitred_guest::{Answer, Candidates, Host, Request, Selector, export_selector};

/// See the head of this file.
#[derive(Default)]
pub struct Sticky;

const PREVIOUS: usize = 0;
const PROCESSES: usize = 1;

impl Selector for Sticky {
    const NAME: &'static str = "sticky";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const FEATURES: &'static [&'static str] = &["previous", "processes"];
    const TERMS: &'static [&'static str] = &["previous", "processes"];

    fn select(
        &self,
        request: &Request,
        nodes: Candidates<'_>,
        _: &dyn Host,
    ) -> Result<Answer, String> {
        let criteria = [flag(PREVIOUS), low(PROCESSES)];
        Ok(nodes.all().in_order(&criteria, request.seed))
    }
}

export_selector!(Sticky);

#[cfg(test)]
mod tests;
