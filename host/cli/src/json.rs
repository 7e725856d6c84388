//! The JSON form of everything that is shown: a contract with scripts.
//!
//! Holds: 64-bit numbers are strings (readers that use doubles would corrupt them), bytes are
//! `{"utf8": …}` or `{"hex": …}`, unknown numbers are null, and within `"v": 1` fields are only added.

mod decision;
mod failover;
mod module;

use maitred_protocol::{
    Attempt, Fallback, MemberRecord, MemberRole, Members, NodeRecord, OnNodeLost, ProcessRecord,
    ProcessState, Progress, Status, TypeSpec,
};
use serde_json::{Value, json};

pub(crate) use decision::{config_hash, explanation, plan, refusal, why};
pub(crate) use failover::{
    drain, lost, on_drain, pending, rebalance, restart, switches, waits_code,
};
pub(crate) use module::{action, comparison, event, hook, module, module_kind, signer};

pub(crate) fn bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!({ "utf8": text }),
        Err(_) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "hex": hex })
        }
    }
}

pub(crate) fn state(state: ProcessState) -> &'static str {
    match state {
        ProcessState::Starting => "starting",
        ProcessState::Running => "running",
        ProcessState::Pending => "pending",
    }
}

pub(crate) fn fallback(fallback: Fallback) -> &'static str {
    match fallback {
        Fallback::LeastLoaded => "least-loaded",
        Fallback::TwoChoices => "two-choices",
        Fallback::Rendezvous => "rendezvous",
    }
}

pub(crate) fn on_node_lost(what: OnNodeLost) -> &'static str {
    match what {
        OnNodeLost::Forget => "forget",
        OnNodeLost::Recreate => "recreate",
    }
}

fn pairs(pairs: &[(String, String)]) -> Value {
    pairs
        .iter()
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

pub(crate) fn process(record: &ProcessRecord) -> Value {
    json!({
        "key": record.key.to_string(),
        "type": record.key.type_name.as_str(),
        "id": record.key.id.as_str(),
        "state": state(record.state),
        "node": record.node.as_str(),
        "node_epoch": record.node_epoch.to_string(),
        "address": record.address,
        "incarnation": record.incarnation.to_string(),
        "pid": record.pid,
        "share": bytes(&record.share),
        "revision": record.revision.to_string(),
        "created_ms": record.created_ms.to_string(),
        "attempt": record.attempt,
        "args_bytes": record.args_bytes,
        "demand": record.demand,
        "group": record.group,
        "why": why(&record.why),
    })
}

pub(crate) fn node(node: &NodeRecord) -> Value {
    let load = node.load.as_ref().map(|(load, age_ms)| {
        json!({
            "cpu": load.cpu,
            "memory_free_mib": load.memory_free_mib,
            "counters": load.counters.iter().map(|(name, value)| (name.clone(), json!(value)))
                .collect::<serde_json::Map<_, _>>(),
            "age_ms": age_ms,
        })
    });
    json!({
        "name": node.name.as_str(),
        "state": node_state(node),
        "epoch": node.epoch.to_string(),
        "types": node.types.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
        "address": node.address,
        "labels": pairs(&node.labels),
        "capacity": node.capacity,
        "used": node.used,
        "processes": node.processes,
        "stopping": node.stopping,
        "share": bytes(&node.share),
        "ttl_ms": node.ttl_ms,
        "lease_left_ms": node.lease_left_ms,
        "kill_bound_ms": node.kill_bound_ms,
        "cordoned": node.cordoned,
        "suspect": node.suspect,
        "damped_ms": node.damped_ms,
        "drain": drain(node),
        "load": load,
        "revision": node.revision.to_string(),
    })
}

/// One word for a node's state: a missing sign of life matters more than what an operator wants, and
/// that more than what will pass by itself.
pub(crate) fn node_state(node: &NodeRecord) -> &'static str {
    match node.drain {
        _ if node.suspect => "suspect",
        Some(_) if node.processes + node.stopping > 0 => "draining",
        Some(_) => "drained",
        None if node.cordoned => "cordoned",
        None if node.damped_ms > 0 => "damped",
        None => "ready",
    }
}

pub(crate) fn type_spec(spec: &TypeSpec) -> Value {
    json!({
        "name": spec.name.as_str(),
        "selector": spec.selector.as_str(),
        "callback": spec.callback.as_str(),
        "fallback": fallback(spec.fallback),
        "on_node_lost": on_node_lost(spec.on_node_lost),
        "attempts": spec.attempts,
        "back_off_ms": spec.back_off_ms,
        "deadline_ms": spec.deadline_ms,
        "restart": restart(spec.restart),
        "fence": spec.fence.as_ref().map(|name| name.as_str()),
        "on_drain": on_drain(spec.on_drain),
        "recreate_attempts": spec.recreate_attempts,
        "pending_deadline_ms": spec.pending_deadline_ms,
        "revision": spec.revision.to_string(),
    })
}

pub(crate) fn attempt(attempt: &Attempt) -> Value {
    json!({
        "node": attempt.node.as_str(),
        "incarnation": attempt.incarnation.to_string(),
        "cause": attempt.cause,
    })
}

pub(crate) fn role(role: MemberRole) -> &'static str {
    match role {
        MemberRole::Joining => "joining",
        MemberRole::Learner => "learner",
        MemberRole::Voter => "voter",
        MemberRole::Leaving => "leaving",
    }
}

/// The last entry that it is known to have; none when the leader has not heard that from it yet.
pub(crate) fn has(progress: Progress) -> Option<u64> {
    (progress.matched > 0).then_some(progress.matched)
}

/// A host of a cluster whose leader is at `commit`.
pub(crate) fn member(member: &MemberRecord, leader: Option<u64>, commit: u64) -> Value {
    let progress = member.progress.map(|progress| {
        json!({
            "matched": has(progress).map(|index| index.to_string()),
            "behind": has(progress).map(|index| commit.saturating_sub(index).to_string()),
            "heard_ms": progress.heard_ms,
            "snapshot": progress.snapshot.map(|index| index.to_string()),
        })
    });
    json!({
        "host": member.host.to_string(),
        "name": member.name.as_str(),
        "address": member.address,
        "role": role(member.role),
        "leads": leader == Some(member.host),
        "arrived": member.arrived,
        "replaces": member.replaces.map(|host| host.to_string()),
        "progress": progress,
    })
}

/// What a list of members says of the whole.
pub(crate) fn cluster(members: &Members) -> Value {
    json!({
        "leader": members.leader.map(|host| host.to_string()),
        "term": members.term.to_string(),
        "commit": members.commit.to_string(),
        "level": members.level,
    })
}

pub(crate) fn status(status: &Status) -> Value {
    let modules = |(name, reason): &(maitred_protocol::ModuleName, String)| json!({ "name": name.as_str(), "reason": reason });
    let bypassed = |(name, seconds): &(maitred_protocol::ModuleName, u32)| json!({ "name": name.as_str(), "seconds": seconds });
    let voters = status.members.iter();
    let voters = voters.filter(|member| member.role == MemberRole::Voter);
    json!({
        "build": status.build,
        "host": status.host.to_string(),
        "role": status.role,
        "leader": status.leader.map(|id| id.to_string()),
        "no_leader": status.no_leader,
        "voters": voters.map(|member| member.host.to_string()).collect::<Vec<_>>(),
        "level": status.level,
        "term": status.term.to_string(),
        "commit": status.commit.to_string(),
        "applied": status.applied.to_string(),
        "log_entries": status.log_entries.to_string(),
        "snapshot": status.snapshot.to_string(),
        "uptime_ms": status.uptime_ms.to_string(),
        "nodes": status.nodes,
        "running": status.running.to_string(),
        "starting": status.starting.to_string(),
        "pending": status.pending.to_string(),
        "clients": status.clients,
        "unavailable_modules": status.unavailable_modules.iter().map(modules).collect::<Vec<_>>(),
        "bypassed_modules": status.bypassed_modules.iter().map(bypassed).collect::<Vec<_>>(),
        "fallbacks": status.fallbacks.to_string(),
        "shedding": status.shedding,
        "held": status.held.to_string(),
        "lost": status.lost,
        "recreation_paused": status.recreation_paused,
        "moves_suspended": status.moves_suspended,
        "moves_left": status.moves_left,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_readable_when_they_are_text() {
        assert_eq!(bytes(b"lobby 3"), json!({ "utf8": "lobby 3" }));
        assert_eq!(bytes(&[0xff, 1]), json!({ "hex": "ff01" }));
    }

    #[test]
    fn large_numbers_survive() {
        let mut spec = TypeSpec::new(maitred_protocol::TypeName::new("room").unwrap());
        spec.revision = maitred_protocol::Revision(u64::MAX);
        assert_eq!(type_spec(&spec)["revision"], "18446744073709551615");
    }

    #[test]
    fn what_the_leader_has_not_heard_of_is_unknown() {
        let mut one = MemberRecord {
            host: 3,
            name: maitred_protocol::HostName::new("c").unwrap(),
            address: "10.0.0.3:7600".to_owned(),
            role: MemberRole::Voter,
            replaces: None,
            arrived: true,
            progress: Some(Progress {
                matched: 0,
                heard_ms: None,
                snapshot: None,
            }),
        };
        assert_eq!(member(&one, Some(1), 9)["progress"]["behind"], Value::Null);
        one.progress = one.progress.map(|known| Progress {
            matched: 7,
            ..known
        });
        assert_eq!(member(&one, Some(1), 9)["progress"]["behind"], "2");
    }
}
