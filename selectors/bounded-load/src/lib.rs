//! The standard selector `bounded-load`: consistent hashing that overloads nobody.
//!
//! Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with bounded loads" (SODA 2018, arXiv
//! 1608.01350), over rendezvous hashing instead of a ring. A node takes at most c times the average,
//! rounded up; an id goes to its heaviest node that is below that. With c = 1.25 and 100 processes a
//! node, 0.2 % of the ids are not on their heaviest node, and when one of n nodes leaves hardly more than
//! 1/n of them move; the smaller c, the more even and the less sticky.
//!
//! `{"bound": 1.25}`, 1.01 to 10, is the default. The average is over the candidates. Ranked: the next
//! heaviest nodes that are below the bound are tried when the first one cannot start the process.

use maitred_guest::chance::{mix, stable_hash};
use maitred_guest::config::Config;
use maitred_guest::{Answer, Candidates, Host, Request, Selector, Slot, export_selector};

/// See the head of this file.
#[derive(Default)]
pub struct BoundedLoad {
    bound: f64,
}

const NAME_HASH: usize = 0;
const PROCESSES: usize = 1;

/// Nodes that are ranked.
const RANKED: usize = 3;

impl Selector for BoundedLoad {
    const NAME: &'static str = "bounded-load";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const FEATURES: &'static [&'static str] = &["name-hash", "processes"];

    fn configure(&mut self, host: &dyn Host) -> Result<(), String> {
        let config = Config::parse(&host.config(), &["bound"])?;
        let bound = config.real("bound", 1..=10)?.unwrap_or(1.25);
        if bound < 1.01 {
            return Err("configuration: `bound` is below 1.01".to_owned());
        }
        self.bound = f64::from(bound);
        Ok(())
    }

    fn select(
        &self,
        request: &Request,
        nodes: Candidates<'_>,
        _: &dyn Host,
    ) -> Result<Answer, String> {
        let load = |row: maitred_guest::Row<'_>| f64::from(row.known(PROCESSES).unwrap_or(0.0));
        let sum: f64 = nodes.iter().map(load).sum();
        // The one that is placed counts, so that there is always a node below it.
        let most = (self.bound * (sum + 1.0) / nodes.len() as f64).ceil();
        // A type holds no zero byte, so that no two keys run together.
        let key = [request.process_type.as_bytes(), &[0], request.id.as_bytes()].concat();
        let key = stable_hash(&key);
        let weight = |name: u32| mix(key.wrapping_add(mix(u64::from(name))));
        let mut best: Vec<(Option<u64>, u32, Slot)> = Vec::with_capacity(RANKED + 1);
        for row in nodes.iter().filter(|&row| load(row) + 1.0 <= most) {
            let place = (
                row.whole(NAME_HASH).map(weight),
                u32::MAX - row.slot,
                row.slot,
            );
            let at = best.partition_point(|have| *have > place);
            best.insert(at, place);
            best.truncate(RANKED);
        }
        Ok(Answer::ranked(best.into_iter().map(|place| place.2)))
    }
}

export_selector!(BoundedLoad);

#[cfg(test)]
mod tests;
