//! The standard selector `rendezvous`: the same id goes to the same node for as long as it is there.
//!
//! Highest random weight: Thaler and Ravishankar, "Using name-based mappings to increase hit rates"
//! (IEEE/ACM Transactions on Networking 6(1), 1998). Every node gets a weight that depends on the
//! process and the node's name alone, and the heaviest wins: the order does not matter, nothing is
//! remembered, and when one of n nodes leaves, only its own share, 1/n, moves.
//!
//! Two limits come from what a selector sees. Names are 24-bit hashes: of two nodes with the same
//! hash (likely for some pair from about 5,000 nodes on, 3 % at 1,000) the lower slot wins. And
//! beyond 1,024 candidates the host samples them, so that an id no longer always finds its node.

use maitred_guest::chance::{mix, stable_hash};
use maitred_guest::{Answer, Candidates, Host, Request, Selector, export_selector};

/// See the head of this file.
#[derive(Default)]
pub struct Rendezvous;

impl Selector for Rendezvous {
    const NAME: &'static str = "rendezvous";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const FEATURES: &'static [&'static str] = &["name-hash"];

    fn select(
        &self,
        request: &Request,
        nodes: Candidates<'_>,
        _: &dyn Host,
    ) -> Result<Answer, String> {
        // A type holds no zero byte, so that no two keys run together.
        let key = stable_hash(
            [request.process_type.as_bytes(), &[0], request.id.as_bytes()]
                .concat()
                .as_slice(),
        );
        let weight = |name: u32| mix(key.wrapping_add(mix(u64::from(name))));
        let heaviest = nodes
            .iter()
            .max_by_key(|row| (row.whole(0).map(weight), u32::MAX - row.slot));
        Ok(heaviest.map(|row| row.slot).into())
    }
}

export_selector!(Rendezvous);

#[cfg(test)]
mod tests;
