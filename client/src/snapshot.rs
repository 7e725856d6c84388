//! Saving a snapshot: a stream of its own, whose bytes are checked against the length and the hash
//! that were announced.

use std::io::Write;
use std::time::Duration;

use maitred_protocol::{Digest, SaveSnapshot, SavedSnapshot};

use crate::download::{Announced, Download};
use crate::error::{Cause, Error};
use crate::pool::Route;
use crate::verbs::Client;

/// Longest that the host may take to begin: it may have to make the snapshot first.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(120);

/// A snapshot that has been received whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedFile {
    /// The host that it comes from.
    pub host: u64,
    /// The last index that it contains.
    pub index: u64,
    /// Its length.
    pub bytes: u64,
    /// Their blake3 hash.
    pub digest: Digest,
}

impl Client {
    /// Receives a snapshot and writes its file to `to`, in pieces of at most 64 KiB; the leader's
    /// if one is known. `newest_kept`: one that the host has already will do. `progress` hears how
    /// many bytes of how many have come. `to` must not block for long.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is none to be had, or it came damaged
    /// ([`Cause::Damaged`]): what was written then is worth nothing. It is not tried again by
    /// itself. [`crate::Fatal::Write`] when `to` fails.
    pub async fn save_snapshot(
        &self,
        newest_kept: bool,
        to: &mut (impl Write + Send),
        progress: impl FnMut(u64, u64) + Send,
    ) -> Result<SavedFile, Error> {
        let question = SaveSnapshot { newest_kept };
        let (download, saved) =
            Download::begin(self, Route::Leader, &question, BEGIN_TIMEOUT).await?;
        let (index, bytes, digest) = match saved {
            SavedSnapshot::File {
                index,
                bytes,
                digest,
            } => (index, bytes, digest),
            SavedSnapshot::Unavailable(why) => {
                let cause = Cause::Answer(why);
                return Err(Error::Unavailable { cause });
            }
        };
        let host = download.host;
        download
            .receive(Announced { bytes, digest }, to, progress)
            .await?;
        Ok(SavedFile {
            host,
            index,
            bytes,
            digest,
        })
    }
}
