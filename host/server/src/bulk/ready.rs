//! Modules that are ready to run where they may have to decide.
//!
//! A version is recorded, and later activated, only when most of the hosts that vote have loaded it:
//! whichever of them leads next can run it. A host that cannot says why, and whoever asked is told.

use std::sync::Arc;
use std::time::Duration;

use maitred_protocol::{PeerRequest, PeerResponse, Rejection, Response, Unavailable};

use super::majority::{TooFew, Wanted};
use super::{Bulk, blocking};
use crate::metrics::Metrics;
use crate::module_service::Subject;

/// Longest that hosts may take to make a module ready: to fetch it, to wait for another one that is
/// being compiled, and to compile it.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest that a caller's module waits for others that are being made ready.
const TURN_TIMEOUT: Duration = Duration::from_secs(60);

impl Bulk {
    /// Makes a module ready for another host, that is about to have it recorded or activated.
    pub(super) async fn make_ready_for(&self, module: Subject) -> PeerResponse {
        if let Err(why) = self.modules.judge(&module) {
            return PeerResponse::Refused(why);
        }
        if !self.modules.hold(module.digest) {
            let why = "it keeps too many modules already that nothing has recorded";
            return PeerResponse::Unavailable(why.to_owned());
        }
        let turn = tokio::time::timeout(TURN_TIMEOUT, self.loading.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            let why = "it makes too many other modules ready".to_owned();
            return PeerResponse::Unavailable(why);
        };
        let modules = Arc::clone(&self.modules);
        match blocking(move || modules.load(&module)).await {
            Ok(Ok(())) => PeerResponse::Ready,
            // Whoever leads by then has it tried again; asking at once would compile it again.
            Ok(Err(why)) => PeerResponse::Refused(why),
            Err(why) => PeerResponse::Unavailable(why),
        }
    }

    /// Waits until most of the hosts that vote can run a module, this one included, which can.
    /// `told` hears how many of how many do.
    ///
    /// # Errors
    /// The answer for the client, which names the hosts that do not, and why.
    pub(crate) async fn ready_by_most(
        self: &Arc<Self>,
        module: Subject,
        told: impl Fn(u32, u32),
    ) -> Result<(), Box<Response>> {
        let wanted = Wanted {
            request: PeerRequest::Ready {
                kind: module.kind,
                digest: module.digest,
                signature: module.signature,
            },
            done: PeerResponse::Ready,
            within: READY_TIMEOUT,
        };
        let Err(few) = self.by_most(wanted, told).await? else {
            return Ok(());
        };
        Metrics::count(&self.metrics.readiness_failed);
        let TooFew {
            have,
            of,
            most,
            why,
            refused,
        } = few;
        let what = format!(
            "{have} of the {of} hosts that vote can run it, and {most} must: {why}; nothing was changed"
        );
        Err(Box::new(if refused {
            Response::Rejected(Rejection::Module {
                stage: "making it ready on most hosts".to_owned(),
                reason: what,
            })
        } else {
            Response::Unavailable(Unavailable::Overloaded(what))
        }))
    }
}
