//! Decisions in JSON: who chose, from what, and why not another node.

use maitred_protocol::{
    Answered, Candidate, Chooser, Evidence, Explanation, Plan, Refusal, RefusalReason, Why, WhyNot,
};
use serde_json::{Value, json};

use super::{fallback, process};

/// The hash of a configuration, as it is shown everywhere.
pub(crate) fn config_hash(hash: u64) -> String {
    format!("{hash:016x}")
}

fn chooser(chooser: &Chooser) -> Value {
    match chooser {
        Chooser::Node => json!({ "by": "node" }),
        Chooser::Selector {
            name,
            version,
            digest,
            config,
            canary,
        } => json!({
            "by": "selector",
            "selector": name.as_str(),
            "version": version,
            "digest": digest.to_string(),
            "config": config_hash(*config),
            "canary": canary,
        }),
        Chooser::Fallback {
            fallback: native,
            selector,
            cause,
        } => json!({
            "by": "fallback",
            "fallback": fallback(*native),
            "selector": selector.as_ref().map(|name| name.as_str()),
            "cause": cause,
        }),
        Chooser::Rebalance => json!({ "by": "rebalance" }),
        Chooser::Advice => json!({ "by": "advice" }),
    }
}

pub(crate) fn why(why: &Why) -> Value {
    json!({
        "chooser": chooser(&why.chooser),
        "seed": why.seed,
        "micros": why.micros,
        "candidates": why.candidates,
    })
}

pub(crate) fn refusal(refusal: &Refusal) -> Value {
    json!({
        "node": refusal.node.as_str(),
        "reason": refusal.reason.to_string(),
        "filter": filter(&refusal.reason),
    })
}

/// The filter that a node did not pass, as [`Evidence::filtered`] names it.
fn filter(reason: &RefusalReason) -> &'static str {
    match reason {
        RefusalReason::Cordoned => "cordoned",
        RefusalReason::Suspect => "suspect",
        RefusalReason::Expired => "expired",
        RefusalReason::TypeNotHosted => "type-not-hosted",
        RefusalReason::Label { .. } => "label",
        RefusalReason::Capacity { .. } => "capacity",
        RefusalReason::FailedBefore => "failed-before",
        RefusalReason::NotChosen => "not-chosen",
        RefusalReason::Damped(_) => "damped",
        RefusalReason::Budget => "budget",
        RefusalReason::Party => "party",
    }
}

fn candidate(candidate: &Candidate) -> Value {
    json!({
        "node": candidate.node.as_str(),
        // serde_json writes NaN, an unknown feature, as null.
        "values": candidate.values,
        "chosen": candidate.chosen,
        "load_age_ms": candidate.load_age_ms,
        "scores": candidate.scores,
    })
}

fn answered(answered: &Answered) -> Value {
    match answered {
        Answered::Nothing => json!({ "answer": "nothing" }),
        Answered::Chose => json!({ "answer": "choose" }),
        Answered::Ranked(count) => json!({ "answer": "ranked", "nodes": count }),
        Answered::None => json!({ "answer": "none" }),
        Answered::Rejected { code, reason } => {
            json!({ "answer": "reject", "code": code, "reason": reason })
        }
        Answered::Wait(ms) => json!({ "answer": "wait", "wait_ms": ms }),
    }
}

fn evidence(evidence: &Evidence) -> Value {
    let filtered = evidence.filtered.iter();
    json!({
        "why": why(&evidence.why),
        "answered": answered(&evidence.answered),
        "features": evidence.features,
        "terms": evidence.terms,
        "candidates": evidence.candidates.iter().map(candidate).collect::<Vec<_>>(),
        "filtered": filtered.map(|(name, count)| (name.clone(), json!(count)))
            .collect::<serde_json::Map<_, _>>(),
        "refusals": evidence.refusals.iter().map(refusal).collect::<Vec<_>>(),
        "refusals_more": evidence.refusals_more,
        "decided_ms": evidence.decided_ms.to_string(),
    })
}

fn why_not(why_not: &WhyNot) -> Value {
    match why_not {
        WhyNot::Chosen => json!({ "answer": "chosen" }),
        WhyNot::Offered(rank) => json!({ "answer": "offered", "rank": rank }),
        WhyNot::NotSampled => json!({ "answer": "not-sampled" }),
        WhyNot::Refused(reason) => json!({
            "answer": "refused",
            "filter": filter(reason),
            "reason": reason.to_string(),
        }),
        WhyNot::Unknown => json!({ "answer": "unknown" }),
    }
}

pub(crate) fn explanation(explanation: &Explanation) -> Value {
    json!({
        "process": process(&explanation.record),
        "evidence": explanation.evidence.as_ref().map(evidence),
        "fuel": explanation.fuel.map(|fuel| fuel.to_string()),
        "why_not": explanation.why_not.as_ref().map(why_not),
    })
}

pub(crate) fn plan(plan: &Plan) -> Value {
    json!({
        "node": plan.node.as_ref().map(|node| node.as_str()),
        "then": plan.then.iter().map(|node| node.as_str()).collect::<Vec<_>>(),
        "evidence": evidence(&plan.evidence),
        "revision": plan.revision.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_features_and_ages_are_null() {
        let one = Candidate {
            node: maitred_protocol::NodeName::new("eu-1").unwrap(),
            values: vec![1.5, f32::NAN],
            chosen: true,
            load_age_ms: f32::NAN,
            scores: vec![0.5],
        };
        let shown = candidate(&one);
        assert_eq!(shown["values"], json!([1.5, null]));
        assert_eq!(shown["load_age_ms"], Value::Null);
        assert_eq!(shown["scores"], json!([0.5]));
    }

    #[test]
    fn hashes_keep_their_zeros() {
        assert_eq!(config_hash(0xab), "00000000000000ab");
    }
}
