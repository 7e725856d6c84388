//! What is going to happen, in the order of true time; of two at the same time, the older first.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::actor::ActorEvent;
use super::host::HostEvent;
use super::network::Packet;

/// Something that is due.
#[derive(Debug)]
pub enum What {
    /// To a machine, in one life of its process; void in another.
    Host(usize, u32, HostEvent),
    /// A packet between two machines arrives.
    Packet(Box<Packet>),
    /// To a client or a node, in one life of it.
    Actor(usize, u32, ActorEvent),
    /// A frame or datagram reaches a machine over a client's connection.
    ToHost(super::wire::ToHost),
    /// The event of this number in the plan.
    Fault(usize),
    /// What a fault ends with.
    Mend(super::plan::Mend),
    /// Time to see whether all is quiet.
    Look,
}

#[derive(Debug)]
struct Due {
    at_us: u64,
    order: u64,
    what: What,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    // The heap gives the largest first, and the earliest is wanted.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_us, other.order).cmp(&(self.at_us, self.order))
    }
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Queue {
    heap: BinaryHeap<Due>,
    order: u64,
}

impl Queue {
    /// `what` happens at `at_us`.
    pub fn push(&mut self, at_us: u64, what: What) {
        self.order += 1;
        let order = self.order;
        self.heap.push(Due { at_us, order, what });
    }

    /// The next to happen, and when.
    pub fn pop(&mut self) -> Option<(u64, What)> {
        self.heap.pop().map(|due| (due.at_us, due.what))
    }
}
