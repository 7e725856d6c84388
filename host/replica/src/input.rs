//! The door in: everything that can happen to a replica.

use maitred_protocol::{
    ClientId, Incarnation, Join, KeepAlive, ModuleName, NodeEpoch, ProcessKey, Request,
};
use maitred_registry::decide::{Decision, LaneId};
use maitred_registry::{PushModule, Registry};
use raft::eraftpb::Message;

/// The time, as the caller's clocks have it. Nothing in this crate reads one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Microseconds of a clock that never goes back and counts while the machine sleeps.
    pub mono_us: u64,
    /// Milliseconds since 1970.
    pub wall_ms: u64,
}

/// A local handle for an answer: whoever asks makes it up, and gets it back with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A module whose bytes have been validated and are on this host's disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Push {
    /// The session of the client.
    pub client: ClientId,
    /// What it is, as its entry will say.
    pub module: PushModule,
}

/// How a spawn went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spawned {
    /// The node runs the process.
    Started {
        /// What the node calls it.
        pid: String,
        /// What callers are to know.
        share: Vec<u8>,
    },
    /// Another node may do.
    Elsewhere(String),
    /// The callback wants no further attempt.
    GiveUp(String),
}

/// What a fence module has said of a lost node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is dead; the proof, at most 512 bytes.
    Dead(String),
    /// It is not known, or the node lives.
    Unknown {
        /// Milliseconds after which to ask again.
        again_ms: u32,
    },
    /// The module is not there, or failed. It is asked again, after longer and longer.
    Failed,
}

/// What a callback advises for a process whose life has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// What becomes of it without a hook; also when the callback failed.
    Usual,
    /// The same node again, if that can take it; else as below.
    Here,
    /// Whichever node the selector chooses.
    Elsewhere,
    /// The same, after so many milliseconds.
    BackOff(u32),
    /// Forget it.
    GiveUp,
}

/// How much room the disk has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Disk {
    /// Enough.
    #[default]
    Ok,
    /// Creates are shed; so many bytes are left.
    Low(u64),
}

/// A snapshot that was fetched from a peer. Its file is durable.
#[derive(Debug)]
pub struct Install {
    /// The message that said to fetch it.
    pub message: Message,
    /// What it contains.
    pub registry: Registry,
}

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// Time has passed: to be given every [`crate::Config::tick_us`].
    Tick,
    /// A client asks. The sequence is the frame's request id.
    Request {
        /// For the answer.
        ticket: Ticket,
        /// Half of the idempotency key of a change; the other half is in the request.
        sequence: u64,
        /// What is asked; within the protocol's bounds.
        request: Request,
    },
    /// An upload has been validated and stored.
    Push {
        /// For the answer.
        ticket: Ticket,
        /// As above.
        sequence: u64,
        /// What was uploaded.
        push: Push,
    },
    /// A node renews its lease. The link is the caller's handle for the acknowledgement.
    KeepAlive {
        /// Where the acknowledgement goes.
        link: u64,
        /// The renewal.
        keep_alive: KeepAlive,
        /// When it came, on the clock of [`Now::mono_us`]: the lease runs from then, however long it
        /// waited for its turn.
        at_us: u64,
    },
    /// A node has answered an [`crate::Effect::Stop`]: the life does not go on there.
    Stopped {
        /// Which process.
        key: ProcessKey,
        /// Which life.
        incarnation: Incarnation,
    },
    /// A fence module has answered an [`crate::Effect::Examine`].
    Examined {
        /// The session that it is about.
        epoch: NodeEpoch,
        /// The module's name.
        fence: ModuleName,
        /// What it said.
        verdict: Verdict,
    },
    /// A callback has answered an [`crate::Effect::Advise`].
    Advised {
        /// Which process.
        key: ProcessKey,
        /// The life that has ended.
        incarnation: Incarnation,
        /// What it advises.
        advice: Advice,
    },
    /// What [`crate::Effect::Persist`] with this number asked for is durable, and everything
    /// before it.
    Persisted(u64),
    /// The decisions of one [`crate::Effect::Select`], in its order.
    Selected {
        /// The lane that the batch was for.
        lane: LaneId,
        /// What came out.
        decisions: Vec<Decision>,
    },
    /// The rule of a version that decides says that it is to be taken back.
    Guarded {
        /// Which module.
        name: ModuleName,
        /// The index at which that version was activated: if it decides no more, nothing happens.
        activated: u64,
        /// What it has done, for people; at most 512 bytes.
        cause: String,
    },
    /// A spawn has ended.
    Spawned {
        /// Which process.
        key: ProcessKey,
        /// Which life.
        incarnation: Incarnation,
        /// How it went.
        result: Spawned,
        /// Whether the node has said, after whatever else was asked of it, that this life does not
        /// run there.
        over: bool,
    },
    /// A snapshot has been written. The log may be cut through `floor`.
    SnapshotSaved {
        /// The index that it contains; none when it could not be written.
        index: Option<u64>,
        /// What the older kept snapshot contains.
        floor: u64,
    },
    /// A peer says something; made by [`crate::peer::from_wire`]. A message that tells of a snapshot
    /// is not given here: its file is fetched first, see [`Input::Install`].
    Peer(Box<Message>),
    /// A snapshot was fetched.
    Install(Box<Install>),
    /// A peer cannot be reached just now.
    Unreachable(u64),
    /// A peer has said which level it can carry out.
    Met {
        /// Its number.
        host: u64,
        /// The level.
        level_max: u16,
    },
    /// A host wants to join, or says where it is now. Answered with `Member`, a rejection, or
    /// `NotLeader`.
    Join {
        /// For the answer.
        ticket: Ticket,
        /// What it says.
        join: Join,
    },
    /// Take a snapshot now. Answered with `Done` and the index that it contains, when it is
    /// written.
    TakeSnapshot(Ticket),
    /// The disk's room changed.
    Disk(Disk),
    /// The host is shutting down: what waits is answered, nothing new is taken.
    Shutdown,
}
