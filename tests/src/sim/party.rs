//! What clients ask for parties: of keys of their own, mostly, and of those that single creates want, too;
//! by every rule; and now and then for the very party that they have asked for before.

use maitred_protocol::{
    CreateOptions, CreateParty, CreateProcess, OnConflict, PartyRule, ProcessKey, Request,
};
use maitred_registry::random::Random;

use super::caller::Purpose;
use super::client::{NO_SESSION, all_keys, delete};
use super::plan::Knobs;
use super::world::World;

/// Members of a party at most, of so few keys.
const MEMBERS_MAX: u32 = 4;
/// Names of parties.
const NAMES: u32 = 4;

impl World {
    /// A client asks for a party, if it is its turn to: says whether.
    pub(super) fn asks_for_party(&mut self, actor: usize) -> bool {
        let knobs = self.scenario.knobs;
        if let Some(key) = self.client(actor).deletes.pop() {
            self.client(actor).busy = true;
            self.ask(actor, Purpose::Work, delete(key), 3_000_000, None);
            return true;
        }
        if knobs.parties == 0 || self.actors[actor].random.below(100) >= knobs.parties {
            return false;
        }
        let again = self.actors[actor].random.below(4) == 0;
        let before = self.client(actor).party.take().filter(|_| again);
        let random = &mut self.actors[actor].random;
        let party = before.unwrap_or_else(|| drawn(random, &knobs));
        let within_us = 2_000_000 + u64::from(random.below(6_000_000));
        let client = self.client(actor);
        (client.party, client.busy) = (Some(party.clone()), true);
        self.cover.count("party asked for");
        let request = Request::CreateParty(NO_SESSION, Box::new(party));
        self.ask(actor, Purpose::Work, request, within_us, None);
        true
    }
}

impl World {
    /// It is there: mostly it is over soon, and sometimes so is a part of it only.
    pub(super) fn party_made(&mut self, actor: usize) {
        self.cover.count("party done");
        let party = self.client(actor).party.clone();
        let members = party.iter().flat_map(|party| &party.members);
        let of_other =
            |member: &CreateProcess| self.has_other_selector(member.key.type_name.as_str());
        let (others, rest): (Vec<_>, Vec<_>) = members.partition(|member| of_other(member));
        if !others.is_empty() && !rest.is_empty() {
            self.cover.count("party of two selectors done");
        }
        self.clears(actor, 14);
    }

    /// It is not: what is in its way goes, or not.
    pub(super) fn party_refused(&mut self, actor: usize) {
        self.cover.count("party refused");
        self.clears(actor, 4);
    }

    fn clears(&mut self, actor: usize, of_sixteen: u32) {
        if self.actors[actor].random.below(16) >= of_sixteen {
            return;
        }
        let client = self.client(actor);
        let members = client.party.iter().flat_map(|party| &party.members);
        client.deletes = members.map(|member| member.key.clone()).collect();
    }
}

fn drawn(random: &mut Random, knobs: &Knobs) -> CreateParty {
    // Mostly those that single creates do not ask for.
    let contested = random.below(8) == 0;
    let ids = if contested { 0 } else { knobs.keys };
    let mut free = all_keys(knobs.ids());
    free.retain(|key| key.id.as_str().parse().is_ok_and(|id: u32| id >= ids));
    let most = MEMBERS_MAX.min(free.len() as u32);
    let size = (1 + random.below(most)).max(2).min(free.len() as u32);
    let deadline_ms = 300 + random.below(4_000);
    let mut members = Vec::new();
    for _ in 0..size {
        let key = free.swap_remove(random.below(free.len() as u32) as usize);
        members.push(member(random, key, deadline_ms));
    }
    let rule = match random.below(5) {
        0 => PartyRule::Any,
        1 => PartyRule::Together,
        2 | 3 => PartyRule::Apart,
        _ => PartyRule::AtMost(1 + random.below(2) as u8),
    };
    CreateParty {
        group: format!("party-{}", random.below(NAMES)),
        rule,
        members,
    }
}

fn member(random: &mut Random, key: ProcessKey, deadline_ms: u32) -> CreateProcess {
    let on_conflict = match random.below(4) {
        0 => OnConflict::Fail,
        _ => OnConflict::Return,
    };
    CreateProcess {
        key,
        args: vec![0; random.below(40) as usize],
        selector: None,
        callback: None,
        options: CreateOptions {
            on_conflict,
            deadline_ms,
            attempts: random.below(4) as u8,
            back_off_ms: random.below(200),
            demand: random.below(3),
            priority: random.below(10) as i32,
            ..CreateOptions::default()
        },
    }
}
