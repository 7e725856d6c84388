//! One replay: recorded batches in, a comparison out.
//!
//! Every decision sees the nodes as the recorded one did: those before it in its batch are counted
//! where they were decided, and not where the version that is tried would have had them. Every decision
//! that is not made again, for whatever reason, is counted as skipped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use maitred_protocol::{ComparedVersion, Comparison, config_hash};
use maitred_registry::candidates::Fleet;
use maitred_registry::compare::{Compared, Comparing, Failure, Tried};
use maitred_registry::decide::{ModuleRef, SelectJob};
use maitred_registry::inputs::{self, Outcome, RecordedBatch, Tail};
use maitred_sandbox::{Rehearsal, Rehearsed};
use maitred_storage::inputs::Newest;

use super::{Replay, Replays};
use crate::metrics::Metrics;
use crate::module_service::Subject;

/// Longest that a replay may take; what is left then is skipped.
const REPLAY_TIME: Duration = Duration::from_secs(120);
/// Configurations whose instances are kept.
const CONFIGS_MAX: usize = 8;

/// A version with one of its configurations, and what came of it.
struct Track {
    config: Arc<str>,
    rehearsal: Rehearsal,
}

/// One replay.
pub(super) struct Run<'a> {
    replays: &'a Replays,
    asked: &'a Replay,
    version: u32,
    subject: Subject,
    /// The configuration for all, if one was given.
    config: Option<Arc<str>>,
    /// The newest last.
    tracks: Vec<Track>,
    /// By the hash of the configuration.
    comparing: Vec<(u64, Comparing)>,
    /// Configurations that the version could not be made with, by their hash, and why the first one.
    refused: Vec<u64>,
    reason: Option<String>,
    end: Instant,
    skipped: u64,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        replays: &'a Replays,
        asked: &'a Replay,
        (version, subject): (u32, Subject),
    ) -> Self {
        Self {
            replays,
            asked,
            version,
            subject,
            config: asked.config.as_deref().map(Arc::from),
            tracks: Vec::new(),
            comparing: Vec::new(),
            refused: Vec::new(),
            reason: None,
            end: Instant::now() + REPLAY_TIME,
            skipped: 0,
        }
    }

    /// All that was recorded, oldest first. Blocks.
    ///
    /// # Errors
    /// Why there is nothing to compare, for people.
    pub(super) fn all(mut self, mut newest: Newest) -> Result<Comparison, String> {
        let mut tail = Tail::new(Some(self.asked.name.clone()), Newest::skip(&newest));
        let tag = inputs::tag(&self.asked.name);
        while let Some(frame) = newest.next() {
            if self.replays.is_stopping() {
                return Err("the host is shutting down".to_owned());
            }
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    tracing::warn!(%error, "a replay goes on without recorded inputs");
                    self.skipped += tail.lose(newest.take_lost());
                    continue;
                }
            };
            let decisions = u64::from(frame.decisions) * u64::from(frame.of == tag);
            if Instant::now() >= self.end {
                self.skipped += tail.lose(decisions);
                continue;
            }
            match tail.next(&frame.frame) {
                Ok(Some(batch)) => self.batch(&batch),
                Ok(None) => {}
                Err(_) => self.skipped += tail.lose(decisions),
            }
        }
        if self.comparing.is_empty()
            && let Some(reason) = self.reason
        {
            return Err(reason);
        }
        let mut comparing = match self.comparing.pop() {
            Some((_, newest)) => newest,
            None => self.compare_with(&self.config.clone().unwrap_or_else(|| "{}".into())),
        };
        for (_, other) in &self.comparing {
            comparing.merge(other);
        }
        comparing.skip(self.skipped);
        Ok(comparing.comparison())
    }

    fn compare_with(&self, config: &str) -> Comparing {
        let other = ComparedVersion {
            version: self.version,
            digest: self.subject.digest,
            config: config_hash(config),
        };
        Comparing::new(self.asked.name.clone(), other)
    }

    /// Whether the version can be made with a configuration; it is the last of the tracks then.
    fn is_ready(&mut self, config: &Arc<str>, hash: u64) -> bool {
        if self.refused.contains(&hash) {
            return false;
        }
        let Err(reason) = self.track(config) else {
            return true;
        };
        tracing::warn!(module = %self.asked.name, version = self.version, reason, "a replay leaves out the decisions with a configuration");
        self.refused.push(hash);
        self.reason.get_or_insert(reason);
        false
    }

    /// Makes the version ready with a configuration; it is the last of the tracks then.
    fn track(&mut self, config: &Arc<str>) -> Result<(), String> {
        if let Some(at) = self.tracks.iter().position(|track| track.config == *config) {
            let track = self.tracks.remove(at);
            self.tracks.push(track);
            return Ok(());
        }
        if self.tracks.len() == CONFIGS_MAX {
            self.tracks.remove(0);
        }
        let name = self.asked.name.clone();
        let digest = self.subject.digest;
        let module = ModuleRef::new(name, self.version, digest, Arc::clone(config), 0);
        let rehearsal = self.replays.rehearsal(&self.subject, module)?;
        self.tracks.push(Track {
            config: Arc::clone(config),
            rehearsal,
        });
        Ok(())
    }

    fn batch(&mut self, recorded: &RecordedBatch) {
        let selector = recorded.batch.selector.as_ref().ok();
        let made_with = selector.map(|module| Arc::clone(&module.config));
        let config = self.config.clone().or(made_with);
        let config = config.unwrap_or_else(|| "{}".into());
        let hash = config_hash(&config);
        if !self.is_ready(&config, hash) {
            self.skipped += recorded.outcomes.len() as u64;
            return;
        }
        let at = self.comparing.iter().position(|(of, _)| *of == hash);
        let at = at.unwrap_or_else(|| {
            self.comparing.push((hash, self.compare_with(&config)));
            self.comparing.len() - 1
        });
        let Some(track) = self.tracks.last() else {
            return;
        };
        let goes_on = || Instant::now() < self.end && !self.replays.is_stopping();
        let consider = |fleet: &_, job: &_, time_s| track.rehearsal.consider(fleet, job, time_s);
        let made = again(recorded, &mut self.comparing[at].1, goes_on, consider);
        self.skipped += (recorded.outcomes.len() - made) as u64;
        Metrics::add(&self.replays.metrics.replayed, made);
    }
}

/// Makes the decisions of a batch again, while `goes_on` before each; how many that were.
fn again(
    recorded: &RecordedBatch,
    comparing: &mut Comparing,
    goes_on: impl Fn() -> bool,
    consider: impl Fn(&Arc<Fleet>, &SelectJob, u32) -> Rehearsed,
) -> usize {
    let RecordedBatch { batch, outcomes } = recorded;
    let mut fleet = Arc::clone(&batch.fleet);
    let mut made = 0;
    for (job, decided) in batch.jobs.iter().zip(outcomes) {
        if !goes_on() {
            break;
        }
        let tried = consider(&fleet, job, batch.time_s);
        let outcome = Outcome::of(&tried.decision);
        let failure = tried.failed.as_ref();
        comparing.add(&Compared {
            fleet: &batch.fleet,
            key: &job.request.key,
            selector: batch.selector.as_ref().ok(),
            decided,
            other: Tried {
                outcome: &outcome,
                fuel: tried.fuel,
                nanos: tried.nanos,
                failure: failure.map(|(how, why)| (Failure::from(*how), why.as_str())),
            },
        });
        made += 1;
        // The next one saw what was decided, and not what would have been.
        if let Some(slot) = decided.chosen {
            Arc::make_mut(&mut fleet).take(slot, &job.request);
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use maitred_protocol::{Digest, ModuleName, ProcessKey};
    use maitred_registry::candidates::SelectRequest;
    use maitred_registry::decide::{SelectBatch, consider};

    use super::*;

    #[test]
    fn time_is_looked_at_before_each_decision_and_not_once_a_batch() {
        let name: ModuleName = "mine".parse().unwrap();
        let selector = Err((name.clone(), String::new()));
        let job = |id| SelectJob {
            id,
            request: Arc::new(SelectRequest::new(ProcessKey::new("room", "1").unwrap())),
            fallback: Default::default(),
            seed: 0,
        };
        let tried = |fleet: &Arc<Fleet>, job: &SelectJob, time_s| Rehearsed {
            decision: consider(fleet, job, &selector, Err(String::new()), time_s, || 0),
            fuel: 0,
            nanos: 0,
            failed: None,
            steady: true,
        };
        let batch = SelectBatch {
            selector: selector.clone(),
            shadow: None,
            fleet: Arc::new(Fleet::new(Arc::default(), Vec::new())),
            time_s: 0,
            jobs: (0..200).map(job).collect(),
            dry: false,
        };
        let outcome = Outcome::of(&tried(&batch.fleet, &batch.jobs[0], 0).decision);
        let recorded = RecordedBatch {
            outcomes: vec![outcome; 200],
            batch,
        };
        let other = ComparedVersion {
            version: 1,
            digest: Digest::of(b""),
            config: 0,
        };
        let mut comparing = Comparing::new(name, other);
        let left = Cell::new(7);
        let goes_on = || left.replace(left.get().max(1) - 1) > 0;
        assert_eq!(again(&recorded, &mut comparing, goes_on, tried), 7);
        assert_eq!(comparing.comparison().decisions, 7);
        assert_eq!(again(&recorded, &mut comparing, || true, tried), 200);
    }
}
