//! Another try for members of a party that is reserved: what they keep to, and where the others are.
//!
//! Retries are decided one by one, in batches as they come. Where members are is what is on record, and
//! what is on its way there: a member that has been decided anew counts on its new node. One that is
//! being decided counts where it was, until it is decided. Whatever these decisions did not see of each
//! other, apply does ([`Registry`] admits no place that breaks the rule), and they are made again.
//!
//! **Invariants.** A member's own place never binds itself. Those of [`PartyRule::Together`] that have
//! lost their node are offered only what has room for all of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use maitred_protocol::{NodeName, PartyRule, ProcessKey, ProcessState};
use maitred_registry::candidates::{Fleet, PartyTerms, SelectRequest};
use maitred_registry::decide::SelectJob;
use maitred_registry::{Record, Registry};

use super::deciding::wanted_by_all;
use crate::moves::slot_of;
use crate::replica::Replica;
use crate::saga::{KeyOf, Saga};

/// Marks the numbers of parties in the retries of their members, which are indices.
const RETRY: u64 = 1 << 63;

/// Has another try for a member keep to its party's rule, while that is being created.
pub(crate) fn keep_to_party(registry: &Registry, record: &Record, request: &mut SelectRequest) {
    let Some((index, party)) = registry.party_of(record) else {
        return;
    };
    let is_placed = record.state != ProcessState::Pending;
    let mut terms = PartyTerms {
        number: index | RETRY,
        rule: party.rule,
        rest: request.demand,
        types: Arc::default(),
        from: is_placed.then(|| (*record.node).clone()),
    };
    if party.rule == PartyRule::Together {
        let is_it =
            |member: &Record| member.type_name == record.type_name && member.id == record.id;
        let mut with_it = members_of(registry, record);
        with_it.retain(|member| member.state == ProcessState::Pending || is_it(member));
        terms.rest = with_it
            .iter()
            .fold(0, |rest, member| rest.saturating_add(member.demand));
        (terms.types, request.require) = wanted_by_all(with_it.iter().filter_map(|member| {
            let spec = member.spec.as_deref()?;
            Some((&*member.type_name, &spec.options))
        }));
    }
    request.party = Some(terms);
}

/// All that are left of a record's party, itself included.
fn members_of<'a>(registry: &'a Registry, record: &Record) -> Vec<&'a Arc<Record>> {
    let Some((index, party)) = registry.party_of(record) else {
        return Vec::new();
    };
    let members = party.members.iter();
    let members = members.filter_map(|key| registry.process(key));
    let is_its = |member: &&Arc<Record>| {
        let spec = member.spec.as_ref();
        spec.is_some_and(|spec| spec.party == index)
    };
    members.filter(is_its).collect()
}

impl Replica {
    /// Counts where members of the parties of a batch are: those that have been decided and are not
    /// reserved yet; and, when some are decided again, all that have a node.
    pub(crate) fn count_parties(&self, fleet: &mut Fleet, jobs: &[SelectJob]) {
        let mut parties: BTreeMap<u64, &ProcessKey> = BTreeMap::new();
        for job in jobs {
            if let Some(terms) = &job.request.party {
                parties.entry(terms.number).or_insert(&job.request.key);
            }
        }
        for (number, key) in parties {
            if number & RETRY == 0 {
                self.count_decided(fleet, number);
                continue;
            }
            let Some(record) = self.registry.process(key) else {
                continue;
            };
            for member in members_of(&self.registry, record) {
                let slot = self.place_of(member).and_then(|node| slot_of(fleet, node));
                fleet.parties.extend(slot.map(|slot| (number, slot)));
            }
        }
    }

    /// Where a member is, or will be when what is on its way to the log is applied.
    fn place_of<'a>(&'a self, member: &'a Record) -> Option<&'a NodeName> {
        let saga = self.sagas.all.get(&KeyOf::of(member));
        let is_placed = member.state != ProcessState::Pending;
        let place = is_placed.then(|| &*member.node);
        saga.and_then(Saga::comes_to).or(place)
    }
}
