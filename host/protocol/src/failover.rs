//! What is said about processes whose node is lost, drained or too full: who waits for what, which
//! lives may still go on somewhere, and which moves would make the nodes more even.

use rkyv::{Archive, Deserialize, Serialize};

use crate::id::{Incarnation, NodeEpoch, NodeName, ProcessKey, Revision, TypeName};
use crate::record::{ProcessRecord, Refusal};

/// When a key may be given to another node, if its last life may still go on somewhere: its node was
/// lost, or has not answered yet that it stopped it.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Restart {
    /// When the node says that the life is over; or, after the node's lease ran out, its kill bound
    /// later: by then it has stopped what it ran.
    #[default]
    Safe,
    /// At once. Two lives may run at a time, for as long as a node takes to notice.
    Fast,
    /// When the node says that the life is over, or is known to be dead: it registered anew, a fence
    /// module or an operator said so.
    Strict,
}

/// What becomes of a type's processes when their node is drained.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum OnDrain {
    /// They are stopped there and created elsewhere; those that cannot be created again are left to
    /// end, and stopped at the deadline.
    #[default]
    Move,
    /// They are left to end; at the deadline they are moved, or stopped if they cannot be.
    Wait,
    /// They are stopped, and forgotten.
    Stop,
}

/// How a node is to be emptied.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Drain {
    /// Milliseconds after which nothing is waited for any more, 1,000 to 86,400,000.
    pub deadline_ms: u32,
    /// Processes that are moved or stopped in a second, 1 to 10,000.
    pub per_second: u32,
}

/// A drain under way, or done.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DrainState {
    /// When it began, in milliseconds since 1970.
    pub began_ms: u64,
    /// When nothing is waited for any more, in milliseconds since 1970.
    pub deadline_at_ms: u64,
    /// Processes that are moved or stopped in a second.
    pub per_second: u32,
    /// Processes that the node had when it began.
    pub processes: u32,
}

/// A session that has ended without a word, while lives that it had may still go on.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct LostNode {
    /// The node's name.
    pub name: NodeName,
    /// The session.
    pub epoch: NodeEpoch,
    /// When it ended, in milliseconds since 1970.
    pub lost_ms: u64,
    /// Milliseconds that the node takes at most to stop what it runs, as it said and as was measured.
    pub kill_bound_ms: u32,
    /// Keys that wait for its kill bound to pass.
    pub safe: u32,
    /// Keys that wait for proof that it is dead.
    pub strict: u32,
}

/// What a pending process waits for.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum Waits {
    /// Its next decision is being made, or carried out.
    Nothing,
    /// An earlier life of it may still go on.
    Held {
        /// Where.
        node: NodeName,
        /// In which session.
        epoch: NodeEpoch,
        /// Whether that session is lost; if not, the node has yet to say that it has stopped it.
        lost: bool,
        /// Whether proof is needed that the node is dead.
        strict: bool,
        /// Milliseconds until the kill bound has passed, when that will do.
        left_ms: Option<u32>,
    },
    /// It failed, and is tried again in so many milliseconds.
    BackOff(u32),
    /// No node will do; it is woken when one may.
    NoNode {
        /// Why, node by node; at most 200.
        refusals: Vec<Refusal>,
        /// Nodes beyond those.
        more: u32,
    },
    /// More important ones, or as important ones that came earlier, use up what may be created again
    /// in a second; so many are before it.
    Turn(u32),
    /// Nothing is created again at present; why, and what ends that.
    Paused(String),
}

/// A process without a node.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct PendingProcess {
    /// Its entry.
    pub record: ProcessRecord,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// What for.
    pub waits: Waits,
    /// Its last failure; empty when there is none on record. At most 512 bytes.
    pub cause: String,
    /// Milliseconds after which it is given up; none when it never is.
    pub left_ms: Option<u32>,
}

/// What a plan of moves is asked for.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
pub struct RebalanceAsk {
    /// Only processes of this type.
    pub type_name: Option<TypeName>,
    /// Moves at most, 1 to 2,000; 0 for 2,000.
    pub moves_max: u32,
}

/// One move.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Move {
    /// Which process.
    pub key: ProcessKey,
    /// Which life of it; the move is void when another one is current.
    pub incarnation: Incarnation,
    /// Where it is.
    pub from: NodeName,
    /// Where it would go.
    pub to: NodeName,
    /// By how much the nodes' spread (see [`Spread::deviation`]) shrinks, given the moves before it.
    pub gain: f32,
}

/// How even the nodes are: used units by capacity, 0.0 empty to 1.0 full, of nodes that may be given
/// processes.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Default)]
pub struct Spread {
    /// The emptiest node.
    pub least: f32,
    /// The mean of all.
    pub mean: f32,
    /// The fullest node.
    pub most: f32,
    /// The standard deviation.
    pub deviation: f32,
}

/// Moves that would make the nodes more even. None when they are.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct RebalancePlan {
    /// In the order in which they would be made; the largest gains first.
    pub moves: Vec<Move>,
    /// How even the nodes are.
    pub before: Spread,
    /// How even they would be.
    pub after: Spread,
    /// The state that it was made on.
    pub revision: Revision,
}

/// What an operator can hold up.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Switch {
    /// Moves: of drains and of rebalancing.
    Moves,
    /// Creating processes again that have lost their node. Letting it go on also overrides the pause
    /// that the loss of many nodes has brought about.
    Recreation,
}
