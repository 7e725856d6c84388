//! Between the registry's words and those of `maitred:policy@0.1.0`. Another version of the WIT
//! package gets another file like this one, never a match a verb.

use maitred_protocol::limits as wire;
use maitred_registry::decide::Offer;
use maitred_registry::feature::{Ask, CANDIDATES_MAX, FEATURES_MAX, Feature, Manifest};

use crate::bindings::fence::exports::maitred::policy::fence as fence_wit;
use crate::bindings::selector::exports::maitred::policy::selector as wit;
use crate::bindings::selector::maitred::policy::types::Request;
use crate::callback::SpawnRequest;
use crate::fence::LostNode;
use crate::limits::TITLE_BYTES_MAX;

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
        demand: request.demand,
        priority: request.priority,
        attempt: request.attempt,
        seed: request.seed,
        time: request.time_s,
    }
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

/// Labels, borrowed.
pub(crate) fn labels(labels: &[(String, String)]) -> Vec<(&str, &str)> {
    labels
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect()
}

/// Reads a selector's manifest.
pub(crate) fn manifest(manifest: wit::Manifest) -> Result<Manifest, String> {
    let title = title(&manifest.name, &manifest.version)?;
    if manifest.features.len() > FEATURES_MAX {
        return Err(format!(
            "it asks for {} features, of at most {FEATURES_MAX}",
            manifest.features.len()
        ));
    }
    let features = manifest
        .features
        .iter()
        .map(|name| feature(name))
        .collect::<Result<_, _>>()?;
    let ask = match manifest.ask {
        wit::Ask::All => Ask::All,
        wit::Ask::Sample(count) => Ask::Sample(candidates(count)?),
        wit::Ask::Lowest(wit::Lowest {
            feature: name,
            count,
        }) => Ask::Lowest(feature(&name)?, candidates(count)?),
    };
    Ok(Manifest {
        title,
        features,
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
