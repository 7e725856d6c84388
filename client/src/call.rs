//! One request from its first try to its answer: sessions, retries, and what is known in the end.
//!
//! Holds: a change keeps its request id over every retry within one session, so the hosts carry it
//! out at most once; a change that may have reached a host and whose session is gone is never sent
//! again, but reported as unknown.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use maitred_protocol::{
    ClientId, CreateProcess, Rejection, Request, RequestId, Response, Unavailable,
};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::conn::{Conn, Failure};
use crate::error::{Cause, Error, Fatal};
use crate::pool::{Pool, Route, jittered};

/// Wait before a refused request is tried again, at first and at most.
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);
/// The same while a leader is looked for: elections are short, and asking in vain costs little.
const LEADER_BACK_OFF_MAX: Duration = Duration::from_millis(250);
/// Longest that the first host asked may take to enrol a node.
const ENROLL_ANSWER: Duration = Duration::from_millis(400);
/// With less time than this left, nothing is tried again.
const TRY_MIN: Duration = Duration::from_millis(5);

/// Something that is asked of a host, as often as it takes.
pub(crate) trait Ask: Send {
    /// Whether it changes something, and so needs a session.
    fn is_change(&self) -> bool;
    /// Puts the session in.
    fn set_client(&mut self, client: ClientId);
    /// Longest that it is asked again because an earlier life of its key may still go on; none for
    /// as long as anything else.
    fn held_max(&self) -> Option<Duration> {
        None
    }
    /// Longest that one host may take for an answer before another one is asked, at first; it doubles
    /// from one to the next. None: a host that lives may take all the time there is.
    fn answer_max(&self) -> Option<Duration> {
        None
    }
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
        if let Some(client) = self.client_mut() {
            *client = new;
        }
    }

    fn held_max(&self) -> Option<Duration> {
        match self {
            Self::CreateProcess(_, create) => deadline(Some(create)),
            Self::CreateParty(_, party) => deadline(party.members.first()),
            _ => None,
        }
    }

    fn answer_max(&self) -> Option<Duration> {
        // A lease runs out meanwhile, and a dead host's connection takes two seconds to be known as one.
        let enrols = matches!(self, Self::AttachNode { .. } | Self::RegisterNode(..));
        enrols.then_some(ENROLL_ANSWER)
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
    /// Longest that anybody is looked for who takes a request; what it may take then is its own.
    patience: Duration,
}

/// A request under way.
struct Attempt {
    client: ClientId,
    id: u64,
    /// Whether a host may have got it and not said that it did nothing.
    sent: bool,
    change: bool,
    route: Route,
    /// The way that it was asked over last, in vain: another one may do better.
    avoid: Option<u64>,
    /// Whether a hint at the leader has been followed.
    hinted: bool,
    /// Until when somebody is looked for who takes it.
    patience: Instant,
    /// Until when it may find its key held.
    held: Instant,
}

/// When to ask again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    AtOnce,
    /// After a pause, or as soon as another leader is known.
    WithLeader,
    Later,
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

    /// Whether nobody has taken it for as long as somebody is looked for.
    fn is_nobodys(&self, cause: &Cause) -> bool {
        let nobody = matches!(
            cause,
            Cause::Link(_) | Cause::Host(Unavailable::NotLeader { .. })
        );
        nobody && !self.sent && self.patience.saturating_duration_since(Instant::now()) < TRY_MIN
    }
}

impl Caller {
    pub(crate) fn new(pool: Arc<Pool>, patience: Duration) -> Self {
        Self {
            patience,
            pool,
            session: AtomicU64::new(0),
            opening: Mutex::new(()),
            sequence: AtomicU64::new(1),
        }
    }

    /// Checks a request's bounds, then [`Caller::ask`]s the leader.
    pub(crate) async fn call(
        &self,
        request: Request,
        timeout: Duration,
    ) -> Result<Response, Error> {
        let answer = self.call_on(Route::Leader, request, timeout).await;
        answer.map(|(response, _)| response)
    }

    /// As [`Caller::call`], by any route, and says which connection the answer came over.
    pub(crate) async fn call_on(
        &self,
        route: Route,
        mut request: Request,
        timeout: Duration,
    ) -> Result<(Response, Arc<Conn>), Error> {
        if let Err(error) = request.check() {
            return Err(Error::Rejected(Rejection::Invalid(error.to_string())));
        }
        self.ask(route, &mut request, timeout).await
    }

    /// Asks until there is an answer, or `timeout` is over.
    pub(crate) async fn ask(
        &self,
        route: Route,
        what: &mut impl Ask,
        timeout: Duration,
    ) -> Result<(Response, Arc<Conn>), Error> {
        let deadline = Instant::now() + timeout;
        let patience = deadline.min(Instant::now() + self.patience);
        let mut attempt = Attempt {
            client: ClientId(0),
            id: 0,
            sent: false,
            change: what.is_change(),
            route,
            avoid: None,
            hinted: false,
            patience,
            held: deadline.min(Instant::now() + what.held_max().unwrap_or(timeout)),
        };
        let mut wait = BACK_OFF_MIN;
        let mut answer_max = what.answer_max();
        loop {
            if attempt.id == 0 {
                if attempt.change {
                    attempt.client = self.open_session(deadline, timeout).await?;
                    what.set_client(attempt.client);
                }
                attempt.id = self.sequence.fetch_add(1, Ordering::Relaxed);
            }
            let until = if attempt.sent { deadline } else { patience };
            let picked = self.pool.pick(attempt.route, attempt.avoid, until);
            let (way, conn) = match picked.await {
                Ok(found) => found,
                Err(Error::Unavailable { cause }) => return Err(attempt.failed(cause)),
                Err(other) if attempt.sent => return Err(attempt.failed(late(timeout, &other))),
                Err(other) => return Err(other),
            };
            let soon = answer_max.map(|max| Instant::now() + max);
            let by = soon.unwrap_or(deadline).min(deadline);
            let answer = what.ask(&conn, attempt.id, by).await;
            let (cause, again) = match answer {
                Ok(Response::Rejected(rejection)) => return Err(Error::Rejected(rejection)),
                Ok(Response::Unavailable(why)) => self.refused(&mut attempt, way, why)?,
                Ok(Response::Unknown(text)) => {
                    attempt.sent = true;
                    attempt.avoid = Some(way);
                    (Cause::Answer(text), Again::WithLeader)
                }
                Ok(response) => return Ok((response, conn)),
                Err(Failure::Frame(error)) => return Err(Error::Fatal(Fatal::Frame(error))),
                Err(Failure::TimedOut { sent }) => {
                    attempt.sent |= sent;
                    if deadline.saturating_duration_since(Instant::now()) < TRY_MIN {
                        return Err(attempt.failed(deadline_cause(timeout)));
                    }
                    attempt.avoid = Some(way);
                    answer_max = answer_max.map(|max| max * 2);
                    continue;
                }
                Err(Failure::Lost { sent, cause }) => {
                    attempt.sent |= sent;
                    attempt.avoid = Some(way);
                    (Cause::Link(cause), Again::WithLeader)
                }
            };
            let until = match &cause {
                Cause::Host(Unavailable::Held(_)) => attempt.held,
                _ => deadline,
            };
            let left = until.saturating_duration_since(Instant::now());
            if left < TRY_MIN || attempt.is_nobodys(&cause) {
                return Err(attempt.failed(cause));
            }
            // Never so long that no time is left for another try.
            let pause = jittered(wait).min(left / 2);
            let max = match again {
                Again::AtOnce => continue,
                Again::WithLeader => {
                    self.pool.pause(way, pause).await;
                    LEADER_BACK_OFF_MAX
                }
                Again::Later => {
                    tokio::time::sleep(pause).await;
                    BACK_OFF_MAX
                }
            };
            wait = (wait * 2).min(max);
        }
    }

    /// What to make of a retryable no: its cause, and when to ask again. It says that nothing was
    /// done this time, and nothing of earlier times: what was sent before stays sent.
    fn refused(
        &self,
        attempt: &mut Attempt,
        way: u64,
        why: Unavailable,
    ) -> Result<(Cause, Again), Error> {
        let again = match &why {
            Unavailable::NoSession if attempt.change => {
                self.forget_session(attempt.client);
                if attempt.sent {
                    return Err(attempt.failed(Cause::SessionLost));
                }
                attempt.id = 0;
                Again::Later
            }
            Unavailable::NotLeader { leader } => {
                self.pool.refused(way, leader.as_deref());
                attempt.avoid = Some(way);
                // A read that this host could not serve is the leader's.
                attempt.route = Route::Leader;
                // The first hint is worth following straight away.
                let first = leader.is_some() && !std::mem::replace(&mut attempt.hinted, true);
                if first {
                    Again::AtOnce
                } else {
                    Again::WithLeader
                }
            }
            Unavailable::ShuttingDown => {
                self.pool.refused(way, None);
                attempt.avoid = Some(way);
                Again::WithLeader
            }
            Unavailable::NoSession
            | Unavailable::Overloaded(_)
            | Unavailable::DiskFull(_)
            | Unavailable::Held(_) => Again::Later,
        };
        Ok((Cause::Host(why), again))
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
        let left = left.min(self.patience);
        match Box::pin(self.call(Request::OpenSession, left)).await? {
            Response::Session(client) => {
                self.session.store(client.0, Ordering::Relaxed);
                Ok(client)
            }
            _ => Err(wrong_answer("a session")),
        }
    }

    /// Ends the session, if there is one: a courtesy, so that the hosts need not remember it.
    pub(crate) async fn close_session(&self, within: Duration) {
        let client = ClientId(self.session.swap(0, Ordering::Relaxed));
        let Some(conn) = self.pool.connected().filter(|_| client.0 != 0) else {
            return;
        };
        let id = self.sequence.fetch_add(1, Ordering::Relaxed);
        let deadline = Instant::now() + within;
        let request = Request::CloseSession(client);
        if let Err(error) = conn.exchange(id, &request, deadline).await {
            tracing::debug!(
                ?error,
                "the session was not ended; the hosts forget it in time"
            );
        }
    }

    fn forget_session(&self, client: ClientId) {
        let order = Ordering::Relaxed;
        let _ = self.session.compare_exchange(client.0, 0, order, order);
    }
}

fn deadline(create: Option<&CreateProcess>) -> Option<Duration> {
    let millis = create.map_or(0, |create| create.options.deadline_ms);
    (millis > 0).then(|| Duration::from_millis(millis.into()))
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
