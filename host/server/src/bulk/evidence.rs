//! What a placement was made from, when another host made it.
//!
//! Only the host that led at the time has written it down, so whoever is asked to explain asks the
//! others, briefly: it is a help for people, and they are told when it is gone.

use std::sync::Arc;
use std::time::Duration;

use maitred_protocol::{
    Evidence, Incarnation, NodeName, PeerRequest, PeerResponse, ProcessKey, WhyNot,
};
use tokio::task::JoinSet;

use super::Bulk;

/// Longest that the others are waited for.
const EVIDENCE_TIMEOUT: Duration = Duration::from_millis(300);

impl Bulk {
    /// Asks all members at once; the first that has it counts. With what became of a node, when one
    /// is asked about.
    pub(crate) async fn evidence(
        self: &Arc<Self>,
        key: &ProcessKey,
        incarnation: Incarnation,
        node: Option<&NodeName>,
    ) -> Option<(Evidence, Option<WhyNot>)> {
        let mut asking = JoinSet::new();
        for host in self.others() {
            let bulk = Arc::clone(self);
            let request = PeerRequest::Evidence(key.clone(), incarnation, node.cloned());
            asking.spawn(async move {
                match bulk.call(host, &request, EVIDENCE_TIMEOUT).await {
                    Ok(PeerResponse::Evidence(Some(found), why_not)) => Some((*found, why_not)),
                    _ => None,
                }
            });
        }
        let first = async {
            while let Some(answered) = asking.join_next().await {
                if let Ok(Some(found)) = answered {
                    return Some(found);
                }
            }
            None
        };
        let found = tokio::time::timeout(EVIDENCE_TIMEOUT, first).await;
        found.ok().flatten()
    }

    /// What this host has written down.
    pub(super) async fn own_evidence(
        &self,
        key: ProcessKey,
        incarnation: Incarnation,
    ) -> Option<Evidence> {
        let decisions = self.decisions.get()?.upgrade()?;
        let looked_up = decisions.look_up(key, incarnation)?;
        // Else the thread could not end while we wait for it.
        drop(decisions);
        looked_up.await.ok().flatten()
    }
}
