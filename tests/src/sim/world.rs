//! The whole of a simulated world: machines, what is between them, clients and nodes, and what is due.
//!
//! One event is taken at a time; everything that follows from it is put in the queue. All chance comes
//! from streams of the seed, one for each thing that needs it, so that leaving out a fault disturbs the
//! rest as little as possible. The checkers look on ([`super::check`]); the first violation ends the run.

use maitred_registry::random::Random;

use super::actor::Actor;
use super::check::Checks;
use super::cover::Cover;
use super::host::Host;
use super::network::Link;
use super::operator::Operator;
use super::plan::{SPARE, Scenario};
use super::queue::{Queue, What};
use super::trace::Trace;
use super::wire::{Conn, Reach};

/// A property that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which checker saw it.
    pub checker: &'static str,
    /// What was seen, in words.
    pub text: String,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Faults befall it.
    Chaos,
    /// Everything is mended; what is under way comes to its end.
    Quiet,
    /// Every key is read once more on every host.
    Last,
    /// Over.
    Done,
}

/// See the head of this file.
#[derive(Debug)]
pub struct World {
    /// True microseconds since it began.
    pub now: u64,
    /// What it is made from.
    pub scenario: Scenario,
    /// How far it is.
    pub phase: Phase,
    /// What is due.
    pub queue: Queue,
    /// The machines, with or without a process.
    pub hosts: Vec<Host>,
    /// Between machines, one for each direction.
    pub links: Vec<Link>,
    /// Clients and nodes.
    pub actors: Vec<Actor>,
    /// Between actors and machines.
    pub reaches: Vec<Reach>,
    /// Connections of actors, ended ones included.
    pub conns: Vec<Conn>,
    /// Who changes the membership.
    pub operator: Operator,
    /// The checkers.
    pub checks: Checks,
    /// What was seen to be wrong first.
    pub violation: Option<Violation>,
    /// What occurred.
    pub cover: Cover,
    /// What happened.
    pub trace: Trace,
    /// Events taken.
    pub events: u64,
    pub(super) lossy: u32,
    pub(super) trapping: u32,
    pub(super) network: Random,
    pub(super) storage: Random,
    pub(super) guests: Random,
    pub(super) chance: Random,
    pub(super) logger: slog::Logger,
}

/// Adds a line to the trace.
macro_rules! say {
    ($world:expr, $($text:tt)*) => {{
        let now = $world.now;
        $world.trace.say(now, format_args!($($text)*))
    }};
}
pub(super) use say;

impl World {
    /// A world before anything has happened.
    #[must_use]
    pub fn new(scenario: Scenario, trace: Trace) -> Self {
        let stream = |number: u64| Random::new(scenario.seed.wrapping_mul(0x9E37_79B9) ^ number);
        let machines = scenario.hosts + SPARE;
        let mut clocks = stream(1);
        let hosts: Vec<Host> = (0..machines)
            .map(|machine| Host::new(machine, &scenario, &mut clocks))
            .collect();
        let mut actors = Vec::new();
        for number in 0..scenario.nodes {
            actors.push(Actor::node(number, &scenario, &mut clocks));
        }
        for number in 0..scenario.clients {
            actors.push(Actor::client(number, &scenario, &mut clocks));
        }
        actors.push(Actor::operator(&scenario, &mut clocks));
        let reaches = vec![Reach::default(); actors.len() * machines];
        let (network, storage, guests) = (stream(2), stream(3), stream(4));
        let chance = stream(5);
        Self {
            now: 0,
            phase: Phase::Chaos,
            queue: Queue::default(),
            links: (0..machines * machines).map(|_| Link::default()).collect(),
            hosts,
            reaches,
            actors,
            conns: Vec::new(),
            operator: Operator::default(),
            checks: Checks::default(),
            violation: None,
            cover: Cover::default(),
            trace,
            events: 0,
            lossy: 0,
            trapping: 0,
            network,
            storage,
            guests,
            chance,
            logger: slog::Logger::root(slog::Discard, slog::o!()),
            scenario,
        }
    }

    /// Whether this bug was put in.
    #[must_use]
    pub fn mutant(&self, name: &str) -> bool {
        self.scenario.mutant == Some(name)
    }

    /// Something is wrong. Only the first counts.
    pub fn fail(&mut self, checker: &'static str, text: String) {
        say!(self, "VIOLATION ({checker}): {text}");
        if self.violation.is_none() {
            self.violation = Some(Violation { checker, text });
        }
    }

    /// Fails with what a checker found, if it did.
    pub fn verify(&mut self, checker: &'static str, found: Result<(), String>) {
        if let Err(text) = found {
            self.fail(checker, text);
        }
    }

    /// Puts everything in motion.
    pub fn begin(&mut self) {
        for machine in 0..self.scenario.founders {
            self.start_host(machine);
        }
        self.found();
        for actor in 0..self.actors.len() {
            self.start_actor(actor);
        }
        for number in 0..self.scenario.plan.len() {
            let at = self.scenario.plan[number].0;
            self.queue.push(at, What::Fault(number));
        }
        self.queue.push(self.scenario.chaos_us, What::Look);
    }

    /// Takes events until the run is over or something is wrong.
    pub fn run(&mut self) {
        self.begin();
        while self.phase != Phase::Done && self.violation.is_none() {
            let Some((at_us, what)) = self.queue.pop() else {
                return self.fail("quiet", "nothing more is due".to_owned());
            };
            self.now = at_us;
            self.events += 1;
            self.take(what);
        }
    }

    fn take(&mut self, what: What) {
        match what {
            What::Host(machine, life, event) => self.host_event(machine, life, event),
            What::Packet(packet) => self.arrive(*packet),
            What::Actor(actor, life, event) => self.actor_event(actor, life, event),
            What::ToHost(to) => self.at_host(to),
            What::Fault(number) => self.befall(number),
            What::Mend(mend) => self.mend(mend),
            What::Look => self.look(),
        }
    }
}
