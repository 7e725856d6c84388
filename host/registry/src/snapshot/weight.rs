//! About how many bytes a chunk takes for what it holds, so that chunks can be cut by it.
//!
//! Only what can be large is counted, and a flat sum for the rest: a chunk may be a little larger than
//! was aimed for, and never so large that a snapshot cannot be stored or sent.

use maitred_protocol::{
    Digest, ModuleRecord, ModuleVersion, NodeRecord, Rejection, TypeName, TypeSpec, limits,
};

use super::failover::LostMirror;
use super::mirror::{ModuleMirror, NodeMirror, PartyMirror};
use crate::outcome::Outcome;
use crate::process::Record;

/// Numbers, names, and the references between parts.
const REST: usize = 512;

pub(super) fn of_record(record: &Record) -> usize {
    let spec = record.spec.as_deref().map_or(0, |spec| {
        let latencies = spec.options.latencies.iter();
        let latencies = latencies.map(|(value, _)| value.len() + 16);
        let failures = spec.failures.iter();
        let failures = failures.map(|failure| failure.cause.len() + limits::NAME_BYTES_MAX + 16);
        spec.args.len()
            + spec.options.group.as_ref().map_or(0, String::len)
            + of_labels(&spec.options.require)
            + latencies.sum::<usize>()
            + failures.sum::<usize>()
    });
    REST + record.id.len() + record.pid.len() + record.share.len() + spec
}

pub(super) fn of_outcome(outcome: &Outcome) -> usize {
    REST + match outcome {
        Outcome::Created { record, .. } | Outcome::Process(record) => of_record(record),
        Outcome::Party(records) => records.iter().map(|record| of_record(record)).sum(),
        Outcome::Pushed(module, _) | Outcome::Module(module) => of_module_record(module),
        Outcome::Registered { verdicts, .. } => verdicts.len(),
        Outcome::Rejected(rejection) => of_rejection(rejection),
        _ => 0,
    }
}

pub(super) fn of_node(node: &NodeMirror) -> usize {
    let types = node.types.iter().map(|name| name.as_str().len() + 8);
    REST + node.share.len() + node.address.len() + types.sum::<usize>() + of_labels(&node.labels)
}

pub(super) fn of_lost(lost: &LostMirror) -> usize {
    REST + lost.address.len() + of_labels(&lost.labels)
}

pub(super) fn of_party(party: &PartyMirror) -> usize {
    let members = party.members.iter();
    let members = members.map(|key| key.type_name.as_str().len() + key.id.as_str().len() + 16);
    REST + members.sum::<usize>()
}

fn of_labels(labels: &[(String, String)]) -> usize {
    let labels = labels.iter();
    labels
        .map(|(key, value)| key.len() + value.len() + 16)
        .sum()
}

/// What a rejection says node by node.
fn of_rejection(rejection: &Rejection) -> usize {
    let each = limits::REASON_BYTES_MAX + limits::NAME_BYTES_MAX;
    each * match rejection {
        Rejection::NoPlacement { refusals, .. } => refusals.len(),
        Rejection::SpawnFailed(attempts) | Rejection::Deadline(attempts) => attempts.len(),
        Rejection::AlreadyExists(record) => return REST + record.share.len() + record.pid.len(),
        _ => 1,
    }
}

pub(super) fn of_module(module: &ModuleMirror) -> usize {
    let (canary, types) = match &module.canary {
        Some((canary, _, types)) => (Some(canary), of_names(types)),
        None => (None, 0),
    };
    let beside = [&module.active, &module.shadow].into_iter().flatten();
    let all = beside.chain(canary).chain(&module.before);
    let events = module
        .history
        .iter()
        .map(|event| REST + of_names(&event.types) + event.cause.as_ref().map_or(0, String::len));
    REST + types
        + all.map(|active| REST + active.config.len()).sum::<usize>()
        + events.sum::<usize>()
        + of_versions(&module.versions)
        + of_digests(&module.declined)
}

/// The same of what others see of it.
pub(crate) fn of_module_record(module: &ModuleRecord) -> usize {
    let canary = module.canary.as_ref();
    let canary = canary.map_or(0, |canary| canary.config.len() + of_names(&canary.types));
    let shadow = module.shadow.as_ref();
    let shadow = shadow.map_or(0, |shadow| shadow.config.len());
    REST + module.config.len()
        + canary
        + shadow
        + of_versions(&module.versions)
        + of_digests(&module.declined)
}

fn of_digests(digests: &[Digest]) -> usize {
    size_of_val(digests)
}

/// The same of a node.
pub(crate) fn of_node_record(node: &NodeRecord) -> usize {
    let counters = node.load.iter().flat_map(|(load, _)| &load.counters);
    let counters = counters.map(|(name, _)| name.len() + 16);
    let own = node.address.len() + node.share.len();
    REST + own + of_names(&node.types) + of_labels(&node.labels) + counters.sum::<usize>()
}

/// The same of a type: four names, and numbers.
pub(crate) fn of_type(_: &TypeSpec) -> usize {
    REST
}

fn of_versions(versions: &[ModuleVersion]) -> usize {
    let versions = versions.iter().map(|version| {
        let features = version.features.iter();
        let features = features.map(|feature| feature.len() + 8).sum::<usize>();
        REST + version.title.len() + features
    });
    versions.sum()
}

fn of_names(names: &[TypeName]) -> usize {
    names.iter().map(|name| name.as_str().len() + 8).sum()
}
