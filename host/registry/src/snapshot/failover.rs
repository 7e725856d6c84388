//! Mirrors of how lives end, of what is waited for after a loss, and of what operators hold up: frozen
//! with the format's version.

use std::collections::BTreeMap;
use std::sync::Arc;

use maitred_protocol::{Incarnation, NodeEpoch, NodeName, ProcessKey};
use rkyv::{Archive, Deserialize, Serialize};

use crate::drain::Failover;
use crate::exit::{EndedBy, Ends};
use crate::holds::{Holders, wire};
use crate::lost::Lost;

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct FailoverMirror {
    pub(super) moves_suspended: bool,
    pub(super) recreation_suspended: bool,
    pub(super) losses: Vec<(u64, NodeName)>,
    pub(super) forgotten: Option<(u64, u64)>,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct HoldMirror {
    pub(super) key: ProcessKey,
    pub(super) incarnation: Incarnation,
    pub(super) node: NodeName,
    pub(super) epoch: NodeEpoch,
    pub(super) strict: bool,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct LostMirror {
    pub(super) epoch: NodeEpoch,
    pub(super) name: NodeName,
    pub(super) lost_ms: u64,
    pub(super) kill_bound_ms: u32,
    pub(super) address: String,
    pub(super) labels: Vec<(String, String)>,
    pub(super) instance: u64,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct EndsMirror {
    pub(super) by: Option<EndedByMirror>,
    pub(super) times: u16,
    pub(super) open: bool,
    pub(super) ran_ms: u64,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) enum EndedByMirror {
    Exit,
    NodeLost,
}

impl From<&Failover> for FailoverMirror {
    fn from(failover: &Failover) -> Self {
        Self {
            moves_suspended: failover.moves_suspended,
            recreation_suspended: failover.recreation_suspended,
            losses: failover
                .losses
                .iter()
                .map(|(time_ms, name)| (*time_ms, (**name).clone()))
                .collect(),
            forgotten: failover.forgotten,
        }
    }
}

impl From<FailoverMirror> for Failover {
    fn from(mirror: FailoverMirror) -> Self {
        Self {
            moves_suspended: mirror.moves_suspended,
            recreation_suspended: mirror.recreation_suspended,
            losses: mirror
                .losses
                .into_iter()
                .map(|(time_ms, name)| (time_ms, Arc::new(name)))
                .collect(),
            forgotten: mirror.forgotten,
        }
    }
}

impl HoldMirror {
    /// By session; of each, in the order of keys.
    pub(super) fn all(holders: &Holders) -> impl Iterator<Item = Self> {
        holders.iter().flat_map(|(epoch, holder)| {
            let lives = holder.lives.iter();
            lives.map(|((key, incarnation), strict)| Self {
                key: wire(key),
                incarnation: *incarnation,
                node: (*holder.node).clone(),
                epoch: *epoch,
                strict: *strict,
            })
        })
    }
}

impl LostMirror {
    pub(super) fn all(lost: &BTreeMap<NodeEpoch, Lost>) -> impl Iterator<Item = Self> {
        lost.iter().map(|(epoch, lost)| Self {
            epoch: *epoch,
            name: (*lost.name).clone(),
            lost_ms: lost.lost_ms,
            kill_bound_ms: lost.kill_bound_ms,
            address: lost.address.to_string(),
            labels: lost.labels.to_vec(),
            instance: lost.instance,
        })
    }
}

impl From<LostMirror> for (NodeEpoch, Lost) {
    fn from(mirror: LostMirror) -> Self {
        let lost = Lost {
            name: Arc::new(mirror.name),
            lost_ms: mirror.lost_ms,
            kill_bound_ms: mirror.kill_bound_ms,
            address: mirror.address.into(),
            labels: mirror.labels.into(),
            instance: mirror.instance,
        };
        (mirror.epoch, lost)
    }
}

impl From<Ends> for EndsMirror {
    fn from(ends: Ends) -> Self {
        let by = ends.by.map(|by| match by {
            EndedBy::Exit => EndedByMirror::Exit,
            EndedBy::NodeLost => EndedByMirror::NodeLost,
        });
        Self {
            by,
            times: ends.times,
            open: ends.open,
            ran_ms: ends.ran_ms,
        }
    }
}

impl From<EndsMirror> for Ends {
    fn from(mirror: EndsMirror) -> Self {
        let by = mirror.by.map(|by| match by {
            EndedByMirror::Exit => EndedBy::Exit,
            EndedByMirror::NodeLost => EndedBy::NodeLost,
        });
        Self {
            by,
            times: mirror.times,
            open: mirror.open,
            ran_ms: mirror.ran_ms,
        }
    }
}
