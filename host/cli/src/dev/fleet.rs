//! The sample nodes of `dev`, and what a person may do to them: kill and drain.

use std::time::Duration;

use maitred_client::{Client, Error};
use maitred_protocol::{Drain, NodeName};
use tokio::task::JoinSet;

use super::Dev;
use super::rules::TYPES;
use super::work;
use crate::failure::Failure;
use crate::presence::Presence;
use crate::sample::{Life, SampleNode, Spec};

/// How long a killed node stays away.
const AWAY: Duration = Duration::from_secs(10);
/// The default of the client library: short enough that a person sees what happens to the processes of
/// a killed node.
const TTL: Duration = Duration::from_secs(3);
/// How a drain moves what a node has.
const DRAIN: Drain = Drain {
    deadline_ms: 60_000,
    per_second: 50,
};
/// Processes of one node: what it can name when it reconnects, less something for longer ids.
const PROCESSES_MAX: u32 = 18_000;
/// Zones, and how much larger than the smallest their nodes are.
const PLACES: [(&str, f64); 6] = [
    ("eu", 1.5),
    ("eu", 1.0),
    ("us", 1.0),
    ("us", 1.0),
    ("ap", 1.0),
    ("ap", 0.75),
];

/// A sample node and whether it is there.
pub(crate) struct Member {
    pub(crate) spec: Spec,
    presence: Presence<SampleNode, Error>,
    /// Whether a drain was asked for.
    pub(crate) drained: bool,
}

/// A drain that was made, or ended.
pub(crate) struct Drained {
    at: usize,
    on: bool,
}

pub(crate) struct Fleet {
    client: Client,
    pub(crate) members: Vec<Member>,
}

impl Fleet {
    /// Registers all nodes, with about twice the capacity that the load needs.
    pub(crate) async fn start(client: &Client, dev: &Dev) -> Result<Self, Failure> {
        let specs = specs(usize::from(dev.nodes), dev.rate, dev.life);
        let mut starting = JoinSet::new();
        for (at, spec) in specs.into_iter().enumerate() {
            let client = client.clone();
            starting.spawn(async move { (at, SampleNode::start(&client, &spec).await, spec) });
        }
        let mut members = Vec::new();
        for (at, node, spec) in starting.join_all().await {
            let presence = Presence::Up(node?);
            let drained = false;
            members.push((
                at,
                Member {
                    spec,
                    presence,
                    drained,
                },
            ));
        }
        members.sort_by_key(|(at, _)| *at);
        Ok(Self {
            client: client.clone(),
            members: members.into_iter().map(|(_, member)| member).collect(),
        })
    }

    /// Kills a node, or lets a killed one come back; says what was done.
    pub(crate) fn kill(&mut self, at: usize) -> String {
        let client = self.client.clone();
        let Some(member) = self.members.get_mut(at) else {
            return String::new();
        };
        let name = member.spec.name.clone();
        match &member.presence {
            Presence::Up(node) => {
                node.crash();
                member.presence = Presence::down(AWAY);
                member.drained = false;
                format!(
                    "{name} killed: its lease of {} s runs out first, then its processes are dealt with",
                    TTL.as_secs()
                )
            }
            Presence::Down(_) => {
                member.come_back(client);
                format!("{name} comes back")
            }
            Presence::Coming(_) => format!("{name} is coming back"),
        }
    }

    /// Drains a node, or ends that. The answer is for [`Fleet::drained`].
    pub(crate) fn drain(
        &self,
        at: usize,
    ) -> Option<impl Future<Output = Result<Drained, String>> + Send + use<>> {
        let member = self.members.get(at)?;
        let (name, on) = (member.spec.name.clone(), !member.drained);
        let client = self.client.clone();
        Some(async move {
            let done = match NodeName::new(name.as_str()) {
                Ok(node) if on => client.drain_node(&node, DRAIN).await,
                Ok(node) => client.cordon(&node, false).await,
                Err(error) => Err(error.into()),
            };
            match done {
                Ok(_) => Ok(Drained { at, on }),
                Err(error) => Err(format!("{name}: {}", Failure::from(error).message)),
            }
        })
    }

    /// Takes a drain over that was made; says what was done.
    pub(crate) fn drained(&mut self, drained: &Drained) -> String {
        let Some(member) = self.members.get_mut(drained.at) else {
            return String::new();
        };
        member.drained = drained.on;
        let name = &member.spec.name;
        if drained.on {
            format!("{name} drains: no new processes, those that it has are moved")
        } else {
            format!("{name} takes new processes again")
        }
    }

    /// Brings back those whose time has come; what went wrong, if something did.
    pub(crate) async fn tick(&mut self) -> Option<String> {
        let mut problem = None;
        for member in &mut self.members {
            if member.presence.is_due() {
                member.come_back(self.client.clone());
            } else if let Some(error) = member.presence.returned(AWAY).await {
                let text = Failure::from(error).message;
                problem = Some(format!("{} does not come back: {text}", member.spec.name));
            }
        }
        problem
    }

    /// Says good-bye for all of them, at once.
    pub(crate) async fn stop(self) {
        let mut ending = JoinSet::new();
        for member in self.members {
            match member.presence {
                Presence::Up(node) => {
                    ending.spawn(async move { node.shutdown().await });
                }
                Presence::Coming(task) => task.abort(),
                Presence::Down(_) => {}
            }
        }
        ending.join_all().await;
    }
}

impl Member {
    fn come_back(&mut self, client: Client) {
        let spec = self.spec.clone();
        self.presence = Presence::Coming(tokio::spawn(async move {
            SampleNode::start(&client, &spec).await
        }));
    }

    /// Processes that it really runs; none when it is not there.
    pub(crate) fn running(&self) -> Option<usize> {
        self.presence.up().map(SampleNode::running)
    }

    /// Seconds until it comes back; none when it is there.
    pub(crate) fn away(&self) -> Option<u64> {
        self.presence.away()
    }
}

/// Whether so many nodes can have what the load comes to.
pub(crate) fn check(nodes: u16, rate: u32, life: Duration) -> Result<(), Failure> {
    // As large as the smallest node's share of all, which is three quarters of the mean.
    let each = f64::from(PROCESSES_MAX) * 0.75;
    let expected = f64::from(rate) * life.as_secs_f64();
    let needed = (expected / each).ceil();
    if f64::from(nodes) >= needed {
        return Ok(());
    }
    let message = format!(
        "{rate} creates a second that live {} s come to {expected:.0} processes, more than {nodes} nodes can have",
        life.as_secs_f64()
    );
    let help = if needed <= 64.0 {
        format!("use --nodes {needed}, a lower --rate, or a shorter --life")
    } else {
        "use a lower --rate, or a shorter --life".to_owned()
    };
    Err(Failure::usage(message, help))
}

fn specs(nodes: usize, rate: u32, life: Duration) -> Vec<Spec> {
    let expected = f64::from(rate) * life.as_secs_f64();
    let places: Vec<(&str, f64)> = PLACES.into_iter().cycle().take(nodes).collect();
    let weights: f64 = places.iter().map(|(_, weight)| weight).sum();
    let unit = (expected * 2.2 / weights).max(20.0);
    let mut numbers = std::collections::BTreeMap::new();
    let spec = |(zone, weight): (&str, f64)| {
        let number = numbers.entry(zone.to_owned()).or_insert(0_u32);
        *number += 1;
        Spec {
            name: format!("{zone}-{number}"),
            zone: zone.to_owned(),
            capacity: ((unit * weight) as u32).clamp(1, PROCESSES_MAX),
            types: TYPES.map(|(name, ..)| name).to_vec(),
            ttl: TTL,
            life: Some(Life {
                mean: life,
                of: work::made,
            }),
        }
    };
    places.into_iter().map(spec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_the_nodes_cannot_have_is_refused() {
        let second = Duration::from_secs(1);
        check(3, 20, second * 12).unwrap();
        check(1, 5_000, second * 2).unwrap();
        let refused = check(3, 5_000, second * 12).unwrap_err();
        assert!(refused.help.contains("--nodes 5"), "{}", refused.help);
        check(5, 5_000, second * 12).unwrap();
        assert!(
            !check(64, 5_000, second * 3_600)
                .unwrap_err()
                .help
                .contains("--nodes")
        );
    }

    #[test]
    fn the_fleet_has_room_for_the_load() {
        let three = specs(3, 20, Duration::from_secs(12));
        let names: Vec<&str> = three.iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(names, ["eu-1", "eu-2", "us-1"]);
        let room: u32 = three.iter().map(|spec| spec.capacity).sum();
        assert!(room > 2 * 240, "{room}");
        assert_eq!(specs(14, 1, Duration::from_secs(1)).len(), 14);
    }
}
