//! What a placement was made from, when another host made it.
//!
//! Only the host that led at the time has written it down, so whoever is asked to explain asks the
//! others, briefly: it is a help for people, and they are told when it is gone.

use std::sync::Arc;
use std::time::Duration;

use maitred_protocol::{Evidence, Incarnation, PeerRequest, PeerResponse};
use tokio::task::JoinSet;

use super::Bulk;

/// Longest that the others are waited for.
const EVIDENCE_TIMEOUT: Duration = Duration::from_millis(300);

impl Bulk {
    /// Asks all members at once; the first that has it counts.
    pub(crate) async fn evidence(self: &Arc<Self>, incarnation: Incarnation) -> Option<Evidence> {
        let mut asking = JoinSet::new();
        for host in self.others() {
            let bulk = Arc::clone(self);
            asking.spawn(async move {
                let request = PeerRequest::Evidence(incarnation);
                match bulk.call(host, &request, EVIDENCE_TIMEOUT).await {
                    Ok(PeerResponse::Evidence(found)) => found,
                    _ => None,
                }
            });
        }
        let first = async {
            while let Some(answered) = asking.join_next().await {
                if let Ok(Some(evidence)) = answered {
                    return Some(*evidence);
                }
            }
            None
        };
        let found = tokio::time::timeout(EVIDENCE_TIMEOUT, first).await;
        found.ok().flatten()
    }

    /// What this host has written down.
    pub(super) async fn own_evidence(&self, incarnation: Incarnation) -> Option<Evidence> {
        let decisions = self.decisions.get()?.upgrade()?;
        let looked_up = decisions.look_up(incarnation)?;
        // Else the thread could not end while we wait for it.
        drop(decisions);
        looked_up.await.ok().flatten()
    }
}
