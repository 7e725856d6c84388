//! What a stream of frames has told so far, kept alike by whoever writes and whoever reads it.
//!
//! **Invariant.** After a frame, the writer's state and the reader's are the same; each `write` here
//! has its `read` beside it, in the same order.

use std::sync::Arc;

use maitred_protocol::{ModuleName, TypeName};

use super::bytes::{Put as _, Take};
use super::live::Seen;
use super::roster::{self, Facts, Kept};
use super::{CELLS_MAX, InputsError, LANES_MAX, Outcome, RecordedBatch, jobs, lane_of};
use crate::candidates::{Column, Fleet};
use crate::decide::{LaneId, ModuleRef, SelectBatch};
use crate::limits::NODES_MAX;

#[derive(Debug, Default)]
pub(super) struct State {
    now_us: u64,
    now_ms: u64,
    facts: Facts,
    lanes: Vec<Lane>,
    /// Counts frames, to know which lane was silent longest.
    uses: u64,
}

/// What was last seen in one lane. Lanes do not share rows: selectors differ in what they want to see.
#[derive(Debug)]
struct Lane {
    id: LaneId,
    selector: Option<Result<ModuleRef, (ModuleName, String)>>,
    seen: Seen,
    /// The type of the last job.
    last: Option<TypeName>,
    used: u64,
}

impl Lane {
    fn new(id: LaneId, nodes: usize) -> Self {
        Self {
            id,
            selector: None,
            seen: Seen::new(nodes),
            last: None,
            used: 0,
        }
    }
}

impl State {
    /// Writes a batch.
    pub(super) fn write(
        &mut self,
        batch: &SelectBatch,
        outcomes: &[Outcome],
        out: &mut Vec<u8>,
    ) -> Result<(), InputsError> {
        check(batch, outcomes)?;
        let fleet = &*batch.fleet;
        out.put_step(self.now_us, fleet.now_us);
        out.put_step(self.now_ms, fleet.now_ms);
        out.put_step(fleet.now_ms / 1_000, batch.time_s.into());
        (self.now_us, self.now_ms) = (fleet.now_us, fleet.now_ms);
        if let Some(kept) = roster::write(out, &self.facts, &fleet.facts) {
            self.follow(&kept);
        }
        self.facts = Arc::clone(&fleet.facts);
        let lane = self.write_lane(batch, out);
        let seen = &mut lane.seen;
        seen.write_rows(out, &fleet.live);
        out.put(fleet.of_type.len() as u64);
        for column in &fleet.of_type {
            // Types have no upper-case letters: what is kept of a type and of a group is apart.
            seen.write_column(out, &format!("T{}", column.of), &column.counts);
        }
        out.put(fleet.of_group.len() as u64);
        for column in &fleet.of_group {
            seen.write_column(out, &format!("G{}", column.of), &column.counts);
        }
        out.put(u64::from(!fleet.counters.is_empty()));
        if !fleet.counters.is_empty() {
            seen.write_counters(out, &fleet.counters);
        }
        out.put(fleet.parties.len() as u64);
        for (number, slot) in &fleet.parties {
            out.put(*number);
            out.put((*slot).into());
        }
        out.put(batch.jobs.len() as u64);
        for (job, outcome) in batch.jobs.iter().zip(outcomes) {
            jobs::put_job(out, job, lane.last.as_ref());
            jobs::put_outcome(out, outcome);
            lane.keep_type(&job.request.key.type_name);
        }
        Ok(())
    }

    /// Reads what [`State::write`] wrote.
    pub(super) fn read(&mut self, bytes: &mut Take<'_>) -> Result<RecordedBatch, InputsError> {
        self.now_us = bytes.step(self.now_us)?;
        self.now_ms = bytes.step(self.now_ms)?;
        let time_s = bytes.step(self.now_ms / 1_000)? as u32;
        if let Some((facts, kept)) = roster::read(bytes, &self.facts)? {
            self.facts = facts;
            self.follow(&kept);
        }
        let (now_us, now_ms, facts) = (self.now_us, self.now_ms, Arc::clone(&self.facts));
        let nodes = facts.len();
        let lane = self.read_lane(bytes)?;
        let selector = lane.selector.clone();
        let selector = selector.ok_or(InputsError::Damaged("a lane without a selector"))?;
        let seen = &mut lane.seen;
        seen.read_rows(bytes)?;
        let mut cells = 0;
        let of_type = read_columns(seen, bytes, &mut cells, |of| {
            let name = of.strip_prefix('T').map(TypeName::new);
            name.and_then(Result::ok)
        })?;
        let of_group = read_columns(seen, bytes, &mut cells, |of| {
            of.strip_prefix('G').map(str::to_owned)
        })?;
        let mut counters = Vec::new();
        if bytes.flag()? {
            seen.read_counters(bytes)?;
            counters.clone_from(&seen.counters);
        }
        let parties = (0..bytes.count()?).map(|_| {
            let (number, slot) = (bytes.number()?, bytes.short()?);
            let there = (slot as usize) < nodes;
            there
                .then_some((number, slot))
                .ok_or(InputsError::Damaged("a node that is not there"))
        });
        let parties = parties.collect::<Result<_, _>>()?;
        let fleet = Fleet {
            now_us,
            now_ms,
            facts,
            live: seen.live.clone(),
            of_type,
            of_group,
            counters,
            parties,
        };
        let count = bytes.count()?;
        // Room for what is claimed would be many times the frame.
        let (mut all, mut outcomes) = (Vec::new(), Vec::new());
        for id in 0..count as u64 {
            let job = jobs::take_job(bytes, id, lane.last.as_ref())?;
            outcomes.push(jobs::take_outcome(bytes, nodes)?);
            lane.keep_type(&job.request.key.type_name);
            all.push(job);
        }
        let batch = SelectBatch {
            selector,
            shadow: None,
            fleet: Arc::new(fleet),
            time_s,
            jobs: all,
            dry: false,
        };
        Ok(RecordedBatch { batch, outcomes })
    }

    fn follow(&mut self, kept: &Kept) {
        self.lanes
            .iter_mut()
            .for_each(|lane| lane.seen.follow(kept));
    }

    fn write_lane(&mut self, batch: &SelectBatch, out: &mut Vec<u8>) -> &mut Lane {
        let id = lane_of(&batch.selector);
        let known = self.lanes.iter().position(|lane| lane.id == id);
        let place = known.unwrap_or_else(|| self.free_place());
        out.put((place as u64) << 1 | u64::from(known.is_none()));
        if known.is_none() {
            self.begin_lane(place, id);
        }
        let lane = self.use_lane(place);
        let same = lane.selector.as_ref() == Some(&batch.selector);
        out.put(u64::from(!same));
        if !same {
            jobs::put_selector(out, &batch.selector);
            lane.selector = Some(batch.selector.clone());
        }
        lane
    }

    fn read_lane(&mut self, bytes: &mut Take<'_>) -> Result<&mut Lane, InputsError> {
        let head = bytes.number()?;
        let place = usize::try_from(head >> 1).unwrap_or(usize::MAX);
        let begins = head & 1 == 1;
        let places = self.lanes.len() + usize::from(begins);
        if place >= places.min(LANES_MAX) {
            return Err(InputsError::Damaged("a lane that is not there"));
        }
        let selector = if bytes.flag()? {
            Some(jobs::take_selector(bytes)?)
        } else {
            None
        };
        if begins {
            let selector = selector.as_ref();
            let id = selector
                .map(lane_of)
                .ok_or(InputsError::Damaged("a lane without a selector"))?;
            self.begin_lane(place, id);
        }
        let lane = self.use_lane(place);
        if selector.is_some() {
            lane.selector = selector;
        }
        Ok(lane)
    }

    /// Where a lane that is not known yet goes: the place of the one that was silent longest.
    fn free_place(&self) -> usize {
        if self.lanes.len() < LANES_MAX {
            return self.lanes.len();
        }
        let oldest = self.lanes.iter().enumerate();
        let oldest = oldest.min_by_key(|(_, lane)| lane.used);
        oldest.map_or(0, |(place, _)| place)
    }

    fn begin_lane(&mut self, place: usize, id: LaneId) {
        let lane = Lane::new(id, self.facts.len());
        if place < self.lanes.len() {
            self.lanes[place] = lane;
        } else {
            self.lanes.push(lane);
        }
    }

    fn use_lane(&mut self, place: usize) -> &mut Lane {
        self.uses += 1;
        let lane = &mut self.lanes[place];
        lane.used = self.uses;
        lane
    }
}

impl Lane {
    fn keep_type(&mut self, of: &TypeName) {
        if self.last.as_ref() != Some(of) {
            self.last = Some(of.clone());
        }
    }
}

fn read_columns<K>(
    seen: &mut Seen,
    bytes: &mut Take<'_>,
    cells: &mut usize,
    of: impl Fn(&str) -> Option<K>,
) -> Result<Vec<Column<K>>, InputsError> {
    let count = bytes.count()?;
    *cells += count.saturating_mul(seen.live.len());
    if *cells > CELLS_MAX {
        return Err(InputsError::Damaged("more columns than there can be"));
    }
    let columns = (0..count).map(|_| {
        let (name, counts) = seen.read_column(bytes)?;
        let of = of(&name).ok_or(InputsError::Damaged("a column of nothing"))?;
        Ok(Column { of, counts })
    });
    columns.collect()
}

/// Whether a batch can be written at all.
fn check(batch: &SelectBatch, outcomes: &[Outcome]) -> Result<(), InputsError> {
    let fleet = &*batch.fleet;
    let nodes = fleet.facts.len();
    if nodes > NODES_MAX {
        return Err(InputsError::TooLarge {
            what: "nodes",
            count: nodes,
            limit: NODES_MAX,
        });
    }
    let columns = fleet.of_type.len() + fleet.of_group.len();
    let cells = columns.saturating_mul(nodes);
    if cells > CELLS_MAX {
        return Err(InputsError::TooLarge {
            what: "counts in columns",
            count: cells,
            limit: CELLS_MAX,
        });
    }
    if outcomes.len() != batch.jobs.len() {
        return Err(InputsError::Uneven(
            "another number of outcomes than of jobs",
        ));
    }
    let lengths = fleet.of_type.iter().map(|column| column.counts.len());
    let mut lengths = lengths.chain(fleet.of_group.iter().map(|column| column.counts.len()));
    let counters = [0, nodes].contains(&fleet.counters.len());
    if fleet.live.len() != nodes || lengths.any(|length| length != nodes) || !counters {
        return Err(InputsError::Uneven("rows that are not those of its nodes"));
    }
    let mut slots = outcomes.iter().filter_map(|outcome| outcome.chosen);
    let mut members = fleet.parties.iter().map(|(_, slot)| *slot);
    let beyond = |slot: u32| slot as usize >= nodes;
    if slots.any(beyond) || members.any(beyond) {
        return Err(InputsError::Uneven("a node that is not in its fleet"));
    }
    Ok(())
}
