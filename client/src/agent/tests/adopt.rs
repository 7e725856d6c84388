//! Lives that a restored registry does not know.

use super::*;

fn adopt(epoch: u64, id: &str, n: u64) -> Effect {
    Effect::Adopt {
        epoch: NodeEpoch(epoch),
        key: key(id),
        incarnation: inc(n),
        spawned: spawned(id).unwrap(),
    }
}

fn adopted(id: &str, old: u64, new: Option<u64>) -> Input {
    Input::Adopted {
        epoch: NodeEpoch(9),
        key: key(id),
        incarnation: inc(old),
        new: new.map(inc),
    }
}

/// A node with `a` as incarnation 5, whose session was forgotten and is 9 now; `a` is being adopted.
fn adopting() -> Bench {
    let mut bench = Bench::serving();
    bench.run("a", 5);
    bench.step(Input::Disconnected);
    bench.refused(2, Refused::Forgotten);
    let effects = bench.enrolled(3, 9, &[Verdict::Adopt], bench.now);
    assert_eq!(effects, [adopt(9, "a", 5), keep_alive(9, 1)]);
    bench
}

#[test]
fn an_adopted_life_goes_on_under_its_new_incarnation() {
    let mut bench = adopting();
    assert_eq!(
        bench.step(adopted("a", 5, Some(12))),
        [Effect::Adopted(key("a"), inc(5), inc(12))]
    );
    assert_eq!(bench.agent.running_incarnation(&key("a")), Some(inc(12)));
    // A second answer is nobody's.
    assert_eq!(bench.step(adopted("a", 5, None)), []);
    let fenced = [Effect::Answer(1, NodeAnswer::Fenced)];
    assert_eq!(bench.start(1, 1, "a", 11), fenced);
    assert_eq!(bench.stop(2, 1, "a", 12), [stop_effect("a", 12)]);
    let stopped = [Effect::Answer(2, NodeAnswer::Stopped)];
    assert_eq!(bench.stop_ended("a", 12), stopped);
    assert_eq!(bench.agent.kill_by_us(), None);
}

#[test]
fn a_life_whose_key_is_taken_is_stopped() {
    let mut bench = adopting();
    assert_eq!(bench.step(adopted("a", 5, None)), [stop_effect("a", 5)]);
    assert_eq!(bench.stop_ended("a", 5), [], "nobody has it registered");
}

#[test]
fn a_life_that_ended_meanwhile_is_not_left_registered() {
    let mut bench = adopting();
    bench.step(Input::Exited(key("a"), inc(5)));
    assert_eq!(
        bench.step(adopted("a", 5, Some(12))),
        [Effect::Delete(key("a"), inc(12))]
    );
    // One that is being stopped is removed when it has stopped, not before.
    let mut bench = adopting();
    assert_eq!(bench.stop(1, 1, "a", 5), [stop_effect("a", 5)]);
    assert_eq!(bench.step(adopted("a", 5, Some(12))), []);
    assert_eq!(
        bench.stop_ended("a", 5),
        [
            Effect::Answer(1, NodeAnswer::Stopped),
            Effect::Delete(key("a"), inc(12))
        ]
    );
    let fenced = [Effect::Answer(2, NodeAnswer::Fenced)];
    assert_eq!(bench.start(2, 1, "a", 12), fenced);
}

#[test]
fn an_end_that_crosses_the_new_name_is_the_end() {
    let mut bench = adopting();
    bench.step(adopted("a", 5, Some(12)));
    // The game said so before it heard of the new one.
    let gone = [Effect::Delete(key("a"), inc(12))];
    assert_eq!(bench.step(Input::Exited(key("a"), inc(5))), gone);
    assert_eq!(bench.agent.running().count(), 0);
}

#[test]
fn a_verdict_that_crosses_the_answer_does_not_stop_it() {
    let mut bench = adopting();
    let effects = bench.step(Input::Disconnected);
    let (number, epoch, _) = enrolment(&effects);
    assert_eq!(epoch, Some(NodeEpoch(9)));
    // By now the registry has it under an incarnation that is not known here yet.
    let effects = bench.enrolled(number, 9, &[Verdict::Stop], bench.now);
    assert_eq!(effects, [keep_alive(9, 2)]);
    let effects = bench.step(adopted("a", 5, Some(12)));
    assert_eq!(effects[0], Effect::Adopted(key("a"), inc(5), inc(12)));
    // The answer may be an old one: they are compared once more, under the new name.
    let compare = Effect::Enroll {
        number: number + 1,
        epoch: Some(NodeEpoch(9)),
        last_epoch: Some(NodeEpoch(9)),
        inventory: vec![(key("a"), inc(12))],
    };
    assert_eq!(effects[1..], [compare]);
    let effects = bench.enrolled(number + 1, 9, &[Verdict::Stop], bench.now);
    assert!(effects.contains(&stop_effect("a", 12)), "{effects:?}");
}

#[test]
fn an_answer_of_a_session_that_is_over_adopts_nothing() {
    let mut bench = adopting();
    assert_eq!(
        bench.ack(1, false),
        [Effect::LeaseLost, stop_effect("a", 5)]
    );
    assert_eq!(bench.step(adopted("a", 5, Some(12))), []);
    let effects = bench.stop_ended("a", 5);
    assert_eq!(enrolment(&effects), (4, None, Some(NodeEpoch(9))));
    assert_eq!(effects.len(), 1, "{effects:?}");
}

#[test]
fn a_life_that_was_still_starting_is_not_adopted() {
    let mut bench = Bench::serving();
    assert_eq!(bench.start(1, 1, "a", 5), [spawn("a", 5)]);
    bench.step(Input::Disconnected);
    bench.refused(2, Refused::Forgotten);
    let effects = bench.enrolled(3, 9, &[Verdict::Adopt], bench.now);
    assert_eq!(effects, [keep_alive(9, 1)]);
    assert_eq!(
        bench.spawn_ended("a", 5, spawned("a")),
        [Effect::Answer(1, NodeAnswer::Fenced), stop_effect("a", 5)]
    );
}
