//! The standard selector `least-loaded`: the node with the fewest processes.
//!
//! It asks for the eight lowest by `processes` and takes the minimum, ties drawn by the seed. That
//! is exact over the whole fleet, where `all` is sampled beyond 1,024 nodes, and costs the same for
//! any fleet. One would do for the answer; the others show a reader of `explain` what it was chosen
//! from. With loads that are seconds old it herds: use `two-choices` where reports decide.

use maitred_guest::{Answer, Ask, Candidates, Host, Request, Selector, export_selector, lowest};

/// See the head of this file.
#[derive(Default)]
pub struct LeastLoaded;

impl Selector for LeastLoaded {
    const NAME: &'static str = "least-loaded";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const FEATURES: &'static [&'static str] = &["processes"];

    fn ask(&self) -> Ask {
        lowest("processes", 8)
    }

    fn select(
        &self,
        request: &Request,
        nodes: Candidates<'_>,
        _: &dyn Host,
    ) -> Result<Answer, String> {
        Ok(nodes.lowest(request.seed, |row| Some(row.value(0))).into())
    }
}

export_selector!(LeastLoaded);

#[cfg(test)]
mod tests {
    use super::*;
    use maitred_guest::testing::{Fleet, check, request};

    #[test]
    fn the_emptiest_node_is_chosen_and_ties_are_shared() {
        let fleet = Fleet::new()
            .node("a")
            .processes(2)
            .node("b")
            .processes(1)
            .node("c")
            .processes(1);
        let requests: Vec<_> = (0..64)
            .map(|n| request("player", &format!("p{n}")))
            .collect();
        check::<LeastLoaded>(&fleet, &requests);
        let chosen = |name| {
            requests
                .iter()
                .filter(|one| fleet.decide::<LeastLoaded>(one).unwrap().as_deref() == Some(name))
                .count()
        };
        assert_eq!(chosen("a"), 0);
        // 32 each, give or take four standard deviations (4).
        assert!(chosen("b").abs_diff(32) <= 16 && chosen("b") + chosen("c") == 64);
    }

    #[test]
    fn exact_loads_stay_level() {
        let mut fleet = Fleet::of(100);
        for n in 0..3_333 {
            fleet
                .place::<LeastLoaded>(&request("player", &format!("p{n}")))
                .unwrap();
            assert!(fleet.gap() <= 1.0, "{:?}", fleet.loads());
        }
    }
}
