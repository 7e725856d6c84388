//! The JSON form of what is said about lost, drained and uneven nodes.

use maitred_protocol::{
    LostNode, Move, NodeRecord, OnDrain, PendingProcess, RebalancePlan, Restart, Spread, Status,
    Waits,
};
use serde_json::{Value, json};

use super::{process, refusal};

pub(crate) fn restart(level: Restart) -> &'static str {
    match level {
        Restart::Fast => "fast",
        Restart::Safe => "safe",
        Restart::Strict => "strict",
    }
}

pub(crate) fn on_drain(what: OnDrain) -> &'static str {
    match what {
        OnDrain::Move => "move",
        OnDrain::Wait => "wait",
        OnDrain::Stop => "stop",
    }
}

/// The drain of a node, and how much it has left; null without one.
pub(crate) fn drain(node: &NodeRecord) -> Value {
    node.drain.map_or(Value::Null, |drain| {
        json!({
            "began_ms": drain.began_ms.to_string(),
            "deadline_at_ms": drain.deadline_at_ms.to_string(),
            "per_second": drain.per_second,
            "processes": drain.processes,
            "left": node.processes + node.stopping,
        })
    })
}

pub(crate) fn lost(lost: &LostNode) -> Value {
    json!({
        "name": lost.name.as_str(),
        "epoch": lost.epoch.to_string(),
        "lost_ms": lost.lost_ms.to_string(),
        "kill_bound_ms": lost.kill_bound_ms,
        "waiting_for_bound": lost.safe,
        "waiting_for_proof": lost.strict,
    })
}

/// A word for what a process waits for.
pub(crate) fn waits_code(waits: &Waits) -> &'static str {
    match waits {
        Waits::Nothing => "nothing",
        Waits::Held { .. } => "held",
        Waits::BackOff(_) => "back_off",
        Waits::NoNode { .. } => "no_node",
        Waits::Turn(_) => "turn",
        Waits::Paused(_) => "paused",
    }
}

fn waits(waits: &Waits) -> Value {
    let mut body = json!({ "for": waits_code(waits) });
    match waits {
        Waits::Nothing => {}
        Waits::Held {
            node,
            epoch,
            lost,
            strict,
            left_ms,
        } => {
            body["node"] = json!(node.as_str());
            body["epoch"] = json!(epoch.to_string());
            body["lost"] = json!(lost);
            body["proof"] = json!(strict);
            body["left_ms"] = json!(left_ms);
        }
        Waits::BackOff(millis) => body["left_ms"] = json!(millis),
        Waits::NoNode { refusals, more } => {
            body["refusals"] = refusals.iter().map(refusal).collect();
            body["more"] = json!(more);
        }
        Waits::Turn(before) => body["before"] = json!(before),
        Waits::Paused(why) => body["why"] = json!(why),
    }
    body
}

/// As [`process`], with `pending`: what it waits for.
pub(crate) fn pending(pending: &PendingProcess) -> Value {
    let mut body = process(&pending.record);
    body["pending"] = json!({
        "since_ms": pending.since_ms.to_string(),
        "waits": waits(&pending.waits),
        "cause": pending.cause,
        "left_ms": pending.left_ms,
    });
    body
}

fn spread(spread: Spread) -> Value {
    json!({
        "least": spread.least,
        "mean": spread.mean,
        "most": spread.most,
        "deviation": spread.deviation,
    })
}

pub(crate) fn rebalance(plan: &RebalancePlan) -> Value {
    let one = |one: &Move| {
        json!({
            "key": one.key.to_string(),
            "incarnation": one.incarnation.to_string(),
            "from": one.from.as_str(),
            "to": one.to.as_str(),
            "gain": one.gain,
        })
    };
    json!({
        "moves": plan.moves.iter().map(one).collect::<Vec<_>>(),
        "before": spread(plan.before),
        "after": spread(plan.after),
        "revision": plan.revision.to_string(),
    })
}

/// What of a status is about moves and re-creation.
pub(crate) fn switches(status: &Status) -> Value {
    json!({
        "recreation_paused": status.recreation_paused,
        "moves_suspended": status.moves_suspended,
        "moves_left": status.moves_left,
        "pending": status.pending.to_string(),
        "held": status.held.to_string(),
        "lost": status.lost,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use maitred_protocol::{NodeEpoch, NodeName, Refusal, RefusalReason};

    #[test]
    fn what_a_process_waits_for_has_a_word_and_its_numbers() {
        let node = NodeName::new("eu-1").unwrap();
        let held = Waits::Held {
            node: node.clone(),
            epoch: NodeEpoch(u64::MAX),
            lost: true,
            strict: false,
            left_ms: Some(700),
        };
        let shown = waits(&held);
        assert_eq!(shown["for"], "held");
        assert_eq!(shown["epoch"], "18446744073709551615");
        assert_eq!(
            (&shown["proof"], &shown["left_ms"]),
            (&json!(false), &json!(700))
        );
        let reason = RefusalReason::Cordoned;
        let none = Waits::NoNode {
            refusals: vec![Refusal { node, reason }],
            more: 3,
        };
        let shown = waits(&none);
        assert_eq!(shown["refusals"][0]["reason"], "cordoned");
        assert_eq!(shown["more"], 3);
        assert_eq!(waits(&Waits::Nothing), json!({ "for": "nothing" }));
        assert_eq!(waits(&Waits::Turn(9))["before"], 9);
        assert_eq!(waits(&Waits::BackOff(5))["left_ms"], 5);
        assert_eq!(waits(&Waits::Paused("x".into()))["why"], "x");
    }
}
