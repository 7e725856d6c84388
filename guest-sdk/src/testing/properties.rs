//! What must hold for every selector, whatever it is for.

use super::{Fleet, TestHost};
use crate::glue::SelectorInstance;
use crate::{Request, Selector};

/// Runs a selector without configuration over `fleet` and panics with a sentence when it breaks a
/// rule that every selector has to keep:
///
/// - it answers with a slot that was offered, or with none, and never with an error;
/// - the same request and candidates give the same answer, in a fresh instance as in a used one;
/// - it copes with one candidate, and with columns of which nothing is known (NaN);
/// - lists of the wrong length are an error, not a panic.
///
/// # Panics
/// When a rule is broken; so it belongs into tests.
pub fn check<S: Selector>(fleet: &Fleet, requests: &[Request]) {
    let host = TestHost::default();
    let used = SelectorInstance::<S>::new(&host);
    for request in requests {
        let answer = fleet
            .decide_with(&used, request, &host)
            .unwrap_or_else(|refusal| panic!("{refusal:?}"));
        let fresh = fleet.decide::<S>(request);
        assert_eq!(
            fresh,
            Ok(answer),
            "a fresh instance answers otherwise for {request:?}"
        );

        let mut lists = fleet
            .offer(&used, request)
            .unwrap_or_else(|refusal| panic!("{refusal:?}"));
        let columns = lists
            .features
            .len()
            .checked_div(lists.slots.len())
            .unwrap_or(0);
        lists.features.fill(f32::NAN);
        let offered = |slot: &u32| lists.slots.contains(slot);
        let blind = used
            .select(request, &lists, &host)
            .unwrap_or_else(|error| panic!("nothing known: {error}"));
        assert!(
            blind.as_ref().is_none_or(offered),
            "nothing known: {blind:?} was not offered"
        );

        lists.slots.truncate(1);
        lists.features.truncate(columns);
        let only = used
            .select(request, &lists, &host)
            .unwrap_or_else(|error| panic!("one candidate: {error}"));
        assert!(
            only.is_none_or(|slot| lists.slots == [slot]),
            "one candidate: {only:?} was not offered"
        );

        lists.features.push(0.0);
        assert!(
            used.select(request, &lists, &host).is_err(),
            "a value too many was taken for a candidate's"
        );
    }
}
