//! What selectors and their shadows have done, as Prometheus reads it.

use maitred_registry::decide::LaneId;
use maitred_sandbox::{LaneCounters, quantile_micros};

use super::Text;
use crate::host::Host;

/// A lane, as labels.
fn labels(lane: &LaneCounters) -> String {
    let LaneId { module, canary } = &lane.lane;
    format!("module=\"{module}\",canary=\"{canary}\"")
}

/// What the lanes count, as far as it is one number each.
type Of = fn(&LaneCounters) -> u64;

const OF_LANES: [(&str, &str, &str, Of); 5] = [
    (
        "maitred_selector_decisions_total",
        "counter",
        "Placement decisions, by selector, since its activation.",
        |lane| lane.decisions,
    ),
    (
        "maitred_selector_micros_total",
        "counter",
        "Microseconds spent deciding, by selector.",
        |lane| lane.micros_sum,
    ),
    (
        "maitred_selector_p99_micros",
        "gauge",
        "Microseconds that 99 of 100 decisions took at most, by selector, since its activation.",
        |lane| quantile_micros(&lane.micros_buckets, 990),
    ),
    (
        "maitred_selector_breaker_open",
        "gauge",
        "1 while a selector is bypassed because it kept failing.",
        |lane| u64::from(lane.breaker_open),
    ),
    (
        "maitred_selector_version",
        "gauge",
        "The version that decides, by selector.",
        |lane| u64::from(lane.version),
    ),
];

pub(super) fn lanes(host: &Host, text: &mut Text) {
    let lanes = host.lanes.counters();
    for (name, kind, help, of) in OF_LANES {
        text.head(name, kind, help);
        for lane in &lanes {
            text.labelled(name, labels(lane), of(lane));
        }
    }
    let name = "maitred_selector_fallbacks_total";
    let help = "Decisions that the native fallback made, by selector and cause.";
    text.head(name, "counter", help);
    for lane in &lanes {
        let fell = &lane.fallbacks;
        for (cause, count) in [
            ("not_loaded", fell.not_loaded),
            ("breaker_open", fell.breaker_open),
            ("queue_full", fell.queue_full),
            ("trap", fell.trap),
            ("timeout", fell.timeout),
            ("bad_answer", fell.bad_answer),
            ("guest_error", fell.guest_error),
            ("start_failed", fell.start_failed),
        ] {
            let labels = format!("{},cause=\"{cause}\"", labels(lane));
            text.labelled(name, labels, count);
        }
    }
}

pub(super) fn shadows(host: &Host, text: &mut Text) {
    let shadows = host.guards.shadows();
    let reports = shadows.iter().filter_map(|shadow| {
        let report = host.shadows.report(&shadow.name)?;
        Some((&shadow.name, report.comparison))
    });
    let reports: Vec<_> = reports.collect();
    let compared = "maitred_shadow_decisions_total";
    let help = "Decisions that a shadow made beside the active version, and what became of them; `skipped`: there were too many.";
    text.head(compared, "counter", help);
    for (name, comparison) in &reports {
        let differed = comparison.decisions.saturating_sub(comparison.agreed);
        for (what, count) in [
            ("agreed", comparison.agreed),
            ("differed", differed),
            ("skipped", comparison.skipped),
        ] {
            let labels = format!("module=\"{name}\",result=\"{what}\"");
            text.labelled(compared, labels, count);
        }
    }
}
