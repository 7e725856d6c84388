//! The standard selector `random`: any node, each as likely as the others.
//!
//! The baseline that other policies are compared with. With n nodes and m processes the fullest is
//! above the average by some sqrt(2 m/n ln n) (Raab and Steger, "Balls into bins: a simple and tight
//! analysis", RANDOM 1998), which grows with m; two choices (`two-choices`) keep it bounded.

use maitred_guest::{Answer, Ask, Candidates, Host, Request, Selector, export_selector};

/// See the head of this file.
#[derive(Default)]
pub struct Random;

impl Selector for Random {
    const NAME: &'static str = "random";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn ask(&self) -> Ask {
        // The host draws it, by the seed.
        Ask::Sample(1)
    }

    fn select(&self, _: &Request, nodes: Candidates<'_>, _: &dyn Host) -> Result<Answer, String> {
        Ok(nodes.get(0).map(|row| row.slot).into())
    }
}

export_selector!(Random);

#[cfg(test)]
mod tests;
