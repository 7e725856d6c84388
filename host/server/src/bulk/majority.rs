//! Asking all other hosts for something until most of those who vote have done it.

use std::sync::Arc;
use std::time::Duration;

use maitred_protocol::{MemberRecord, PeerRequest, PeerResponse, Response};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::wire::CallError;
use super::{Bulk, votes};
use crate::metrics::Metrics;

/// Pause before a host that could not do it is asked again.
const AGAIN: Duration = Duration::from_millis(250);

/// How long a host that cannot be reached is tried: whoever waits is to hear of it soon.
const UNREACHED: Duration = Duration::from_secs(10);

/// What is asked of every host.
pub(super) struct Wanted {
    pub(super) request: PeerRequest,
    /// The answer that says that it is done.
    pub(super) done: PeerResponse,
    /// Longest that all of it may take.
    pub(super) within: Duration,
}

/// Too few have done it.
pub(super) struct TooFew {
    pub(super) have: usize,
    /// How many vote.
    pub(super) of: usize,
    /// How many of those would have been enough.
    pub(super) most: usize,
    /// Why not, host by host.
    pub(super) why: String,
    /// Whether enough of them said that they will not, so that asking again changes nothing.
    pub(super) refused: bool,
}

impl Bulk {
    /// Asks the members, and answers once most of those who vote have done it, this host included,
    /// which has. `told` hears how many of how many have, whenever that changes. The others go on,
    /// within the same time.
    ///
    /// # Errors
    /// The replica's no, when nobody can say who the members are; else [`TooFew`].
    pub(super) async fn by_most(
        self: &Arc<Self>,
        wanted: Wanted,
        told: impl Fn(u32, u32),
    ) -> Result<Result<(), TooFew>, Box<Response>> {
        let members = self.members().await?.items;
        let voters = members.iter().filter(|member| votes(member.role)).count();
        let most = voters / 2 + 1;
        let me = members.iter().find(|member| member.host == self.me.host);
        let mut have = usize::from(me.is_some_and(|me| votes(me.role)));
        let mut refused = 0;
        told(have as u32, voters as u32);
        if have >= most {
            return Ok(Ok(()));
        }
        let mut asking = JoinSet::new();
        let (wanted, deadline) = (Arc::new(wanted), Instant::now());
        let deadline = deadline + wanted.within;
        let others = members
            .into_iter()
            .filter(|member| member.host != self.me.host);
        for member in others {
            let (bulk, wanted) = (Arc::clone(self), Arc::clone(&wanted));
            asking.spawn(async move {
                let done = bulk.insist(member.host, &wanted, deadline).await;
                (member, done)
            });
        }
        let mut why = Vec::new();
        while have < most {
            let Some(answered) = asking.join_next().await else {
                let why = why.join("; ");
                return Ok(Err(TooFew {
                    have,
                    of: voters,
                    most,
                    why,
                    refused: voters - refused < most,
                }));
            };
            let (member, done): (MemberRecord, _) = match answered {
                Ok(answered) => answered,
                Err(error) => {
                    tracing::error!(%error, "asking a host died");
                    continue;
                }
            };
            let counts = usize::from(votes(member.role));
            match done {
                Ok(()) => {
                    have += counts;
                    told(have as u32, voters as u32);
                }
                Err(error) => {
                    refused += counts * usize::from(matches!(error, CallError::Refused(_)));
                    why.push(format!("host {} ({}): {error}", member.name, member.host));
                }
            }
        }
        asking.detach_all();
        Ok(Ok(()))
    }

    /// Asks one host until it has done it, says that it will not, or time is up.
    async fn insist(&self, host: u64, wanted: &Wanted, deadline: Instant) -> Result<(), CallError> {
        let began = Instant::now();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let called = tokio::select! {
                called = tokio::time::timeout(left, self.call(host, &wanted.request, left)) => {
                    called.unwrap_or(Err(CallError::Silent(left)))
                }
                () = self.stopped() => {
                    let why = "this host is shutting down".to_owned();
                    return Err(CallError::Unavailable(why));
                }
            };
            let error = match called {
                Ok(response) if response == wanted.done => {
                    if response == PeerResponse::Held {
                        Metrics::count(&self.metrics.blobs_held);
                    }
                    return Ok(());
                }
                Ok(PeerResponse::Refused(why)) => return Err(CallError::Refused(why)),
                Ok(other) => CallError::of(other),
                Err(error) => error,
            };
            let unreached = matches!(error, CallError::Dial(_) | CallError::Unknown);
            let now = Instant::now();
            if now + AGAIN >= deadline || (unreached && now >= began + UNREACHED) {
                return Err(error);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}
