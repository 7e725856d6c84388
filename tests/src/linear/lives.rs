//! What holds of incarnations whatever else happens: those of a key never go back, one that has
//! ended never comes again, and each was made by one create.
//!
//! A sweep over the calls' beginnings and ends. "Before" means that one call had returned when the
//! other was invoked; calls that overlap say nothing of one another.

use std::collections::BTreeMap;

use maitred_protocol::ProcessKey;

use super::history::{Answer, Call, Verb};

/// What is known of a key at some moment.
#[derive(Default)]
struct Key {
    /// No later call may show an incarnation below.
    floor: u64,
    /// The latest incarnation that an answer has shown.
    top: u64,
    /// Who made which incarnation.
    makers: BTreeMap<u64, usize>,
    /// What was known when each open call began: floor and top.
    begun: BTreeMap<usize, (u64, u64)>,
}

pub(super) fn check<'a>(calls: impl Iterator<Item = &'a Call>) -> Result<(), String> {
    let calls: Vec<&Call> = calls.collect();
    let mut moments = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        if let Some((returned, _)) = &call.answer {
            moments.push((call.invoked, false, at));
            moments.push((*returned, true, at));
        }
    }
    // At one moment, beginnings come first: such calls overlap.
    moments.sort_unstable();
    let mut keys: BTreeMap<&ProcessKey, Key> = BTreeMap::new();
    for (_, is_end, at) in moments {
        let call = calls[at];
        let key = keys.entry(&call.key).or_default();
        if is_end {
            key.end(at, &calls)?;
        } else {
            key.begun.insert(at, (key.floor, key.top));
        }
    }
    Ok(())
}

impl Key {
    fn end(&mut self, at: usize, calls: &[&Call]) -> Result<(), String> {
        let call = calls[at];
        let (Some((_, answer)), Some((floor, top))) = (&call.answer, self.begun.remove(&at)) else {
            return Ok(());
        };
        let shown = match answer {
            Answer::Created(sight) | Answer::Found(sight) => Some(sight.incarnation),
            Answer::Fenced(shown) | Answer::Set(shown) => Some(*shown),
            Answer::Missing | Answer::Deleted | Answer::Refused => None,
        };
        if let Some(shown) = shown {
            if shown < floor {
                return Err(format!(
                    "{}: incarnation {shown} was shown when {floor} was the least that could be\n  {}",
                    call.key,
                    told(call)
                ));
            }
            self.floor = self.floor.max(shown);
            self.top = self.top.max(shown);
        }
        match (answer, &call.verb) {
            (Answer::Created(sight), _) => {
                if let Some(other) = self.makers.insert(sight.incarnation, at) {
                    return Err(format!(
                        "{}: two creates made incarnation {}\n  {}\n  {}",
                        call.key,
                        sight.incarnation,
                        told(calls[other]),
                        told(call)
                    ));
                }
            }
            (Answer::Deleted, Verb::Delete(Some(only))) => {
                self.floor = self.floor.max(only.saturating_add(1));
            }
            // What had been seen before the call began had ended when it returned. An incarnation
            // of 0 was never seen.
            (Answer::Deleted | Answer::Missing, _) if top > 0 => {
                self.floor = self.floor.max(top.saturating_add(1));
            }
            _ => {}
        }
        Ok(())
    }
}

fn told(call: &Call) -> String {
    let returned = call.answer.as_ref().map_or(call.invoked, |(at, _)| *at);
    format!(
        "caller {}, {} to {} us: {:?} -> {:?}",
        call.caller,
        call.invoked,
        returned,
        call.verb,
        call.answer.as_ref().map(|(_, answer)| answer)
    )
}
