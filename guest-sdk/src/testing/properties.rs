//! What must hold for every selector, whatever it is for.

use super::Refusal;
use super::decide::bounded;
use super::{Fleet, TestHost};
use crate::glue::SelectorInstance;
use crate::{Request, Selector};

/// Runs a selector without configuration over `fleet` and panics with a sentence when it breaks a
/// rule that every selector has to keep:
///
/// - it answers with slots that were offered and within the bounds of the WIT, never with an error;
/// - the same request and candidates give the same answer, in a fresh instance as in a used one;
/// - it copes with one candidate, and with columns of which nothing is known (NaN);
/// - lists of the wrong length are an error, not a panic.
///
/// # Panics
/// When a rule is broken; so it belongs into tests.
pub fn check<S: Selector>(fleet: &Fleet, requests: &[Request]) {
    check_configured::<S>(fleet, requests, "{}");
}

/// The same with a configuration, which has to be valid.
///
/// # Panics
/// When a rule is broken.
pub fn check_configured<S: Selector>(fleet: &Fleet, requests: &[Request], config: &str) {
    let host = TestHost::with_config(config);
    assert_eq!(S::validate(config, &host), Ok(()), "it refuses {config}");
    let used = SelectorInstance::<S>::new(&host);
    for request in requests {
        let answer = fleet
            .answer_with(&used, request, &host)
            .unwrap_or_else(|refusal| panic!("{refusal:?}"));
        let fresh = fleet.answer_with(&SelectorInstance::<S>::new(&host), request, &host);
        // As text: a value that is not known is NaN, and NaN is not equal to itself.
        assert_eq!(
            format!("{fresh:?}"),
            format!("{:?}", Ok::<_, Refusal>(answer)),
            "a fresh instance answers otherwise for {request:?}"
        );

        let mut lists = fleet
            .offer(&used, request)
            .unwrap_or_else(|refusal| panic!("{refusal:?}"));
        if lists.slots.is_empty() {
            continue;
        }
        let columns = lists.features.len() / lists.slots.len();
        lists.features.fill(f32::NAN);
        let blind = used
            .select(request, &lists, &host)
            .unwrap_or_else(|error| panic!("nothing known: {error}"));
        bounded(blind, &lists.slots).unwrap_or_else(|refusal| panic!("nothing known: {refusal:?}"));

        lists.slots.truncate(1);
        lists.features.truncate(columns);
        let only = used
            .select(request, &lists, &host)
            .unwrap_or_else(|error| panic!("one candidate: {error}"));
        bounded(only, &lists.slots).unwrap_or_else(|refusal| panic!("one candidate: {refusal:?}"));

        lists.features.push(0.0);
        assert!(
            used.select(request, &lists, &host).is_err(),
            "a value too many was taken for a candidate's"
        );
    }
}
