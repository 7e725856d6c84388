//! A scenario: the sizes and settings of a run, and the faults that befall it, all drawn from a seed.
//!
//! The plan is a list, so that a failure can be shrunk: a run without some of its events is a run too.
//! Every event says how long what it does lasts; the end of chaos mends everything anyway.

use std::fmt;

use maitred_protocol::{OnDrain, Restart};
use maitred_registry::random::Random;

use super::client::TYPES;

/// Which host an event is for: a machine, or whichever leads at that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// The leader, or the first machine that is up when nobody leads.
    Leader,
    /// This machine.
    Machine(usize),
    /// The machine of this place among those that are up and do not lead.
    Follower(usize),
}

/// Which directions are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Both.
    Both,
    /// It hears nothing.
    In,
    /// Nobody hears it.
    Out,
}

/// Something bad, or at least unusual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A host dies after so many further effects, and starts again after a while.
    Crash(Pick, u32, u64),
    /// All hosts die at once.
    CrashAll(u64),
    /// A host shuts down cleanly, and starts again.
    Shutdown(Pick, u64),
    /// A host does nothing for a while; what comes waits.
    Pause(Pick, u64),
    /// One machine is cut off from the others; the flag says whether from clients and nodes too.
    Isolate(Pick, Way, bool, u64),
    /// Two machines do not reach each other.
    Cut(usize, usize, Way, u64),
    /// Machines with a bit set do not reach the others.
    Split(u32, u64),
    /// So many of a thousand packets are lost, everywhere.
    Lossy(u32, u64),
    /// All packets between two machines take so much longer.
    Slow(usize, usize, u64, u64),
    /// The connection between two machines breaks: what is under way is lost.
    Reconnect(usize, usize),
    /// Writes take so many times as long.
    DiskSlow(Pick, u32, u64),
    /// Writes do not end for a while.
    DiskStall(Pick, u64),
    /// The next write fails: the host dies.
    DiskFail(Pick, u64),
    /// Nothing can be written.
    DiskFull(Pick, u64),
    /// The disk is lost: the host comes back as a new member. The flag says whether its old number
    /// is replaced, or removed first.
    DiskLost(Pick, bool),
    /// The wall clock is set.
    WallStep(Pick, i64),
    /// Leadership is handed over.
    Transfer,
    /// A snapshot is taken.
    Snapshot(Pick),
    /// Selectors and callbacks trap.
    Trap(u64),
    /// One more host joins.
    AddHost,
    /// A host is removed.
    RemoveHost(Pick),
    /// A game node dies, and starts again.
    NodeCrash(usize, u64),
    /// A game node does nothing for a while; what comes waits.
    NodePause(usize, u64),
    /// A game node does not reach machines with a bit set.
    NodeCut(usize, u32, Way, u64),
    /// A game node leaves cleanly, and starts again.
    NodeLeave(usize, u64),
    /// A process ends by itself.
    ProcessExit(usize),
    /// A game node is cordoned for a while.
    Cordon(usize, u64),
    /// The leader is cut off from the other hosts, and the nodes reach nobody else.
    Maroon(u64),
    /// A game node reaches the leader no more, or not even the others: the flag says so.
    NodeLost(usize, bool, u64),
    /// A game node is drained, by so many processes a second; that ends after a while.
    Drain(usize, u32, u64),
    /// The nodes are made more even.
    Rebalance,
    /// An operator holds something up for a while: moves, or re-creation if the flag is set.
    Suspend(bool, u64),
    /// An operator looks which node is dead, and says so.
    ConfirmDead,
    /// The selector decides in another way for so many of a hundred ids: which way, see
    /// [`super::ops::MOODS`]; 0 takes back what was changed last.
    Activate(u8, u8),
    /// A rule of the selector says that what decides is to be taken back: the canary, or what is active
    /// if there is none or the flag says so.
    Guard(bool),
    /// Datagrams of a game node do not come through.
    NoDatagrams(usize, u64),
    /// A game node dies for good. Only staged: the others must have room for what it ran.
    NodeGone(usize),
}

impl Fault {
    /// Its kind, for the count of what occurred.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Crash(..) => "fault: host crash",
            Self::CrashAll(..) => "fault: all hosts crash",
            Self::Shutdown(..) => "fault: host shutdown",
            Self::Pause(..) => "fault: host pause",
            Self::Isolate(_, Way::Both, ..) => "fault: host isolated",
            Self::Isolate(..) => "fault: host isolated one way",
            Self::Cut(_, _, Way::Both, _) => "fault: link cut",
            Self::Cut(..) => "fault: link cut one way",
            Self::Split(..) => "fault: partition",
            Self::Lossy(..) => "fault: packet loss",
            Self::Slow(..) => "fault: slow link",
            Self::Reconnect(..) => "fault: reconnect",
            Self::DiskSlow(..) => "fault: slow disk",
            Self::DiskStall(..) => "fault: stuck fsync",
            Self::DiskFail(..) => "fault: failing fsync",
            Self::DiskFull(..) => "fault: full disk",
            Self::DiskLost(..) => "fault: disk lost",
            Self::WallStep(..) => "fault: wall clock step",
            Self::Transfer => "fault: leader transfer",
            Self::Snapshot(..) => "fault: snapshot asked for",
            Self::Trap(..) => "fault: guests trap",
            Self::AddHost => "fault: host added",
            Self::RemoveHost(..) => "fault: host removed",
            Self::NodeCrash(..) => "fault: node crash",
            Self::NodePause(..) => "fault: node pause",
            Self::NodeCut(..) => "fault: node cut",
            Self::NodeLeave(..) => "fault: node leaves",
            Self::ProcessExit(..) => "fault: process exits",
            Self::Cordon(..) => "fault: node cordoned",
            Self::Maroon(..) => "fault: leader alone with the nodes",
            Self::NodeLost(..) => "fault: node cut off from the leader",
            Self::Drain(..) => "fault: node drained",
            Self::Rebalance => "fault: rebalance",
            Self::Suspend(..) => "fault: suspended",
            Self::ConfirmDead => "fault: node confirmed dead",
            Self::Activate(0, _) => "fault: selector taken back",
            Self::Activate(100, _) => "fault: selector replaced",
            Self::Activate(..) => "fault: canary",
            Self::Guard(_) => "fault: selector's rule",
            Self::NoDatagrams(..) => "fault: no datagrams",
            Self::NodeGone(_) => "fault: node gone for good",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// What ends a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mend {
    /// The process of this machine starts, if it is down in this life of it.
    Start(usize, u32),
    /// It goes on, if it is paused.
    Resume(usize, u32),
    /// A network fault ends.
    Network(Fault),
    /// A machine's disk works again.
    Disk(usize, Fault),
    /// Guests work again.
    Trap,
    /// A node starts, if it is down in this life of it.
    NodeStart(usize, u32),
    /// A node goes on, if it is paused.
    NodeResume(usize, u32),
    /// A node reaches the machines again.
    NodeCut(usize, u32, Way),
    /// A node takes new processes again.
    Uncordon(usize),
    /// What was held up goes on.
    Unsuspend(bool),
    /// A node's datagrams come through again.
    Datagrams(usize),
}

/// Settings that differ from run to run.
#[derive(Debug, Clone, Copy)]
pub struct Knobs {
    /// Microseconds of a tick.
    pub tick_us: u64,
    /// Ticks of a heartbeat.
    pub heartbeat_ticks: usize,
    /// Ticks of an election.
    pub election_ticks: usize,
    /// Whether leaders answer reads within their lease.
    pub lease_reads: bool,
    /// Single messages between hosts are lost, doubled and reordered.
    pub harsh: bool,
    /// Entries between snapshots.
    pub snapshot_entries: u64,
    /// Bytes of log kept for a host that is fetching a snapshot.
    pub log_kept_bytes: u64,
    /// Milliseconds of the nodes' leases.
    pub ttl_ms: u32,
    /// Keys of each type.
    pub keys: u32,
    /// Units of capacity a node.
    pub capacity: u32,
    /// Microseconds after which a silent connection is given up.
    pub idle_us: u64,
    /// One packet in so many goes through real bytes.
    pub bytes_one_in: u32,
    /// Milliseconds that a node's game takes at most to stop what it runs.
    pub kill_bound_ms: u32,
    /// Whether nodes have a watchdog, which ends a node whose game is late; its games may be so then.
    pub watchdog: bool,
    /// What the types are like, in the order of [`super::client::TYPES`].
    pub types: [Manner; TYPES.len()],
    /// The fence module fails so many times of a hundred.
    pub fence_fails: u32,
    /// So many of a hundred requests of clients are for parties.
    pub parties: u32,
    /// Whether the last type has a selector of its own, so that parties have members of two lanes.
    pub two_selectors: bool,
    /// Whether the callback wants to be asked what becomes of processes that have ended.
    pub hooks: bool,
}

impl Knobs {
    /// Ids of each type, those included that only parties ask for.
    #[must_use]
    pub fn ids(&self) -> u32 {
        let spare = if self.parties > 0 { PARTY_IDS } else { 0 };
        self.keys + spare
    }
}

/// What a type is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// When its keys may be given to another node.
    pub restart: Restart,
    /// Whether its processes are created again when their node is lost.
    pub recreate: bool,
    /// What a drain does with them.
    pub on_drain: OnDrain,
    /// Whether a fence module may say that a lost node is dead.
    pub fence: bool,
}

/// See the head of this file.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// What everything is drawn from.
    pub seed: u64,
    /// Hosts of the group at first: 3 or 5.
    pub hosts: usize,
    /// So many of them are its first voters: all, or one, which the others join.
    pub founders: usize,
    /// Game nodes.
    pub nodes: usize,
    /// The first two of them have one name.
    pub twins: bool,
    /// Clients.
    pub clients: usize,
    /// True microseconds until everything is mended.
    pub chaos_us: u64,
    /// Settings.
    pub knobs: Knobs,
    /// What happens, and when.
    pub plan: Vec<(u64, Fault)>,
    /// A bug that was put in.
    pub mutant: Option<&'static str>,
}

/// Ids of each type that only parties ask for: of the others, somebody else is mostly there before.
const PARTY_IDS: u32 = 24;

/// Machines that may join besides those of the beginning.
pub const SPARE: usize = 2;

impl Scenario {
    /// The scenario of a seed.
    #[must_use]
    pub fn new(seed: u64, hosts: usize) -> Self {
        let random = &mut Random::new(seed ^ 0x5EED_0F5C_E0A1_1000);
        let ticks = [(20_000, 1), (20_000, 2), (40_000, 1), (50_000, 1)];
        let (tick_us, heartbeat_ticks) = ticks[random.below(4) as usize];
        let knobs = Knobs {
            tick_us,
            heartbeat_ticks,
            election_ticks: 10,
            lease_reads: random.below(2) == 0,
            harsh: random.below(4) == 0,
            snapshot_entries: 20 + u64::from(random.below(120)),
            log_kept_bytes: [0, 1 << 12, 1 << 30][random.below(3) as usize],
            ttl_ms: 1_000 + 250 * random.below(9),
            keys: 2 + random.below(3),
            capacity: 6 + random.below(20),
            idle_us: 1_000_000 * u64::from(1 + random.below(4)),
            bytes_one_in: 8,
            kill_bound_ms: [300, 600, 1_000, 1_000, 2_500, 8_000][random.below(6) as usize],
            watchdog: random.below(3) == 0,
            types: std::array::from_fn(|_| Manner::drawn(random)),
            fence_fails: [0, 25, 100][random.below(3) as usize],
            parties: 0,
            two_selectors: false,
            hooks: false,
        };
        let chaos_us = 1_000_000 * u64::from(6 + random.below(9));
        let nodes = 2 + random.below(3) as usize;
        let mut scenario = Self {
            seed,
            hosts,
            founders: hosts,
            nodes,
            twins: false,
            clients: 3 + random.below(3) as usize,
            chaos_us,
            knobs,
            plan: Vec::new(),
            mutant: None,
        };
        let faults = 4 + random.below(14);
        let mood = Mood::drawn(random);
        for _ in 0..faults {
            let at = 800_000 + u64::from(random.below((chaos_us - 800_000) as u32));
            let fault = scenario.draw(mood, random);
            scenario.plan.push((at, fault));
        }
        scenario.draw_activations();
        scenario.draw_parties();
        scenario.plan.sort_by_key(|(at, _)| *at);
        if random.below(8) == 0 {
            scenario.founders = 1;
        }
        scenario
    }

    /// In every third run the selector changes its mind; drawn by itself, so that the rest stays as it is.
    fn draw_activations(&mut self) {
        if !self.seed.is_multiple_of(3) {
            return;
        }
        let random = &mut Random::new(self.seed ^ 0xCA4A_5717_0000_0000);
        for _ in 0..2 + random.below(6) {
            let at = 1_500_000 + u64::from(random.below((self.chaos_us - 1_500_000) as u32));
            self.plan.push((at, activation(random)));
        }
    }

    /// In half of the runs there are parties, in half of them advice; drawn by itself, too.
    fn draw_parties(&mut self) {
        let random = &mut Random::new(self.seed ^ 0x9A27_1E50_0000_0000);
        self.knobs.parties = [0, 0, 8, 20][random.below(4) as usize];

        self.knobs.hooks = random.below(2) == 0;
        self.knobs.two_selectors = random.below(2) == 0;
    }

    fn pick(&self, random: &mut Random) -> Pick {
        if random.below(5) < 2 {
            return Pick::Leader;
        }
        Pick::Machine(random.below(self.hosts as u32) as usize)
    }

    fn two(&self, random: &mut Random) -> (usize, usize) {
        let hosts = self.hosts as u32;
        let a = random.below(hosts);
        let b = (a + 1 + random.below(hosts - 1)) % hosts;
        (a as usize, b as usize)
    }

    fn draw(&self, mood: Mood, random: &mut Random) -> Fault {
        let way = [Way::Both, Way::Both, Way::In, Way::Out][random.below(4) as usize];
        let pick = self.pick(random);
        let (a, b) = self.two(random);
        let last = spell(random);
        let node = random.below(self.nodes as u32) as usize;
        let ttl_us = u64::from(self.knobs.ttl_ms) * 1_000;
        // 0 to 10 leases, short ones more often.
        let pause = ttl_us * u64::from(random.below(11)) * u64::from(1 + random.below(4)) / 4;
        let mask = 1 + random.below((1 << self.hosts) - 2);
        let kind = match mood {
            Mood::Any => random.below(110),
            Mood::Hosts => random.below(30),
            Mood::Network => 30 + random.below(25),
            Mood::Disks => 55 + random.below(15),
            Mood::Members => 70 + random.below(10),
            Mood::Nodes => 80 + random.below(30),
        };
        match kind {
            0..14 => Fault::Crash(pick, random.below(12), last),
            14..16 => Fault::CrashAll(last),
            16..19 => Fault::Shutdown(pick, last),
            19..26 => Fault::Pause(pick, if random.below(2) == 0 { last } else { pause }),
            26..28 => Fault::WallStep(pick, i64::from(random.below(20_000)) - 10_000),
            28..30 => Fault::Trap(last),
            30..36 => Fault::Isolate(pick, way, random.below(2) == 0, last),
            36..42 => Fault::Cut(a, b, way, last),
            42..46 => Fault::Split(mask, last),
            46..49 => Fault::Lossy(10 + random.below(200), last),
            49..51 => Fault::Slow(a, b, u64::from(random.below(400_000)), last),
            51..55 => Fault::Reconnect(a, b),
            55..59 => Fault::DiskSlow(pick, 10 + random.below(300), last),
            59..63 => Fault::DiskStall(pick, last),
            63..65 => Fault::DiskFail(pick, last),
            65..68 => Fault::DiskFull(pick, last),
            68..70 => Fault::Snapshot(pick),
            70..73 => Fault::DiskLost(pick, random.below(2) == 0),
            73..75 => Fault::AddHost,
            75..77 => Fault::RemoveHost(pick),
            77..80 => Fault::Transfer,
            80..84 => Fault::NodeCrash(node, last),
            84..90 => Fault::NodePause(node, pause),
            90..95 => Fault::NodeCut(node, mask, way, pause),
            95..96 => Fault::NodeLeave(node, last),
            96..98 => Fault::ProcessExit(node),
            98..99 => Fault::Cordon(node, last),
            99..100 => Fault::Maroon(pause),
            100..102 => Fault::NodeLost(node, random.below(2) == 0, pause),
            102..104 => Fault::Drain(node, 1 + random.below(40), 200_000 + 2 * last),
            104..106 => Fault::Rebalance,
            106..107 => Fault::Suspend(random.below(2) == 0, last),
            107..109 => Fault::ConfirmDead,
            _ => Fault::NoDatagrams(node, 2 * last),
        }
    }
}

/// Another way to decide, for some or all, or back to the one before.
pub fn activation(random: &mut Random) -> Fault {
    let mood = random.below(4) as u8;
    match random.below(5) {
        0 => Fault::Activate(0, 0),
        4 => Fault::Guard(random.below(2) == 0),
        // Nobody would be placed any more.
        1 if mood < 3 => Fault::Activate(100, mood),
        _ => Fault::Activate(10 + random.below(80) as u8, mood),
    }
}

impl Manner {
    fn drawn(random: &mut Random) -> Self {
        let restart = match random.below(8) {
            0..4 => Restart::Safe,
            4..7 => Restart::Strict,
            _ => Restart::Fast,
        };
        Self {
            restart,
            recreate: random.below(2) == 0,
            on_drain: [OnDrain::Move, OnDrain::Move, OnDrain::Wait, OnDrain::Stop]
                [random.below(4) as usize],
            fence: random.below(2) == 0,
        }
    }
}

/// What a run is mostly about; without it every run would be a little of everything.
#[derive(Debug, Clone, Copy)]
enum Mood {
    Any,
    Hosts,
    Network,
    Disks,
    Members,
    Nodes,
}

impl Mood {
    fn drawn(random: &mut Random) -> Self {
        match random.below(12) {
            0..6 => Self::Any,
            6 => Self::Hosts,
            7 => Self::Network,
            8 => Self::Disks,
            9 => Self::Members,
            _ => Self::Nodes,
        }
    }
}

/// How long something lasts: mostly some tenths of a second, sometimes seconds.
fn spell(random: &mut Random) -> u64 {
    let scale = [50_000, 300_000, 1_000_000, 4_000_000][random.below(4) as usize];
    scale / 10 + u64::from(random.below(scale as u32))
}
