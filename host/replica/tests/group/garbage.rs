//! What an authenticated peer must not be able to do by sending nonsense: end a host.
//!
//! One that takes care to lie well can: whoever says that it has what it has not breaks any group
//! that is not made for traitors.

use maitred_protocol::{EntryKind, LogEntry, RaftKind, RaftMessage};
use maitred_replica::{Input, peer};

use crate::{Writer, others, three};

const KINDS: [RaftKind; 12] = [
    RaftKind::Append,
    RaftKind::AppendResponse,
    RaftKind::RequestVote,
    RaftKind::RequestVoteResponse,
    RaftKind::Snapshot,
    RaftKind::Heartbeat,
    RaftKind::HeartbeatResponse,
    RaftKind::TimeoutNow,
    RaftKind::ReadIndex,
    RaftKind::ReadIndexResponse,
    RaftKind::RequestPreVote,
    RaftKind::RequestPreVoteResponse,
];

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn of(&mut self, values: &[u64]) -> u64 {
        values[(self.next() % values.len() as u64) as usize]
    }

    fn message(&mut self, kind: RaftKind, to: u64, from: u64, term: u64) -> RaftMessage {
        let numbers = [0, 1, 2, 5, 9, 12, 40, u64::MAX - 1, u64::MAX];
        let terms = [0, 1, term, term + 1, term + 2, u64::MAX];
        let index = self.of(&numbers);
        let entries = (0..self.of(&[0, 0, 1, 2])).map(|at| LogEntry {
            index: index.wrapping_add(1 + at),
            term: self.of(&terms),
            kind: EntryKind::Normal,
            data: vec![1; 3],
        });
        let entries = entries.collect();
        RaftMessage {
            kind,
            from,
            to,
            term: self.of(&terms),
            log_term: self.of(&terms),
            index,
            // More in a heartbeat would prove that this host has lost what it had.
            commit: self.of(&numbers[..if kind == RaftKind::Heartbeat { 4 } else { 9 }]),
            commit_term: self.of(&terms),
            reject: self.next().is_multiple_of(2),
            reject_hint: self.of(&numbers),
            request_snapshot: self.of(&numbers),
            priority: 0,
            context: vec![7; self.of(&[0, 3]) as usize],
            entries,
            snapshot: None,
        }
    }
}

#[test]
fn a_host_outlives_nonsense() {
    for seed in 0..600 {
        let mut dice = Dice(seed);
        let mut group = three();
        let leader = group.elect();
        let mut writer = Writer::new(&mut group, leader);
        writer.write(&mut group, leader, "1", "p");
        let [follower, other] = others(leader);
        let to = [leader, follower][(seed % 2) as usize];
        let from = if to == leader { other } else { leader };
        let term = group.replica(to).term();
        for kind in KINDS {
            let message = dice.message(kind, to, from, term);
            if let Ok(message) = peer::from_wire(message, from, to, term) {
                group.step(to, Input::Peer(Box::new(message)));
            }
        }
        group.pass(40);
    }
}
