//! What can go wrong, sorted by what the caller can do about it.

use std::sync::Arc;

use maitred_protocol::bounds::OutOfBounds;
use maitred_protocol::{FrameError, InvalidName, Rejection, RequestId, Unavailable};
use maitred_transport::{BindError, LinkError, TlsError};

/// Why a request was not answered as wished.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A deterministic no: it will be the same next time, until something is changed.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Nothing was done, and it may be tried again as it is. The client already has, until the
    /// request's time-out.
    #[error("nothing was done, and it can be tried again: {cause}")]
    Unavailable {
        /// The last thing that stood in the way.
        cause: Cause,
    },
    /// The change may or may not have been made. Look (`get`, `list`) before doing it again.
    #[error(
        "it is not known whether the change was made (request {}/{}): {cause}; look before doing it again",
        request_id.client, request_id.sequence
    )]
    Unknown {
        /// Its idempotency key, as the hosts' logs name it.
        request_id: RequestId,
        /// What kept the answer away.
        cause: Cause,
    },
    /// Trying again cannot help: a setting, a certificate or a version must be changed first.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

/// What stood in the way of an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The host said so.
    #[error(transparent)]
    Host(Unavailable),
    /// There is no connection.
    #[error(transparent)]
    Link(LinkError),
    /// No answer came in time.
    #[error("no answer within {millis} ms")]
    Deadline {
        /// The request's time-out.
        millis: u64,
    },
    /// The host does not know either.
    #[error("the host says: {0}")]
    Answer(String),
    /// The host has forgotten the session that the change was sent under.
    #[error("the session has been forgotten by the hosts")]
    SessionLost,
    /// A file (a snapshot, recorded inputs) arrived cut short or altered.
    #[error("the file arrived damaged: {0}")]
    Damaged(&'static str),
    /// The node has no session just now.
    #[error("the node is not registered just now; it registers again by itself")]
    NotRegistered,
    /// This client, or this node, has been closed.
    #[error("closed by this program")]
    Closed,
}

/// What must be changed before anything can work.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Fatal {
    /// Certificates or keys cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No host accepts a connection, and none will.
    #[error("cannot talk to {endpoint}: {source}")]
    Link {
        /// Which host.
        endpoint: String,
        /// Why.
        source: LinkError,
    },
    /// No local UDP port can be had.
    #[error(transparent)]
    Port(#[from] Arc<BindError>),
    /// A message cannot be sent, or what came is not one.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The host answered something else than was asked.
    #[error("the host did not answer with {expected}; upgrade the older of the two programs")]
    Answer {
        /// What should have come.
        expected: &'static str,
    },
    /// The client was not told what it needs.
    #[error("{what} is missing; give it to the builder before connecting")]
    Missing {
        /// What.
        what: &'static str,
    },
    /// A setting is out of bounds.
    #[error(transparent)]
    OutOfBounds(#[from] OutOfBounds),
    /// What was received could not be written.
    #[error("cannot write what was received: {0}")]
    Write(String),
    /// The node's own thread could not be started.
    #[error("cannot start the node's thread: {0}; is the limit of threads or files reached?")]
    Thread(String),
}

impl Error {
    /// Whether it has to do with certificates, rather than with versions or settings.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        match self {
            Self::Fatal(Fatal::Tls(_)) => true,
            Self::Fatal(Fatal::Port(bind)) => matches!(**bind, BindError::Tls(_)),
            Self::Fatal(Fatal::Link { source, .. }) => source.is_certificate(),
            _ => false,
        }
    }

    pub(crate) fn link(error: LinkError) -> Self {
        Self::Unavailable {
            cause: Cause::Link(error),
        }
    }

    pub(crate) fn closed() -> Self {
        Self::Unavailable {
            cause: Cause::Closed,
        }
    }
}

impl From<BindError> for Error {
    fn from(error: BindError) -> Self {
        Self::Fatal(Fatal::Port(Arc::new(error)))
    }
}

impl From<InvalidName> for Error {
    fn from(error: InvalidName) -> Self {
        Self::Fatal(Fatal::OutOfBounds(OutOfBounds::Name(error)))
    }
}
