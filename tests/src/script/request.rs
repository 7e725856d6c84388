//! Requests of a script: from words to the wire's types.

use std::collections::BTreeMap;

use maitred_protocol::{
    ClientId, CreateOptions, CreateProcess, Drain, Incarnation, ListProcesses, NodeEpoch, NodeName,
    OnConflict, OnDrain, OnNodeLost, RegisterNode, Request, Restart, Revision, SetProcess, Switch,
    TypeSpec,
};

use super::words::{Words, key};

/// The request of a command; the sessions of nodes are those that the script has seen.
pub(super) fn request(
    verb: &str,
    client: ClientId,
    epochs: &BTreeMap<NodeName, NodeEpoch>,
    words: &mut Words<'_>,
) -> Result<Request, String> {
    Ok(match verb {
        "create" => Request::CreateProcess(client, Box::new(create(words)?)),
        "plan" => Request::Plan(Box::new(create(words)?)),
        "get" | "stale" => Request::GetProcess {
            key: key(words.next()?)?,
            stale: verb == "stale",
        },
        "set" => Request::SetProcess(client, Box::new(set(epochs, words)?)),
        "del" => Request::DelProcess {
            client,
            key: key(words.next()?)?,
            incarnation: words.take("inc")?.map(Incarnation),
            ended: words.take("ended")?.unwrap_or(false),
        },
        "explain" => Request::Explain {
            key: key(words.next()?)?,
            why_not: words.take("why-not")?,
        },
        "list" => Request::ListProcesses(Box::new(ListProcesses {
            type_name: words.take("type")?,
            id_prefix: words.take("prefix")?,
            node: words.take("node")?,
            after: words.take("after")?,
            limit: words.take("limit")?.unwrap_or(0),
            state: None,
        })),
        "session" => Request::OpenSession,
        "status" => Request::Status,
        "nodes" => Request::ListNodes {
            after: words.take("after")?,
        },
        "modules" => Request::ListModules {
            after: words.take("after")?,
        },
        "types" => Request::ListTypes {
            after: words.take("after")?,
        },
        "node" => Request::RegisterNode(client, Box::new(register(words)?)),
        "attach" | "deregister" | "update" | "cordon" | "uncordon" => {
            let name: NodeName = words.next_as()?;
            let epoch = epoch_of(&name, epochs, words)?;
            node_request(verb, client, (name, epoch), words)?
        }
        "activate" => Request::ActivateModule {
            client,
            name: words.next_as()?,
            version: words.take("version")?.unwrap_or(0),
            config: words.take("config")?,
            percent: words.take("percent")?.unwrap_or(100),
            types: words.list("types")?,
            guard: words.take("guard")?.unwrap_or_default(),
        },
        "shadow" => {
            let name = words.next_as()?;
            let version: Option<u32> = words.take("version")?;
            let config = words.take("config")?;
            let shadow = version.map(|version| (version, config));
            Request::ShadowModule {
                client,
                name,
                shadow,
            }
        }
        "history" => Request::ModuleHistory(words.next_as()?),
        "rollback" => {
            let activated = words.take("activated")?.map(Revision);
            Request::RollbackModule(client, words.next_as()?, activated)
        }
        "remove" => {
            let version = words.take("version")?.unwrap_or(0);
            Request::RemoveModule(client, words.next_as()?, version)
        }
        "pending" => Request::ListPending {
            after: None,
            limit: 0,
        },
        "lost" => Request::ListLost,
        "dead" => Request::ConfirmDead {
            client,
            name: words.next_as()?,
            epoch: words.take("epoch")?.map(NodeEpoch),
        },
        "drain" => {
            let name = words.next_as()?;
            let drain = Drain {
                deadline_ms: words.take("deadline")?.unwrap_or(60_000),
                per_second: words.take("rate")?.unwrap_or(100),
            };
            let cancel: bool = words.take("cancel")?.unwrap_or(false);
            Request::DrainNode {
                client,
                name,
                drain: (!cancel).then_some(drain),
            }
        }
        "suspend" | "resume" => Request::Suspend {
            client,
            what: match words.next()? {
                "moves" => Switch::Moves,
                "recreation" => Switch::Recreation,
                other => return Err(format!("what is {other}?")),
            },
            suspended: verb == "suspend",
        },
        "type" => Request::PutType(client, Box::new(type_spec(words)?)),
        other => return Err(format!("there is no command {other}")),
    })
}

/// The session that a command names, or else the last one seen of the node.
fn epoch_of(
    name: &NodeName,
    epochs: &BTreeMap<NodeName, NodeEpoch>,
    words: &mut Words<'_>,
) -> Result<NodeEpoch, String> {
    let named: Option<u64> = words.take("epoch")?;
    let seen = epochs.get(name).copied().unwrap_or_default();
    Ok(named.map_or(seen, NodeEpoch))
}

fn set(
    epochs: &BTreeMap<NodeName, NodeEpoch>,
    words: &mut Words<'_>,
) -> Result<SetProcess, String> {
    let key = key(words.next()?)?;
    let node: NodeName = words.next_as()?;
    let share: Option<String> = words.take("share")?;
    Ok(SetProcess {
        key,
        epoch: epoch_of(&node, epochs, words)?,
        node,
        pid: words.next()?.to_owned(),
        share: share.unwrap_or_default().into_bytes(),
        incarnation: words.take("inc")?.map(Incarnation),
    })
}

fn node_request(
    verb: &str,
    client: ClientId,
    (name, epoch): (NodeName, NodeEpoch),
    words: &mut Words<'_>,
) -> Result<Request, String> {
    Ok(match verb {
        "attach" => Request::AttachNode {
            name,
            epoch,
            inventory: words.lives("inventory")?,
        },
        "deregister" => Request::DeregisterNode {
            client,
            name,
            epoch,
        },
        "update" => {
            let labels = words.pairs("labels")?;
            let share: Option<String> = words.take("share")?;
            Request::UpdateNode {
                client,
                name,
                epoch,
                labels: (!labels.is_empty()).then_some(labels),
                capacity: words.take("capacity")?,
                share: share.map(String::into_bytes),
            }
        }
        _ => Request::CordonNode {
            client,
            name,
            cordoned: verb == "cordon",
        },
    })
}

fn create(words: &mut Words<'_>) -> Result<CreateProcess, String> {
    let conflict: Option<String> = words.take("conflict")?;
    let on_conflict = match conflict.as_deref() {
        None | Some("return") => OnConflict::Return,
        Some("fail") => OnConflict::Fail,
        Some("wait") => OnConflict::Wait,
        Some(other) => return Err(format!("what is conflict={other}?")),
    };
    Ok(CreateProcess {
        key: key(words.next()?)?,
        args: Vec::new(),
        selector: words.take("selector")?,
        callback: words.take("callback")?,
        options: CreateOptions {
            on_conflict,
            deadline_ms: words.take("deadline")?.unwrap_or(0),
            attempts: words.take("attempts")?.unwrap_or(0),
            back_off_ms: words.take("back-off")?.unwrap_or(0),
            group: words.take("group")?,
            require: words.pairs("require")?,
            demand: words.take("demand")?.unwrap_or(0),
            priority: words.take("priority")?.unwrap_or(0),
            requester: words.take("requester")?,
            latencies: Vec::new(),
        },
    })
}

fn register(words: &mut Words<'_>) -> Result<RegisterNode, String> {
    let name: NodeName = words.next_as()?;
    Ok(RegisterNode {
        types: words.list("types")?,
        address: format!("{name}:7000"),
        name,
        labels: words.pairs("labels")?,
        capacity: words.take("capacity")?.unwrap_or(10),
        share: Vec::new(),
        ttl_ms: words.take("ttl")?.unwrap_or(3_000),
        inventory: words.lives("inventory")?,
        kill_bound_ms: words.take("kill-bound")?.unwrap_or(1_000),
        instance: words.take("instance")?.unwrap_or(1),
        last_epoch: words.take("last")?.map(NodeEpoch),
    })
}

fn type_spec(words: &mut Words<'_>) -> Result<TypeSpec, String> {
    let mut spec = TypeSpec::new(words.next_as()?);
    spec.selector = words.take("selector")?.unwrap_or(spec.selector);
    spec.callback = words.take("callback")?.unwrap_or(spec.callback);
    spec.attempts = words.take("attempts")?.unwrap_or(spec.attempts);
    spec.back_off_ms = words.take("back-off")?.unwrap_or(spec.back_off_ms);
    spec.deadline_ms = words.take("deadline")?.unwrap_or(spec.deadline_ms);
    let lost: Option<String> = words.take("lost")?;
    if lost.as_deref() == Some("recreate") {
        spec.on_node_lost = OnNodeLost::Recreate;
    }
    let restart: Option<String> = words.take("restart")?;
    spec.restart = match restart.as_deref() {
        None | Some("safe") => Restart::Safe,
        Some("fast") => Restart::Fast,
        Some("strict") => Restart::Strict,
        Some(other) => return Err(format!("what is restart={other}?")),
    };
    spec.fence = words.take("fence")?;
    let on_drain: Option<String> = words.take("on-drain")?;
    spec.on_drain = match on_drain.as_deref() {
        None | Some("move") => OnDrain::Move,
        Some("wait") => OnDrain::Wait,
        Some("stop") => OnDrain::Stop,
        Some(other) => return Err(format!("what is on-drain={other}?")),
    };
    spec.recreate_attempts = words.take("recreate-attempts")?.unwrap_or(0);
    spec.pending_deadline_ms = words.take("pending-deadline")?.unwrap_or(0);
    Ok(spec)
}
