//! A selector: the node with the fewest processes, where the processor has little to do.
//!
//! It has no clock, no random numbers and no IO. The same request, candidates, configuration and
//! `request.seed` must give the same answer: that is what makes a decision replayable.
//! `cargo doc --open -p maitred-guest` shows what else there is.

use maitred_guest::compose::low;
use maitred_guest::config::Config;
use maitred_guest::{Answer, Ask, Candidates, Host, Request, Selector, export_selector, lowest};

/// One instance of the policy. What it keeps between calls is a cache: hosts replace instances.
#[derive(Default)]
pub struct Policy {
    cpu: f32,
}

/// The columns of the candidates, in the order of `FEATURES`.
const PROCESSES: usize = 0;
const CPU: usize = 1;

impl Selector for Policy {
    const NAME: &'static str = env!("CARGO_PKG_NAME");
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const FEATURES: &'static [&'static str] = &["processes", "cpu"];
    /// What `maitred process explain` shows beside each of the best nodes.
    const TERMS: &'static [&'static str] = &["processes", "cpu"];

    /// `{"cpu": 2}` makes an idle processor count more than few processes. A configuration is tried
    /// before a version decides with it; what is wrong with it goes to the operator.
    fn configure(&mut self, host: &dyn Host) -> Result<(), String> {
        let config = Config::parse(&host.config(), &["cpu"])?;
        self.cpu = config.real("cpu", 0..=100)?.unwrap_or(0.5);
        Ok(())
    }

    /// Of the whole fleet the 16 lowest. Each value costs a little time to hand over, so it is the
    /// host that looks at all nodes.
    fn ask(&self) -> Ask {
        lowest("processes", 16)
    }

    /// 5 ms of processor time; an error makes the host decide by the type's fallback.
    fn select(
        &self,
        request: &Request,
        nodes: Candidates<'_>,
        _: &dyn Host,
    ) -> Result<Answer, String> {
        Ok(nodes
            .all()
            .score(&[low(PROCESSES), low(CPU).times(self.cpu)])
            .best(request.seed))
    }
}

export_selector!(Policy);

#[cfg(test)]
mod tests {
    use super::*;
    use maitred_guest::testing::{Fleet, check, request, scenario};

    #[test]
    fn scenarios() {
        scenario("scenario.toml").check::<Policy>();
    }

    #[test]
    fn holds_what_every_selector_must() {
        let fleet = Fleet::of(40);
        let requests: Vec<_> = (0..20).map(|n| request("player", &format!("p{n}"))).collect();
        check::<Policy>(&fleet, &requests);
    }
}
