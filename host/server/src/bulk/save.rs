//! A snapshot for a client: `snapshot save`.
//!
//! Any host can give one, with or without a leader: what is in it is committed, and may be older than
//! what the group has by now.

use std::sync::Arc;

use maitred_protocol::{Digest, Response, SaveSnapshot, SavedSnapshot};
use maitred_replica::Input;
use maitred_storage::{SnapshotFile, StorageError};
use maitred_transport::SendStream;

use super::wire::send;
use super::{Bulk, blocking};

/// Bytes that are hashed at a time.
const HASH_BYTES: usize = 1 << 20;

impl Bulk {
    /// Answers on a stream of its own: the answer, then the file.
    pub(crate) async fn save(&self, id: u64, asked: SaveSnapshot, mut stream: SendStream) {
        let sent = async {
            let Ok(_permit) = self.saves.try_acquire() else {
                let why = "too many snapshots are being saved; try again later".to_owned();
                return send(&mut stream, id, &SavedSnapshot::Unavailable(why)).await;
            };
            match self.to_save(asked).await {
                Ok((file, digest)) => {
                    let offer = file.offer();
                    let answer = SavedSnapshot::File {
                        index: offer.index,
                        bytes: offer.bytes,
                        digest,
                    };
                    send(&mut stream, id, &answer).await?;
                    self.send_file(&mut stream, file, 0).await
                }
                Err(why) => send(&mut stream, id, &SavedSnapshot::Unavailable(why)).await,
            }
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

    /// The snapshot that is asked for, and the hash of its file.
    async fn to_save(&self, asked: SaveSnapshot) -> Result<(Arc<SnapshotFile>, Digest), String> {
        if !(asked.newest_kept && self.newest_index().await? > 0) {
            let taken = self.router.ask(Input::TakeSnapshot).await;
            match taken.into_response() {
                Response::Done(_) => {}
                Response::Unavailable(why) => return Err(why.to_string()),
                Response::Rejected(why) => return Err(why.to_string()),
                Response::Unknown(why) => return Err(why),
                _ => return Err("the replica's answer does not fit; this is a bug".to_owned()),
            }
        }
        // Whichever is the newest by now: it contains all that was asked for.
        let index = self.newest_index().await?;
        let snapshots = self.snapshots.clone();
        let opened = blocking(move || {
            // Read whole, so that a damaged one is not given out as a backup.
            snapshots.verify(index)?;
            let Some(file) = snapshots.open_file(index)? else {
                return Ok(None);
            };
            let digest = hash(&file)?;
            Ok::<_, StorageError>(Some((Arc::new(file), digest)))
        });
        let opened = opened.await?.map_err(|error| error.to_string())?;
        opened.ok_or_else(|| "a newer snapshot has replaced it just now; try again".to_owned())
    }

    async fn newest_index(&self) -> Result<u64, String> {
        let snapshots = self.snapshots.clone();
        let newest = blocking(move || snapshots.newest_index()).await?;
        newest.map_err(|error| error.to_string())
    }
}

fn hash(file: &SnapshotFile) -> Result<Digest, StorageError> {
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; HASH_BYTES];
    let mut offset = 0;
    loop {
        let count = file.read_at(offset, &mut piece)?;
        if count == 0 {
            return Ok(Digest(*hasher.finalize().as_bytes()));
        }
        hasher.update(&piece[..count]);
        offset += count as u64;
    }
}
