//! The standard selector `bin-pack`: the fullest node that still holds the process (best fit).
//!
//! It keeps whole nodes empty, so that an autoscaler can take them away. Best fit uses at most 1.7
//! times the optimal number of nodes plus a constant (Johnson, Demers, Ullman, Garey and Graham,
//! SIAM J. Computing 3(4), 1974), and a few per cent over it for demands that are spread evenly.
//!
//! The host has filtered out whatever is too full, so the eight lowest by `capacity-left` hold the
//! best fit of the whole fleet. Nodes that declared no capacity (NaN) come last.

use maitred_guest::{Answer, Ask, Candidates, Host, Request, Selector, export_selector, lowest};

/// See the head of this file.
#[derive(Default)]
pub struct BinPack;

impl Selector for BinPack {
    const NAME: &'static str = "bin-pack";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const FEATURES: &'static [&'static str] = &["capacity-left"];

    fn ask(&self) -> Ask {
        lowest("capacity-left", 8)
    }

    fn select(
        &self,
        request: &Request,
        nodes: Candidates<'_>,
        _: &dyn Host,
    ) -> Result<Answer, String> {
        let demand = request.demand as f32;
        let tightest = nodes.lowest(request.seed, |row| {
            let left = row.value(0);
            (left.is_nan() || left >= demand).then_some(left)
        });
        Ok(tightest.into())
    }
}

export_selector!(BinPack);

#[cfg(test)]
mod tests;
