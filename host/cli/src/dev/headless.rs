//! `dev` without a terminal: a few lines or one JSON document, and an exit code for scripts.

use std::time::{Duration, Instant};

use maitred_protocol::Members;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::World;
use crate::failure::{Exit, Failure};
use crate::host::{self, GroupHost, Signals};
use crate::json;
use crate::out::{self, envelope, print};

/// How often the selector is swapped.
const SWAP: Duration = Duration::from_secs(1);
/// How often the hosts are looked at: more often than a leader can change.
const LOOK: Duration = Duration::from_millis(100);
/// How often there is a line to read.
const LINE: Duration = Duration::from_secs(5);

/// What a run came to.
pub(crate) struct Summary {
    json: Value,
    text: String,
    creates: u64,
    failures: u64,
    last_error: Option<String>,
}

/// Runs until `end` or a signal, swapping selectors all the while.
pub(crate) async fn run(
    world: &mut World,
    end: Option<Instant>,
    signals: &mut Signals,
    quiet: bool,
) -> Result<(), Failure> {
    if !quiet {
        print(&world.banner().join("\n"))?;
    }
    let far = Instant::now() + Duration::from_secs(365 * 86_400);
    let end = tokio::time::sleep_until(end.unwrap_or(far).into());
    tokio::pin!(end);
    let (mut swaps, mut lines, mut looks) = (interval(SWAP), interval(LINE), interval(LOOK));
    looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    swaps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick of each comes at once, and is for nothing.
    swaps.tick().await;
    lines.tick().await;
    let mut swapping = JoinSet::new();
    loop {
        tokio::select! {
            () = &mut end => return Ok(()),
            () = signals.next() => return Ok(()),
            failed = world.embedded.failed() => return Err(host::broken(&failed)),
            _ = looks.tick() => {
                if let Some(said) = world.tick().await && !quiet {
                    print(&said)?;
                }
            }
            // Never waited for: hosts come back meanwhile.
            _ = swaps.tick(), if swapping.is_empty() => {
                swapping.spawn(world.rules.swap(world.client.clone()));
            }
            Some(Ok(swapped)) = swapping.join_next() => match swapped {
                Ok(swapped) => drop(world.rules.swapped(swapped)),
                Err(error) => {
                    let text = format!("swapping the selector: {}", Failure::from(error).message);
                    world.stats.failed(text);
                }
            },
            _ = lines.tick(), if !quiet => print(&line(world))?,
        }
    }
}

fn line(world: &World) -> String {
    let tally = world.stats.lock();
    format!(
        "{}{} creates, {} failed, p50 {}, p99 {}, {} swaps; {}",
        group(world).map_or(String::new(), |text| text + "; "),
        tally.creates,
        tally.failures,
        micros(tally.creates_us.value_at_quantile(0.5)),
        micros(tally.creates_us.value_at_quantile(0.99)),
        world.rules.swaps,
        world.rules.text(),
    )
}

/// `365 µs`, `12.9 ms`, `10.4 s`.
fn micros(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.1} s", micros as f64 / 1e6),
    }
}

/// Who leads, when that can change.
fn group(world: &World) -> Option<String> {
    let hosts = world.embedded.hosts();
    if hosts.len() == 1 {
        return None;
    }
    let leader = hosts.iter().find(|host| host.leads());
    let leader = leader.map_or("nobody leads".to_owned(), |host| {
        format!("{} leads", host.name)
    });
    let up = hosts.iter().filter(|host| host.is_up()).count();
    let changes = world.embedded.leader_changes;
    Some(format!(
        "{leader}, {up} of {} hosts, {changes} {}",
        hosts.len(),
        if changes == 1 {
            "change of leader"
        } else {
            "changes of leader"
        },
    ))
}

fn hosts(world: &World, members: Option<&Members>) -> Value {
    let host = |host: &GroupHost| {
        let member =
            members.and_then(|members| members.items.iter().find(|one| one.host == host.number));
        json!({
            "host": host.number.to_string(),
            "name": host.name,
            "address": host.address.to_string(),
            "up": host.is_up(),
            "leads": host.leads(),
            "role": member.map(|member| json::role(member.role)),
        })
    };
    world.embedded.hosts().iter().map(host).collect()
}

impl Summary {
    /// Sums up, while everything but the load still runs.
    pub(crate) async fn new(world: &World) -> Self {
        let status = world.client.status().await.ok();
        let members = world.client.members().await.ok();
        let tally = world.stats.lock();
        let running = status.as_ref().map(|status| status.running);
        let pending = status.as_ref().map(|status| status.pending);
        let lost = status.map(|status| status.lost);
        let first = tally.first.map(|first| first.duration_since(world.started));
        let nodes: serde_json::Map<_, _> = world
            .fleet
            .members
            .iter()
            .map(|member| {
                let name = &member.spec.name;
                let placed = tally.by_node.get(name).copied().unwrap_or(0);
                let node = json!({
                    "placed": placed,
                    "running": member.running(),
                    "capacity": member.spec.capacity,
                });
                (name.clone(), node)
            })
            .collect();
        let (creates, decisions) = (&tally.creates_us, &tally.decisions_us);
        let json = json!({
            "creates": tally.creates,
            "failures": tally.failures,
            "nodes": nodes,
            "p50_us": creates.value_at_quantile(0.5),
            "p99_us": creates.value_at_quantile(0.99),
            "decision_p50_us": decisions.value_at_quantile(0.5),
            "decision_p99_us": decisions.value_at_quantile(0.99),
            "selectors": tally.by_selector,
            "fallbacks": tally.fallbacks,
            "swaps": world.rules.swaps,
            "running": running,
            "pending": pending,
            "lost": lost,
            "skipped": tally.skipped,
            "first_placement_ms": first.map(|span| span.as_millis() as u64),
            "hosts": hosts(world, members.as_ref()),
            "leader_changes": world.embedded.leader_changes,
            "kills": world.embedded.kills,
            "seconds": world.started.elapsed().as_secs_f64(),
            "last_error": tally.last_error,
        });
        let selectors: Vec<String> = tally
            .by_selector
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        let text = format!(
            "{}{} creates, {} failed, {} by a fallback; p50 {}, p99 {}; {} swaps\nplaced by  {}",
            group(world).map_or(String::new(), |text| format!("hosts      {text}\n")),
            tally.creates,
            tally.failures,
            tally.fallbacks,
            micros(creates.value_at_quantile(0.5)),
            micros(creates.value_at_quantile(0.99)),
            world.rules.swaps,
            selectors.join(", "),
        );
        Self {
            json,
            text,
            creates: tally.creates,
            failures: tally.failures,
            last_error: tally.last_error.clone(),
        }
    }
}

impl Summary {
    /// Says what came of it, to a person.
    pub(crate) fn show(&self) -> Result<(), Failure> {
        print(&self.text)
    }
}

/// Says what came of it; a failure unless all went well.
pub(crate) fn finish(summary: &Summary, json: bool) -> Result<(), Failure> {
    if json {
        print(&out::line(&envelope("DevSummary", summary.json.clone())))?;
    } else {
        summary.show()?;
    }
    if summary.creates > 0 && summary.failures == 0 {
        return Ok(());
    }
    let (message, help) = match &summary.last_error {
        Some(error) => (
            format!("{} failed; the last one: {error}", summary.failures),
            "run it with --log debug and look at the last lines",
        ),
        None => (
            "nothing was created".to_owned(),
            "give it more time with --for",
        ),
    };
    Err(Failure::new(Exit::Other, "dev", message, help))
}
