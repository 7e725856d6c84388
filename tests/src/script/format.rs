//! What is seen, as lines of text: short, and the same on every machine.

use maitred_protocol::{
    Answered, Attempt, CanaryRecord, Chooser, LostNode, MemberRecord, ModuleEvent, ModuleRecord,
    Move, NodeRecord, PendingProcess, ProcessRecord, ProcessState, Refusal, Rejection, Response,
    Status, TypeSpec, Verdict, Waits,
};
use maitred_registry::{Change, Event, Outcome, Record};

use crate::driver::Seen;

/// Adds the lines of one thing seen. Answers to tickets after `before` came at once.
pub(super) fn seen(seen: &Seen, before: u64, show_events: bool, lines: &mut Vec<String>) {
    match seen {
        Seen::Reply(ticket, answer) => {
            let mut texts = response(answer).into_iter();
            let first = texts.next().unwrap_or_default();
            if *ticket > before {
                lines.push(format!("= {first}"));
            } else {
                lines.push(format!("#{ticket} {first}"));
            }
            lines.extend(texts.map(|text| format!("  {text}")));
        }
        Seen::Spawn(job) => {
            let callback = match &job.callback {
                Ok(module) => format!("{} {}", module.name, module.version),
                Err(why) => format!("nothing: {why}"),
            };
            lines.push(format!(
                "spawn {}@{} on {} (session {}), attempt {}, within {} ms, by {callback}",
                job.key, job.incarnation, job.node.name, job.node.epoch, job.attempt, job.within_ms
            ));
        }
        Seen::Stop {
            node,
            epoch,
            key,
            incarnation,
        } => lines.push(format!(
            "stop {key}@{incarnation} on {node} (session {epoch})"
        )),
        Seen::Ack(ack) => {
            let alive = if ack.alive { "is renewed" } else { "has ended" };
            let (epoch, sequence) = (ack.epoch, ack.sequence);
            lines.push(format!("session {epoch} {alive} (keep-alive {sequence})"));
        }
        Seen::Snapshot(Some(index)) => lines.push(format!("snapshot of everything to {index}")),
        Seen::Snapshot(None) => lines.push("snapshot fails".to_owned()),
        Seen::Compact(index) => lines.push(format!("log cut through {index}")),
        Seen::Events(events) if show_events => lines.extend(events.iter().map(event)),
        Seen::Events(_) => {}
    }
}

fn event(event: &Event) -> String {
    let life =
        |record: &Record| format!("{}/{}@{}", record.type_name, record.id, record.incarnation);
    match event {
        Event::Process(change, record) => {
            let change = match change {
                Change::Reserved => "reserved",
                Change::Running => "running",
                Change::Updated => "updated",
                Change::Pending => "pending",
                Change::Removed => "removed",
            };
            let revision = record.revision;
            format!("event: {} {change}, revision {revision}", life(record))
        }
        Event::Ended(record) => format!("event: {} ended on {}", life(record), record.node),
        Event::Linger {
            node,
            key,
            incarnation,
            ..
        } => format!("event: {key}@{incarnation} lingers on {node}"),
        Event::Party { index, outcome, .. } => {
            let outcome = match outcome {
                Outcome::Party(records) => format!("of {} runs", records.len()),
                _ => "is undone".to_owned(),
            };
            format!("event: party {index} {outcome}")
        }
        Event::Released(key) => format!("event: {key} is released"),
        Event::Switched(what) => format!("event: {what:?} switched").to_lowercase(),
        Event::NodeUp {
            name,
            epoch,
            superseded,
        } => match superseded {
            Some(old) => format!("event: node {name} up, session {epoch} after {old}"),
            None => format!("event: node {name} up, session {epoch}"),
        },
        Event::NodeChanged(name) => format!("event: node {name} changed"),
        Event::NodeDown(name, epoch) => format!("event: node {name} down, session {epoch}"),
        Event::Module(name) => format!("event: module {name} changed"),
        Event::Members => "event: members changed".to_owned(),
    }
}

/// A heading, and a line for each of the items.
fn listed<T>(items: &[T], what: &str, line: fn(&T) -> String) -> Vec<String> {
    let heading = format!("{} {what}", items.len());
    std::iter::once(heading)
        .chain(items.iter().map(line))
        .collect()
}

/// The lines of a page, and where the next one begins.
fn page(mut lines: Vec<String>, next: Option<&impl std::fmt::Display>) -> Vec<String> {
    lines.extend(next.map(|next| format!("more after {next}")));
    lines
}

fn response(response: &Response) -> Vec<String> {
    vec![match response {
        Response::Session(client) => format!("session {client}"),
        Response::Created { record, created } => {
            let verb = if *created { "created" } else { "exists" };
            format!("{verb}: {}", process(record))
        }
        Response::Process { record, .. } => process(record),
        Response::Done(revision) => format!("done at {revision}"),
        Response::Processes { items, next, .. } => {
            return page(listed(items, "processes", process), next.as_ref());
        }
        Response::Registered { epoch, verdicts } => {
            let verdicts = verdicts.iter().map(|verdict| match verdict {
                Verdict::Keep => ", keep",
                Verdict::Stop => ", stop",
                Verdict::Adopt => ", adopt",
            });
            format!("session {epoch}{}", verdicts.collect::<String>())
        }
        Response::Node(record) => node(record),
        Response::Nodes { items, next } => {
            return page(listed(items, "nodes", node), next.as_ref());
        }
        Response::Pushed(record, version, _) => format!("version {version}; {}", module(record)),
        Response::Module(record) => module(record),
        Response::Modules { items, next } => {
            return page(listed(items, "modules", module), next.as_ref());
        }
        Response::Type(spec) => type_spec(spec),
        Response::Types { items, next } => {
            return page(listed(items, "types", type_spec), next.as_ref());
        }
        Response::Explained(explanation) => {
            let record = &explanation.record;
            return vec![process(record), chooser(&record.why.chooser)];
        }
        Response::Planned(plan) => {
            let node = plan.node.as_ref().map_or("nowhere", |node| node.as_str());
            let mut lines = vec![format!("would go to {node}")];
            lines.push(chooser(&plan.evidence.why.chooser));
            lines.extend(answered(&plan.evidence.answered));
            let then: Vec<&str> = plan.then.iter().map(|node| node.as_str()).collect();
            if !then.is_empty() {
                lines.push(format!("then {}", then.join(", ")));
            }
            lines.extend(refusals(&plan.evidence.refusals));
            return lines;
        }
        Response::Pending { items, .. } => return listed(items, "pending", pending),
        Response::Lost(items) => return listed(items, "lost", lost),
        Response::Rebalance(plan) => {
            let one = |it: &Move| format!("{} from {} to {}", it.key, it.from, it.to);
            return listed(&plan.moves, "moves", one);
        }
        Response::Party(records, created) => {
            let what = if *created { "created" } else { "exist" };
            return listed(records, what, process);
        }
        Response::ModuleHistory(events) => return listed(events, "lines", module_event),
        Response::Comparison(comparison) => format!("{comparison:?}"),
        Response::Member(record) => member(record),
        Response::Members(members) => return listed(&members.items, "members", member),
        Response::Status(status) => host(status),
        Response::Rejected(rejection) => return rejected(rejection),
        Response::Unavailable(why) => format!("unavailable: {why}"),
        Response::Unknown(why) => format!("unknown: {why}"),
    }]
}

fn member(record: &MemberRecord) -> String {
    let (host, name, role) = (record.host, &record.name, record.role);
    let role = format!("{role:?}").to_lowercase();
    let mut text = format!("host {host} {name}, {role}");
    if !record.address.is_empty() {
        text += &format!(" at {}", record.address);
    }
    if let Some(old) = record.replaces {
        text += &format!(", replaces {old}");
    }
    text
}

fn rejected(rejection: &Rejection) -> Vec<String> {
    let mut lines = vec![format!("rejected: {rejection}")];
    match rejection {
        Rejection::AlreadyExists(record) => lines.push(process(record)),
        Rejection::NoPlacement {
            refusals: named,
            selector,
            ..
        } => {
            lines.extend(refusals(named));
            let by = |name| format!("{name} took none of its candidates");
            lines.extend(selector.as_ref().map(by));
        }
        Rejection::SpawnFailed(attempts) | Rejection::Deadline(attempts) => {
            lines.extend(attempts.iter().map(attempt));
        }
        _ => {}
    }
    lines
}

fn attempt(attempt: &Attempt) -> String {
    let (incarnation, node) = (attempt.incarnation, &attempt.node);
    format!("@{incarnation} on {node}: {}", attempt.cause)
}

fn refusals(refusals: &[Refusal]) -> impl Iterator<Item = String> + '_ {
    refusals
        .iter()
        .map(|refusal| format!("{}: {}", refusal.node, refusal.reason))
}

fn process(record: &ProcessRecord) -> String {
    let state = match record.state {
        ProcessState::Starting => "starting on",
        ProcessState::Running => "running on",
        ProcessState::Pending => "pending, last on",
    };
    let (key, incarnation, node) = (&record.key, record.incarnation, &record.node);
    let mut text = format!("{key}@{incarnation} {state} {node}");
    if !record.pid.is_empty() {
        text += &format!(" as {}", record.pid);
    }
    if !record.share.is_empty() {
        text += &format!(", shares {}", String::from_utf8_lossy(&record.share));
    }
    if record.attempt != 1 {
        text += &format!(", attempt {}", record.attempt);
    }
    if record.address.is_empty() {
        text += ", unreachable";
    }
    text
}

fn answered(answered: &Answered) -> Option<String> {
    match answered {
        Answered::Ranked(count) => Some(format!("it ranked {count}")),
        Answered::Rejected { code, reason } => Some(format!("it rejects: {reason} (code {code})")),
        Answered::Wait(ms) => Some(format!("it wants to wait for {ms} ms")),
        Answered::Nothing | Answered::Chose | Answered::None => None,
    }
}

fn chooser(chooser: &Chooser) -> String {
    match chooser {
        Chooser::Node => "registered by its node".to_owned(),
        Chooser::Selector {
            name,
            version,
            canary,
            ..
        } => {
            let canary = if *canary { ", its canary" } else { "" };
            format!("chosen by {name} {version}{canary}")
        }
        Chooser::Rebalance => "chosen by a plan of rebalancing".to_owned(),
        Chooser::Advice => "chosen by its callback's advice".to_owned(),
        Chooser::Fallback {
            fallback, cause, ..
        } => format!("chosen by the fallback {fallback:?}: {cause}"),
    }
}

fn node(node: &NodeRecord) -> String {
    let mut text = format!(
        "{} session {}: {} processes, {} of {} units",
        node.name, node.epoch, node.processes, node.used, node.capacity
    );
    for (is, what) in [(node.cordoned, ", cordoned"), (node.suspect, ", suspect")] {
        text += if is { what } else { "" };
    }
    if let Some(drain) = &node.drain {
        text += &format!(", drained of {}", drain.processes);
    }
    if node.damped_ms > 0 {
        text += &format!(", damped for {} ms", node.damped_ms);
    }
    text
}

fn pending(pending: &PendingProcess) -> String {
    let waits = match &pending.waits {
        Waits::Nothing => "is being placed".to_owned(),
        Waits::Held {
            node,
            lost,
            strict,
            left_ms,
            ..
        } => {
            let node = if *lost {
                format!("lost node {node}")
            } else {
                format!("node {node} to stop it")
            };
            match (strict, left_ms) {
                (true, _) => format!("waits for proof about {node}"),
                (false, Some(left_ms)) => format!("waits {left_ms} ms for {node}"),
                (false, None) => format!("waits for {node}"),
            }
        }
        Waits::BackOff(left_ms) => format!("is tried again in {left_ms} ms"),
        Waits::NoNode {
            refusals: named, ..
        } => {
            let why: Vec<String> = refusals(named).collect();
            format!("waits for a node; {}", why.join(", "))
        }
        Waits::Turn(before) => format!("waits its turn after {before}"),
        Waits::Paused(why) => format!("waits: {why}"),
    };
    let key = &pending.record.key;
    match pending.left_ms {
        Some(left_ms) => format!("{key} {waits}; given up in {left_ms} ms"),
        None => format!("{key} {waits}"),
    }
}

fn lost(lost: &LostNode) -> String {
    let (name, epoch) = (&lost.name, lost.epoch);
    format!(
        "{name} session {epoch}: {} keys wait for its kill bound of {} ms, {} for proof",
        lost.safe, lost.kill_bound_ms, lost.strict
    )
}

fn module(module: &ModuleRecord) -> String {
    let versions = module.versions.iter();
    let versions: Vec<String> = versions.map(|it| it.version.to_string()).collect();
    let number = |version: Option<u32>| version.map_or("none".to_owned(), |it| it.to_string());
    let mut text = format!(
        "{}: versions {}; active {} with {}, before that {}",
        module.name,
        versions.join(" "),
        number(module.active),
        module.config,
        number(module.previous)
    );
    if let Some(canary) = &module.canary {
        let CanaryRecord {
            version, percent, ..
        } = canary;
        text += &format!("; {version} for {percent} %");
    }
    if let Some(shadow) = &module.shadow {
        text += &format!("; {} in shadow", shadow.version);
    }
    text
}

fn module_event(event: &ModuleEvent) -> String {
    let ModuleEvent {
        action,
        version,
        config_version,
        percent,
        types,
        cause,
        ..
    } = event;
    let mut text = format!("{action:?} {version}, configuration {config_version}");
    if *percent < 100 {
        text += &format!(", {percent} %");
    }
    if !types.is_empty() {
        let types: Vec<&str> = types.iter().map(|it| it.as_str()).collect();
        text += &format!(", for {}", types.join(" "));
    }
    if let Some(cause) = cause {
        text += &format!(": {cause}");
    }
    text
}

fn type_spec(spec: &TypeSpec) -> String {
    format!(
        "{}: selector {}, callback {}, {:?} when lost, {} attempts, back-off {} ms, deadline {} ms",
        spec.name,
        spec.selector,
        spec.callback,
        spec.on_node_lost,
        spec.attempts,
        spec.back_off_ms,
        spec.deadline_ms
    )
}

fn host(status: &Status) -> String {
    let shedding = match &status.shedding {
        Some(why) => format!(", shedding: {why}"),
        None => String::new(),
    };
    format!(
        "{} in term {}, applied {}, {} entries in the log, snapshot at {}; {} running, {} starting, {} pending{shedding}",
        status.role,
        status.term,
        status.applied,
        status.log_entries,
        status.snapshot,
        status.running,
        status.starting,
        status.pending
    )
}
