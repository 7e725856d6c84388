//! Between the registry's words and those of `maitred:policy@0.2.0`. The version before has a file of
//! its own (`v0_1`), and so will the next one: never a match a verb.

use maitred_protocol::{Hook, limits as wire};
use maitred_registry::decide::{Answer, Offer, Verdict};
use maitred_registry::feature::{
    self as catalogue, CANDIDATES_MAX, FEATURES_MAX, Feature, Manifest, TERMS_MAX,
};

use crate::bindings::callback::exports::maitred::policy::callback as callback_wit;
use crate::bindings::fence::exports::maitred::policy::fence as fence_wit;
use crate::bindings::selector::maitred::policy::answers;
use crate::bindings::selector::maitred::policy::types::Request;
use crate::callback::{Advice, Ended, SpawnRequest};
use crate::fence::{self, LostNode};
use crate::limits::{TERM_BYTES_MAX, TITLE_BYTES_MAX};

/// Bytes of a feature's name: `counter:` and a key.
const FEATURE_BYTES_MAX: usize = wire::TEXT_BYTES_MAX + 8;

/// What a selector is told. Arguments are the callback's business.
pub(crate) fn request<'a>(offer: &Offer<'a>) -> Request<'a> {
    let request = offer.request;
    Request {
        process_type: request.key.type_name.as_str(),
        id: request.key.id.as_str(),
        args: &[],
        group: request.group.as_deref(),
        requester: request.requester.as_ref().map(|name| name.as_str()),
        previous: request.previous.as_ref().map(|name| name.as_str()),
        demand: request.demand,
        priority: request.priority,
        attempt: request.attempt,
        seed: offer.seed,
        time: offer.time_s,
    }
}

/// What a callback is told.
pub(crate) fn spawn_request(request: &SpawnRequest) -> Request<'_> {
    Request {
        process_type: request.key.type_name.as_str(),
        id: request.key.id.as_str(),
        args: &request.args,
        group: request.group.as_deref(),
        requester: request.requester.as_ref().map(|name| name.as_str()),
        previous: request.previous.as_ref().map(|name| name.as_str()),
        demand: request.demand,
        priority: request.priority,
        attempt: request.attempt,
        seed: request.seed,
        time: request.time_s,
    }
}

/// What a callback is told of a life that has ended. `incarnation` holds what the WIT wants in
/// another shape.
pub(crate) fn ended<'a>(ended: &'a Ended, incarnation: &'a str) -> callback_wit::Ended<'a> {
    callback_wit::Ended {
        process_type: ended.key.type_name.as_str(),
        id: ended.key.id.as_str(),
        group: ended.group.as_deref(),
        node: ended.node.as_str(),
        incarnation,
        reason: &ended.reason,
        times: ended.times,
        lasted_ms: ended.lasted_ms,
        seed: ended.seed,
        time: ended.time_s,
    }
}

/// What a callback advises.
pub(crate) fn advice(advice: callback_wit::Advice) -> Advice {
    match advice {
        callback_wit::Advice::Usual => Advice::Usual,
        callback_wit::Advice::Here => Advice::Here,
        callback_wit::Advice::Elsewhere => Advice::Elsewhere,
        callback_wit::Advice::BackOff(ms) => Advice::BackOff(ms),
        callback_wit::Advice::GiveUp(reason) => Advice::GiveUp(reason),
    }
}

/// What a callback wants to be asked, each once.
pub(crate) fn hooks(hooks: &[callback_wit::Hook]) -> Vec<Hook> {
    let mut named = Vec::new();
    for hook in hooks {
        let hook = match hook {
            callback_wit::Hook::NodeLost => Hook::NodeLost,
            callback_wit::Hook::Exit => Hook::Exit,
            callback_wit::Hook::Compensate => Hook::Compensate,
        };
        if !named.contains(&hook) {
            named.push(hook);
        }
    }
    named
}

/// What a fence is told. `epoch` and `labels` hold what the WIT wants in another shape.
pub(crate) fn lost_node<'a>(
    lost: &'a LostNode,
    epoch: &'a str,
    labels: &'a [(&'a str, &'a str)],
) -> fence_wit::LostNode<'a> {
    fence_wit::LostNode {
        node: lost.node.as_str(),
        epoch,
        address: &lost.address,
        labels,
        lost_for_ms: lost.lost_for_ms,
        attempt: lost.attempt,
        seed: lost.seed,
        time: lost.time_s,
    }
}

/// What a fence found.
pub(crate) fn verdict(verdict: fence_wit::Verdict) -> fence::Verdict {
    match verdict {
        fence_wit::Verdict::Dead(proof) => fence::Verdict::Dead(proof),
        fence_wit::Verdict::AliveOrUnknown(retry_ms) => fence::Verdict::AliveOrUnknown { retry_ms },
    }
}

/// Labels, borrowed.
pub(crate) fn labels(labels: &[(String, String)]) -> Vec<(&str, &str)> {
    labels
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect()
}

/// What a selector or a scanner answered; whether it is one is `decide`'s to check.
pub(crate) fn answer(answer: answers::Answer) -> Answer {
    let answers::Answer { verdict, scores } = answer;
    let verdict = match verdict {
        answers::Verdict::Choose(slot) => Verdict::Choose(slot),
        answers::Verdict::None => Verdict::None,
        answers::Verdict::Ranked(slots) => Verdict::Ranked(slots),
        answers::Verdict::Reject(answers::Rejection { code, reason }) => {
            Verdict::Reject { code, reason }
        }
        answers::Verdict::Wait(ms) => Verdict::Wait(ms),
    };
    Answer {
        verdict,
        scored: scores.slots,
        scores: scores.values,
    }
}

/// How a selector wants its candidates, as it says it.
pub(crate) enum Ask {
    All,
    Sample(u32),
    Lowest(String, u32),
    /// A scanner.
    Scan,
}

/// Reads the manifest of a selector or a scanner.
pub(crate) fn manifest(
    (name, version): (String, String),
    features: &[String],
    terms: Vec<String>,
    ask: Ask,
) -> Result<Manifest, String> {
    let title = title(&name, &version)?;
    let bounds = [
        ("features", features.len(), FEATURES_MAX),
        ("score terms", terms.len(), TERMS_MAX),
    ];
    if let Some((what, got, most)) = bounds.into_iter().find(|(_, got, most)| got > most) {
        return Err(format!("it asks for {got} {what}, of at most {most}"));
    }
    let features = features
        .iter()
        .map(|name| feature(name))
        .collect::<Result<_, _>>()?;
    terms.iter().try_for_each(|term| named_term(term))?;
    let ask = match ask {
        Ask::All => catalogue::Ask::All,
        Ask::Sample(count) => catalogue::Ask::Sample(candidates(count)?),
        Ask::Lowest(name, count) => catalogue::Ask::Lowest(feature(&name)?, candidates(count)?),
        Ask::Scan => catalogue::Ask::Scan,
    };
    Ok(Manifest {
        title,
        features,
        terms,
        ask,
    })
}

/// Reads the name and the version of a manifest: a title.
pub(crate) fn title(name: &str, version: &str) -> Result<String, String> {
    for (what, text) in [("name", name), ("version", version)] {
        if text.len() > TITLE_BYTES_MAX {
            return Err(format!(
                "the manifest's {what} has {} bytes, of at most {TITLE_BYTES_MAX}",
                text.len()
            ));
        }
        if text.chars().any(char::is_control) {
            return Err(format!("the manifest's {what} has control characters"));
        }
    }
    Ok(format!("{name} {version}"))
}

fn named_term(term: &str) -> Result<(), String> {
    if term.is_empty() || term.len() > TERM_BYTES_MAX {
        let got = term.len();
        return Err(format!(
            "the name of a score term has {got} bytes, of 1 to {TERM_BYTES_MAX}"
        ));
    }
    if term.chars().any(char::is_control) {
        return Err("the name of a score term has control characters".to_owned());
    }
    Ok(())
}

fn feature(name: &str) -> Result<Feature, String> {
    if name.len() > FEATURE_BYTES_MAX {
        return Err(format!(
            "the name of a feature has {} bytes, of at most {FEATURE_BYTES_MAX}",
            name.len()
        ));
    }
    name.parse::<Feature>()
        .map_err(|unknown| unknown.to_string())
}

fn candidates(count: u32) -> Result<u32, String> {
    if (1..=CANDIDATES_MAX).contains(&count) {
        return Ok(count);
    }
    Err(format!(
        "it asks for {count} candidates, of 1 to {CANDIDATES_MAX}"
    ))
}
