//! The bytes of modules, from host to host, by their digest.
//!
//! A host that lacks some asks the leader first, then everybody. An upload is recorded only when most
//! of those who vote have its bytes on their disks, so that a record never outlives the last copy of
//! what it names as long as a minority is lost.

use std::sync::Arc;
use std::time::Duration;

use maitred_protocol::limits::MODULE_BYTES_MAX;
use maitred_protocol::{Digest, PeerRequest, PeerResponse, Response, Unavailable};

use super::majority::{TooFew, Wanted};
use super::wire::CallError;
use super::{Bulk, blocking};
use crate::metrics::Metrics;

/// How long a host may take until it begins to send a module.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest that a module may take to come.
const BLOB_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an upload waits for a majority, and how much longer for each MiB.
const HOLD_TIMEOUT: Duration = Duration::from_secs(10);
const HOLD_TIMEOUT_PER_MIB: Duration = Duration::from_secs(1);

impl Bulk {
    /// Fetches a module from whoever has it, and writes it down.
    ///
    /// # Errors
    /// Why no host gave it, host by host.
    pub(crate) async fn fetch_blob(&self, digest: Digest) -> Result<(), String> {
        let fetched = async {
            let mut why = Vec::new();
            for host in self.others() {
                match self.fetch_blob_from(host, digest, MODULE_BYTES_MAX).await {
                    Ok(()) => return Ok(()),
                    Err(error) => why.push(format!("host {host}: {error}")),
                }
            }
            if why.is_empty() {
                why.push("no other host can be asked".to_owned());
            }
            Err(why.join("; "))
        };
        tokio::select! {
            fetched = fetched => fetched,
            () = self.stopped() => Err("the host is shutting down".to_owned()),
        }
    }

    async fn fetch_blob_from(
        &self,
        host: u64,
        digest: Digest,
        bytes_max: u64,
    ) -> Result<(), CallError> {
        let read = tokio::time::timeout(BLOB_TIMEOUT, self.read_blob(host, digest, bytes_max));
        let bytes = read.await.map_err(|_| CallError::Silent(BLOB_TIMEOUT))??;
        let modules = Arc::clone(&self.modules);
        let written = blocking(move || modules.write_down(digest, &bytes)).await;
        match written.map_err(CallError::Unavailable)? {
            Ok(Some(())) => {
                Metrics::count(&self.metrics.blobs_fetched);
                tracing::debug!(digest = %digest.short(), host, "a module's bytes were fetched");
                Ok(())
            }
            Ok(None) => Err(CallError::Unavailable(
                "this host is shutting down".to_owned(),
            )),
            // Among others: the bytes are not those of the digest.
            Err(error) => Err(CallError::Unavailable(error.to_string())),
        }
    }

    async fn read_blob(
        &self,
        host: u64,
        digest: Digest,
        bytes_max: u64,
    ) -> Result<Vec<u8>, CallError> {
        let asked = PeerRequest::Blob(digest);
        let mut body = self.call_for_bytes(host, &asked, ANSWER_TIMEOUT).await?;
        if body.digest != digest || body.left() != body.total || body.total > bytes_max {
            return Err(CallError::Unfit);
        }
        let mut bytes = Vec::new();
        while let Some(piece) = body.piece().await? {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// Keeps a module for a host that is about to have it recorded.
    pub(super) async fn hold_for(&self, host: u64, digest: Digest, bytes: u64) -> PeerResponse {
        if !self.modules.hold(digest) {
            let why = "it keeps too many modules already that nothing has recorded";
            return PeerResponse::Unavailable(why.to_owned());
        }
        let modules = Arc::clone(&self.modules);
        // Read, and so compared with its digest: what is there was synced.
        let there = blocking(move || modules.bytes(digest)).await;
        if let Ok(Ok(Some(_))) = there {
            return PeerResponse::Held;
        }
        match self.fetch_blob_from(host, digest, bytes).await {
            Ok(()) => PeerResponse::Held,
            Err(error) => PeerResponse::Unavailable(error.to_string()),
        }
    }

    /// Waits until most of the hosts that vote have a module's bytes, this one included, which has
    /// them. Bounded: ten seconds and one for each MiB.
    ///
    /// # Errors
    /// Nothing may be proposed: the answer for the client, which says who does not have it.
    pub(crate) async fn hold(
        self: &Arc<Self>,
        digest: Digest,
        bytes: u64,
    ) -> Result<(), Box<Response>> {
        let mib = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        let wanted = Wanted {
            request: PeerRequest::Hold { digest, bytes },
            done: PeerResponse::Held,
            within: HOLD_TIMEOUT + HOLD_TIMEOUT_PER_MIB.saturating_mul(mib),
        };
        let Err(few) = self.by_most(wanted, |_, _| ()).await? else {
            return Ok(());
        };
        let TooFew {
            have,
            of,
            most,
            why,
            ..
        } = few;
        let what = format!(
            "{have} of the {of} hosts that vote have the module's bytes, and {most} must before it is recorded ({why}); nothing was recorded, upload it again"
        );
        Err(Box::new(Response::Unavailable(Unavailable::Overloaded(
            what,
        ))))
    }
}
