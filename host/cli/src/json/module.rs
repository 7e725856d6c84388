//! Modules in JSON: versions, which of them decide, what was done with them, and comparisons.

use maitred_protocol::comparison::{ComparedVersion, Comparison, Difference, Evenness, Quantiles};
use maitred_protocol::{
    CanaryRecord, Hook, ModuleAction, ModuleEvent, ModuleKind, ModuleRecord, ModuleVersion,
    NodeName, ShadowRecord, Signature, TypeName,
};
use serde_json::{Value, json};

use super::config_hash;

pub(crate) fn module_kind(kind: ModuleKind) -> &'static str {
    match kind {
        ModuleKind::Selector => "selector",
        ModuleKind::Callback => "callback",
        ModuleKind::Fence => "fence",
    }
}

pub(crate) fn hook(hook: Hook) -> &'static str {
    match hook {
        Hook::NodeLost => "on-node-lost",
        Hook::Exit => "on-exit",
        Hook::Compensate => "compensate",
    }
}

/// The public key of a signature, in hexadecimal digits.
pub(crate) fn signer(signature: &Signature) -> String {
    let digits = signature.key.iter().map(|byte| format!("{byte:02x}"));
    digits.collect()
}

fn names(types: &[TypeName]) -> Vec<&str> {
    types.iter().map(TypeName::as_str).collect()
}

fn version(version: &ModuleVersion) -> Value {
    json!({
        "version": version.version,
        "digest": version.digest.to_string(),
        "bytes": version.bytes.to_string(),
        "title": version.title,
        "world": version.world,
        "abi": version.abi,
        "features": version.features,
        "hooks": version.hooks.iter().map(|one| hook(*one)).collect::<Vec<_>>(),
        "signer": version.signature.as_ref().map(signer),
        "pushed_ms": version.pushed_ms.to_string(),
    })
}

fn canary(canary: &CanaryRecord) -> Value {
    json!({
        "version": canary.version,
        "config": canary.config,
        "config_version": canary.config_version,
        "percent": canary.percent,
        "types": names(&canary.types),
        "guard": canary.guard,
        "activated": canary.activated.to_string(),
    })
}

fn shadow(shadow: &ShadowRecord) -> Value {
    json!({
        "version": shadow.version,
        "config": shadow.config,
        "since": shadow.since.to_string(),
    })
}

pub(crate) fn module(module: &ModuleRecord) -> Value {
    json!({
        "name": module.name.as_str(),
        "module_kind": module_kind(module.kind),
        "active": module.active,
        "previous": module.previous,
        "config": module.config,
        "config_version": module.config_version,
        "guard": module.guard,
        "canary": module.canary.as_ref().map(canary),
        "shadow": module.shadow.as_ref().map(shadow),
        "activated": module.activated.to_string(),
        "revision": module.revision.to_string(),
        "versions": module.versions.iter().map(version).collect::<Vec<_>>(),
    })
}

pub(crate) fn action(action: ModuleAction) -> &'static str {
    match action {
        ModuleAction::Pushed => "pushed",
        ModuleAction::Activated => "activated",
        ModuleAction::Configured => "configured",
        ModuleAction::CanaryStarted => "canary-started",
        ModuleAction::RolledBack => "rolled-back",
        ModuleAction::AutoRolledBack => "auto-rolled-back",
        ModuleAction::ShadowStarted => "shadow-started",
        ModuleAction::ShadowStopped => "shadow-stopped",
        ModuleAction::Removed => "removed",
    }
}

pub(crate) fn event(event: &ModuleEvent) -> Value {
    json!({
        "revision": event.revision.to_string(),
        "time_ms": event.time_ms.to_string(),
        "action": action(event.action),
        "version": event.version,
        "config_version": event.config_version,
        "config": config_hash(event.config),
        "percent": event.percent,
        "types": names(&event.types),
        "cause": event.cause,
    })
}

fn compared(version: &ComparedVersion) -> Value {
    json!({
        "version": version.version,
        "digest": version.digest.to_string(),
        "config": config_hash(version.config),
    })
}

fn quantiles(of: Quantiles) -> Value {
    json!({
        "p50": of.p50.to_string(),
        "p90": of.p90.to_string(),
        "p99": of.p99.to_string(),
        "max": of.max.to_string(),
    })
}

fn evenness(of: Evenness) -> Value {
    json!({ "max": of.max, "mean": of.mean, "deviation": of.deviation })
}

fn difference(one: &Difference) -> Value {
    let node = |node: &Option<NodeName>| node.as_ref().map(ToString::to_string);
    json!({
        "key": one.key.to_string(),
        "decided": node(&one.decided),
        "other": node(&one.other),
        "reason": one.reason,
    })
}

pub(crate) fn comparison(of: &Comparison) -> Value {
    json!({
        "module": of.module.as_str(),
        "decided": of.decided.iter().map(compared).collect::<Vec<_>>(),
        "other": compared(&of.other),
        "decisions": of.decisions.to_string(),
        "skipped": of.skipped.to_string(),
        "agreed": of.agreed.to_string(),
        "moved": of.moved.to_string(),
        "newly_rejected": of.newly_rejected.to_string(),
        "newly_placed": of.newly_placed.to_string(),
        "same_version": of.same_version.to_string(),
        "identical": of.identical.to_string(),
        "traps": of.traps.to_string(),
        "timeouts": of.timeouts.to_string(),
        "bad_answers": of.bad_answers.to_string(),
        "fuel": quantiles(of.fuel),
        "nanos": quantiles(of.nanos),
        "spread_decided": evenness(of.spread_decided),
        "spread_other": evenness(of.spread_other),
        "differences": of.differences.iter().map(difference).collect::<Vec<_>>(),
        "from_ms": of.from_ms.to_string(),
        "to_ms": of.to_ms.to_string(),
    })
}
