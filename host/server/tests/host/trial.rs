//! Versions that are tried: in shadow, on recorded decisions, under a rule; and what `explain` says.

use std::sync::LazyLock;

use maitred_client::Client;
use maitred_client::protocol::limits::REFUSALS_MAX;
use maitred_client::protocol::{
    Chooser, Comparison, ModuleAction, ModuleKind, ModuleName, NodeName, PartyRule, ProcessState,
    WhyNot,
};
use maitred_registry::inputs::FileReader;
use maitred_server::{Server, ServerConfig};

use crate::guests::{FIRST, Parts, choose};
use crate::harness::{Group, Starter, key, node, within};
use crate::wire::counted;

const SPREAD: &[u8] = include_bytes!("../../../../selectors/prebuilt/spread.wasm");
const LEAST_LOADED: &[u8] = include_bytes!("../../../../selectors/prebuilt/least-loaded.wasm");

/// The same selector in other bytes: with a custom section that nobody reads.
fn variant(bytes: &[u8], number: u8) -> Vec<u8> {
    [bytes, &[0, 3, 1, b'v', number]].concat()
}

static MINE: LazyLock<ModuleName> = LazyLock::new(|| "mine".parse().unwrap());

async fn push(client: &Client, bytes: &[u8]) -> u32 {
    let push = client.push_module(&MINE, ModuleKind::Selector, bytes, |_| ());
    within(push).await.unwrap().1
}

/// Creates processes one after the other, of the selector that is tried.
async fn create(client: &Client, type_name: &str, ids: std::ops::Range<u32>) {
    for id in ids {
        let create = client.create(key(&format!("{type_name}/{id}")));
        let created = within(create.selector(MINE.clone()).send()).await.unwrap();
        assert_eq!(created.record.state, ProcessState::Running);
    }
}

/// What is recorded comes a little after what is answered.
async fn until(mut compare: impl AsyncFnMut() -> Comparison, decisions: u64) -> Comparison {
    let compared = async {
        loop {
            let comparison = compare().await;
            if comparison.decisions >= decisions {
                return comparison;
            }
            tokio::task::yield_now().await;
        }
    };
    within(compared).await
}

async fn nodes(client: &Client) -> Vec<maitred_client::NodeHandle> {
    let mut handles = Vec::new();
    for name in ["n1", "n2", "n3"] {
        handles.push(node(client, name, Starter::default()).await);
    }
    handles
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_decisions_are_made_again_to_the_bit_and_by_others() {
    const CREATES: u64 = 40;
    let group = Group::new();
    let running = group.start_bare().await;
    let client = group.client(&running).await;
    let _nodes = nodes(&client).await;
    push(&client, SPREAD).await;
    push(&client, &variant(SPREAD, 2)).await;
    push(&client, LEAST_LOADED).await;
    within(client.activate_module(&MINE, 1, None))
        .await
        .unwrap();
    create(&client, "room", 0..CREATES as u32).await;

    let replay = async |version| {
        let replay = client.replay_module(&MINE, version, None, 1_000);
        within(replay).await.unwrap()
    };
    let same = until(async || replay(1).await, CREATES).await;
    assert_eq!((same.decisions, same.skipped), (CREATES, 0));
    assert_eq!((same.same_version, same.identical), (CREATES, CREATES));
    assert_eq!((same.agreed, same.moved), (CREATES, 0));
    assert_eq!((same.traps, same.timeouts, same.bad_answers), (0, 0, 0));
    assert!(same.fuel.p50 > 0 && same.nanos.max > 0, "{same:?}");
    assert_eq!(same.decided.len(), 1);
    assert_eq!(same.decided[0], same.other);
    let twin = replay(2).await;
    assert_eq!((twin.agreed, twin.same_version), (CREATES, 0));
    let other = replay(3).await;
    assert_eq!(other.agreed + other.moved, CREATES);
    assert_eq!(other.other.version, 3);
    assert!(other.spread_other.max > 0, "{other:?}");

    // A part of them, and whole: what one host recorded is a file that can be taken elsewhere.
    let replay = client.replay_module(&MINE, 1, None, 1);
    let few = within(replay).await.unwrap();
    assert!((1..CREATES).contains(&few.decisions), "{few:?}");
    let mut file = Vec::new();
    let saved = client.save_inputs(Some(MINE.clone()), 1_000, &mut file, |_, _| ());
    let saved = within(saved).await.unwrap();
    assert_eq!((saved.decisions, saved.bytes), (CREATES, file.len() as u64));
    let batches = FileReader::new(&file).unwrap();
    let decisions = batches.map(|batch| batch.unwrap().outcomes.len() as u64);
    assert_eq!(decisions.sum::<u64>(), CREATES);
    let none = client.save_inputs(Some("other".parse().unwrap()), 10, &mut file, |_, _| ());
    assert_eq!(within(none).await.unwrap().decisions, 0);
    let other = "other".parse().unwrap();
    let missing = client.replay_module(&other, 0, None, 1);
    let error = within(missing).await.unwrap_err().to_string();
    assert!(error.contains("other"), "{error}");
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_configuration_that_will_not_do_ends_no_replay() {
    let group = Group::new();
    let running = group.start_bare().await;
    let client = group.client(&running).await;
    let _nodes = nodes(&client).await;
    push(&client, &Parts::body(&choose(FIRST)).selector()).await;
    // The next version cannot describe itself with a configuration of five bytes.
    let picky = Parts {
        imports: r#"(import "maitred:policy/host@0.2.0" "config" (func $config (param i32)))"#,
        describe: "(call $config (i32.const 512))
            (if (i32.eq (i32.load (i32.const 516)) (i32.const 5)) (then unreachable))
            (i32.const 256)"
            .to_owned(),
        ..Parts::default()
    };
    push(&client, &picky.selector()).await;
    for (config, ids) in [("{}", 0..3), ("{   }", 3..6), ("{ }", 6..9)] {
        let config = Some(config.to_owned());
        within(client.activate_module(&MINE, 1, config))
            .await
            .unwrap();
        create(&client, "room", ids).await;
    }
    let replay = async |version| {
        let replay = client.replay_module(&MINE, version, None, 100);
        within(replay).await
    };
    until(async || replay(1).await.unwrap(), 9).await;
    let picky = replay(2).await.unwrap();
    assert_eq!((picky.decisions, picky.skipped), (6, 3));
    // Where it can be made with none of them, that is the answer.
    let replay = client.replay_module(&MINE, 2, Some("{   }".to_owned()), 100);
    let error = within(replay).await.unwrap_err().to_string();
    assert!(error.contains("describing"), "{error}");
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_decisions_outlive_a_restart_and_none_are_kept_when_told_so() {
    let group = Group::new();
    let running = group.start_bare().await;
    let client = group.client(&running).await;
    let _nodes = nodes(&client).await;
    push(&client, SPREAD).await;
    within(client.activate_module(&MINE, 1, None))
        .await
        .unwrap();
    create(&client, "room", 0..5).await;
    within(running.shutdown()).await.unwrap();
    let running = group.start_bare().await;
    let client = group.client(&running).await;
    let replay = within(client.replay_module(&MINE, 1, None, 100))
        .await
        .unwrap();
    assert_eq!((replay.same_version, replay.identical), (5, 5));
    within(running.shutdown()).await.unwrap();

    let config = ServerConfig {
        inputs_bytes: 0,
        ..group.bare()
    };
    let running = Server::start(config).await.unwrap();
    within(running.ready()).await.unwrap();
    let client = group.client(&running).await;
    let error = within(client.save_inputs(None, 1, &mut Vec::new(), |_, _| ())).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("inputs_bytes"), "{error}");
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_sees_what_the_active_version_does_and_decides_nothing() {
    let group = Group::new();
    let running = group.start_bare().await;
    let client = group.client(&running).await;
    let _nodes = nodes(&client).await;
    push(&client, SPREAD).await;
    push(&client, &variant(SPREAD, 2)).await;
    within(client.activate_module(&MINE, 1, None))
        .await
        .unwrap();
    let error = within(client.compare_module(&MINE)).await.unwrap_err();
    assert!(error.to_string().contains("shadow"), "{error}");
    let module = within(client.start_shadow(&MINE, 2, None)).await.unwrap();
    assert_eq!(module.shadow.unwrap().version, 2);
    let compare = async || within(client.compare_module(&MINE)).await.unwrap();
    let nothing = compare().await;
    assert_eq!((nothing.decisions, nothing.other.version), (0, 2));
    create(&client, "room", 0..20).await;
    let comparison = until(compare, 20).await;
    assert_eq!((comparison.decisions, comparison.agreed), (20, 20));
    assert_eq!(comparison.decided[0].version, 1);
    for id in 0..20 {
        let process = key(&format!("room/{id}"));
        let explained = client.explain(&process);
        let why = within(explained).await.unwrap().record.why;
        assert!(matches!(why.chooser, Chooser::Selector { version: 1, .. }));
    }
    within(client.stop_shadow(&MINE)).await.unwrap();
    let error = within(client.compare_module(&MINE)).await.unwrap_err();
    assert!(error.to_string().contains("shadow"), "{error}");
    let history = within(client.module_history(&MINE)).await.unwrap();
    let actions: Vec<ModuleAction> = history.iter().map(|event| event.action).collect();
    assert_eq!(
        actions,
        [
            ModuleAction::Pushed,
            ModuleAction::Pushed,
            ModuleAction::Activated,
            ModuleAction::ShadowStarted,
            ModuleAction::ShadowStopped
        ]
    );
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_party_are_explained_each_for_itself() {
    let group = Group::new();
    let running = group.start_bare().await;
    let client = group.client(&running).await;
    let _nodes = nodes(&client).await;
    push(&client, SPREAD).await;
    within(client.activate_module(&MINE, 1, None))
        .await
        .unwrap();
    let mut party = client.party("squad").rule(PartyRule::Apart);
    for id in 0..3 {
        let member = client.create(key(&format!("room/{id}")));
        party = party.member(member.selector(MINE.clone()));
    }
    let created = within(party.send()).await.unwrap();
    for record in created.records {
        let process = &record.key;
        let explained = within(client.explain(process)).await.unwrap();
        let evidence = explained.evidence.unwrap();
        let mut candidates = evidence.candidates.iter();
        let chosen = candidates.find(|candidate| candidate.chosen).unwrap();
        assert_eq!(chosen.node, record.node);
        assert_eq!(evidence.why.seed, record.why.seed);
    }
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_why_not_and_what_it_cost() {
    let group = Group::new();
    let running = group.start_bare().await;
    let client = group.client(&running).await;
    let _nodes = nodes(&client).await;
    push(&client, SPREAD).await;
    within(client.activate_module(&MINE, 1, None))
        .await
        .unwrap();
    within(client.cordon(&"n3".parse().unwrap(), true))
        .await
        .unwrap();
    create(&client, "room", 0..3).await;
    let process = key("room/1");
    let explained = within(client.explain(&process)).await.unwrap();
    assert_eq!(explained.why_not, None);
    let chosen = explained.record.node.clone();
    let other = if chosen.as_str() == "n1" { "n2" } else { "n1" };
    let why_not = async |name: &str| {
        let name = name.parse().unwrap();
        let explained = client.explain_why_not(&process, &name);
        within(explained).await.unwrap().why_not
    };
    assert_eq!(why_not(chosen.as_str()).await, Some(WhyNot::Chosen));
    let offered = why_not(other).await;
    assert!(matches!(offered, Some(WhyNot::Offered(_))), "{offered:?}");
    let cordoned = why_not("n3").await;
    assert!(matches!(cordoned, Some(WhyNot::Refused(_))), "{cordoned:?}");
    assert_eq!(why_not("nosuch").await, Some(WhyNot::Unknown));

    // Found in what was recorded; the first time, the module is compiled for it.
    let fuel = async {
        loop {
            let explained = within(client.explain(&process)).await.unwrap();
            if let Some(fuel) = explained.fuel {
                return fuel;
            }
            tokio::task::yield_now().await;
        }
    };
    assert!(within(fuel).await > 0);

    // More refusals than are kept with a decision: the others are found by making it again.
    let mut others = Vec::new();
    for number in 0..=REFUSALS_MAX {
        let name = format!("other-{number:03}");
        let builder = client.node(&name).address("10.0.0.1:7").types(["match"]);
        others.push(within(builder.start(Starter::default())).await.unwrap());
    }
    let process = key("room/9");
    create(&client, "room", 9..10).await;
    let explained = within(client.explain(&process)).await.unwrap();
    let evidence = explained.evidence.unwrap();
    assert!(evidence.refusals_more > 0, "{evidence:?}");
    let named = |name: &NodeName| evidence.refusals.iter().any(|one| one.node == *name);
    let unnamed = others.iter().map(|node| node.name());
    let unnamed: Vec<&NodeName> = unnamed.filter(|name| !named(name)).collect();
    for name in unnamed {
        let found = async {
            loop {
                // What is recorded comes to disk a moment later.
                let explained = client.explain_why_not(&process, name).await.unwrap();
                if explained.why_not != Some(WhyNot::Unknown) {
                    return explained.why_not;
                }
                tokio::task::yield_now().await;
            }
        };
        let found = within(found).await;
        assert!(matches!(found, Some(WhyNot::Refused(_))), "{found:?}");
    }
    within(running.shutdown()).await.unwrap();
}

/// A selector that traps for types whose name has three letters, and else chooses the first node: it
/// would not be taken if it trapped at once.
fn trapping() -> Vec<u8> {
    let unlucky =
        "(if (i32.eq (i32.load offset=4 (local.get $args)) (i32.const 3)) (then unreachable))";
    Parts::body(&format!("{unlucky} {}", choose(FIRST))).selector()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_breaks_its_rule_is_taken_back_by_itself() {
    let group = Group::new();
    let config = ServerConfig {
        http: Some((std::net::Ipv4Addr::LOCALHOST, 0).into()),
        ..group.bare()
    };
    let running = Server::start(config).await.unwrap();
    within(running.ready()).await.unwrap();
    let client = group.client(&running).await;
    let _nodes = nodes(&client).await;
    push(&client, SPREAD).await;
    push(&client, &trapping()).await;
    within(client.activate_module(&MINE, 1, None))
        .await
        .unwrap();
    let nonsense = client.activate(&MINE).version(2).auto_rollback("traps>>1");
    let error = within(nonsense.send()).await.unwrap_err().to_string();
    assert!(error.contains("rule"), "{error}");

    // For all ids, then for a share of them.
    for percent in [100, 50] {
        let activation = client.activate(&MINE).version(2).percent(percent);
        let module = within(activation.auto_rollback("traps>0").send())
            .await
            .unwrap();
        assert_eq!(module.canary.is_some(), percent < 100);
        // It does what it should for others.
        create(&client, "room", u32::from(percent)..u32::from(percent) + 8).await;
        let module = within(client.get_module(&MINE)).await.unwrap();
        assert_eq!(module.active, Some(if percent < 100 { 1 } else { 2 }));
        // The fallback decides when it does not.
        create(&client, "pet", u32::from(percent)..u32::from(percent) + 8).await;
        let back = async {
            loop {
                let module = within(client.get_module(&MINE)).await.unwrap();
                if module.active == Some(1) && module.canary.is_none() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        within(back).await;
        let history = within(client.module_history(&MINE)).await.unwrap();
        let last = history.last().unwrap();
        assert_eq!(last.action, ModuleAction::AutoRolledBack);
        assert!(last.cause.as_ref().unwrap().contains("traps"), "{last:?}");
    }
    assert_eq!(counted(&running, "maitred_guards_tripped_total").await, 2);
    let chose = "maitred_decisions_total{verdict=\"chose\"}";
    assert!(counted(&running, chose).await >= 16);
    let fell_back = "maitred_decisions_total{verdict=\"fallback\"}";
    assert!(counted(&running, fell_back).await >= 1);
    assert!(counted(&running, "maitred_inputs_recorded_total").await >= 16);
    assert!(counted(&running, "maitred_inputs_bytes_total").await > 0);
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selector_that_keeps_failing_is_bypassed_and_named() {
    let group = Group::new();
    let running = group.start_bare().await;
    let client = group.client(&running).await;
    let _nodes = nodes(&client).await;
    push(&client, &trapping()).await;
    within(client.activate_module(&MINE, 1, None))
        .await
        .unwrap();
    assert_eq!(within(client.status()).await.unwrap().bypassed_modules, []);
    create(&client, "pet", 0..3).await;
    let bypassed = within(client.status()).await.unwrap().bypassed_modules;
    assert_eq!(bypassed.len(), 1, "{bypassed:?}");
    assert_eq!(bypassed[0].0, MINE.clone());
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_does_not_take_its_configuration_is_not_activated_with_it() {
    let group = Group::new();
    let running = group.start_bare().await;
    let client = group.client(&running).await;
    push(&client, SPREAD).await;
    let activate = |config: &str| client.activate_module(&MINE, 1, Some(config.to_owned()));
    within(activate("{}")).await.unwrap();
    let error = within(activate("[1, 2]")).await.unwrap_err().to_string();
    assert!(error.contains("validating the configuration"), "{error}");
    let error = within(client.start_shadow(&MINE, 1, Some("[1, 2]".to_owned()))).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("validating the configuration"), "{error}");
    within(running.shutdown()).await.unwrap();
}
