//! What a decided batch takes of memory while it waits for whoever follows: so that a queue has a
//! bound in bytes. An estimate from above, but for the nodes' facts, which their own records hold anyway.

use std::mem::size_of;
use std::sync::Arc;

use super::Outcome;
use crate::candidates::{Column, Fleet, NodeLive, SelectRequest, Slot};
use crate::decide::{SelectBatch, SelectJob};

/// What the allocator adds to each piece, about.
const PIECE_BYTES: usize = 16;

/// Bytes of a batch whose fleet nobody else holds, and of what came out.
#[must_use]
pub fn waiting_bytes(batch: &SelectBatch, outcomes: &[Outcome]) -> usize {
    let config = batch.selector.as_ref().map_or(0, |one| one.config.len());
    let jobs: usize = batch.jobs.iter().map(of_job).sum();
    let outcomes: usize = outcomes.iter().map(of_outcome).sum();
    size_of::<SelectBatch>() + config + of_fleet(&batch.fleet) + jobs + outcomes
}

fn of_fleet(fleet: &Fleet) -> usize {
    let columns = fleet.of_type.iter().map(of_column).sum::<usize>()
        + fleet.of_group.iter().map(of_column).sum::<usize>();
    size_of::<Fleet>()
        + fleet.live.len() * size_of::<NodeLive>()
        + columns
        + fleet.counters.iter().map(of_counters).sum::<usize>()
        + fleet.parties.len() * size_of::<(u64, Slot)>()
}

/// All of them: the next report takes their place in the node's own record.
fn of_counters(counters: &Arc<[(String, f32)]>) -> usize {
    let names = counters.iter().map(|(name, _)| PIECE_BYTES + name.len());
    size_of_val(counters) + PIECE_BYTES + size_of_val(&**counters) + names.sum::<usize>()
}

fn of_column<K>(column: &Column<K>) -> usize {
    size_of::<Column<K>>() + PIECE_BYTES + column.counts.len() * size_of::<u32>()
}

fn of_job(job: &SelectJob) -> usize {
    let request: &SelectRequest = &job.request;
    let text = |text: &str| size_of::<String>() + PIECE_BYTES + text.len();
    let pairs = request.require.iter();
    let pairs = pairs.map(|(key, value)| text(key) + text(value));
    let latencies = request.latencies.iter().map(|(of, _)| text(of) + 8);
    let nodes = request.exclude.iter().chain(&request.requester);
    let from = request.party.iter().filter_map(|party| party.from.as_ref());
    let nodes = nodes
        .chain(&request.previous)
        .chain(from)
        .map(|name| text(name.as_str()));
    size_of::<SelectJob>()
        + size_of::<SelectRequest>()
        + 4 * PIECE_BYTES
        + request.key.id.as_str().len()
        + request.key.type_name.as_str().len()
        + request.group.as_ref().map_or(0, String::len)
        + pairs.chain(latencies).chain(nodes).sum::<usize>()
}

fn of_outcome(outcome: &Outcome) -> usize {
    let said = match &outcome.answered {
        maitred_protocol::Answered::Rejected { reason, .. } => reason.len() + PIECE_BYTES,
        _ => 0,
    };
    size_of::<Outcome>() + said
}
