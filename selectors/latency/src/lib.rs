//! The standard selector `latency`: the region that is nearest to whom the process is for.
//!
//! A create says how many milliseconds it is to each region (`--latency eu=20 --latency us=110`: the
//! median of the players of a match, say). The lowest wins, regions within `margin` of it are as good,
//! and among the nodes of those the one with the fewest processes takes the process. A region
//! beyond `cap` is out; when all of them are, the create is rejected with code 1 rather than placed where
//! nobody can play. As the player latency policies of Amazon GameLift's queues.
//!
//! `{"label": "region", "margin": 10, "cap": 150}` with the defaults: label `zone`, a margin of 10 ms,
//! no cap. A region that the create says nothing of counts as beyond the cap; when it says nothing of
//! any, the fewest processes decide.

use maitred_guest::compose::low;
use maitred_guest::config::Config;
use maitred_guest::{Answer, Candidates, Host, Request, Selector, export_selector};

/// See the head of this file.
#[derive(Default)]
pub struct Latency {
    label: String,
    margin: f32,
    cap: f32,
}

const LATENCY: usize = 0;
const PROCESSES: usize = 1;

/// The code of a rejection: every region is beyond the cap.
pub const TOO_FAR: u32 = 1;

impl Selector for Latency {
    const NAME: &'static str = "latency";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const TERMS: &'static [&'static str] = &["processes"];

    fn configure(&mut self, host: &dyn Host) -> Result<(), String> {
        let config = Config::parse(&host.config(), &["label", "margin", "cap"])?;
        self.label = config.text("label")?.unwrap_or("zone").to_owned();
        if self.label.is_empty() {
            return Err("configuration: `label` is empty".to_owned());
        }
        self.margin = config.number("margin", 0..=10_000)?.unwrap_or(10) as f32;
        let cap = config.number("cap", 1..=60_000)?;
        self.cap = cap.map_or(f32::INFINITY, |cap| cap as f32);
        Ok(())
    }

    fn features(&self) -> Vec<String> {
        vec![format!("latency:{}", self.label), "processes".to_owned()]
    }

    fn select(
        &self,
        request: &Request,
        nodes: Candidates<'_>,
        _: &dyn Host,
    ) -> Result<Answer, String> {
        if nodes.iter().all(|node| node.known(LATENCY).is_none()) {
            return Ok(nodes.all().in_order(&[low(PROCESSES)], request.seed));
        }
        let near = nodes.all().keep(|node| node.value(LATENCY) <= self.cap);
        if near.is_empty() {
            let reason = format!("no {} within {} ms", self.label, self.cap as u32);
            return Ok(Answer::reject(TOO_FAR, &reason));
        }
        let nearest = near.within(self.margin, |node| node.value(LATENCY));
        Ok(nearest.in_order(&[low(PROCESSES)], request.seed))
    }
}

export_selector!(Latency);

#[cfg(test)]
mod tests;
