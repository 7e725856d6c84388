//! The harness itself: the catalogue, the checks of an answer, scanners, hooks, scenarios.

use super::*;
use crate::compose::{high, low};
use crate::config::Config;
use crate::{
    Access, Advice, Answer, Ask, Callback, Candidates, Ended, Hook, Host, Nodes, Placement,
    Records, Request, Scanner, Selector, Slot, SpawnFailure, StartFailure, Started, Table,
};

/// Chooses the node where the configured feature is highest, shows what it saw, or answers as told.
#[derive(Default)]
struct Highest {
    feature: String,
    answer: Option<Answer>,
}

impl Selector for Highest {
    const NAME: &'static str = "highest";
    const VERSION: &'static str = "1";
    const TERMS: &'static [&'static str] = &["value"];

    fn configure(&mut self, host: &dyn Host) -> Result<(), String> {
        let config = Config::parse(&host.config(), &["feature", "wait", "rank", "reject"])?;
        self.feature = config.text("feature")?.unwrap_or("processes").to_owned();
        let wait = config.number("wait", 0..=u32::MAX)?.map(Answer::wait);
        let rank = config.number("rank", 0..=9)?;
        let rank = rank.map(|count| Answer::ranked(0..count));
        let reject = config.number("reject", 0..=1_000)?;
        let reject = reject.map(|length| Answer::reject(7, "x".repeat(length as usize)));
        self.answer = wait.or(rank).or(reject);
        Ok(())
    }

    fn features(&self) -> Vec<String> {
        vec![self.feature.clone()]
    }

    fn select(
        &self,
        request: &Request,
        nodes: Candidates<'_>,
        _: &dyn Host,
    ) -> Result<Answer, String> {
        let highest = || nodes.all().in_order(&[high(0)], request.seed);
        Ok(self.answer.clone().unwrap_or_else(highest))
    }
}

/// What the nodes `a` and `b` show of a feature.
fn seen(fleet: &Fleet, request: &Request, feature: &str) -> [f32; 2] {
    let config = format!("{{\"feature\": \"{feature}\"}}");
    let outcome = fleet.answer::<Highest>(request, &config).unwrap();
    let of = |name| {
        let node = outcome.scores.iter().find(|(node, _)| node == name);
        node.unwrap().1[0]
    };
    [of("a"), of("b")]
}

#[test]
fn the_catalogue_is_the_hosts() {
    let fleet = Fleet::new()
        .node("a")
        .label("zone", "north")
        .processes_of_type("player", 2)
        .processes_of_group("party", 1)
        .feature("since-placed-ms", 40.0)
        .feature("node-age-ms", 9_000.0)
        .feature("placed-1s", 3.0)
        .node("b")
        .label("zone", "south")
        .capacity(4)
        .feature("counter:fans", 2.0)
        .node("bare")
        .latency("north", 20)
        .later(10);
    let one = Request {
        group: Some("party".to_owned()),
        requester: Some("a".to_owned()),
        previous: Some("b".to_owned()),
        ..request("player", "p")
    };
    let nan = f32::NAN;
    for (feature, values) in [
        ("processes", [2.0, 0.0]),
        ("processes-of-type", [2.0, 0.0]),
        ("processes-of-group", [1.0, 0.0]),
        ("since-placed-ms", [50.0, nan]),
        ("node-age-ms", [9_010.0, nan]),
        ("placed-1s", [3.0, 0.0]),
        ("capacity-left", [nan, 4.0]),
        ("requester", [1.0, 0.0]),
        ("previous", [0.0, 1.0]),
        ("local:zone", [1.0, 0.0]),
        ("local:rack", [nan, nan]),
        ("latency:zone", [20.0, nan]),
        ("counter:fans", [nan, 2.0]),
    ] {
        let same = |(one, other): (f32, f32)| one == other || one.is_nan() && other.is_nan();
        let saw = seen(&fleet, &one, feature);
        assert!(saw.into_iter().zip(values).all(same), "{feature}: {saw:?}");
    }
    let mut fleet = fleet;
    assert_eq!(fleet.place::<Highest>(&one), Ok(Some("a".to_owned())));
    assert_eq!(seen(&fleet, &one, "since-placed-ms")[0], 1.0);
    assert_eq!(seen(&fleet, &one, "placed-1s")[0], 4.0);
    let later = fleet.later(999);
    assert_eq!(seen(&later, &one, "placed-1s")[0], 0.0);
    assert_eq!(seen(&later, &one, "placed-10s")[0], 1.0);
    assert!(matches!(
        later.answer::<Highest>(&one, r#"{"feature": "load"}"#),
        Err(Refusal::Manifest(_))
    ));
}

#[test]
fn the_filter_is_the_hosts() {
    let fleet = Fleet::new().node("a").cordoned().processes(3);
    let fleet = fleet.node("b").hosts("room").label("zone", "north");
    let fleet = fleet.node("c").capacity(1).processes(1);
    let decide = |fleet: &Fleet, one: &str| fleet.decide::<Highest>(&request(one, "p")).unwrap();
    assert_eq!(decide(&fleet, "player"), None);
    assert_eq!(decide(&fleet, "room").as_deref(), Some("b"));
    assert_eq!(decide(&fleet.require("zone", "south"), "room"), None);
}

#[test]
fn answers_out_of_bounds_are_refused() {
    let fleet = Fleet::of(3);
    let answer = |config| fleet.answer::<Highest>(&request("player", "p"), config);
    assert_eq!(answer(r#"{"wait": 10}"#).unwrap().choice, Choice::Wait(10));
    assert!(matches!(answer(r#"{"wait": 9}"#), Err(Refusal::Bounds(_))));
    let ranked = answer(r#"{"rank": 2}"#).unwrap().choice;
    assert_eq!(ranked.node(), Some("node-0"));
    assert_eq!(answer(r#"{"rank": 4}"#), Err(Refusal::BadSlot(3)));
    let reject = answer(r#"{"reject": 512}"#).unwrap().choice;
    assert!(matches!(reject, Choice::Reject { code: 7, .. }));
    assert!(matches!(
        answer(r#"{"reject": 513}"#),
        Err(Refusal::Bounds(_))
    ));
    let refused = answer(r#"{"wiat": 10}"#);
    assert!(matches!(refused, Err(Refusal::Broken(error)) if error.contains("`wiat`")));
}

/// The emptiest of the nodes that carry the label that the group names.
#[derive(Default)]
struct Matching;

impl Scanner for Matching {
    const NAME: &'static str = "matching";
    const VERSION: &'static str = "1";
    const FEATURES: &'static [&'static str] = &["processes", "label:zone"];
    const TERMS: &'static [&'static str] = &["processes"];

    fn scan(&self, request: &Request, nodes: &dyn Nodes, _: &dyn Host) -> Result<Answer, String> {
        let slots: Vec<Slot> = match &request.group {
            Some(zone) => nodes.matching(&[("zone".to_owned(), zone.clone())]),
            None => nodes.passed(),
        };
        // What was not named in `FEATURES` is unknown.
        if nodes.column("cpu", &slots).iter().any(|cpu| !cpu.is_nan()) {
            return Err("a feature that was not named".to_owned());
        }
        let table = Table::fetch(nodes, slots, &["processes"])?;
        Ok(table.rows().all().score(&[low(0)]).ranked(2, request.seed))
    }
}

fn zones() -> Fleet {
    let fleet = Fleet::new().node("a").label("zone", "north").processes(2);
    let fleet = fleet.node("b").label("zone", "north").processes(1);
    let fleet = fleet.feature("cpu", 0.5).node("c").label("zone", "south");
    fleet.node("closed").cordoned().label("zone", "north")
}

#[test]
fn a_scanner_sees_the_whole_fleet() {
    let scan = |group: Option<&str>| {
        let group = group.map(str::to_owned);
        let one = Request {
            group,
            ..request("player", "p")
        };
        zones().scan::<Matching>(&one, "{}").unwrap()
    };
    let names = |outcome: &Outcome| match &outcome.choice {
        Choice::Ranked(names) => names.join(" "),
        other => format!("{other:?}"),
    };
    assert_eq!(names(&scan(None)), "c b");
    let north = scan(Some("north"));
    assert_eq!(names(&north), "b a");
    assert_eq!(
        north.scores,
        [("b".to_owned(), vec![1.0]), ("a".to_owned(), vec![0.0])]
    );
    assert_eq!(scan(Some("east")).choice, Choice::None);
}

/// Tries the node again after a pause, and says what it would do later.
#[derive(Default)]
struct Patient;

impl Callback for Patient {
    const NAME: &'static str = "patient";
    const VERSION: &'static str = "1";
    const HOOKS: &'static [Hook] = &[Hook::Exit];

    fn spawn(
        &self,
        request: &Request,
        _: &Placement,
        access: Access<'_>,
    ) -> Result<Started, SpawnFailure> {
        let mut last = String::new();
        for _ in 0..3 {
            match access.node.start(&request.args, 1_000) {
                Ok(started) => return Ok(started),
                Err(StartFailure::Busy(reason)) => last = reason,
                Err(_) => break,
            }
            access.node.pause(100);
        }
        let _ = access.node.stop(1_000);
        Err(SpawnFailure::Elsewhere(last))
    }

    fn on_exit(&self, ended: &Ended, _: &dyn Host, _: &dyn Records) -> Advice {
        if ended.times > 3 {
            Advice::GiveUp("again and again".to_owned())
        } else {
            Advice::Here
        }
    }
}

#[test]
fn a_callback_tries_again_and_advises() {
    let busy = || Err(StartFailure::Busy("full".to_owned()));
    let started = Started {
        pid: "7".to_owned(),
        share: Vec::new(),
    };
    let node = TestNode::answering(busy()).then(Ok(started.clone()));
    assert_eq!(spawn::<Patient>(&request("room", "r"), &node), Ok(started));
    assert_eq!(
        (node.starts().len(), node.pauses(), node.stops()),
        (2, vec![100], vec![])
    );
    let node = TestNode::answering(busy());
    let failed = Err(SpawnFailure::Elsewhere("full".to_owned()));
    assert_eq!(spawn::<Patient>(&request("room", "r"), &node), failed);
    assert_eq!((node.starts().len(), node.stops()), (3, vec![1_000]));

    let (host, records) = (TestHost::default(), TestRecords::default());
    let instance = CallbackInstance::<Patient>::new(&host);
    assert_eq!(instance.describe().hooks, [Hook::Exit]);
    let often = Ended {
        times: 4,
        ..ended("room", "r")
    };
    let advise = |hook, ended: &Ended| instance.advise(hook, ended, &host, &records);
    assert_eq!(advise(Hook::Exit, &ended("room", "r")), Advice::Here);
    assert!(matches!(advise(Hook::Exit, &often), Advice::GiveUp(_)));
    assert_eq!(advise(Hook::NodeLost, &often), Advice::Usual);
    // A policy without keys takes no configuration, and then advises nothing.
    let host = TestHost::with_config(r#"{"tries": 5}"#);
    assert!(Patient::validate(r#"{"tries": 5}"#, &host).is_err());
    let refused = CallbackInstance::<Patient>::new(&host);
    assert_eq!(
        refused.advise(Hook::Exit, &often, &host, &records),
        Advice::Usual
    );
}

const SCENARIO: &str = r#"
[[node]]
name = "n"
count = 4
capacity = 20

[[node]]
name = "far"
labels = { zone = "north" }
types = ["room"]
processes = 9
used = 12
memory-free-mib = 512
placed-60s = 4

[[case]]
name = "the fullest node"
request = { type = "room", id = "r" }
expect = { node = "far" }

[[case]]
name = "a type that it does not host"
request = { type = "player", id = "r" }
node.n-2 = { processes = 1 }
expect = { node = "n-2" }

[[case]]
name = "one node until it is full"
request = { type = "player", count = 30 }
expect = { max-share = 0.67, cost-ratio = 1.0 }
node.far = { capacity = 20 }

[[case]]
name = "nobody sees the others"
place = false
request = { type = "player", count = 30 }
node.n-1 = { processes = 2 }
expect = { same-node = true, node = "n-1", moved-when-removed = { node = "n-2", at-most = 0.0 } }

[[case]]
name = "what was said of a node"
config = { feature = "placed-60s" }
request = { type = "room", require = { zone = "north" } }
expect = { one-of = ["far"] }

[[case]]
name = "a wrong configuration"
config = { fature = "cpu" }
request = { type = "room" }
expect = { error = "`fature`" }

[[case]]
name = "a deliberate no"
config = { reject = 4 }
request = { type = "room" }
expect = { reject = 7 }

[[case]]
name = "a ranking"
config = { rank = 2 }
request = { type = "room" }
expect = { ranked = ["n-0", "n-1"] }

[[case]]
name = "nothing fits"
request = { type = "player", demand = 21 }
expect = { none = true }
"#;

#[test]
fn scenarios_run_natively() {
    scenario(SCENARIO).check::<Highest>();
    let wrong = SCENARIO.replace("expect = { node = \"far\" }", "expect = { node = \"n-0\" }");
    assert_eq!(
        scenario(&wrong).failures::<Highest>(),
        ["line 16, the fullest node: decision 0: n-0 was expected, it was far"]
    );
    let text = "[[node]]\nname = \"n\"\ncount = 5\n\
                [[case]]\nname = \"level\"\nrequest = { type = \"room\", count = 500 }\n\
                expect = { gap = 0.0 }\n";
    scenario(text).check_scanner::<Matching>();
    assert_eq!(scenario(text).failures::<Highest>().len(), 1);
}

#[test]
fn asks_are_kept() {
    /// Sees how many it is offered.
    #[derive(Default)]
    struct Few;
    impl Selector for Few {
        const NAME: &'static str = "few";
        const VERSION: &'static str = "1";
        const FEATURES: &'static [&'static str] = &["processes"];

        fn ask(&self) -> Ask {
            crate::lowest("processes", 2)
        }

        fn select(
            &self,
            _: &Request,
            nodes: Candidates<'_>,
            _: &dyn Host,
        ) -> Result<Answer, String> {
            let seen = nodes.iter().map(|row| row.value(0)).collect::<Vec<_>>();
            (seen == [0.0, 1.0])
                .then(Answer::none)
                .ok_or_else(|| format!("{seen:?}"))
        }
    }
    assert_eq!(zones().decide::<Few>(&request("player", "p")), Ok(None));
}
