//! Selectors, jobs, and what came out.

use std::sync::Arc;

use maitred_protocol::{Answered, Digest, Fallback, ModuleName, PartyRule, ProcessKey, TypeName};

use super::bytes::{Put as _, Take};
use super::{InputsError, Outcome};
use crate::candidates::{PartyTerms, SelectRequest, Slot};
use crate::decide::{ModuleRef, SelectJob};

type Selector = Result<ModuleRef, (ModuleName, String)>;

pub(super) fn put_selector(out: &mut Vec<u8>, selector: &Selector) {
    match selector {
        Err((name, cause)) => {
            out.put(0);
            out.put_text(name.as_str());
            out.put_text(cause);
        }
        Ok(module) => {
            out.put(1);
            out.put_text(module.name.as_str());
            out.put(module.version.into());
            out.extend_from_slice(&module.digest.0);
            out.put_text(&module.config);
            out.extend_from_slice(&module.config_hash.to_le_bytes());
            out.put(module.canary.into());
            out.put(module.activated);
        }
    }
}

pub(super) fn take_selector(bytes: &mut Take<'_>) -> Result<Selector, InputsError> {
    if !bytes.flag()? {
        return Ok(Err((bytes.name()?, bytes.text()?.to_owned())));
    }
    Ok(Ok(ModuleRef {
        name: bytes.name()?,
        version: bytes.short()?,
        digest: Digest(bytes.exact()?),
        config: Arc::from(bytes.text()?),
        config_hash: u64::from_le_bytes(bytes.exact()?),
        canary: bytes.flag()?,
        activated: bytes.number()?,
    }))
}

const GROUP: u64 = 1;
const REQUESTER: u64 = 1 << 1;
const REQUIRE: u64 = 1 << 2;
const EXCLUDE: u64 = 1 << 3;
const AGAIN: u64 = 1 << 4;
const PREVIOUS: u64 = 1 << 5;
const LATENCIES: u64 = 1 << 6;
const PARTY: u64 = 1 << 7;
const PRIORITY: u64 = 1 << 8;
const ATTEMPT: u64 = 1 << 9;
const DEMAND: u64 = 1 << 10;
/// The type of the lane's last job.
const SAME_TYPE: u64 = 1 << 11;
/// Two bits.
const FALLBACK_AT: u32 = 12;

/// Writes a job; `last` is the type of the one before.
pub(super) fn put_job(out: &mut Vec<u8>, job: &SelectJob, last: Option<&TypeName>) {
    let request = &*job.request;
    let flag = |present: bool, bit| if present { bit } else { 0 };
    let fallback: u64 = match job.fallback {
        Fallback::LeastLoaded => 0,
        Fallback::TwoChoices => 1,
        Fallback::Rendezvous => 2,
    };
    let flags = flag(request.group.is_some(), GROUP)
        | flag(request.requester.is_some(), REQUESTER)
        | flag(!request.require.is_empty(), REQUIRE)
        | flag(!request.exclude.is_empty(), EXCLUDE)
        | flag(request.again, AGAIN)
        | flag(request.previous.is_some(), PREVIOUS)
        | flag(!request.latencies.is_empty(), LATENCIES)
        | flag(request.party.is_some(), PARTY)
        | flag(request.priority != 0, PRIORITY)
        | flag(request.attempt != 1, ATTEMPT)
        | flag(request.demand != 1, DEMAND)
        | flag(last == Some(&request.key.type_name), SAME_TYPE)
        | fallback << FALLBACK_AT;
    out.put(flags);
    out.extend_from_slice(&job.seed.to_le_bytes());
    if flags & SAME_TYPE == 0 {
        out.put_text(request.key.type_name.as_str());
    }
    out.put_text(request.key.id.as_str());
    if let Some(group) = &request.group {
        out.put_text(group);
    }
    for node in [&request.requester, &request.previous]
        .into_iter()
        .flatten()
    {
        out.put_text(node.as_str());
    }
    if !request.require.is_empty() {
        out.put(request.require.len() as u64);
        for (key, value) in &request.require {
            out.put_text(key);
            out.put_text(value);
        }
    }
    if !request.exclude.is_empty() {
        out.put(request.exclude.len() as u64);
        request
            .exclude
            .iter()
            .for_each(|node| out.put_text(node.as_str()));
    }
    if !request.latencies.is_empty() {
        out.put(request.latencies.len() as u64);
        for (value, milliseconds) in &request.latencies {
            out.put_text(value);
            out.put((*milliseconds).into());
        }
    }
    if let Some(party) = &request.party {
        put_party(out, party);
    }
    if request.priority != 0 {
        out.put_short_step(0, request.priority as u32);
    }
    if request.attempt != 1 {
        out.put(request.attempt.into());
    }
    if request.demand != 1 {
        out.put(request.demand.into());
    }
}

/// Reads what [`put_job`] wrote.
pub(super) fn take_job(
    bytes: &mut Take<'_>,
    id: u64,
    last: Option<&TypeName>,
) -> Result<SelectJob, InputsError> {
    let flags = bytes.number()?;
    let fallback = match flags >> FALLBACK_AT {
        0 => Fallback::LeastLoaded,
        1 => Fallback::TwoChoices,
        2 => Fallback::Rendezvous,
        _ => return Err(InputsError::Damaged("a fallback that is not there")),
    };
    let has = |bit: u64| flags & bit != 0;
    let seed = u32::from_le_bytes(bytes.exact()?);
    let type_name = if has(SAME_TYPE) {
        last.cloned()
            .ok_or(InputsError::Damaged("a job without a type"))?
    } else {
        bytes.name()?
    };
    let key = ProcessKey {
        type_name,
        id: bytes.name()?,
    };
    let group = if has(GROUP) {
        Some(bytes.text()?.to_owned())
    } else {
        None
    };
    let requester = if has(REQUESTER) {
        Some(bytes.name()?)
    } else {
        None
    };
    let previous = if has(PREVIOUS) {
        Some(bytes.name()?)
    } else {
        None
    };
    let count = |bit, bytes: &mut Take<'_>| if has(bit) { bytes.count() } else { Ok(0) };
    let require = (0..count(REQUIRE, bytes)?).map(|_| {
        let (key, value) = (bytes.text()?, bytes.text()?);
        Ok((key.to_owned(), value.to_owned()))
    });
    let require = require.collect::<Result<_, _>>()?;
    let exclude = (0..count(EXCLUDE, bytes)?).map(|_| bytes.name());
    let exclude = exclude.collect::<Result<_, _>>()?;
    let latencies =
        (0..count(LATENCIES, bytes)?).map(|_| Ok((bytes.text()?.to_owned(), bytes.short()?)));
    let latencies = latencies.collect::<Result<_, _>>()?;
    let party = if has(PARTY) {
        Some(take_party(bytes)?)
    } else {
        None
    };
    let priority = if has(PRIORITY) {
        bytes.short_step(0)? as i32
    } else {
        0
    };
    let request = SelectRequest {
        key,
        group,
        requester,
        require,
        priority,
        attempt: if has(ATTEMPT) { bytes.short()? } else { 1 },
        demand: if has(DEMAND) { bytes.short()? } else { 1 },
        exclude,
        again: has(AGAIN),
        previous,
        latencies,
        party,
    };
    Ok(SelectJob {
        id,
        request: Arc::new(request),
        fallback,
        seed,
    })
}

fn put_party(out: &mut Vec<u8>, party: &PartyTerms) {
    out.put(party.number);
    out.put(party.rest.into());
    match party.rule {
        PartyRule::Any => out.put(0),
        PartyRule::Together => {
            out.put(1);
            out.put(party.types.len() as u64);
            party.types.iter().for_each(|of| out.put_text(of.as_str()));
        }
        PartyRule::Apart => out.put(2),
        PartyRule::AtMost(most) => {
            out.put(3);
            out.push(most);
        }
    }
    out.put(party.from.is_some().into());
    if let Some(from) = &party.from {
        out.put_text(from.as_str());
    }
}

fn take_party(bytes: &mut Take<'_>) -> Result<PartyTerms, InputsError> {
    let (number, rest) = (bytes.number()?, bytes.short()?);
    let rule = match bytes.byte()? {
        0 => PartyRule::Any,
        1 => PartyRule::Together,
        2 => PartyRule::Apart,
        3 => PartyRule::AtMost(bytes.byte()?),
        _ => return Err(InputsError::Damaged("a rule that is not there")),
    };
    let types = match rule {
        PartyRule::Together => bytes.count()?,
        _ => 0,
    };
    let types = (0..types).map(|_| bytes.name());
    let types = types.collect::<Result<_, _>>()?;
    let from = match bytes.flag()? {
        true => Some(bytes.name()?),
        false => None,
    };
    Ok(PartyTerms {
        number,
        rule,
        rest,
        types,
        from,
    })
}

pub(super) fn put_slot(out: &mut Vec<u8>, slot: Option<Slot>) {
    out.put(slot.map_or(0, |slot| u64::from(slot) + 1));
}

/// The answer's number in the lower bits, and whether the fallback chose.
pub(super) fn put_answered(out: &mut Vec<u8>, answered: &Answered, fallback: bool) {
    let number: u8 = match answered {
        Answered::Nothing => 0,
        Answered::Chose => 1,
        Answered::Ranked(_) => 2,
        Answered::None => 3,
        Answered::Rejected { .. } => 4,
        Answered::Wait(_) => 5,
    };
    out.push(number << 1 | u8::from(fallback));
    match answered {
        Answered::Ranked(number) | Answered::Wait(number) => out.put((*number).into()),
        Answered::Rejected { code, reason } => {
            out.put((*code).into());
            out.put_text(reason);
        }
        Answered::Nothing | Answered::Chose | Answered::None => {}
    }
}

pub(super) fn put_outcome(out: &mut Vec<u8>, outcome: &Outcome) {
    put_slot(out, outcome.chosen);
    put_answered(out, &outcome.answered, outcome.fallback);
    out.extend_from_slice(&outcome.fingerprint.to_le_bytes());
}

/// Reads what [`put_outcome`] wrote, of a fleet with so many nodes.
pub(super) fn take_outcome(bytes: &mut Take<'_>, nodes: usize) -> Result<Outcome, InputsError> {
    let chosen = bytes.short()?.checked_sub(1);
    if chosen.is_some_and(|slot| slot as usize >= nodes) {
        return Err(InputsError::Damaged("a node that is not there"));
    }
    let head = bytes.byte()?;
    let answered = match head >> 1 {
        0 => Answered::Nothing,
        1 => Answered::Chose,
        2 => Answered::Ranked(bytes.short()?),
        3 => Answered::None,
        4 => Answered::Rejected {
            code: bytes.short()?,
            reason: bytes.text()?.to_owned(),
        },
        5 => Answered::Wait(bytes.short()?),
        _ => return Err(InputsError::Damaged("an answer that is not there")),
    };
    Ok(Outcome {
        chosen,
        answered,
        fallback: head & 1 == 1,
        fingerprint: u64::from_le_bytes(bytes.exact()?),
    })
}
