//! What goes into a node's agent and what comes out of it.

use maitred_protocol::{
    Incarnation, KeepAliveAck, NodeAnswer, NodeCommand, NodeEpoch, ProcessKey, Verdict,
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
    /// A process has ended by itself.
    Exited(ProcessKey, Incarnation),
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
    /// An [`Effect::Enroll`] has failed; `over` when the registry says that the session has ended.
    EnrollFailed {
        /// Which.
        number: u64,
        /// Whether the session has ended.
        over: bool,
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
    /// Start a process, then give [`Input::SpawnEnded`].
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
    KeepAlive(NodeEpoch, u64),
    /// Register (no session) or attach (a session) with the leader, then give [`Input::Enrolled`]
    /// or [`Input::EnrollFailed`] with the same number. Takes the place of an earlier one that is
    /// still under way.
    Enroll {
        /// Pairs the answer with this.
        number: u64,
        /// The session to attach to.
        epoch: Option<NodeEpoch>,
        /// What runs here.
        inventory: Vec<(ProcessKey, Incarnation)>,
    },
    /// Have the record of this life removed.
    Delete(ProcessKey, Incarnation),
    /// Tell the game that the lease is lost. Stops follow.
    LeaseLost,
    /// Everything has stopped: end the session, if there is one, and then the node.
    Leave(Option<NodeEpoch>),
}
