//! Who decides in the driver: a native stand-in for uploaded selectors.
//!
//! Every selector chooses the first of the candidates with the fewest processes, except those whose
//! names (or else configurations) say what they do: `broken` fails, `picky` takes nobody, `ranks` ranks all (the fewest
//! processes first), `rejects` says no, and `patient` waits (for 500 ms at most) until a node is empty.

use maitred_registry::candidates::Slot;
use maitred_registry::decide::{Answer, Choose, Decision, Offer, SelectBatch, Verdict, decide};
use maitred_registry::feature::{Ask, Feature, Manifest, RANKED_MAX};

/// The second one is not chosen by; plans show it, and tests look at it there.
const FEATURES: [Feature; 2] = [Feature::Processes, Feature::InFlight];

struct Chooser {
    name: String,
    manifest: Manifest,
}

impl Choose for Chooser {
    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn choose(&mut self, offer: Offer<'_>) -> Result<Answer, String> {
        match self.name.as_str() {
            "broken" => Err("it trapped".to_owned()),
            "picky" => Ok(Verdict::None.into()),
            "rejects" => {
                let reason = "it is closed".to_owned();
                Ok(Verdict::Reject { code: 7, reason }.into())
            }
            "patient" => {
                let empty = ranked(&offer).into_iter().find(|one| one.1 == 0.0);
                Ok(empty
                    .map_or(Verdict::Wait(500), |(slot, _)| Verdict::Choose(slot))
                    .into())
            }
            "ranks" => {
                let slots = ranked(&offer).into_iter().map(|(slot, _)| slot);
                Ok(Verdict::Ranked(slots.take(RANKED_MAX).collect()).into())
            }
            _ => {
                let best = ranked(&offer).first().map(|(slot, _)| *slot);
                Ok(best.map_or(Verdict::None, Verdict::Choose).into())
            }
        }
    }
}

/// The candidates and their processes, the fewest first.
fn ranked(offer: &Offer<'_>) -> Vec<(Slot, f32)> {
    let rows = offer.features.chunks(FEATURES.len());
    let offered = offer.slots.iter().zip(rows);
    let mut ranked: Vec<_> = offered.map(|(slot, row)| (*slot, row[0])).collect();
    ranked.sort_by(|a, b| a.1.total_cmp(&b.1));
    ranked
}

/// Decides a whole batch.
pub(crate) fn decide_all(mut batch: SelectBatch) -> Vec<Decision> {
    let mut chooser = batch.selector.as_ref().ok().map(|module| Chooser {
        name: match &*module.config {
            "rejects" | "patient" | "ranks" => module.config.to_string(),
            _ => module.name.to_string(),
        },
        manifest: Manifest {
            title: "test".to_owned(),
            features: FEATURES.to_vec(),
            terms: Vec::new(),
            ask: Ask::All,
        },
    });
    let (selector, time_s) = (batch.selector, batch.time_s);
    let jobs = batch.jobs.iter().map(|job| {
        let chooser: Result<&mut dyn Choose, String> = match (&mut chooser, &selector) {
            (Some(chooser), _) => Ok(chooser),
            (None, Err((_, cause))) => Err(cause.clone()),
            (None, Ok(_)) => Err("no chooser".to_owned()),
        };
        decide(&mut batch.fleet, job, &selector, chooser, time_s, || 7)
    });
    jobs.collect()
}
