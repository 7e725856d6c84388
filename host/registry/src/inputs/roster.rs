//! The nodes and what they said of themselves: edits from one list to the next.

use std::cmp::Ordering;
use std::sync::Arc;

use maitred_protocol::{NodeEpoch, NodeName};

use super::InputsError;
use super::bytes::{Put as _, Take};
use crate::candidates::NodeFacts;
use crate::limits::NODES_MAX;

pub(super) type Facts = Arc<[Arc<NodeFacts>]>;

/// For each node of the new list, its place in the old one.
pub(super) type Kept = Vec<Option<u32>>;

const END: u64 = 0;
const KEEP: u64 = 1;
const DROP: u64 = 2;
const NEW: u64 = 3;

/// Writes the edits; none when there are none.
pub(super) fn write(out: &mut Vec<u8>, old: &Facts, new: &Facts) -> Option<Kept> {
    if Arc::ptr_eq(old, new) || old == new {
        out.put(0);
        return None;
    }
    out.put(1);
    let (mut left, mut right) = (0, 0);
    let mut kept: Kept = Vec::with_capacity(new.len());
    let (mut keep, mut drop) = (0, 0);
    loop {
        // They are ordered by name; if they were not, this would only write more than it must.
        let step = match (old.get(left), new.get(right)) {
            (None, None) => END,
            (Some(_), None) => DROP,
            (None, Some(_)) => NEW,
            (Some(old), Some(new)) if Arc::ptr_eq(old, new) || old == new => KEEP,
            (Some(old), Some(new)) if old.name.cmp(&new.name) == Ordering::Greater => NEW,
            _ => DROP,
        };
        if keep > 0 && step != KEEP {
            out.put(keep << 2 | KEEP);
            keep = 0;
        }
        if drop > 0 && step != DROP {
            out.put(drop << 2 | DROP);
            drop = 0;
        }
        match step {
            KEEP => {
                keep += 1;
                kept.push(Some(left as u32));
                (left, right) = (left + 1, right + 1);
            }
            DROP => (drop, left) = (drop + 1, left + 1),
            NEW => {
                out.put(NEW);
                put_facts(out, &new[right]);
                kept.push(None);
                right += 1;
            }
            _ => break,
        }
    }
    out.put(END);
    Some(kept)
}

/// Reads what [`write`] wrote.
pub(super) fn read(
    bytes: &mut Take<'_>,
    old: &Facts,
) -> Result<Option<(Facts, Kept)>, InputsError> {
    if !bytes.flag()? {
        return Ok(None);
    }
    let absent = InputsError::Damaged("a node that is not there");
    let mut new: Vec<Arc<NodeFacts>> = Vec::with_capacity(old.len());
    let mut kept: Kept = Vec::with_capacity(old.len());
    let mut left = 0_usize;
    loop {
        let step = bytes.number()?;
        let count = usize::try_from(step >> 2).map_err(|_| absent.clone())?;
        let end = left.saturating_add(count);
        match (step & 3, count) {
            (END, 0) => break,
            (NEW, 0) => {
                new.push(Arc::new(take_facts(bytes)?));
                kept.push(None);
            }
            (KEEP, 1..) => {
                new.extend_from_slice(old.get(left..end).ok_or(absent.clone())?);
                kept.extend((left..end).map(|place| Some(place as u32)));
                left = end;
            }
            (DROP, 1..) if end <= old.len() => left = end,
            _ => return Err(absent),
        }
        if new.len() > NODES_MAX {
            return Err(InputsError::Damaged("more nodes than there can be"));
        }
    }
    Ok(Some((new.into(), kept)))
}

fn put_facts(out: &mut Vec<u8>, facts: &NodeFacts) {
    out.put_text(facts.name.as_str());
    out.put(facts.epoch.0);
    out.put(facts.types.len() as u64);
    facts.types.iter().for_each(|of| out.put_text(of.as_str()));
    out.put_text(&facts.address);
    out.put(facts.labels.len() as u64);
    for (key, value) in &facts.labels {
        out.put_text(key);
        out.put_text(value);
    }
    out.put(facts.capacity.into());
    out.put(facts.registered_ms);
}

fn take_facts(bytes: &mut Take<'_>) -> Result<NodeFacts, InputsError> {
    let name: NodeName = bytes.name()?;
    let epoch = NodeEpoch(bytes.number()?);
    let types = (0..bytes.count()?).map(|_| bytes.name());
    let types = types.collect::<Result<_, _>>()?;
    let address = bytes.text()?.to_owned();
    let labels = (0..bytes.count()?).map(|_| {
        let (key, value) = (bytes.text()?, bytes.text()?);
        Ok((key.to_owned(), value.to_owned()))
    });
    Ok(NodeFacts {
        name,
        epoch,
        types,
        address,
        labels: labels.collect::<Result<_, _>>()?,
        capacity: bytes.short()?,
        registered_ms: bytes.number()?,
    })
}
