//! One replay: recorded batches in, a comparison out.
//!
//! Every decision sees the nodes as the recorded one did: those before it in its batch are counted
//! where they were decided, and not where the version that is tried would have had them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use maitred_protocol::{ComparedVersion, Comparison, config_hash};
use maitred_registry::compare::{Compared, Comparing, Failure, Tried};
use maitred_registry::decide::ModuleRef;
use maitred_registry::inputs::{self, Outcome, RecordedBatch, Tail};
use maitred_sandbox::Rehearsal;
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
        }
    }

    /// All that was recorded, oldest first. Blocks.
    ///
    /// # Errors
    /// Why there is nothing to compare, for people.
    pub(super) fn all(mut self, newest: Newest) -> Result<Comparison, String> {
        let end = Instant::now() + REPLAY_TIME;
        let mut tail = Tail::new(Some(self.asked.name.clone()), Newest::skip(&newest));
        let mut skipped = 0;
        let tag = inputs::tag(&self.asked.name);
        for frame in newest {
            let frame = frame.map_err(|error| error.to_string())?;
            let lost = u64::from(frame.decisions) * u64::from(frame.of == tag);
            if *self.replays.stopping.borrow() {
                return Err("the host is shutting down".to_owned());
            }
            if Instant::now() >= end {
                skipped += lost;
                continue;
            }
            match tail.next(&frame.frame) {
                Ok(Some(batch)) => self.batch(&batch)?,
                Ok(None) => {}
                Err(_) => skipped += lost,
            }
        }
        let mut comparing = match self.comparing.pop() {
            Some((_, newest)) => newest,
            None => self.compare_with(&self.config.clone().unwrap_or_else(|| "{}".into())),
        };
        for (_, other) in &self.comparing {
            comparing.merge(other);
        }
        comparing.skip(skipped);
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

    fn batch(&mut self, recorded: &RecordedBatch) -> Result<(), String> {
        let RecordedBatch { batch, outcomes } = recorded;
        let selector = batch.selector.as_ref().ok();
        let made_with = selector.map(|module| Arc::clone(&module.config));
        let config = self.config.clone().or(made_with);
        let config = config.unwrap_or_else(|| "{}".into());
        self.track(&config)?;
        let hash = config_hash(&config);
        let at = self.comparing.iter().position(|(of, _)| *of == hash);
        let at = at.unwrap_or_else(|| {
            self.comparing.push((hash, self.compare_with(&config)));
            self.comparing.len() - 1
        });
        let Some(track) = self.tracks.last() else {
            return Ok(());
        };
        let comparing = &mut self.comparing[at].1;
        let mut fleet = Arc::clone(&batch.fleet);
        for (job, decided) in batch.jobs.iter().zip(outcomes) {
            let tried = track.rehearsal.consider(&fleet, job, batch.time_s);
            let outcome = Outcome::of(&tried.decision);
            let failure = tried.failed.as_ref();
            comparing.add(&Compared {
                fleet: &batch.fleet,
                key: &job.request.key,
                selector,
                decided,
                other: Tried {
                    outcome: &outcome,
                    fuel: tried.fuel,
                    nanos: tried.nanos,
                    failure: failure.map(|(how, why)| (Failure::from(*how), why.as_str())),
                },
            });
            // The next one saw what was decided, and not what would have been.
            if let Some(slot) = decided.chosen {
                Arc::make_mut(&mut fleet).take(slot, &job.request);
            }
        }
        Metrics::add(&self.replays.metrics.replayed, batch.jobs.len());
        Ok(())
    }
}
