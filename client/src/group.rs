//! The verbs of the group itself: its members, its leader, and how each host is.

use std::sync::Arc;
use std::time::Duration;

use maitred_protocol::{
    HostName, MemberRecord, Members, Rejection, Request, Response, Revision, Status,
};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::call::wrong_answer;
use crate::conn::{Conn, Failure};
use crate::error::{Cause, Error, Fatal};
use crate::verbs::{Client, NO_SESSION, answer};

/// Longest that each host may take to say how it is, when all are asked.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// What a host says of itself.
#[derive(Debug, Clone)]
pub struct HostStatus {
    /// Its number; none when it was never reached.
    pub host: Option<u64>,
    /// The address that it is called at.
    pub endpoint: String,
    /// How it is, or why it does not say.
    pub status: Result<Status, Error>,
}

impl Client {
    /// The hosts of the cluster. The leader is asked if one is known, since only it knows how far
    /// each is; else any host answers with what it knows.
    pub async fn members(&self) -> Result<Members, Error> {
        answer!(self.call(Request::ListMembers), "the members",
            Response::Members(members) => *members)
    }

    /// Announces a host that is to belong to the cluster, reached at `address` (`HOST:PORT`, 1 to
    /// 256 bytes). It becomes a learner when it comes, and a voter when it has caught up.
    pub async fn add_member(
        &self,
        name: HostName,
        address: impl Into<String>,
    ) -> Result<MemberRecord, Error> {
        self.member(Request::AddMember {
            client: NO_SESSION,
            name,
            address: address.into(),
        })
        .await
    }

    /// Announces a host that takes the place of the member `host`, under its name and, unless
    /// another one is given, at its address.
    pub async fn replace_member(
        &self,
        host: u64,
        address: Option<String>,
    ) -> Result<MemberRecord, Error> {
        self.member(Request::ReplaceMember {
            client: NO_SESSION,
            host,
            address,
        })
        .await
    }

    /// Takes a host out of the cluster. Refused when those that are left could not commit.
    pub async fn remove_member(&self, host: u64) -> Result<Revision, Error> {
        self.done(Request::RemoveMember {
            client: NO_SESSION,
            host,
        })
        .await
    }

    /// Hands leadership over; to the host that has most of the log when none is named. When the
    /// answer is lost the new leader is asked the same, so without a name it may go on to a third.
    pub async fn transfer_leader(&self, to: Option<u64>) -> Result<Revision, Error> {
        self.done(Request::TransferLeader { to }).await
    }

    /// The number of the leader, as far as the hosts have said.
    #[must_use]
    pub fn leader(&self) -> Option<u64> {
        self.caller().pool.leader()
    }

    /// How exactly this host is.
    ///
    /// # Errors
    /// [`Rejection::NotFound`] when there is no connection to a host of this number.
    pub async fn status_of(&self, host: u64) -> Result<Status, Error> {
        let conn = self.caller().pool.conn_to(host);
        let conn =
            conn.ok_or_else(|| Rejection::NotFound(format!("a connection to host {host}")))?;
        let id = self.caller().pool.own_id();
        status(&conn, id, self.settings().request_timeout).await
    }

    /// How every host is that this client calls; they are asked side by side, for up to
    /// 2 s each, after as long at most for calls that have only begun. In the order of their numbers, those that were never reached last.
    pub async fn status_all(&self) -> Vec<HostStatus> {
        let mut asked = JoinSet::new();
        let deadline = Instant::now() + STATUS_TIMEOUT;
        for called in self.caller().pool.called(deadline).await {
            let id = self.caller().pool.own_id();
            asked.spawn(async move {
                let status = match called.conn {
                    Ok(conn) => status(&conn, id, STATUS_TIMEOUT).await,
                    Err(error) => Err(error),
                };
                HostStatus {
                    host: called.host,
                    endpoint: called.endpoint,
                    status,
                }
            });
        }
        let mut all = asked.join_all().await;
        all.sort_by(|a, b| {
            let order = |status: &HostStatus| (status.host.is_none(), status.host);
            order(a)
                .cmp(&order(b))
                .then_with(|| a.endpoint.cmp(&b.endpoint))
        });
        all
    }

    async fn member(&self, request: Request) -> Result<MemberRecord, Error> {
        answer!(self.call(request), "a member", Response::Member(member) => *member)
    }
}

async fn status(conn: &Arc<Conn>, id: u64, within: Duration) -> Result<Status, Error> {
    let deadline = Instant::now() + within;
    let millis = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
    let cause = match conn.exchange(id, &Request::Status, deadline).await {
        Ok(Response::Status(status)) => return Ok(*status),
        Ok(Response::Rejected(rejection)) => return Err(rejection.into()),
        Ok(Response::Unavailable(why)) => Cause::Host(why),
        Ok(_) => return Err(wrong_answer("its status")),
        Err(Failure::Frame(error)) => return Err(Fatal::Frame(error).into()),
        Err(Failure::TimedOut { .. }) => Cause::Deadline { millis },
        Err(Failure::Lost { cause, .. }) => Cause::Link(cause),
    };
    Err(Error::Unavailable { cause })
}
