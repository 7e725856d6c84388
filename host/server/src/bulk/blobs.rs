//! The bytes of modules, from host to host, by their digest.
//!
//! A host that lacks some asks the leader first, then everybody. An upload is recorded only when most
//! of those who vote have its bytes on their disks, so that a record never outlives the last copy of
//! what it names as long as a minority is lost.

use std::sync::Arc;
use std::time::Duration;

use maitred_protocol::limits::MODULE_BYTES_MAX;
use maitred_protocol::{Digest, PeerRequest, PeerResponse, Response, Unavailable};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::wire::CallError;
use super::{Bulk, blocking, votes};
use crate::metrics::Metrics;

/// How long a host may take until it begins to send a module.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest that a module may take to come.
const BLOB_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an upload waits for a majority, and how much longer for each MiB.
const HOLD_TIMEOUT: Duration = Duration::from_secs(10);
const HOLD_TIMEOUT_PER_MIB: Duration = Duration::from_secs(1);
/// Pause before a host that could not hold a module is asked again.
const HOLD_AGAIN: Duration = Duration::from_millis(250);

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
        let members = self.members().await?;
        let voters = members.items.iter().filter(|member| votes(member.role));
        let voters: Vec<u64> = voters.map(|member| member.host).collect();
        let most = voters.len() / 2 + 1;
        let mut have = usize::from(voters.contains(&self.me.host));
        if have >= most {
            return Ok(());
        }
        let mib = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        let deadline = Instant::now() + HOLD_TIMEOUT + HOLD_TIMEOUT_PER_MIB.saturating_mul(mib);
        let mut asking = JoinSet::new();
        for host in members.items.iter().map(|member| member.host) {
            if host != self.me.host {
                let bulk = Arc::clone(self);
                let asked = async move { bulk.ask_to_hold(host, digest, bytes, deadline).await };
                asking.spawn(async move { (host, asked.await) });
            }
        }
        let mut why = Vec::new();
        while let Some(answered) = asking.join_next().await {
            match answered {
                Ok((host, Ok(()))) => have += usize::from(voters.contains(&host)),
                Ok((host, Err(error))) => why.push(format!("host {host}: {error}")),
                Err(error) => tracing::error!(%error, "asking a host to hold a module died"),
            }
            if have >= most {
                // The others go on, up to the same deadline.
                asking.detach_all();
                return Ok(());
            }
        }
        let (all, why) = (voters.len(), why.join("; "));
        let what = format!(
            "{have} of the {all} hosts that vote have the module's bytes, and {most} must before it is recorded ({why}); nothing was recorded, upload it again"
        );
        Err(Box::new(Response::Unavailable(Unavailable::Overloaded(
            what,
        ))))
    }

    /// Asks a host to hold a module until it does, or time is up.
    async fn ask_to_hold(
        &self,
        host: u64,
        digest: Digest,
        bytes: u64,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let request = PeerRequest::Hold { digest, bytes };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let called = tokio::select! {
                called = tokio::time::timeout(left, self.call(host, &request, left)) => {
                    called.unwrap_or(Err(CallError::Silent(left)))
                }
                () = self.stopped() => {
                    let why = "this host is shutting down".to_owned();
                    return Err(CallError::Unavailable(why));
                }
            };
            let error = match called {
                Ok(PeerResponse::Held) => {
                    Metrics::count(&self.metrics.blobs_held);
                    return Ok(());
                }
                Ok(PeerResponse::Refused(why)) => return Err(CallError::Refused(why)),
                Ok(other) => CallError::of(other),
                Err(error) => error,
            };
            if Instant::now() + HOLD_AGAIN >= deadline {
                return Err(error);
            }
            tokio::time::sleep(HOLD_AGAIN).await;
        }
    }
}
