//! What goes into a node's agent and what comes out of it.

use maitred_protocol::{
    Incarnation, KeepAliveAck, NodeAnswer, NodeCommand, NodeEpoch, ProcessKey, Rejection, Verdict,
};

/// A process that has been started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spawned {
    /// What the node calls it; at most 256 bytes.
    pub pid: String,
    /// What callers are to know; at most 4 KiB.
    pub share: Vec<u8>,
}

/// Why a process was not started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpawnError {
    /// Not now; another node may do.
    #[error("busy: {0}")]
    Busy(String),
    /// The start went wrong; another node is tried.
    #[error("failed: {0}")]
    Failed(String),
}

/// Why a registration or an attachment has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No answer, or a no that may be another one next time.
    Unavailable,
    /// The session has ended.
    Ended,
    /// The registry does not know the session (any more), since it was restored from an older
    /// snapshot: nobody else can have what runs here because of it.
    Forgotten,
    /// Another process has registered the name since.
    Superseded,
}

impl Refused {
    /// What a rejection means.
    #[must_use]
    pub fn by(rejection: &Rejection) -> Self {
        match rejection {
            Rejection::NotFound(_) => Self::Forgotten,
            Rejection::Superseded { .. } => Self::Superseded,
            _ => Self::Ended,
        }
    }
}

/// What happens to a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Nothing but the passing of time. Due at [`super::Agent::next_us`].
    Tick,
    /// A host commands something; the answer will carry the same tag.
    Command(u64, NodeCommand),
    /// An [`Effect::Spawn`] has come to its end.
    SpawnEnded(ProcessKey, Incarnation, Result<Spawned, SpawnError>),
    /// An [`Effect::Stop`] has: the process is gone.
    StopEnded(ProcessKey, Incarnation),
    /// A process has ended by itself, and is to be forgotten.
    Exited(ProcessKey, Incarnation),
    /// A process has ended by itself; why. Its callback may have a say in what becomes of it.
    ExitedBecause(ProcessKey, Incarnation, String),
    /// The node has registered a process that it runs itself, under this session.
    Owned(NodeEpoch, ProcessKey, Incarnation, Spawned),
    /// What the registry has and what runs here may differ without anybody's knowing: they are to be
    /// compared, as after a reconnect.
    Reconcile,
    /// A keep-alive is answered.
    Acknowledged(KeepAliveAck),
    /// Host `from` says that `host` leads in `term`: every notice of that kind, from all hosts.
    Leader {
        /// Who says so.
        from: u64,
        /// Who leads; none while nobody does.
        host: Option<u64>,
        /// The Raft term.
        term: u64,
    },
    /// An [`Effect::Enroll`] with this number is answered: session and verdicts, and when it was
    /// first sent. The node is commanded by the host that answered from now on.
    Enrolled {
        /// Which.
        number: u64,
        /// The number of the host.
        host: u64,
        /// The session.
        epoch: NodeEpoch,
        /// In the order of the inventory that was sent.
        verdicts: Vec<Verdict>,
        /// When the request was first sent.
        sent_us: u64,
    },
    /// An [`Effect::Enroll`] has failed.
    EnrollFailed {
        /// Which.
        number: u64,
        /// Why.
        refused: Refused,
    },
    /// An [`Effect::Adopt`] is answered.
    Adopted {
        /// The session that it was asked in.
        epoch: NodeEpoch,
        /// Which process.
        key: ProcessKey,
        /// Which life of it.
        incarnation: Incarnation,
        /// What that life is called from now on; none when the key is taken.
        new: Option<Incarnation>,
    },
    /// The connection that commands came through is gone.
    Disconnected,
    /// The node is to leave.
    Shutdown,
}

/// What a node is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Answer a command.
    Answer(u64, NodeAnswer),
    /// Start a process, then give [`Input::SpawnEnded`]. When that was a no, the same life may come
    /// again: another try.
    Spawn {
        /// Which.
        key: ProcessKey,
        /// Which life of it.
        incarnation: Incarnation,
        /// From the callback.
        payload: Vec<u8>,
        /// Milliseconds after which nobody waits for it.
        deadline_ms: u32,
    },
    /// Stop a process, then give [`Input::StopEnded`].
    Stop(ProcessKey, Incarnation),
    /// Send a keep-alive now.
    KeepAlive {
        /// The session.
        epoch: NodeEpoch,
        /// Grows with each.
        sequence: u64,
        /// Milliseconds of the longest stop so far.
        stop_ms: u32,
        /// On the control stream, since datagrams do not seem to come through.
        by_stream: bool,
    },
    /// Register (no session) or attach (a session) with the leader, then give [`Input::Enrolled`]
    /// or [`Input::EnrollFailed`] with the same number. Takes the place of an earlier one that is
    /// still under way.
    Enroll {
        /// Pairs the answer with this.
        number: u64,
        /// The session to attach to.
        epoch: Option<NodeEpoch>,
        /// The last session that this node had, for a registration.
        last_epoch: Option<NodeEpoch>,
        /// What runs here, or may. A key may be named twice: with the life that has its place, and one
        /// that is still being stopped.
        inventory: Vec<(ProcessKey, Incarnation)>,
    },
    /// Have the record of this life, which has ended, removed.
    Delete(ProcessKey, Incarnation),
    /// Have it known that this life has ended by itself, and why, until there is an answer. At most 512
    /// bytes.
    Report(ProcessKey, Incarnation, String),
    /// Have a life registered anew, without an incarnation, until there is an answer; then give
    /// [`Input::Adopted`].
    Adopt {
        /// In which session.
        epoch: NodeEpoch,
        /// Which process.
        key: ProcessKey,
        /// Which life of it.
        incarnation: Incarnation,
        /// What is to be registered.
        spawned: Spawned,
    },
    /// Tell the game that the life has another incarnation: first the old one, then the new one.
    Adopted(ProcessKey, Incarnation, Incarnation),
    /// Tell the game that the lease is lost. Stops follow.
    LeaseLost,
    /// The node ends. Before that end its session, if one is given: then all has stopped. What is left
    /// otherwise is waited for by the registry, until the lease has run out and the kill bound passed.
    Leave(Option<NodeEpoch>),
}
