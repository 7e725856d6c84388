//! Recorded inputs for a client: `module replay --export`.
//!
//! Any host gives what it has recorded itself, with or without a leader.

use std::sync::Arc;

use maitred_protocol::{Digest, SaveInputs, SavedInputs};
use maitred_transport::SendStream;

use super::Bulk;
use super::wire::{PIECE_BYTES, send};
use crate::replay::Replays;

impl Bulk {
    /// Answers on a stream of its own: the answer, then the file.
    pub(crate) async fn save_inputs(
        &self,
        id: u64,
        asked: SaveInputs,
        replays: &Arc<Replays>,
        mut stream: SendStream,
    ) {
        let sent = async {
            let Ok(_permit) = self.saves.try_acquire() else {
                let why = "too many files are being saved; try again later".to_owned();
                return send(&mut stream, id, &SavedInputs::Unavailable(why)).await;
            };
            let (decisions, file) = match replays.export(asked).await {
                Ok(exported) => exported,
                Err(why) => {
                    return send(&mut stream, id, &SavedInputs::Unavailable(why)).await;
                }
            };
            let answer = SavedInputs::File {
                decisions,
                bytes: file.len() as u64,
                digest: Digest::of(&file),
            };
            send(&mut stream, id, &answer).await?;
            for piece in file.chunks(PIECE_BYTES) {
                self.send_limited(&mut stream, piece).await?;
            }
            Some(())
        };
        tokio::select! {
            // A client that has gone needs no answer.
            _ = sent => {}
            () = self.stopped() => return,
        }
        // A connection that is dropped takes unacknowledged bytes with it, so wait for those.
        if stream.finish().is_ok() {
            let _ = stream.stopped().await;
        }
    }
}
