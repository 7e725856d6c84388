//! What files say, what they may not say, and how runs are judged.

use super::*;

fn parse(text: &str) -> Scenario {
    Scenario::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

/// A file of three nodes (and one that takes nothing) with one case of so many decisions.
fn file(count: usize, expect: &str) -> Scenario {
    parse(&format!(
        r#"
[[node]]
name = "n"
count = 3
labels = {{ zone = "north" }}
capacity = 10

[[node]]
name = "closed"
capacity = 10
cordoned = true
processes = 9

[[case]]
name = "a case"
request = {{ type = "player", count = {count}, group = "g", group-size = 2 }}
node.n-0 = {{ processes-of-type = {{ player = 2 }} }}
node.n-2 = {{ labels = {{ zone = "south" }} }}
expect = {{ {expect} }}
"#
    ))
}

/// What is wrong when the decisions come out so.
fn judge(expect: &str, outcomes: &[Outcome]) -> String {
    let scenario = file(outcomes.len(), expect);
    let case = &scenario.cases()[0];
    let made = |outcome: &Outcome| Made {
        outcome: outcome.clone(),
        fuel: Some(100),
        micros: Some(2.0),
    };
    let again = case.removed().map_or(0, |_| outcomes.len());
    let failures = case.judge(&Run {
        first: outcomes.iter().map(made).collect(),
        again: vec![made(&Outcome::Node(1)); again],
    });
    let told: Vec<_> = failures.iter().map(ToString::to_string).collect();
    told.join("; ")
}

fn nodes<const N: usize>(places: [usize; N]) -> [Outcome; N] {
    places.map(Outcome::Node)
}

#[test]
fn a_file_says_what_a_case_finds_and_asks() {
    let scenario = parse(
        r#"
[config]
label = "rack \"1\""
weights = [1, 0.5, true]
caps = { north = -3 }

[[node]]
name = "a"
types = ["player"]
processes = 5
processes-of-type = { player = 3 }
cpu = 0.5
counters = { fans = 2 }
since-placed-ms = 40

[[node]]
name = "b"
count = 2

[[case]]
name = "first"
request = { type = "player", id = "p", requester = "a", require = { x = "y" }, latencies = { north = 20 } }
seed = 7

[[case]]
name = "second"
place = false
config = {}
node.a = { absent = true }
node.b = { capacity = 4, processes = 1 }
node.b-1 = { processes = 2, used = 4 }
[case.request]
type = "room"
count = 5
group = "g"
group-size = 2
demand = 3
demand-max = 9
"#,
    );
    let [first, second] = scenario.cases() else {
        panic!("two cases")
    };
    assert_eq!(
        first.config,
        r#"{"caps":{"north":-3},"label":"rack \"1\"","weights":[1,0.5,true]}"#
    );
    let found = first.nodes();
    let names: Vec<_> = found.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["a", "b-0", "b-1"]);
    assert_eq!((found[0].processes, found[0].used), (5, 5));
    assert_eq!(found[0].processes_of_type["player"], 3);
    assert_eq!(
        (found[0].since_placed_ms, found[1].since_placed_ms),
        (Some(40), None)
    );
    let decision = first.decision(0);
    assert_eq!(
        (decision.id.as_str(), decision.seed, decision.demand),
        ("p", 7, 1)
    );
    assert_eq!(
        (first.count(), first.place, first.time),
        (1, true, 1_700_000_000)
    );
    assert_eq!(first.request.latencies["north"], 20);

    assert_eq!(
        (second.line, second.config.as_str(), second.place),
        (25, "{}", false)
    );
    let found = second.nodes();
    assert_eq!(
        (found[0].name.as_str(), found[0].capacity, found[0].used),
        ("b-0", Some(4), 1)
    );
    assert_eq!(
        (found[1].capacity, found[1].processes, found[1].used),
        (Some(4), 2, 4)
    );
    let decisions: Vec<_> = second.decisions().collect();
    let groups: Vec<_> = decisions
        .iter()
        .flat_map(|one| one.group.as_deref())
        .collect();
    assert_eq!(groups, ["g-0", "g-0", "g-1", "g-1", "g-2"]);
    assert_eq!(decisions[4].id, "p-4");
    assert!(decisions.iter().all(|one| (3..=9).contains(&one.demand)));
    assert_ne!(decisions[1].seed, decisions[2].seed);
}

#[test]
fn demands_are_drawn_evenly() {
    let text = "[[node]]\nname = \"a\"\n[[case]]\nname = \"c\"\n\
                request = { type = \"t\", count = 10000, demand = 20, demand-max = 100 }\n";
    let scenario = parse(text);
    let demands = scenario.cases()[0].decisions().map(|one| one.demand);
    let (mut sum, mut least, mut most) = (0, u32::MAX, 0);
    for demand in demands {
        (sum, least, most) = (sum + demand, least.min(demand), most.max(demand));
    }
    // The mean is 60 give or take four standard deviations (0.23).
    assert!((590_800..=609_200).contains(&sum), "{sum}");
    assert_eq!((least, most), (20, 100));
}

#[test]
fn every_mistake_is_named_with_its_line() {
    let case = "[[case]]\nname = \"c\"\nrequest = { type = \"t\" }\n";
    for (text, line, says) in [
        ("[[node]\n", Some(1), ""),
        (
            "\n[[node]]\nname = \"a\"\ncapasity = 3\n",
            Some(4),
            "capasity",
        ),
        ("[[node]]\nname = \"a\"\ncpu = \"low\"\n", Some(3), "f32"),
        ("[[node]]\ncount = 3\n", Some(1), "`name`"),
        ("[[node]]\nname = \"a b\"\n", Some(1), "letters"),
        (
            "[[node]]\nname = \"a\"\n[[node]]\nname = \"a\"\n",
            Some(3),
            "a second",
        ),
        (
            "[[node]]\nname = \"a\"\ncount = 2\n[[node]]\nname = \"a-1\"\n",
            Some(4),
            "a second",
        ),
        ("[[node]]\nname = \"a\"\ncount = 10001\n", Some(1), "10000"),
        ("[[node]]\nname = \"a\"\ncount = 0\n", Some(1), "1 to"),
        ("[[node]]\nname = \"a\"\ncpu = 1.5\n", Some(1), "`cpu`"),
        (
            "[[node]]\nname = \"a\"\nprocesses = 1\nprocesses-of-type = { t = 2 }\n",
            Some(1),
            "2",
        ),
        (
            "[[node]]\nname = \"a\"\nabsent = true\n",
            Some(1),
            "`absent`",
        ),
        ("config = { day = 2020-01-01 }\n", Some(1), "date"),
        ("config = { x = nan }\n", Some(1), "NaN"),
    ] {
        let error = Scenario::parse(&format!("{text}{case}")).unwrap_err();
        assert_eq!(error.line, line, "{text}: {error}");
        assert!(error.what.contains(says), "{text}: {error}");
    }
    let head = "[[node]]\nname = \"a\"\ncount = 2\n[[case]]\nname = \"c\"\n";
    for (text, line, says) in [
        ("request = { }", 6, "type"),
        ("request = { type = \"T\" }", 6, "`type`"),
        ("request = { type = \"t\", id = \"\" }", 6, "`id`"),
        ("request = { type = \"t\", count = 0 }", 6, "`count`"),
        ("request = { type = \"t\", count = 1000001 }", 6, "`count`"),
        ("request = { type = \"t\", group-size = 2 }", 6, "`group`"),
        (
            "request = { type = \"t\", requester = \"b\" }",
            6,
            "no node `b`",
        ),
        (
            "request = { type = \"t\", requester = \"a\" }",
            6,
            "more than one",
        ),
        ("request = { type = \"t\", demand = 0 }", 6, "`demand`"),
        (
            "request = { type = \"t\", demand = 5, demand-max = 4 }",
            6,
            "`demand`",
        ),
        (
            "request = { type = \"t\", priority = 1001 }",
            6,
            "`priority`",
        ),
        ("request = { type = \"t\" }\nnode.b = { }", 7, "no node `b`"),
        (
            "request = { type = \"t\" }\nnode.a = { count = 1 }",
            7,
            "makes none",
        ),
        (
            "request = { type = \"t\" }\nexpect = { node = \"a\" }",
            7,
            "no node `a`",
        ),
        (
            "request = { type = \"t\" }\nexpect = { nose = \"a-0\" }",
            7,
            "nose",
        ),
        (
            "request = { type = \"t\" }\nexpect = { none = true, wait = true }",
            7,
            "one answer",
        ),
        (
            "request = { type = \"t\" }\nexpect = { gap = -1 }",
            7,
            "below 0",
        ),
        (
            "request = { type = \"t\" }\nexpect = { cost-ratio = 1.1 }",
            7,
            "`capacity`",
        ),
        (
            "request = { type = \"t\" }\nexpect = { moved-when-removed = { node = \"x\", at-most = 0 } }",
            7,
            "`x`",
        ),
    ] {
        let error = Scenario::parse(&format!("{head}{text}\n")).unwrap_err();
        assert_eq!(error.line, Some(line), "{text}: {error}");
        assert!(error.what.contains(says), "{text}: {error}");
        assert!(error.to_string().starts_with(&format!("line {line}: ")));
    }
    assert_eq!(Scenario::parse("").unwrap_err().line, None);
    let large = "#".repeat(TEXT_BYTES_MAX + 1);
    assert!(Scenario::parse(&large).is_err());
    let many = "request = { type = \"t\", count = 600000 }\n";
    let text = format!("{head}{many}[[case]]\nname = \"d\"\n{many}");
    assert_eq!(Scenario::parse(&text).unwrap_err().line, Some(7));
}

#[test]
fn answers_are_compared() {
    let rejected = Outcome::Reject {
        code: 7,
        reason: "full".to_owned(),
    };
    let error = Outcome::Error("bad label".to_owned());
    let ranking = Outcome::Ranked(vec![1, 0]);
    for (expect, right, wrong) in [
        ("node = \"n-1\"", Outcome::Node(1), Outcome::Node(0)),
        ("node = \"n-1\"", ranking.clone(), Outcome::None),
        (
            "one-of = [\"n-1\", \"n-2\"]",
            Outcome::Node(2),
            Outcome::Node(0),
        ),
        (
            "ranked = [\"n-1\", \"n-0\"]",
            ranking.clone(),
            Outcome::Node(1),
        ),
        ("none = true", Outcome::None, rejected.clone()),
        ("reject = 7", rejected.clone(), Outcome::None),
        ("wait = true", Outcome::Wait(50), Outcome::Node(1)),
        (
            "error = \"label\"",
            error.clone(),
            Outcome::Error("other".to_owned()),
        ),
        ("", Outcome::Node(3), error.clone()),
        ("", ranking, Outcome::Node(4)),
        ("none = true", Outcome::None, Outcome::Wait(50)),
    ] {
        assert_eq!(judge(expect, &[right]), "", "{expect}");
        assert!(
            judge(expect, &[wrong]).starts_with("decision 0: "),
            "{expect}"
        );
    }
    assert_eq!(
        judge("node = \"n-1\"", &[Outcome::Node(0)]),
        "decision 0: n-1 was expected, it was n-0"
    );
    let many = judge("none = true", &nodes([0; 14]));
    assert!(many.ends_with("; 4 more like these"), "{many}");
    assert!(judge("fuel = 99", &nodes([0])).contains("100 of fuel"));
    assert_eq!(judge("fuel = 100, micros = 2.0", &nodes([0])), "");
    assert!(judge("micros = 1.9", &nodes([0])).contains("2.0 microseconds"));
}

#[test]
fn properties_speak_of_the_whole_case() {
    // n-0 has two processes of the type before; the cordoned node counts for nothing.
    assert_eq!(judge("gap = 0.0", &nodes([1, 1, 2, 2])), "");
    let gap = judge("gap = 0.6", &nodes([1, 1, 1, 2]));
    assert_eq!(
        gap,
        "the fullest node has 3 processes, 1.00 above the average; 0.6 at most"
    );
    assert_eq!(judge("max-share = 0.5", &nodes([0, 0, 1, 2])), "");
    assert!(judge("max-share = 0.5", &nodes([0, 0, 0, 1])).starts_with("n-0 got 0.750"));
    let spread = "spread = { label = \"zone\", gap = 1 }";
    assert_eq!(judge(spread, &nodes([2, 2, 2, 1])), "");
    assert_eq!(
        judge(spread, &nodes([0])),
        "by zone: north 3, south 0; 1 apart at most"
    );
    assert_eq!(judge("same-node = true", &nodes([1, 1, 0, 0])), "");
    assert!(judge("same-node = true", &nodes([1, 1, 0, 1])).contains("`g-1` are on 2 nodes"));
    assert_eq!(judge("distinct = true", &nodes([1, 0, 1, 0])), "");
    assert!(judge("distinct = true", &nodes([1, 0, 1, 1])).contains("`g-1` are on 1 nodes"));
    // Without n-0 everything goes to n-1.
    let moved = "moved-when-removed = { node = \"n-0\", at-most = 0.25 }";
    assert_eq!(judge(moved, &nodes([0, 1, 1, 1])), "");
    assert!(judge(moved, &nodes([0, 0, 1, 1])).contains("0.5000 of the ids"));
    // Two units before and nine more: two nodes could hold them.
    let cost = "cost-ratio = 1.0";
    assert_eq!(judge(cost, &nodes([0, 0, 0, 0, 0, 0, 0, 0, 1])), "");
    assert!(judge(cost, &nodes([0, 0, 0, 0, 0, 0, 0, 2, 1])).contains("3 nodes are in use"));
}

#[test]
fn a_run_of_another_length_is_no_run() {
    let scenario = file(2, "moved-when-removed = { node = \"n-0\", at-most = 0.25 }");
    let case = &scenario.cases()[0];
    assert_eq!(case.removed(), Some(0));
    assert_eq!(case.judge(&Run::default()).len(), 1);
}
