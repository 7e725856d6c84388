//! Histories of the process registry that are known to be good or bad.

use std::sync::Arc;

use maitred_protocol::{
    ClientId, Incarnation, ProcessKey, Rejection, Request, Response, Revision, Unavailable,
};
use maitred_tests::linear::process::Sight;
use maitred_tests::linear::{Answer, History, Limit, Loss, Verb, Verdict};

use Verb::{Create, Delete, Get, Party};

fn key() -> ProcessKey {
    ProcessKey::new("player", "7").unwrap()
}

pub(crate) fn running(incarnation: u64, pid: &str) -> Sight {
    let running = Some(Arc::from(pid));
    Sight {
        incarnation,
        running,
    }
}

fn starting(incarnation: u64) -> Sight {
    Sight {
        incarnation,
        running: None,
    }
}

fn set(only: Option<u64>, pid: &str) -> Verb {
    Verb::Set(only, pid.to_owned())
}

type Line = (u64, u64, Verb, Option<Answer>);

fn history(lines: impl IntoIterator<Item = Line>) -> History {
    let mut history = History::new();
    for (invoked, returned, verb, answer) in lines {
        let call = history.invoke(invoked, 1, key(), verb);
        if let Some(answer) = answer {
            history.answer(call, returned, answer);
        }
    }
    history
}

/// It has an order, and its incarnations are in order.
fn good(lines: impl IntoIterator<Item = Line>) {
    let history = history(lines);
    history.check(Limit::default()).assert();
    history.check_lives().unwrap();
}

fn has_no_order(history: &History) -> String {
    match history.check(Limit::default()) {
        Verdict::Violation(violation) => violation.text,
        other => panic!("{other}"),
    }
}

/// It has no order.
fn bad(lines: impl IntoIterator<Item = Line>) -> String {
    has_no_order(&history(lines))
}

/// It has no order, and the incarnations alone show it.
fn bad_lives(lines: impl IntoIterator<Item = Line>) {
    let history = history(lines);
    has_no_order(&history);
    history.check_lives().unwrap_err();
}

fn created(at: u64, incarnation: u64, pid: &str) -> Line {
    let answer = Answer::Created(running(incarnation, pid));
    (at, at + 9, Create, Some(answer))
}

fn found(at: u64, incarnation: u64, pid: &str) -> Line {
    (
        at,
        at + 9,
        Get,
        Some(Answer::Found(running(incarnation, pid))),
    )
}

fn found_starting(at: u64, incarnation: u64) -> Line {
    (at, at + 9, Get, Some(Answer::Found(starting(incarnation))))
}

fn missing(at: u64) -> Line {
    (at, at + 9, Get, Some(Answer::Missing))
}

fn deleted(at: u64, only: Option<u64>) -> Line {
    (at, at + 9, Delete(only), Some(Answer::Deleted))
}

#[test]
fn a_life_from_create_to_delete() {
    good([
        missing(0),
        (10, 60, Create, Some(Answer::Created(running(6, "a")))),
        missing(10),
        found_starting(20, 5),
        (20, 70, Create, Some(Answer::Found(running(6, "a")))),
        found_starting(30, 6),
        found(50, 6, "a"),
        (80, 89, set(Some(6), "b"), Some(Answer::Set(6))),
        found(90, 6, "b"),
        (100, 109, set(Some(5), "c"), Some(Answer::Fenced(6))),
        deleted(110, Some(6)),
        (120, 129, Delete(None), Some(Answer::Missing)),
        (130, 139, set(None, "d"), Some(Answer::Set(12))),
        found(140, 12, "d"),
    ]);
}

#[test]
fn a_stale_read() {
    let text = bad([created(0, 5, "a"), missing(10), found(20, 5, "a")]);
    assert!(text.contains("first 2 of 3 calls"), "{text}");
    assert!(
        text.contains("leaves: running, incarnation 5, pid \"a\""),
        "{text}"
    );
    assert!(text.trim_end().ends_with("get -> not found"), "{text}");
}

#[test]
fn a_lost_update() {
    let update = |at, pid: &str| (at, at + 9, set(Some(5), pid), Some(Answer::Set(5)));
    good([created(0, 5, "a"), update(10, "b"), found(20, 5, "b")]);
    bad([created(0, 5, "a"), update(10, "b"), found(20, 5, "a")]);
    bad([
        created(0, 5, "a"),
        update(10, "b"),
        update(20, "c"),
        found(30, 5, "b"),
    ]);
}

#[test]
fn two_owners() {
    bad([created(0, 5, "a"), created(5, 6, "b")]);
    bad_lives([created(0, 5, "a"), created(5, 5, "a")]);
    bad([
        created(0, 5, "a"),
        (20, 29, set(None, "b"), Some(Answer::Set(9))),
    ]);
}

#[test]
fn an_incarnation_that_goes_back() {
    bad_lives([created(0, 5, "a"), deleted(10, None), created(20, 4, "b")]);
    bad_lives([created(0, 5, "a"), found(10, 5, "a"), found(20, 3, "a")]);
    // While it is starting, too.
    let create = (0, 90, Create, Some(Answer::Created(running(7, "a"))));
    good([create.clone(), found_starting(10, 5), found_starting(20, 7)]);
    bad_lives([create, found_starting(10, 6), found_starting(20, 5)]);
}

#[test]
fn a_deleted_one_that_is_read() {
    bad_lives([created(0, 5, "a"), deleted(10, Some(5)), found(20, 5, "a")]);
    bad_lives([created(0, 5, "a"), deleted(10, None), found(20, 5, "a")]);
    bad_lives([
        created(0, 5, "a"),
        deleted(10, None),
        missing(20),
        created(30, 5, "b"),
    ]);
}

#[test]
fn a_delete_that_passes_its_guard() {
    bad([created(0, 5, "a"), deleted(10, Some(4))]);
    good([
        created(0, 5, "a"),
        (10, 19, Delete(Some(4)), Some(Answer::Fenced(5))),
    ]);
}

#[test]
fn a_create_that_failed_leaves_nothing() {
    let failed = (0, 30, Create, Some(Answer::Refused));
    good([failed.clone(), found_starting(5, 4), missing(40)]);
    good([failed.clone(), missing(40), created(50, 7, "a")]);
    bad([failed.clone(), found_starting(40, 4)]);
    bad([failed, found(5, 4, "a")]);
}

#[test]
fn a_create_whose_answer_was_lost() {
    let lost = (0, 0, Create, None);
    good([lost.clone(), missing(10), missing(20)]);
    good([
        lost.clone(),
        missing(10),
        found_starting(20, 4),
        found(30, 4, "a"),
    ]);
    good([
        lost.clone(),
        found_starting(20, 4),
        missing(30),
        created(40, 5, "a"),
    ]);
    good([
        lost.clone(),
        created(10, 5, "a"),
        deleted(20, None),
        found(30, 8, "b"),
    ]);
    bad([lost.clone(), found(10, 4, "a"), missing(20)]);
    bad([
        lost.clone(),
        found(10, 4, "a"),
        deleted(20, Some(4)),
        found(30, 6, "b"),
    ]);
    bad([lost, found(10, 4, "a"), found(20, 4, "b")]);
}

#[test]
fn a_lost_create_that_is_over_explains_nothing_later() {
    let check = |expired: u64| {
        let mut history = History::new();
        let create = history.invoke(0, 1, key(), Create);
        history.expire(create, expired);
        let call = history.invoke(20, 1, key(), Get);
        history.answer(call, 29, Answer::Missing);
        let call = history.invoke(30, 1, key(), Get);
        history.answer(call, 39, Answer::Found(running(4, "a")));
        history.check(Limit::default())
    };
    check(30).assert();
    let over = check(19);
    assert!(matches!(over, Verdict::Violation(_)), "{over}");
}

#[test]
fn changes_whose_answers_were_lost() {
    let set_lost = |only| (10, 0, set(only, "b"), None);
    good([
        created(0, 5, "a"),
        set_lost(Some(5)),
        found(20, 5, "a"),
        found(30, 5, "b"),
    ]);
    bad([
        created(0, 5, "a"),
        set_lost(Some(5)),
        found(20, 5, "b"),
        found(30, 5, "a"),
    ]);
    bad([created(0, 5, "a"), set_lost(Some(4)), found(20, 5, "b")]);
    good([set_lost(None), missing(20), found(30, 9, "b")]);
    good([
        created(0, 5, "a"),
        (10, 0, Delete(None), None),
        found(20, 5, "a"),
        missing(30),
    ]);
    bad([
        created(0, 5, "a"),
        (10, 0, Delete(None), None),
        missing(20),
        found(30, 6, "a"),
    ]);
}

#[test]
fn many_lost_answers_do_not_explode() {
    let creates = (0..60).map(|at| (at, 0, Create, None));
    let sets = (0..60).map(|at| (at, 0, set(Some(5), &format!("never seen {at}")), None));
    let deletes = (0..60).map(|at| (at, 0, Delete(Some(5)), None));
    let end = [created(100, 5, "a"), found(110, 5, "a"), found(120, 5, "z")];
    let all = creates.chain(sets).chain(deletes).chain(end);
    let text = bad(all);
    assert!(
        text.contains("get -> running, incarnation 5, pid \"z\""),
        "{text}"
    );
}

#[test]
fn a_process_goes_with_its_node_and_only_with_its_node() {
    let lines = || [created(0, 5, "a"), found(10, 5, "a"), missing(30)];
    has_no_order(&history(lines()));
    let check = |lines: &[Line], loss, from, until| {
        let mut history = history(lines.to_vec());
        history.check_lives().unwrap();
        history.lost(key(), from, until, loss);
        history.check(Limit::default())
    };
    check(&lines(), Loss::Forgotten, 15, None).assert();
    check(&lines(), Loss::Forgotten, 15, Some(35)).assert();
    let late = check(&lines(), Loss::Forgotten, 50, None);
    assert!(matches!(late, Verdict::Violation(_)), "{late}");
    let early = check(&lines(), Loss::Forgotten, 0, Some(9));
    assert!(matches!(early, Verdict::Violation(_)), "{early}");

    let moved = [created(0, 5, "a"), found_starting(30, 8), found(50, 8, "b")];
    check(&moved, Loss::Moved, 15, None).assert();
    let forgotten = check(&moved, Loss::Forgotten, 15, None);
    assert!(matches!(forgotten, Verdict::Violation(_)), "{forgotten}");
}

#[test]
fn keys_are_apart() {
    let mut history = history([created(0, 5, "a")]);
    let other = ProcessKey::new("player", "8").unwrap();
    let call = history.invoke(20, 2, other, Get);
    history.answer(call, 30, Answer::Missing);
    history.check(Limit::default()).assert();
}

/// A member of a party may run before that is answered, and be gone with it; not afterwards.
#[test]
fn a_member_runs_until_its_party_is_undone() {
    let refused = (0, 30, Party, Some(Answer::Refused));
    let seen = |invoked| {
        (
            invoked,
            invoked + 5,
            Get,
            Some(Answer::Found(running(3, "a"))),
        )
    };
    let gone = (40, 45, Get, Some(Answer::Missing));
    let undone = |lines: Vec<Line>| {
        let mut history = history(lines);
        history.lost(key(), 20, Some(25), Loss::Forgotten);
        history
    };
    let fine = undone(vec![refused.clone(), seen(10), gone.clone()]);
    fine.check(Limit::default()).assert();
    has_no_order(&undone(vec![refused.clone(), seen(50), gone.clone()]));
    has_no_order(&history([refused, seen(10), gone]));

    let made = (0, 30, Party, Some(Answer::Found(running(3, "a"))));
    let fine = history([made.clone(), seen(10), seen(50)]);
    fine.check(Limit::default()).assert();
    has_no_order(&history([made, (40, 45, Get, Some(Answer::Missing))]));
}

#[test]
fn requests_and_responses_are_understood() {
    let mut history = History::new();
    let delete = |only: Option<u64>| Request::DelProcess {
        client: ClientId(1),
        key: key(),
        incarnation: only.map(Incarnation),
        ended: false,
    };
    let get = |stale| Request::GetProcess { key: key(), stale };
    assert_eq!(history.request(0, 1, &get(true)), None);
    assert_eq!(history.request(0, 1, &Request::Status), None);

    let retried = history.request(0, 1, &delete(None)).unwrap();
    let nobody = Unavailable::NotLeader { leader: None };
    history.response(retried, 5, &Response::Unavailable(nobody));
    assert_eq!(history.calls(), 0);

    let unknown = history.request(10, 1, &delete(None)).unwrap();
    history.response(unknown, 15, &Response::Unknown("lost".to_owned()));
    let seen = history.request(20, 1, &get(false)).unwrap();
    let missing = Rejection::NotFound(format!("process {}", key()));
    history.response(seen, 25, &Response::Rejected(missing));
    history.check(Limit::default()).assert();

    // Nothing is there to be deleted.
    let done = history.request(30, 1, &delete(Some(3))).unwrap();
    history.response(done, 35, &Response::Done(Revision(9)));
    let text = has_no_order(&history);
    assert!(text.contains("delete only 3"), "{text}");
}
