//! What selectors may see of the nodes at one moment, and the native filter in front of them.
//!
//! A [`Fleet`] is a value: the replica makes one for each batch of decisions, from committed state
//! and from what it has in flight, and whoever decides works on it alone. A decision is counted
//! into it at once ([`Fleet::take`]), so that the decisions of a batch see each other.
//!
//! Nothing here knows how a choice is made, and nothing reads a clock: the time is a field.

use std::sync::Arc;

use hashbrown::HashMap;
use maitred_protocol::{CreateOptions, NodeEpoch, NodeName, PartyRule, ProcessKey, TypeName};

use crate::feature::{Ask, CANDIDATES_MAX, Feature};
use crate::random::Random;

/// A node's number within one [`Fleet`].
pub type Slot = u32;

/// What a node said of itself when it registered.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeFacts {
    /// Its name.
    pub name: NodeName,
    /// Its session.
    pub epoch: NodeEpoch,
    /// The types it hosts; empty for all.
    pub types: Vec<TypeName>,
    /// Where its processes can be reached.
    pub address: String,
    /// Key and value pairs.
    pub labels: Vec<(String, String)>,
    /// Units of capacity.
    pub capacity: u32,
    /// Milliseconds since 1970 of its registration.
    pub registered_ms: u64,
}

impl NodeFacts {
    /// 24 bits of a hash of the name, exact in an `f32`: the first three bytes of its blake3 hash,
    /// little-endian.
    #[must_use]
    pub fn name_hash(&self) -> f32 {
        let hash = blake3::hash(self.name.as_str().as_bytes());
        let [a, b, c, ..] = *hash.as_bytes();
        u32::from_le_bytes([a, b, c, 0]) as f32
    }

    /// Whether it hosts a type.
    #[must_use]
    pub fn hosts(&self, of: &TypeName) -> bool {
        self.types.is_empty() || self.types.contains(of)
    }

    /// The value of a label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels
            .iter()
            .find(|(have, _)| have == key)
            .map(|(_, value)| value.as_str())
    }
}

/// What changes about a node from one decision to the next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NodeLive {
    /// Takes no new processes.
    pub cordoned: bool,
    /// Keep-alives are missing.
    pub suspect: bool,
    /// Milliseconds for which it is damped, because it was suspect again and again; 0 for not.
    pub damped_ms: u32,
    /// Processes of lost nodes that it may yet be given now.
    pub budget: u32,
    /// Processes, those in flight included.
    pub processes: u32,
    /// Placements decided and not yet running.
    pub in_flight: u32,
    /// Units taken, by those in flight too.
    pub used: u32,
    /// Placements of the last 1, 10 and 60 seconds.
    pub placed: [u32; 3],
    /// Reported; NaN when unknown.
    pub cpu: f32,
    /// Reported; NaN when unknown.
    pub memory_free_mib: f32,
    /// When the report came, on the clock of [`Fleet::now_us`]; [`NEVER`] when there is none. Times
    /// and not ages, so that a row stays the same while nothing happens.
    pub load_at_us: u64,
    /// When the last placement there was decided, on that clock; [`NEVER`] for never.
    pub placed_at_us: u64,
    /// [`NodeFacts::name_hash`], kept because hashing at every decision would cost more than it.
    pub name_hash: f32,
}

impl NodeLive {
    /// A node of which nothing is known, on which nothing runs, and which takes what it is given. Part
    /// of the format of recorded inputs: rows are differences from it.
    pub const BLANK: Self = Self {
        cordoned: false,
        suspect: false,
        damped_ms: 0,
        budget: u32::MAX,
        processes: 0,
        in_flight: 0,
        used: 0,
        placed: [0; 3],
        cpu: f32::NAN,
        memory_free_mib: f32::NAN,
        load_at_us: NEVER,
        placed_at_us: NEVER,
        name_hash: 0.0,
    };
}

/// A time that has not been.
pub const NEVER: u64 = u64::MAX;

/// Counts of one type, or one group, on every node.
#[derive(Debug, Clone, PartialEq)]
pub struct Column<K> {
    /// Whose counts.
    pub of: K,
    /// One a slot.
    pub counts: Vec<u32>,
}

/// The nodes at one moment; a slot is an index into each of the vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct Fleet {
    /// This moment, in microseconds of a clock that only goes forward.
    pub now_us: u64,
    /// The same, in milliseconds since 1970.
    pub now_ms: u64,
    /// What does not change: shared with other fleets.
    pub facts: Arc<[Arc<NodeFacts>]>,
    /// What does.
    pub live: Vec<NodeLive>,
    /// Counts of the types in the batch, when the selector wants them.
    pub of_type: Vec<Column<TypeName>>,
    /// Counts of the groups in the batch, when the selector wants them.
    pub of_group: Vec<Column<String>>,
    /// Reported counters of each node, when the selector wants them.
    pub counters: Vec<Arc<[(String, f32)]>>,
    /// Where members of the parties in the batch are, by the party's number.
    pub parties: Vec<(u64, Slot)>,
}

/// What a member of a party must keep to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartyTerms {
    /// The party's number, within one batch.
    pub number: u64,
    /// The rule.
    pub rule: PartyRule,
    /// Units that the members which have no node yet take together, this one included.
    pub rest: u32,
    /// Types that the node must host besides this one's, for those that must come with it: of
    /// [`PartyRule::Together`] only.
    pub types: Arc<[TypeName]>,
    /// Where it is until its new node is on record, when this is another try: in [`Fleet::parties`],
    /// for the others.
    pub from: Option<NodeName>,
}

/// What is to be placed, as far as a choice may depend on it.
#[derive(Debug, Clone, PartialEq)]
pub struct SelectRequest {
    /// Type and id.
    pub key: ProcessKey,
    /// Its party.
    pub group: Option<String>,
    /// The node that asks.
    pub requester: Option<NodeName>,
    /// Labels that the node must have.
    pub require: Vec<(String, String)>,
    /// Units that it takes; at least 1.
    pub demand: u32,
    /// Larger is more important.
    pub priority: i32,
    /// 1 for the first.
    pub attempt: u32,
    /// Nodes that failed an earlier attempt.
    pub exclude: Vec<NodeName>,
    /// Whether it is a process of a lost node, which counts against its next node's budget.
    pub again: bool,
    /// The node of the life before.
    pub previous: Option<NodeName>,
    /// Milliseconds to values of a label, as the create says.
    pub latencies: Vec<(String, u32)>,
    /// The party that it is created with.
    pub party: Option<PartyTerms>,
}

impl SelectRequest {
    /// A first attempt at one unit, that demands nothing.
    #[must_use]
    pub fn new(key: ProcessKey) -> Self {
        Self::of(key, &CreateOptions::default())
    }

    /// A first attempt at a create with these options.
    #[must_use]
    pub fn of(key: ProcessKey, options: &CreateOptions) -> Self {
        Self {
            key,
            group: options.group.clone(),
            requester: options.requester.clone(),
            require: options.require.clone(),
            demand: options.demand.max(1),
            priority: options.priority,
            attempt: 1,
            exclude: Vec::new(),
            again: false,
            previous: None,
            latencies: options.latencies.clone(),
            party: None,
        }
    }
}

/// Why a slot was not offered. Indices instead of text, because most of these are never read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Takes no new processes.
    Cordoned,
    /// Keep-alives are missing.
    Suspect,
    /// Does not host the type.
    TypeNotHosted,
    /// Lacks the label at this index of [`SelectRequest::require`].
    Label(u32),
    /// Has so many units left.
    Capacity(u32),
    /// Failed an earlier attempt.
    FailedBefore,
    /// Was suspect again and again; for so many milliseconds yet.
    Damped(u32),
    /// Was given enough processes of lost nodes for now.
    Budget,
    /// The rule of the party keeps it out.
    Party,
}

impl Refused {
    /// The name of the filter.
    #[must_use]
    pub fn filter(self) -> &'static str {
        match self {
            Self::Cordoned => "cordoned",
            Self::Suspect => "suspect",
            Self::TypeNotHosted => "type-not-hosted",
            Self::Label(_) => "label",
            Self::Capacity(_) => "capacity",
            Self::FailedBefore => "failed-before",
            Self::Damped(_) => "damped",
            Self::Budget => "budget",
            Self::Party => "party",
        }
    }
}

impl Fleet {
    /// Nodes, one row a node, at the first moment of both clocks and without columns.
    #[must_use]
    pub fn new(facts: Arc<[Arc<NodeFacts>]>, live: Vec<NodeLive>) -> Self {
        Self {
            now_us: 0,
            now_ms: 0,
            facts,
            live,
            of_type: Vec::new(),
            of_group: Vec::new(),
            counters: Vec::new(),
            parties: Vec::new(),
        }
    }

    /// Whether a slot may take the request, or why not.
    ///
    /// # Errors
    /// The first reason found.
    #[inline]
    pub fn admits(&self, slot: Slot, request: &SelectRequest) -> Result<(), Refused> {
        let (facts, live) = (&self.facts[slot as usize], &self.live[slot as usize]);
        if live.cordoned {
            return Err(Refused::Cordoned);
        }
        if live.suspect {
            return Err(Refused::Suspect);
        }
        if live.damped_ms > 0 {
            return Err(Refused::Damped(live.damped_ms));
        }
        if !facts.hosts(&request.key.type_name) {
            return Err(Refused::TypeNotHosted);
        }
        for (index, (key, value)) in request.require.iter().enumerate() {
            if facts.label(key) != Some(value) {
                return Err(Refused::Label(index as u32));
            }
        }
        let left = facts.capacity.saturating_sub(live.used);
        if left < request.demand {
            return Err(Refused::Capacity(left));
        }
        if request.exclude.contains(&facts.name) {
            return Err(Refused::FailedBefore);
        }
        if request.again && live.budget == 0 {
            return Err(Refused::Budget);
        }
        match &request.party {
            Some(party) => self.party_admits(slot, party, left),
            None => Ok(()),
        }
    }

    /// Apart from [`Self::admits`], which is small enough then to be part of the loop over all nodes.
    #[inline(never)]
    fn party_admits(&self, slot: Slot, party: &PartyTerms, left: u32) -> Result<(), Refused> {
        let facts = &self.facts[slot as usize];
        let own = self.left_by(party);
        let members = self.parties.iter().enumerate();
        let others =
            members.filter(|(at, (number, _))| *number == party.number && Some(*at) != own);
        let mut placed = others.map(|(_, (_, there))| *there);
        let fits = match party.rule {
            PartyRule::Any => true,
            _ if crate::mutants::on("party-rule-ignored") => true,
            PartyRule::Together => match placed.next() {
                Some(there) => there == slot,
                None if left < party.rest => return Err(Refused::Capacity(left)),
                None => party.types.iter().all(|of| facts.hosts(of)),
            },
            PartyRule::Apart => placed.all(|there| there != slot),
            PartyRule::AtMost(most) => {
                placed.filter(|there| *there == slot).count() < usize::from(most)
            }
        };
        if fits { Ok(()) } else { Err(Refused::Party) }
    }

    /// The row of [`Self::parties`] that is of the place which a member is about to leave.
    fn left_by(&self, party: &PartyTerms) -> Option<usize> {
        let from = party.from.as_ref()?;
        let is_there = |slot: Slot| {
            let facts = self.facts.get(slot as usize);
            facts.is_some_and(|facts| facts.name == *from)
        };
        let mut members = self.parties.iter();
        members.position(|(number, slot)| *number == party.number && is_there(*slot))
    }

    /// All slots that may take the request, in order, and why the others may not.
    #[must_use]
    pub fn filter(&self, request: &SelectRequest) -> (Vec<Slot>, Vec<(Slot, Refused)>) {
        let mut passed = Vec::with_capacity(self.live.len());
        let mut refused = Vec::new();
        for slot in 0..self.live.len() as Slot {
            match self.admits(slot, request) {
                Ok(()) => passed.push(slot),
                Err(reason) => refused.push((slot, reason)),
            }
        }
        (passed, refused)
    }

    /// Cuts the slots that passed down to what the selector asked for.
    pub fn pick(
        &self,
        ask: &Ask,
        passed: &mut Vec<Slot>,
        request: &SelectRequest,
        random: &mut Random,
    ) {
        match ask {
            Ask::Scan => {}
            Ask::All => sample(passed, CANDIDATES_MAX, random),
            Ask::Sample(count) => sample(passed, (*count).clamp(1, CANDIDATES_MAX), random),
            Ask::Lowest(feature, count) => {
                self.lowest(
                    feature,
                    (*count).clamp(1, CANDIDATES_MAX),
                    passed,
                    request,
                    random,
                );
            }
        }
    }

    fn lowest(
        &self,
        feature: &Feature,
        count: u32,
        passed: &mut Vec<Slot>,
        request: &SelectRequest,
        random: &mut Random,
    ) {
        let mut ranked: Vec<(f32, u32, Slot)> = passed
            .iter()
            .map(|&slot| (self.value(feature, slot, request), random.next_u32(), slot))
            .collect();
        // total_cmp puts positive NaN last; a NaN from outside might be negative.
        let order = |a: &(f32, u32, Slot), b: &(f32, u32, Slot)| {
            (a.0.is_nan().cmp(&b.0.is_nan()))
                .then(a.0.total_cmp(&b.0))
                .then(a.1.cmp(&b.1))
                .then(a.2.cmp(&b.2))
        };
        let count = (count as usize).min(ranked.len());
        if count > 0 && count < ranked.len() {
            ranked.select_nth_unstable_by(count - 1, order);
        }
        ranked.truncate(count);
        ranked.sort_unstable_by(order);
        passed.clear();
        passed.extend(ranked.iter().map(|&(_, _, slot)| slot));
    }

    /// The features of the slots, row by row.
    #[must_use]
    pub fn gather(
        &self,
        features: &[Feature],
        slots: &[Slot],
        request: &SelectRequest,
    ) -> Vec<f32> {
        let mut values = vec![f32::NAN; slots.len() * features.len()];
        for (column, feature) in features.iter().enumerate() {
            self.gather_column(
                feature,
                slots,
                request,
                &mut values[column..],
                features.len(),
            );
        }
        values
    }

    fn gather_column(
        &self,
        feature: &Feature,
        slots: &[Slot],
        request: &SelectRequest,
        values: &mut [f32],
        stride: usize,
    ) {
        if let Feature::Label(key) = feature {
            // Equal values get equal numbers, in the order in which they are met.
            let mut seen: HashMap<&str, f32> = HashMap::new();
            for (row, &slot) in slots.iter().enumerate() {
                let Some(value) = self.facts[slot as usize].label(key) else {
                    continue;
                };
                let next = seen.len() as f32;
                values[row * stride] = *seen.entry(value).or_insert(next);
            }
            return;
        }
        let of_type = column_of(&self.of_type, Some(&request.key.type_name));
        let of_group = column_of(&self.of_group, request.group.as_ref());
        let here = match feature {
            Feature::Local(key) => self.label_of(request.requester.as_ref(), key),
            _ => None,
        };
        for (row, &slot) in slots.iter().enumerate() {
            values[row * stride] = match feature {
                Feature::ProcessesOfType => count_at(of_type, slot),
                Feature::ProcessesOfGroup => count_at(of_group, slot),
                Feature::Local(key) => self.is_local(slot, key, here),
                _ => self.value(feature, slot, request),
            };
        }
    }

    #[inline]
    fn value(&self, feature: &Feature, slot: Slot, request: &SelectRequest) -> f32 {
        let (facts, live) = (&self.facts[slot as usize], &self.live[slot as usize]);
        match feature {
            Feature::Processes => live.processes as f32,
            Feature::ProcessesOfType => {
                count_at(column_of(&self.of_type, Some(&request.key.type_name)), slot)
            }
            Feature::ProcessesOfGroup => {
                count_at(column_of(&self.of_group, request.group.as_ref()), slot)
            }
            Feature::InFlight => live.in_flight as f32,
            Feature::Placed1s => live.placed[0] as f32,
            Feature::Placed10s => live.placed[1] as f32,
            Feature::Placed60s => live.placed[2] as f32,
            Feature::Capacity => facts.capacity as f32,
            Feature::CapacityLeft => facts.capacity.saturating_sub(live.used) as f32,
            Feature::Cpu => live.cpu,
            Feature::MemoryFreeMib => live.memory_free_mib,
            Feature::LoadAgeMs => self.since_ms(live.load_at_us),
            Feature::SincePlacedMs => self.since_ms(live.placed_at_us),
            Feature::NodeAgeMs => self.now_ms.saturating_sub(facts.registered_ms) as f32,
            Feature::NameHash => live.name_hash,
            Feature::Requester => is_named(&facts.name, request.requester.as_ref()),
            Feature::Previous => is_named(&facts.name, request.previous.as_ref()),
            Feature::Label(_) => f32::NAN,
            Feature::Local(key) => {
                let here = self.label_of(request.requester.as_ref(), key);
                self.is_local(slot, key, here)
            }
            Feature::Has(key, value) => {
                f32::from(u8::from(facts.label(key) == Some(value.as_str())))
            }
            Feature::Latency(key) => {
                let mut said = request.latencies.iter();
                let value = facts.label(key);
                let said = said.find(|(of, _)| value == Some(of));
                said.map_or(f32::NAN, |(_, milliseconds)| *milliseconds as f32)
            }
            Feature::Counter(name) => self
                .counters
                .get(slot as usize)
                .and_then(|counters| counters.iter().find(|(have, _)| have == name))
                .map_or(f32::NAN, |(_, value)| *value),
        }
    }

    /// Milliseconds since a time of [`NodeLive`].
    #[must_use]
    pub fn since_ms(&self, at_us: u64) -> f32 {
        match at_us {
            NEVER => f32::NAN,
            // By way of a signed number, which is one instruction; it fits after the division.
            at_us => (self.now_us.saturating_sub(at_us) / 1_000) as i64 as f32,
        }
    }

    fn label_of(&self, node: Option<&NodeName>, key: &str) -> Option<&str> {
        let facts = self.facts.iter().find(|facts| Some(&facts.name) == node)?;
        facts.label(key)
    }

    fn is_local(&self, slot: Slot, key: &str, here: Option<&str>) -> f32 {
        match (self.facts[slot as usize].label(key), here) {
            (Some(there), Some(here)) => f32::from(u8::from(there == here)),
            _ => f32::NAN,
        }
    }

    /// Counts a decision, so that the next one of the batch sees it.
    pub fn take(&mut self, slot: Slot, request: &SelectRequest) {
        let live = &mut self.live[slot as usize];
        // What is played back from a file may be anything.
        live.processes = live.processes.saturating_add(1);
        live.in_flight = live.in_flight.saturating_add(1);
        live.used = live.used.saturating_add(request.demand);
        if request.again {
            live.budget = live.budget.saturating_sub(1);
        }
        live.placed_at_us = self.now_us;
        let placed = live.placed.iter_mut();
        placed.for_each(|placed| *placed = placed.saturating_add(1));
        if let Some(column) = self
            .of_type
            .iter_mut()
            .find(|column| column.of == request.key.type_name)
        {
            let count = &mut column.counts[slot as usize];
            *count = count.saturating_add(1);
        }
        if let Some(group) = &request.group
            && let Some(column) = self.of_group.iter_mut().find(|column| &column.of == group)
        {
            let count = &mut column.counts[slot as usize];
            *count = count.saturating_add(1);
        }
        if let Some(party) = &request.party {
            if let Some(left) = self.left_by(party) {
                self.parties.remove(left);
            }
            self.parties.push((party.number, slot));
        }
    }
}

fn column_of<'a, K: PartialEq>(columns: &'a [Column<K>], of: Option<&K>) -> Option<&'a Column<K>> {
    columns.iter().find(|column| Some(&column.of) == of)
}

fn is_named(name: &NodeName, wanted: Option<&NodeName>) -> f32 {
    f32::from(u8::from(Some(name) == wanted))
}

fn count_at<K>(column: Option<&Column<K>>, slot: Slot) -> f32 {
    column.map_or(0.0, |column| column.counts[slot as usize] as f32)
}

/// Keeps `count` of the slots, drawn without replacement (the first steps of Fisher and Yates).
fn sample(slots: &mut Vec<Slot>, count: u32, random: &mut Random) {
    let count = count as usize;
    if slots.len() <= count {
        return;
    }
    for at in 0..count {
        let other = at + random.below((slots.len() - at) as u32) as usize;
        slots.swap(at, other);
    }
    slots.truncate(count);
}
