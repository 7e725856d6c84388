//! What each error of the client library means here: exit code, code word, and what to do.

use maitred_client::{Cause, Error, Fatal};
use maitred_protocol::{Attempt, ModuleName, Refusal, RefusalReason, Rejection, Unavailable};
use maitred_transport::LinkError;
use serde_json::json;

use crate::failure::{Exit, Failure};
use crate::json;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let tls = error.is_tls();
        match error {
            Error::Rejected(rejection) => rejected(rejection),
            Error::Unavailable { cause } => unavailable(&cause),
            Error::Unknown { request_id, cause } => Failure::new(
                Exit::Unavailable,
                "unknown_outcome",
                format!("it is not known whether the change was made: {cause}"),
                "look (`get`, `ls`) before doing it again",
            )
            .with(json!({
                "client": request_id.client.to_string(),
                "sequence": request_id.sequence.to_string(),
            })),
            Error::Fatal(fatal) => of_fatal(&fatal, tls),
        }
    }
}

fn of_fatal(fatal: &Fatal, tls: bool) -> Failure {
    let text = fatal.to_string();
    match fatal {
        _ if tls => {
            let mut failure = Failure::advised(Exit::Auth, "tls", &text, "check the certificates");
            failure.help += " (`maitred cert issue` makes certificates with the group's CA)";
            failure
        }
        Fatal::Link { .. } => Failure::advised(
            Exit::Other,
            "protocol",
            &text,
            "upgrade the older of the two programs",
        ),
        Fatal::Port(_) => Failure::advised(
            Exit::Other,
            "port",
            &text,
            "check that UDP sockets may be opened here",
        ),
        Fatal::OutOfBounds(_) => Failure::advised(
            Exit::Usage,
            "invalid",
            &text,
            "see the verb's --help for the limits",
        ),
        Fatal::Missing { .. } => Failure::advised(Exit::Usage, "missing", &text, "see --help"),
        Fatal::Frame(_) | Fatal::Answer { .. } => Failure::advised(
            Exit::Other,
            "protocol",
            &text,
            "upgrade the older of the two programs",
        ),
        Fatal::Thread(_) => Failure::advised(
            Exit::Other,
            "thread",
            &text,
            "raise the limit of threads (ulimit -u)",
        ),
        Fatal::Write(_) => {
            Failure::advised(Exit::Other, "file", &text, "check that the disk has room")
        }
        Fatal::Tls(_) => Failure::advised(Exit::Auth, "tls", &text, "see `maitred cert --help`"),
    }
}

fn unavailable(cause: &Cause) -> Failure {
    let text = cause.to_string();
    let (code, help) = match cause {
        Cause::Host(Unavailable::NotLeader { .. }) => {
            ("not_leader", "give the leader's address with --endpoint")
        }
        Cause::Host(Unavailable::Overloaded(_)) => {
            ("overloaded", "try again in a moment, with less at once")
        }
        Cause::Host(Unavailable::ShuttingDown) => ("shutting_down", "try again when it is back"),
        Cause::Host(Unavailable::DiskFull(_)) => (
            "disk_full",
            "free space on the host's data directory; reads and deletes go on meanwhile",
        ),
        Cause::Host(Unavailable::Held(_)) => (
            "held",
            "see what releases it with `maitred node ls --lost` and `maitred process ls --state pending`",
        ),
        Cause::Host(Unavailable::NoSession) | Cause::SessionLost => {
            ("session_lost", "run the command again")
        }
        Cause::Link(LinkError::NoAnswer { .. }) => (
            "no_answer",
            "check the address, that the host runs, and that UDP passes",
        ),
        Cause::Link(_) => ("no_connection", "check that the host runs, and try again"),
        Cause::Deadline { .. } => (
            "timeout",
            "check with `maitred status` that the host is well, or give more time with --timeout",
        ),
        Cause::Answer(_) => ("unknown_outcome", "look before doing it again"),
        Cause::Damaged(_) => ("damaged", "run the command again"),
        Cause::NotRegistered => ("not_registered", "try again when the node is registered"),
        Cause::Closed => ("closed", "run the command again"),
    };
    Failure::advised(Exit::Unavailable, code, &text, help).retryable()
}

fn rejected(rejection: Rejection) -> Failure {
    let text = rejection.to_string();
    match rejection {
        Rejection::Invalid(_) => Failure::advised(
            Exit::Usage,
            "invalid",
            &text,
            "see the verb's --help for the limits",
        ),
        Rejection::NotFound(ref what) => {
            Failure::new(Exit::NotFound, "not_found", &text, whereabouts(what))
        }
        Rejection::AlreadyExists(record) => Failure::new(
            Exit::Conflict,
            "already_exists",
            text,
            format!(
                "look at it with `maitred process get {}`; create with `--on-conflict return` to be given the one that is there",
                record.key
            ),
        )
        .with(json::process(&record)),
        Rejection::Fenced { ref what, current } => Failure::new(
            Exit::Conflict,
            "fenced",
            text,
            format!("another life is the current one: read it again and use its {what}"),
        )
        .with(json!({ "what": what, "current": current.to_string() })),
        Rejection::Superseded { .. } => Failure::advised(
            Exit::Conflict,
            "superseded",
            &text,
            "start it under a name of its own",
        ),
        Rejection::Conflict(_) => Failure::advised(
            Exit::Conflict,
            "conflict",
            &text,
            "read the current state, then decide",
        ),
        Rejection::NoPlacement {
            refusals,
            more,
            selector,
        } => no_placement(&refusals, more, selector.as_ref()),
        Rejection::SpawnFailed(attempts) => Failure::new(
            Exit::Other,
            "spawn_failed",
            with_attempts(text, &attempts),
            "look at the logs of those nodes; the key is free again",
        )
        .with(json!(attempts.iter().map(json::attempt).collect::<Vec<_>>())),
        Rejection::Deadline(attempts) => Failure::new(
            Exit::Unavailable,
            "deadline",
            with_attempts(text, &attempts),
            "give more time with --deadline, or look at the nodes",
        )
        .retryable()
        .with(json!(attempts.iter().map(json::attempt).collect::<Vec<_>>())),
        // Its own words are not of our form: they may have a semicolon anywhere.
        Rejection::Module { stage, reason } => Failure::new(
            Exit::Module,
            "module_rejected",
            format!("the module was rejected while {stage}: {reason}"),
            mending(&stage),
        )
        .with(json!({ "stage": stage, "reason": reason })),
        Rejection::BySelector {
            ref selector,
            code,
            ref reason,
        } => Failure::new(
            Exit::NoPlacement,
            "rejected_by_selector",
            text,
            format!(
                "{selector} will not have it created: change what it objects to, or what it is configured with (`maitred module get {selector}`), or name another one with --selector"
            ),
        )
        .with(json!({ "selector": selector.as_str(), "code": code, "reason": reason })),
        Rejection::Party {
            ref key,
            ref reason,
        } => Failure::new(
            Exit::NoPlacement,
            "party",
            text,
            format!("none of the party was created; see what would become of that member with `maitred process plan {key}`"),
        )
        .with(json!({ "key": key.to_string(), "reason": reason })),
    }
}

/// What to do about a module that was refused at that stage.
fn mending(stage: &str) -> &'static str {
    match stage {
        "checking the signature" => {
            "sign it with a key that the hosts trust: `maitred module sign --help`"
        }
        "validating the configuration" => {
            "mend the configuration: the module's own `validate` refuses it"
        }
        "receiving" => {
            "make it smaller, or push it to hosts that allow large modules, as `maitred dev` does; if it came damaged, push it again"
        }
        "loading" => "see which hosts cannot run it, and why, with `maitred status`",
        _ => {
            "mend the module and push it again: `maitred module check FILE` says the same without a host, and wit/ what it may do"
        }
    }
}

/// The command that lists what there is instead of `what`.
fn whereabouts(what: &str) -> String {
    if let Some((_, module)) = what.split_once(" of module ") {
        return format!("see its versions with `maitred module get {module}`");
    }
    let mut words = what.split(' ');
    let verb = words.find(|word| ["process", "node", "module", "type", "member"].contains(word));
    match verb {
        Some(verb) => format!("see what there is with `maitred {verb} ls`"),
        None => "see what there is with the `ls` of the same verb".to_owned(),
    }
}

fn with_attempts(text: String, attempts: &[Attempt]) -> String {
    attempts.iter().fold(text, |text, attempt| {
        format!("{text}\n  {}: {}", attempt.node, attempt.cause)
    })
}

fn foreign(refusal: &Refusal) -> bool {
    refusal.reason == RefusalReason::TypeNotHosted
}

fn no_placement(refusals: &[Refusal], more: u32, selector: Option<&ModuleName>) -> Failure {
    let mut message = "no node can take the process".to_owned();
    if let Some(selector) = selector {
        message += &format!(": the selector {selector} would take none of the candidates");
    }
    for refusal in refusals {
        message += &format!("\n  {}: {}", refusal.node, refusal.reason);
    }
    if more > 0 {
        message += &format!("\n  and {more} more nodes");
    }
    let help = if refusals.is_empty() && more == 0 && selector.is_none() {
        "there are no nodes: start a game node, or try `maitred dev`"
    } else if more == 0 && !refusals.is_empty() && refusals.iter().all(foreign) {
        "start a node that hosts the type, or one that names no types and so hosts all"
    } else {
        "add a node, raise a capacity, or uncordon one (`maitred node ls`)"
    };
    Failure::new(Exit::NoPlacement, "no_placement", message, help).with(json!({
        "refusals": refusals.iter().map(json::refusal).collect::<Vec<_>>(),
        "more": more,
        "selector": selector.map(ToString::to_string),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use maitred_protocol::NodeName;

    fn exit(rejection: Rejection) -> u8 {
        Failure::from(Error::Rejected(rejection)).exit as u8
    }

    #[test]
    fn exit_codes_are_a_contract() {
        assert_eq!(exit(Rejection::Invalid("x".into())), 2);
        assert_eq!(exit(Rejection::NotFound("x".into())), 3);
        let what = "incarnation".to_owned();
        assert_eq!(exit(Rejection::Fenced { what, current: 1 }), 4);
        assert_eq!(exit(Rejection::Conflict("x".into())), 4);
        assert_eq!(exit(Rejection::Deadline(Vec::new())), 6);
        let (selector, reason) = (ModuleName::new("x").unwrap(), "full".to_owned());
        let by_selector = Rejection::BySelector {
            selector,
            code: 7,
            reason,
        };
        assert_eq!(exit(by_selector), 5);
        let (key, reason) = ("player/1".parse().unwrap(), "x".to_owned());
        assert_eq!(exit(Rejection::Party { key, reason }), 5);
        let (stage, reason) = ("scanning".to_owned(), "x".to_owned());
        assert_eq!(exit(Rejection::Module { stage, reason }), 8);
        let closed = Error::Unavailable {
            cause: Cause::Closed,
        };
        assert_eq!(Failure::from(closed).exit as u8, 6);
    }

    #[test]
    fn no_placement_names_every_node_and_its_reason() {
        let refusal = Refusal {
            node: NodeName::new("eu-1").unwrap(),
            reason: RefusalReason::Capacity { left: 0, demand: 1 },
        };
        let failure = no_placement(&[refusal], 2, None);
        assert_eq!(failure.exit, Exit::NoPlacement);
        assert!(failure.message.contains("eu-1: capacity: 0 left, 1 needed"));
        assert!(failure.message.contains("2 more"));
        assert_eq!(failure.to_json()["details"]["refusals"][0]["node"], "eu-1");
    }

    #[test]
    fn help_names_the_command_that_helps() {
        for (what, command) in [
            ("process player/9", "`maitred process ls`"),
            ("version 3 of module spread", "`maitred module get spread`"),
            ("node eu-9", "`maitred node ls`"),
        ] {
            assert!(whereabouts(what).contains(command), "{what}");
        }
        let refusal = |reason| Refusal {
            node: NodeName::new("eu-1").unwrap(),
            reason,
        };
        let foreign = refusal(RefusalReason::TypeNotHosted);
        let help = |refusals: &[Refusal]| no_placement(refusals, 0, None).help;
        assert!(help(std::slice::from_ref(&foreign)).contains("hosts the type"));
        assert!(!help(&[foreign, refusal(RefusalReason::Cordoned)]).contains("hosts the type"));
    }

    #[test]
    fn advice_is_told_apart_from_what_happened() {
        let failure = unavailable(&Cause::Link(LinkError::NoAnswer {
            address: ([127, 0, 0, 1], 1).into(),
            millis: 5,
        }));
        assert_eq!(failure.message, "no answer from 127.0.0.1:1 within 5 ms");
        assert!(failure.help.starts_with("check the address"));
        assert!(failure.retryable);
    }
}
