//! What changes about the nodes: one lane's rows, columns and counters, as differences.

use std::sync::Arc;

use super::bytes::{Put as _, Take, put_changes, take_changes};
use super::roster::Kept;
use super::{COLUMNS_MAX, InputsError};
use crate::candidates::NodeLive;

pub(super) type Counters = Arc<[(String, f32)]>;

/// The number of fields: bits of a row's mask.
const FIELDS: u32 = 15;

/// What was last seen of the nodes.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) live: Vec<NodeLive>,
    pub(super) counters: Vec<Counters>,
    columns: Vec<SeenColumn>,
    /// Counts uses of columns.
    uses: u64,
}

#[derive(Debug)]
struct SeenColumn {
    of: String,
    counts: Vec<u32>,
    used: u64,
}

impl Seen {
    pub(super) fn new(nodes: usize) -> Self {
        let none: Counters = Arc::new([]);
        Self {
            live: vec![NodeLive::BLANK; nodes],
            counters: vec![none; nodes],
            columns: Vec::new(),
            uses: 0,
        }
    }

    /// Follows the nodes to their new places.
    pub(super) fn follow(&mut self, kept: &Kept) {
        let old = |place: &Option<u32>| place.map(|place| place as usize);
        let rows = kept
            .iter()
            .map(|at| old(at).map_or(NodeLive::BLANK, |at| self.live[at]));
        self.live = rows.collect();
        let none: Counters = Arc::new([]);
        let counters = kept
            .iter()
            .map(|at| Arc::clone(old(at).map_or(&none, |at| &self.counters[at])));
        self.counters = counters.collect();
        for column in &mut self.columns {
            let counts = kept
                .iter()
                .map(|at| old(at).map_or(0, |at| column.counts[at]));
            column.counts = counts.collect();
        }
    }

    pub(super) fn write_rows(&mut self, out: &mut Vec<u8>, live: &[NodeLive]) {
        put_changes(out, &mut self.live, live, |out, before, now| {
            let changed = put_row(out, before, now);
            *before = *now;
            changed
        });
    }

    pub(super) fn read_rows(&mut self, bytes: &mut Take<'_>) -> Result<(), InputsError> {
        take_changes(bytes, &mut self.live, take_row)
    }

    /// Writes a column: where it is kept, whose it is if it was not kept, and what is different.
    pub(super) fn write_column(&mut self, out: &mut Vec<u8>, of: &str, counts: &[u32]) {
        let known = self.columns.iter().position(|column| column.of == of);
        let place = known.unwrap_or_else(|| self.free_place());
        out.put((place as u64) << 1 | u64::from(known.is_none()));
        if known.is_none() {
            out.put_text(of);
            self.begin_column(place, of);
        }
        let column = self.use_column(place);
        put_changes(out, &mut column.counts, counts, |out, before, now| {
            let changed = before != now;
            if changed {
                out.put_short_step(*before, *now);
            }
            *before = *now;
            changed
        });
    }

    pub(super) fn read_column(
        &mut self,
        bytes: &mut Take<'_>,
    ) -> Result<(String, Vec<u32>), InputsError> {
        let head = bytes.number()?;
        let place = usize::try_from(head >> 1).unwrap_or(usize::MAX);
        let begins = head & 1 == 1;
        let places = self.columns.len() + usize::from(begins);
        if place >= places.min(COLUMNS_MAX) {
            return Err(InputsError::Damaged("a column that is not there"));
        }
        if begins {
            self.begin_column(place, bytes.text()?);
        }
        let column = self.use_column(place);
        take_changes(bytes, &mut column.counts, |bytes, count| {
            *count = bytes.short_step(*count)?;
            Ok(())
        })?;
        Ok((column.of.clone(), column.counts.clone()))
    }

    /// Where a column that is not known yet goes: the place that was unused longest.
    fn free_place(&self) -> usize {
        if self.columns.len() < COLUMNS_MAX {
            return self.columns.len();
        }
        let oldest = self.columns.iter().enumerate();
        let oldest = oldest.min_by_key(|(_, column)| column.used);
        oldest.map_or(0, |(place, _)| place)
    }

    fn begin_column(&mut self, place: usize, of: &str) {
        let column = SeenColumn {
            of: of.to_owned(),
            counts: vec![0; self.live.len()],
            used: 0,
        };
        if place < self.columns.len() {
            self.columns[place] = column;
        } else {
            self.columns.push(column);
        }
    }

    fn use_column(&mut self, place: usize) -> &mut SeenColumn {
        self.uses += 1;
        let column = &mut self.columns[place];
        column.used = self.uses;
        column
    }

    pub(super) fn write_counters(&mut self, out: &mut Vec<u8>, counters: &[Counters]) {
        put_changes(out, &mut self.counters, counters, |out, before, now| {
            if Arc::ptr_eq(before, now) {
                return false;
            }
            let changed = put_counters(out, before, now);
            *before = Arc::clone(now);
            changed
        });
    }

    pub(super) fn read_counters(&mut self, bytes: &mut Take<'_>) -> Result<(), InputsError> {
        take_changes(bytes, &mut self.counters, take_counters)
    }
}

/// Writes what is different, and whether anything is.
fn put_row(out: &mut Vec<u8>, before: &NodeLive, now: &NodeLive) -> bool {
    let bits = |a: f32, b: f32| a.to_bits() != b.to_bits();
    let changed = [
        before.cordoned != now.cordoned,
        before.suspect != now.suspect,
        before.processes != now.processes,
        before.in_flight != now.in_flight,
        before.used != now.used,
        before.placed[0] != now.placed[0],
        before.placed[1] != now.placed[1],
        before.placed[2] != now.placed[2],
        before.placed_at_us != now.placed_at_us,
        before.load_at_us != now.load_at_us,
        bits(before.cpu, now.cpu),
        bits(before.memory_free_mib, now.memory_free_mib),
        before.budget != now.budget,
        before.damped_ms != now.damped_ms,
        bits(before.name_hash, now.name_hash),
    ];
    let mask = changed
        .iter()
        .rev()
        .fold(0, |mask, bit| mask << 1 | u64::from(*bit));
    if mask == 0 {
        return false;
    }
    out.put(mask);
    let mut short = |at: usize, from, to| {
        if changed[at] {
            out.put_short_step(from, to);
        }
    };
    // The first two are told by the mask: they can only be the other way round.
    short(2, before.processes, now.processes);
    short(3, before.in_flight, now.in_flight);
    short(4, before.used, now.used);
    (0..3).for_each(|at| short(5 + at, before.placed[at], now.placed[at]));
    if changed[8] {
        out.put_step(before.placed_at_us, now.placed_at_us);
    }
    if changed[9] {
        out.put_step(before.load_at_us, now.load_at_us);
    }
    if changed[10] {
        out.put_float(now.cpu);
    }
    if changed[11] {
        out.put_float(now.memory_free_mib);
    }
    if changed[12] {
        out.put_short_step(before.budget, now.budget);
    }
    if changed[13] {
        out.put_short_step(before.damped_ms, now.damped_ms);
    }
    if changed[14] {
        out.put_float(now.name_hash);
    }
    true
}

fn take_row(bytes: &mut Take<'_>, row: &mut NodeLive) -> Result<(), InputsError> {
    let mask = bytes.number()?;
    if mask >> FIELDS != 0 {
        return Err(InputsError::Damaged("a field that is not there"));
    }
    let has = |at: u32| mask >> at & 1 == 1;
    row.cordoned ^= has(0);
    row.suspect ^= has(1);
    let [one, ten, sixty] = &mut row.placed;
    let shorts = [
        &mut row.processes,
        &mut row.in_flight,
        &mut row.used,
        one,
        ten,
        sixty,
    ];
    for (at, field) in (2..).zip(shorts) {
        if has(at) {
            *field = bytes.short_step(*field)?;
        }
    }
    if has(8) {
        row.placed_at_us = bytes.step(row.placed_at_us)?;
    }
    if has(9) {
        row.load_at_us = bytes.step(row.load_at_us)?;
    }
    if has(10) {
        row.cpu = bytes.float()?;
    }
    if has(11) {
        row.memory_free_mib = bytes.float()?;
    }
    if has(12) {
        row.budget = bytes.short_step(row.budget)?;
    }
    if has(13) {
        row.damped_ms = bytes.short_step(row.damped_ms)?;
    }
    if has(14) {
        row.name_hash = bytes.float()?;
    }
    Ok(())
}

/// Writes counters, without their names when those are the same; and whether anything is different.
fn put_counters(out: &mut Vec<u8>, before: &Counters, now: &Counters) -> bool {
    let both = || before.iter().zip(&**now);
    let named = before.len() == now.len() && both().all(|(before, now)| before.0 == now.0);
    if named && both().all(|(before, now)| before.1.to_bits() == now.1.to_bits()) {
        return false;
    }
    out.put(if named { 0 } else { 1 + now.len() as u64 });
    for (name, value) in &**now {
        if !named {
            out.put_text(name);
        }
        out.put_float(*value);
    }
    true
}

fn take_counters(bytes: &mut Take<'_>, counters: &mut Counters) -> Result<(), InputsError> {
    let new = match bytes.count()?.checked_sub(1) {
        None => counters
            .iter()
            .map(|(name, _)| Ok((name.clone(), bytes.float()?)))
            .collect::<Result<_, _>>(),
        Some(count) => (0..count)
            .map(|_| Ok((bytes.text()?.to_owned(), bytes.float()?)))
            .collect(),
    };
    *counters = new?;
    Ok(())
}
