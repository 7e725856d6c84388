//! The recorded inputs of decisions: batches to frames of bytes and back, exactly as they were.
//!
//! A frame is a keyframe, which stands for itself, or a delta against the frames since the last
//! keyframe: what is the same is not written again. Encoding and decoding keep the same state
//! ([`state::State`]) and change it in the same order; a keyframe is a delta against an empty one, so
//! there is one way through the code. Numbers are LEB128, differences zigzag, floats their bits: a
//! fleet comes back to the bit. Names of other versions' shapes are not known here: the first byte of a
//! frame is the version of all of this.
//!
//! ```text
//! frame   u8 version, u8 keyframe, sequence, times, roster edits, lane, selector if it is another,
//!         changed rows, columns, counters, parties, jobs and what came out
//! ```
//! At 1,000 decisions a second, with every node reporting once a second, a decision takes some 80 bytes
//! in a batch of its own and 50 in one of 32 with 100 nodes, and 290 and 260 with 10,000, most of which
//! are the reports (`tests/inputs` measures and bounds it). A keyframe takes some 100 bytes a node; a
//! lane's first frame after it some 25. The shadow that a batch names is not recorded, and job ids are
//! counted anew when they are read.
//!
//! Whoever stores frames guards them against bit flips ([`file`] does): the bytes of a frame are
//! checked so that nothing can panic or use memory out of proportion, not for being true.

mod bytes;
pub mod file;
mod jobs;
mod live;
mod roster;
mod state;
mod weight;

use maitred_protocol::{Answered, Chooser, ModuleName};

use crate::candidates::Slot;
use crate::decide::{Decision, LaneId, ModuleRef, SelectBatch};
use bytes::{Put as _, Take};
pub use file::{FileReader, FileWriter};
use state::State;
pub use weight::waiting_bytes;

/// The version that this program writes, and reads.
const VERSION: u8 = 1;

/// Bytes that one frame may have.
pub const FRAME_BYTES_MAX: usize = 32 << 20;

/// Lanes that the recorder keeps apart; one more takes the place of the one that was silent longest.
const LANES_MAX: usize = 16;

/// Columns that are kept of each lane.
const COLUMNS_MAX: usize = 32;

/// Counts in all columns of one batch.
const CELLS_MAX: usize = 1 << 24;

/// What a decision came to, and enough to prove that another one is the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The node; none for none.
    pub chosen: Option<Slot>,
    /// What the selector said.
    pub answered: Answered,
    /// Whether the fallback chose, because the selector could not.
    pub fallback: bool,
    /// 64 bits of a hash of the node, those ranked after it, the answer, and the scores to the bit.
    pub fingerprint: u64,
}

impl Outcome {
    /// Of a decision.
    #[must_use]
    pub fn of(decision: &Decision) -> Self {
        let trace = &decision.trace;
        let fallback = matches!(trace.why.chooser, Chooser::Fallback { .. });
        let mut said = Vec::with_capacity(64);
        said.put(u64::from(fallback));
        jobs::put_slot(&mut said, trace.chosen);
        jobs::put_answered(&mut said, &trace.answered, fallback);
        said.put(decision.then.len() as u64);
        for (name, epoch) in &decision.then {
            said.put_text(name.as_str());
            said.put(epoch.0);
        }
        said.put(trace.scored.len() as u64);
        trace.scored.iter().for_each(|&slot| said.put(slot.into()));
        trace.scores.iter().for_each(|&score| said.put_float(score));
        let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(&said).as_bytes();
        Self {
            chosen: trace.chosen,
            answered: trace.answered.clone(),
            fallback,
            fingerprint: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        }
    }
}

/// A batch and what came out.
#[derive(Debug, Clone)]
pub struct RecordedBatch {
    /// What was decided on. The fleet is as it was before the first decision.
    pub batch: SelectBatch,
    /// One a job.
    pub outcomes: Vec<Outcome>,
}

/// What a frame may lean on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Nothing.
    Keyframe,
    /// The frame before.
    Delta,
}

/// Bytes that are no recorded inputs, or a batch that cannot be recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputsError {
    /// Not a file of recorded inputs.
    #[error("these are no recorded inputs: give a file that `module replay --export` wrote")]
    Foreign,
    /// Another version wrote it.
    #[error(
        "recorded inputs of version {0}; this program reads version {VERSION}: use the program that wrote them"
    )]
    Version(u8),
    /// It is damaged.
    #[error("recorded inputs are damaged: {0}")]
    Damaged(&'static str),
    /// The frame that it leans on is missing: go on with the next keyframe.
    #[error("recorded inputs that lean on a frame which is missing")]
    NoKeyframe,
    /// The batch is beyond what is recorded.
    #[error("{what}: {count}, of which at most {limit} are recorded")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much of it.
        count: usize,
        /// How much there may be.
        limit: usize,
    },
    /// The batch does not fit itself.
    #[error("a batch with {0} is not recorded; this is a bug, please report it")]
    Uneven(&'static str),
}

/// The lane that decides for a selector.
#[must_use]
pub fn lane_of(selector: &Result<ModuleRef, (ModuleName, String)>) -> LaneId {
    match selector {
        Ok(module) => LaneId {
            module: module.name.clone(),
            canary: module.canary,
        },
        Err((name, _)) => LaneId {
            module: name.clone(),
            canary: false,
        },
    }
}

/// What frames of a module's decisions are filed under, where its name is not known.
#[must_use]
pub fn tag(name: &ModuleName) -> u64 {
    maitred_protocol::config_hash(name.as_str())
}

/// Makes frames. One for a stream, whatever the lanes.
#[derive(Debug, Default)]
pub struct Recorder {
    /// None until there is a keyframe.
    state: Option<State>,
    sequence: u64,
}

impl Recorder {
    /// The next frame of the stream. One that cannot be a delta is a keyframe all the same.
    ///
    /// # Errors
    /// [`InputsError::TooLarge`], [`InputsError::Uneven`]; the next frame will be a keyframe.
    pub fn frame(
        &mut self,
        batch: &SelectBatch,
        outcomes: &[Outcome],
        start: Start,
    ) -> Result<Vec<u8>, InputsError> {
        let before = self.state.take().filter(|_| start == Start::Delta);
        let keyframe = before.is_none();
        let mut state = before.unwrap_or_default();
        let mut frame = Vec::with_capacity(256);
        frame.extend_from_slice(&[VERSION, u8::from(keyframe)]);
        self.sequence += 1;
        frame.put(self.sequence);
        state.write(batch, outcomes, &mut frame)?;
        if frame.len() > FRAME_BYTES_MAX {
            return Err(InputsError::TooLarge {
                what: "bytes of one frame",
                count: frame.len(),
                limit: FRAME_BYTES_MAX,
            });
        }
        self.state = Some(state);
        Ok(frame)
    }
}

/// Reads frames, in the order in which they were made.
#[derive(Debug, Default)]
pub struct Player {
    /// None until there is a keyframe.
    state: Option<State>,
    sequence: u64,
}

impl Player {
    /// The batch of the next frame.
    ///
    /// # Errors
    /// [`InputsError::Version`], [`InputsError::Damaged`], and from then on
    /// [`InputsError::NoKeyframe`] until the next keyframe.
    pub fn next(&mut self, frame: &[u8]) -> Result<RecordedBatch, InputsError> {
        let before = self.state.take();
        let (version, rest) = frame
            .split_first()
            .ok_or(InputsError::Damaged("an empty frame"))?;
        if *version != VERSION {
            return Err(InputsError::Version(*version));
        }
        let mut bytes = Take::new(rest);
        let keyframe = bytes.flag()?;
        let sequence = bytes.number()?;
        let mut state = match before {
            _ if keyframe => State::default(),
            Some(state) if sequence == self.sequence.wrapping_add(1) => state,
            _ => return Err(InputsError::NoKeyframe),
        };
        let recorded = state.read(&mut bytes)?;
        bytes.end()?;
        (self.state, self.sequence) = (Some(state), sequence);
        Ok(recorded)
    }
}

/// Reads frames, and gives the newest decisions of one module.
#[derive(Debug)]
pub struct Tail {
    player: Player,
    name: Option<ModuleName>,
    skip: u64,
}

impl Tail {
    /// Of that module, or of all, after so many decisions. A batch that holds both such and later
    /// ones is given whole: its decisions see each other.
    #[must_use]
    pub fn new(name: Option<ModuleName>, skip: u64) -> Self {
        Self {
            player: Player::default(),
            name,
            skip,
        }
    }

    /// Notes decisions that cannot be read; says how many of them were among those that are wanted.
    pub fn lose(&mut self, decisions: u64) -> u64 {
        let older = self.skip.min(decisions);
        self.skip -= older;
        decisions - older
    }

    /// The batch of the next frame, if it is one of those.
    ///
    /// # Errors
    /// As [`Player::next`].
    pub fn next(&mut self, frame: &[u8]) -> Result<Option<RecordedBatch>, InputsError> {
        let recorded = self.player.next(frame)?;
        let module = lane_of(&recorded.batch.selector).module;
        if self.name.as_ref().is_some_and(|name| *name != module) {
            return Ok(None);
        }
        let decisions = recorded.outcomes.len() as u64;
        if self.skip >= decisions {
            self.skip -= decisions;
            return Ok(None);
        }
        self.skip = 0;
        Ok(Some(recorded))
    }
}
