//! The file of recorded inputs that is moved to another machine: bytes only, whoever has a file reads
//! and writes it.
//!
//! ```text
//! file    "MTRDINP", u8 version, frames, end
//! frame   u32 length (not 0), u32 crc32c of the frame, frame; the first is a keyframe
//! end     u32 0, u32 crc32c of what follows, u64 decisions
//! ```
//! A file without its end was cut short, and says so when it is read to there.

use super::{FRAME_BYTES_MAX, InputsError, Player, RecordedBatch, Recorder, Start};

/// Bytes of a file that are worth reading at all.
pub const FILE_BYTES_MAX: u64 = 1 << 30;

const MAGIC: &[u8; 7] = b"MTRDINP";
const VERSION: u8 = 1;

/// Makes the parts of a file, in order.
#[derive(Debug, Default)]
pub struct FileWriter {
    recorder: Recorder,
    decisions: u64,
    began: bool,
}

impl FileWriter {
    /// What the file begins with.
    #[must_use]
    pub fn header() -> [u8; 8] {
        let [a, b, c, d, e, f, g] = *MAGIC;
        [a, b, c, d, e, f, g, VERSION]
    }

    /// What a batch adds.
    ///
    /// # Errors
    /// As [`Recorder::frame`]; the batch is left out then, and the others can go on.
    pub fn push(&mut self, recorded: &RecordedBatch) -> Result<Vec<u8>, InputsError> {
        let start = if self.began {
            Start::Delta
        } else {
            Start::Keyframe
        };
        let frame = self
            .recorder
            .frame(&recorded.batch, &recorded.outcomes, start)?;
        self.began = true;
        self.decisions += recorded.outcomes.len() as u64;
        let mut part = Vec::with_capacity(frame.len() + 8);
        part.extend_from_slice(&(frame.len() as u32).to_le_bytes());
        part.extend_from_slice(&crc32c::crc32c(&frame).to_le_bytes());
        part.extend_from_slice(&frame);
        Ok(part)
    }

    /// How many decisions the file has so far.
    #[must_use]
    pub fn decisions(&self) -> u64 {
        self.decisions
    }

    /// What the file ends with.
    #[must_use]
    pub fn end(self) -> [u8; 16] {
        let mut end = [0; 16];
        let decisions = self.decisions.to_le_bytes();
        end[4..8].copy_from_slice(&crc32c::crc32c(&decisions).to_le_bytes());
        end[8..].copy_from_slice(&decisions);
        end
    }
}

/// A frame, and what comes after it.
type Parts<'a> = (&'a [u8], &'a [u8]);

/// The batches of a file, oldest first; nothing comes after an error.
#[derive(Debug)]
pub struct FileReader<'a> {
    rest: Option<&'a [u8]>,
    player: Player,
    decisions: u64,
}

impl<'a> FileReader<'a> {
    /// Begins to read a file.
    ///
    /// # Errors
    /// [`InputsError::Foreign`], [`InputsError::Version`].
    pub fn new(file: &'a [u8]) -> Result<Self, InputsError> {
        let rest = file.strip_prefix(MAGIC).and_then(<[u8]>::split_first);
        let (version, rest) = rest.ok_or(InputsError::Foreign)?;
        if *version != VERSION {
            return Err(InputsError::Version(*version));
        }
        Ok(Self {
            rest: Some(rest),
            player: Player::default(),
            decisions: 0,
        })
    }

    /// The next frame; none at a proper end.
    fn frame(&self, rest: &'a [u8]) -> Result<Option<Parts<'a>>, InputsError> {
        let short = InputsError::Damaged("the file is cut short; copy it again");
        let (length, after) = rest.split_first_chunk().ok_or(short.clone())?;
        let (sum, after) = after.split_first_chunk().ok_or(short.clone())?;
        let (length, sum) = (
            u32::from_le_bytes(*length) as usize,
            u32::from_le_bytes(*sum),
        );
        let size = if length == 0 { 8 } else { length };
        if size > FRAME_BYTES_MAX {
            return Err(InputsError::Damaged("a frame that is too large"));
        }
        let (frame, after) = after.split_at_checked(size).ok_or(short)?;
        if crc32c::crc32c(frame) != sum {
            return Err(InputsError::Damaged(
                "a checksum does not match; copy the file again",
            ));
        }
        if length != 0 {
            return Ok(Some((frame, after)));
        }
        if frame != self.decisions.to_le_bytes() || !after.is_empty() {
            return Err(InputsError::Damaged("the file's end is not its end"));
        }
        Ok(None)
    }
}

impl Iterator for FileReader<'_> {
    type Item = Result<RecordedBatch, InputsError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.take()?;
        let (frame, after) = match self.frame(rest) {
            Ok(frame) => frame?,
            Err(error) => return Some(Err(error)),
        };
        let recorded = self.player.next(frame);
        if let Ok(recorded) = &recorded {
            self.decisions += recorded.outcomes.len() as u64;
            self.rest = Some(after);
        }
        Some(recorded)
    }
}
