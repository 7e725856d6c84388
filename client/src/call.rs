//! One request from its first try to its answer: sessions, retries, and what is known in the end.
//!
//! Holds: a change keeps its request id over every retry within one session, so the hosts carry it
//! out at most once; a change that may have reached a host and whose session is gone is never sent
//! again, but reported as unknown.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use maitred_protocol::{ClientId, Rejection, Request, RequestId, Response, Unavailable};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::conn::{Conn, Failure};
use crate::error::{Cause, Error, Fatal};
use crate::pool::{Pool, jittered};

/// Wait before a refused request is tried again, at first and at most.
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);

/// Something that is asked of a host, as often as it takes.
pub(crate) trait Ask: Send {
    /// Whether it changes something, and so needs a session.
    fn is_change(&self) -> bool;
    /// Puts the session in.
    fn set_client(&mut self, client: ClientId);
    /// Asks once.
    fn ask(
        &mut self,
        conn: &Conn,
        id: u64,
        deadline: Instant,
    ) -> impl Future<Output = Result<Response, Failure>> + Send;
}

impl Ask for Request {
    fn is_change(&self) -> bool {
        self.client().is_some()
    }

    fn set_client(&mut self, new: ClientId) {
        match self {
            Self::CreateProcess(client, _)
            | Self::SetProcess(client, _)
            | Self::DelProcess { client, .. }
            | Self::RegisterNode(client, _)
            | Self::UpdateNode { client, .. }
            | Self::DeregisterNode { client, .. }
            | Self::CordonNode { client, .. }
            | Self::ActivateModule { client, .. }
            | Self::RollbackModule(client, _)
            | Self::RemoveModule(client, ..)
            | Self::PutType(client, _) => *client = new,
            Self::OpenSession
            | Self::GetProcess { .. }
            | Self::ListProcesses(_)
            | Self::AttachNode { .. }
            | Self::GetNode(_)
            | Self::ListNodes
            | Self::GetModule(_)
            | Self::ListModules
            | Self::GetType(_)
            | Self::ListTypes
            | Self::Explain(_)
            | Self::Plan(_)
            | Self::Status => {}
        }
    }

    fn ask(
        &mut self,
        conn: &Conn,
        id: u64,
        deadline: Instant,
    ) -> impl Future<Output = Result<Response, Failure>> + Send {
        conn.exchange(id, self, deadline)
    }
}

/// Makes requests over a pool of connections, in one session.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) pool: Arc<Pool>,
    /// The session; 0 before there is one.
    session: AtomicU64,
    /// One opens a session, the others wait for it.
    opening: Mutex<()>,
    sequence: AtomicU64,
}

/// A request under way.
struct Attempt {
    client: ClientId,
    id: u64,
    /// Whether a host may have got it and not said that it did nothing.
    sent: bool,
    change: bool,
    /// Whether a hint at the leader has been followed.
    hinted: bool,
}

impl Attempt {
    fn failed(&self, cause: Cause) -> Error {
        if self.change && self.sent {
            let (client, sequence) = (self.client, self.id);
            let request_id = RequestId { client, sequence };
            return Error::Unknown { request_id, cause };
        }
        Error::Unavailable { cause }
    }
}

impl Caller {
    pub(crate) fn new(pool: Arc<Pool>) -> Self {
        Self {
            pool,
            session: AtomicU64::new(0),
            opening: Mutex::new(()),
            sequence: AtomicU64::new(1),
        }
    }

    /// Checks a request's bounds, then [`Caller::ask`]s.
    pub(crate) async fn call(
        &self,
        request: Request,
        timeout: Duration,
    ) -> Result<Response, Error> {
        self.call_on(request, timeout)
            .await
            .map(|(response, _)| response)
    }

    /// As [`Caller::call`], and says which connection the answer came over.
    pub(crate) async fn call_on(
        &self,
        mut request: Request,
        timeout: Duration,
    ) -> Result<(Response, Arc<Conn>), Error> {
        if let Err(error) = request.check() {
            return Err(Error::Rejected(Rejection::Invalid(error.to_string())));
        }
        self.ask(&mut request, timeout).await
    }

    /// Asks until there is an answer, or `timeout` is over.
    pub(crate) async fn ask(
        &self,
        what: &mut impl Ask,
        timeout: Duration,
    ) -> Result<(Response, Arc<Conn>), Error> {
        let deadline = Instant::now() + timeout;
        let mut attempt = Attempt {
            client: ClientId(0),
            id: 0,
            sent: false,
            change: what.is_change(),
            hinted: false,
        };
        let mut wait = BACK_OFF_MIN;
        loop {
            if attempt.id == 0 {
                if attempt.change {
                    attempt.client = self.open_session(deadline, timeout).await?;
                    what.set_client(attempt.client);
                }
                attempt.id = self.sequence.fetch_add(1, Ordering::Relaxed);
            }
            let (index, conn) = match self.pool.pick(deadline).await {
                Ok(found) => found,
                Err(Error::Unavailable { cause }) => return Err(attempt.failed(cause)),
                Err(other) if attempt.sent => return Err(attempt.failed(late(timeout, &other))),
                Err(other) => return Err(other),
            };
            let answer = what.ask(&conn, attempt.id, deadline).await;
            let (cause, at_once) = match answer {
                Ok(Response::Rejected(rejection)) => return Err(Error::Rejected(rejection)),
                Ok(Response::Unavailable(why)) => self.refused(&mut attempt, index, why)?,
                Ok(Response::Unknown(text)) => {
                    attempt.sent = true;
                    (Cause::Answer(text), false)
                }
                Ok(response) => return Ok((response, conn)),
                Err(Failure::Frame(error)) => return Err(Error::Fatal(Fatal::Frame(error))),
                Err(Failure::TimedOut { sent }) => {
                    attempt.sent |= sent;
                    return Err(attempt.failed(deadline_cause(timeout)));
                }
                Err(Failure::Lost { sent, cause }) => {
                    attempt.sent |= sent;
                    (Cause::Link(cause), false)
                }
            };
            let pause = if at_once {
                Duration::ZERO
            } else {
                jittered(wait)
            };
            if Instant::now() + pause >= deadline {
                return Err(attempt.failed(cause));
            }
            if !at_once {
                tokio::time::sleep(pause).await;
                wait = (wait * 2).min(BACK_OFF_MAX);
            }
        }
    }

    /// What to make of a retryable no: its cause, and whether to ask again without a pause.
    fn refused(
        &self,
        attempt: &mut Attempt,
        index: usize,
        why: Unavailable,
    ) -> Result<(Cause, bool), Error> {
        let mut at_once = false;
        match &why {
            Unavailable::NoSession if attempt.change => {
                self.forget_session(attempt.client);
                if attempt.sent {
                    return Err(attempt.failed(Cause::SessionLost));
                }
                attempt.id = 0;
            }
            Unavailable::NotLeader { leader } => {
                self.pool.prefer_another(index, leader.as_deref());
                // The first hint is worth following straight away.
                at_once = leader.is_some() && !attempt.hinted;
                attempt.hinted = true;
            }
            Unavailable::ShuttingDown => self.pool.prefer_another(index, None),
            Unavailable::NoSession | Unavailable::Overloaded(_) | Unavailable::DiskFull(_) => {}
        }
        Ok((Cause::Host(why), at_once))
    }

    async fn open_session(&self, deadline: Instant, timeout: Duration) -> Result<ClientId, Error> {
        let known = || match self.session.load(Ordering::Relaxed) {
            0 => None,
            id => Some(ClientId(id)),
        };
        if let Some(client) = known() {
            return Ok(client);
        }
        // Whoever opens it may have far more time than this caller.
        let opening = timeout_at(deadline, self.opening.lock()).await;
        let _one = opening.map_err(|_| Error::Unavailable {
            cause: deadline_cause(timeout),
        })?;
        if let Some(client) = known() {
            return Ok(client);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        match Box::pin(self.call(Request::OpenSession, left)).await? {
            Response::Session(client) => {
                self.session.store(client.0, Ordering::Relaxed);
                Ok(client)
            }
            _ => Err(wrong_answer("a session")),
        }
    }

    fn forget_session(&self, client: ClientId) {
        let order = Ordering::Relaxed;
        let _ = self.session.compare_exchange(client.0, 0, order, order);
    }
}

pub(crate) fn wrong_answer(expected: &'static str) -> Error {
    Error::Fatal(Fatal::Answer { expected })
}

fn deadline_cause(timeout: Duration) -> Cause {
    let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    Cause::Deadline { millis }
}

/// What kept a change's answer away, when meanwhile no host can be reached for good.
fn late(timeout: Duration, error: &Error) -> Cause {
    match error {
        Error::Fatal(Fatal::Link { source, .. }) => Cause::Link(source.clone()),
        _ => deadline_cause(timeout),
    }
}
