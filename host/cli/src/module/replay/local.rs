//! A replay on this machine: recorded inputs from a file, decided by a component in the sandbox of hosts.
//!
//! Holds, as on a host: every decision sees the nodes as the recorded one did, those before it in its
//! batch being counted where they were decided.

use std::collections::BTreeSet;
use std::sync::Arc;

use maitred_protocol::comparison::{ComparedVersion, Comparison};
use maitred_protocol::{Digest, ModuleName, config_hash};
use maitred_registry::compare::{Compared, Comparing, Failure as Failed, Tried as Came};
use maitred_registry::inputs::{FileReader, InputsError, Outcome, RecordedBatch, lane_of};

use super::super::rehearse::{Tools, Tried};
use crate::failure::{Exit, Failure};

/// What is replayed.
pub(super) struct Local {
    /// The file of inputs.
    pub(super) inputs: Vec<u8>,
    pub(super) component: Vec<u8>,
    /// Whose decisions.
    pub(super) module: ModuleName,
    /// How many of the newest.
    pub(super) last: u32,
    /// For all of them; none for the one that each was made with.
    pub(super) config: Option<String>,
}

impl From<InputsError> for Failure {
    fn from(error: InputsError) -> Self {
        let help = "export the inputs again with `maitred module replay --export`";
        Self::advised(Exit::Other, "inputs", &error.to_string(), help)
    }
}

impl Local {
    /// Replays. Blocks.
    ///
    /// # Errors
    /// When the file is damaged or has no decision of the module, or the component is refused.
    pub(super) fn run(self) -> Result<Comparison, Failure> {
        let skip = self.older()?;
        let digest = Digest::of(&self.component);
        let mut tried = Tried::new(Tools::new()?, self.module.clone(), self.component.clone())?;
        let mut comparing: Vec<(u64, Comparing)> = Vec::new();
        let mut seen = 0;
        for recorded in FileReader::new(&self.inputs)? {
            let recorded = recorded?;
            if !self.is_ours(&recorded) {
                continue;
            }
            seen += recorded.outcomes.len() as u64;
            if seen <= skip {
                continue;
            }
            let made_with = recorded.batch.selector.as_ref().ok();
            let made_with = made_with.map(|module| module.config.to_string());
            let config = self.config.clone().or(made_with);
            let config = config.unwrap_or_else(|| "{}".to_owned());
            let hash = config_hash(&config);
            let at = comparing.iter().position(|(of, _)| *of == hash);
            let at = at.unwrap_or_else(|| {
                let other = ComparedVersion {
                    version: 0,
                    digest,
                    config: hash,
                };
                comparing.push((hash, Comparing::new(self.module.clone(), other)));
                comparing.len() - 1
            });
            replay(&mut tried, &config, &recorded, &mut comparing[at].1)?;
        }
        let mut sum = comparing.pop().map(|(_, newest)| newest);
        if let Some(sum) = &mut sum {
            comparing.iter().for_each(|(_, other)| sum.merge(other));
        }
        sum.map(|sum| sum.comparison())
            .ok_or_else(|| self.nothing())
    }

    fn is_ours(&self, recorded: &RecordedBatch) -> bool {
        lane_of(&recorded.batch.selector).module == self.module
    }

    /// Decisions of the module before the newest `last`.
    fn older(&self) -> Result<u64, Failure> {
        let mut all = 0;
        for recorded in FileReader::new(&self.inputs)? {
            let recorded = recorded?;
            if self.is_ours(&recorded) {
                all += recorded.outcomes.len() as u64;
            }
        }
        Ok(u64::saturating_sub(all, self.last.into()))
    }

    fn nothing(&self) -> Failure {
        let batches = FileReader::new(&self.inputs)
            .into_iter()
            .flatten()
            .flatten();
        let names: BTreeSet<String> = batches
            .map(|recorded| lane_of(&recorded.batch.selector).module.to_string())
            .collect();
        let message = format!("the file has no decision of {}", self.module);
        let help = match names.is_empty() {
            true => "it has none at all: export more of them".to_owned(),
            false => {
                let names: Vec<String> = names.into_iter().collect();
                format!("it has decisions of {}", names.join(", "))
            }
        };
        Failure::new(Exit::NotFound, "not_found", message, help)
    }
}

fn replay(
    tried: &mut Tried,
    config: &str,
    recorded: &RecordedBatch,
    comparing: &mut Comparing,
) -> Result<(), Failure> {
    let rehearsal = tried.rehearsal(config).map_err(|reason| {
        let message = format!("it cannot decide with the configuration {config}: {reason}");
        let help = "give it one that it takes with --config";
        Failure::new(Exit::Module, "configuration", message, help)
    })?;
    let RecordedBatch { batch, outcomes } = recorded;
    let mut fleet = Arc::clone(&batch.fleet);
    for (job, decided) in batch.jobs.iter().zip(outcomes) {
        let rehearsed = rehearsal.consider(&fleet, job, batch.time_s);
        let outcome = Outcome::of(&rehearsed.decision);
        let failure = rehearsed.failed.as_ref();
        comparing.add(&Compared {
            fleet: &batch.fleet,
            key: &job.request.key,
            selector: batch.selector.as_ref().ok(),
            decided,
            other: Came {
                outcome: &outcome,
                fuel: rehearsed.fuel,
                nanos: rehearsed.nanos,
                failure: failure.map(|(how, why)| (Failed::from(*how), why.as_str())),
            },
        });
        if let Some(slot) = decided.chosen {
            Arc::make_mut(&mut fleet).take(slot, &job.request);
        }
    }
    Ok(())
}
