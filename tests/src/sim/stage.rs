//! Scenarios for one purpose each: what rarely happens by chance, over and over.
//!
//! They are drawn from a seed as others are, and every property holds in them too: the bugs that are put
//! in show there sooner.

use maitred_protocol::Restart;
use maitred_registry::random::Random;

use super::plan::{Fault, Pick, Scenario, Way, activation};

/// Makes of a scenario one for a purpose.
pub type Stage = fn(&mut Scenario);

/// All of them, by name.
pub const ALL: &[(&str, Stage)] = &[
    ("deposed", deposed),
    ("deposed-under-lease", deposed_under_lease),
    ("marooned", marooned),
    ("handed-over", handed_over),
    ("forgetful", forgetful),
    ("stalled", stalled),
    ("stalled-under-lease", stalled_under_lease),
    ("late-nodes", late_nodes),
    ("snapshots", snapshots),
    ("crashes", crashes),
    ("members", members),
    ("founded", founded),
    ("mortal", mortal),
    ("lost", lost),
    ("lost-with-leaders", lost_with_leaders),
    ("slow-acks", slow_acks),
    ("zombies", zombies),
    ("moved", moved),
    ("unanswered", unanswered),
    ("fenced", fenced),
    ("fast", fast),
    ("twins", twins),
    ("switched", switched),
    ("parties", parties),
    ("parties-refused", parties_refused),
    ("advised", advised),
    ("advised-with-leaders", advised_with_leaders),
    ("switched-back", switched_back),
];

fn random(scenario: &Scenario) -> Random {
    Random::new(scenario.seed ^ 0x57A6_E000)
}

/// Nothing but this, every so often (microseconds; a half more or less) while there is chaos.
fn only(
    scenario: &mut Scenario,
    every_us: u32,
    mut round: impl FnMut(&mut Random) -> Vec<(u64, Fault)>,
) {
    let random = &mut random(scenario);
    let mut at = 1_000_000;
    scenario.plan.clear();
    while at < scenario.chaos_us {
        let round = round(random).into_iter();
        scenario
            .plan
            .extend(round.map(|(after, fault)| (at + after, fault)));
        at += u64::from(every_us / 2 + random.below(every_us));
    }
    scenario.plan.sort_by_key(|(at, _)| *at);
}

/// Many clients, who meet often.
fn crowd(scenario: &mut Scenario) {
    scenario.clients = 8;
    scenario.knobs.keys = 1;
    (scenario.knobs.parties, scenario.knobs.hooks) = (0, false);
}

/// As it was drawn.
pub fn anything(_: &mut Scenario) {}

/// The leader is cut off from the other hosts, and clients and nodes still reach it.
pub fn deposed(scenario: &mut Scenario) {
    crowd(scenario);
    scenario.knobs.lease_reads = false;
    // Long ticks: the old leader and the new one are both there for longer.
    (scenario.knobs.tick_us, scenario.knobs.heartbeat_ticks) = (50_000, 1);
    scenario.chaos_us = scenario.chaos_us.max(10_000_000);
    only(scenario, 2_500_000, |random| {
        let last = 900_000 + u64::from(random.below(1_200_000));
        vec![(0, Fault::Isolate(Pick::Leader, Way::Both, false, last))]
    });
}

/// The same while leaders answer reads within their lease.
pub fn deposed_under_lease(scenario: &mut Scenario) {
    deposed(scenario);
    scenario.knobs.lease_reads = true;
}

/// The leader is cut off from the other hosts, and the nodes reach nobody else.
pub fn marooned(scenario: &mut Scenario) {
    scenario.knobs.ttl_ms = 1_000;
    only(scenario, 4_000_000, |random| {
        let last = 2_500_000 + u64::from(random.below(1_500_000));
        vec![(0, Fault::Maroon(last))]
    });
}

/// Leadership is handed over, and the old leader hears nothing of what follows.
pub fn handed_over(scenario: &mut Scenario) {
    crowd(scenario);
    scenario.knobs.lease_reads = true;
    scenario.knobs.tick_us = 50_000;
    only(scenario, 1_200_000, |random| {
        let after = 600 + u64::from(random.below(2_500));
        let cut = Fault::Isolate(Pick::Leader, Way::Both, false, 400_000);
        vec![(0, Fault::Transfer), (after, cut)]
    });
}

/// Who has confirmed a leader's lease restarts, and is asked for its vote at once.
pub fn forgetful(scenario: &mut Scenario) {
    crowd(scenario);
    scenario.knobs.lease_reads = true;
    scenario.knobs.tick_us = 50_000;
    only(scenario, 5_000_000, |random| {
        let (one, two) = if random.below(2) == 0 { (0, 1) } else { (1, 0) };
        let waits = 800_000 + u64::from(random.below(600_000));
        // Without writes, whoever is cut off misses nothing, and may be elected.
        let full = Fault::DiskFull(Pick::Leader, waits + 800_000);
        let cut = Fault::Isolate(Pick::Follower(one), Way::Both, false, waits - 300_000);
        let lone = Fault::Isolate(Pick::Leader, Way::Both, false, 600_000);
        let crash = Fault::Crash(Pick::Follower(two), 0, 3_000);
        vec![(0, full), (300_000, cut), (waits, lone), (waits, crash)]
    });
}

/// The leader's disk is stuck for moments, while the others commit.
pub fn stalled(scenario: &mut Scenario) {
    crowd(scenario);
    scenario.knobs.lease_reads = false;
    only(scenario, 500_000, |random| {
        let last = 80_000 + u64::from(random.below(200_000));
        vec![(0, Fault::DiskStall(Pick::Leader, last))]
    });
}

/// The same while leaders answer reads within their lease.
pub fn stalled_under_lease(scenario: &mut Scenario) {
    stalled(scenario);
    scenario.knobs.lease_reads = true;
}

/// Nodes are stopped for about a lease, and disks are slow.
pub fn late_nodes(scenario: &mut Scenario) {
    let ttl_us = u64::from(scenario.knobs.ttl_ms) * 1_000;
    let (nodes, end) = (scenario.nodes as u32, scenario.chaos_us);
    only(scenario, 1_500_000, |random| {
        let node = random.below(nodes) as usize;
        let us = ttl_us * u64::from(90 + random.below(25)) / 100;
        let fault = match random.below(2) {
            0 => Fault::NodePause(node, us),
            _ => Fault::NodeCut(node, 7, Way::Both, us),
        };
        vec![(0, fault)]
    });
    for machine in 0..scenario.hosts {
        let slow = Fault::DiskSlow(Pick::Machine(machine), 60, end);
        scenario.plan.insert(0, (900_000, slow));
    }
}

/// Hosts fall behind, fetch snapshots while leaders change, and restart.
pub fn snapshots(scenario: &mut Scenario) {
    scenario.knobs.snapshot_entries = 20;
    scenario.knobs.log_kept_bytes = 0;
    only(scenario, 2_000_000, |random| {
        let last = 700_000 + u64::from(random.below(600_000));
        let cut = Fault::Isolate(Pick::Follower(0), Way::Both, false, last);
        let after = last + u64::from(random.below(80_000));
        let again = match random.below(2) {
            0 => Fault::Crash(Pick::Follower(0), 0, 20_000),
            _ => Fault::Transfer,
        };
        vec![(0, cut), (after, again)]
    });
}

/// Hosts die with slow writes under way, and are back at once.
pub fn crashes(scenario: &mut Scenario) {
    let end = scenario.chaos_us;
    only(scenario, 500_000, |random| {
        let machine = Pick::Machine(random.below(3) as usize);
        vec![(0, Fault::Crash(machine, random.below(6), 20_000))]
    });
    for machine in 0..scenario.hosts {
        let slow = Fault::DiskSlow(Pick::Machine(machine), 40, end);
        scenario.plan.insert(0, (900_000, slow));
    }
}

/// Members come, are replaced and go.
pub fn members(scenario: &mut Scenario) {
    only(scenario, 2_000_000, |random| {
        let fault = match random.below(4) {
            0 => Fault::DiskLost(Pick::Follower(0), true),
            1 => Fault::RemoveHost(Pick::Follower(0)),
            _ => Fault::AddHost,
        };
        vec![(0, fault)]
    });
}

/// A group that one host founded, which restarts while the others join it.
pub fn founded(scenario: &mut Scenario) {
    scenario.founders = 1;
    only(scenario, 1_000_000, |random| {
        let down = 20_000 + u64::from(random.below(1_500_000));
        vec![(0, Fault::Crash(Pick::Machine(0), random.below(3), down))]
    });
}

/// One leader after another dies, with creates under way.
pub fn mortal(scenario: &mut Scenario) {
    scenario.clients = 8;
    only(scenario, 1_500_000, |random| {
        let effects = random.below(6);
        let down = 1_000_000 + u64::from(random.below(500_000));
        vec![(0, Fault::Crash(Pick::Leader, effects, down))]
    });
}

/// Types that restart in this way, created again, with stops that may take long.
fn wanted(scenario: &mut Scenario, restart: Restart) {
    for manner in &mut scenario.knobs.types {
        (manner.restart, manner.recreate) = (restart, true);
    }
    scenario.nodes = 3;
    scenario.clients = 6;
    scenario.knobs.ttl_ms = 1_000;
    scenario.knobs.kill_bound_ms = 2_500;
    scenario.knobs.watchdog = false;
    scenario.chaos_us = scenario.chaos_us.max(10_000_000);
}

fn one_of(scenario: &Scenario) -> impl Fn(&mut Random) -> usize + use<> {
    let nodes = scenario.nodes as u32;
    move |random| random.below(nodes) as usize
}

/// One node after another is cut off for longer than its lease.
pub fn lost(scenario: &mut Scenario) {
    wanted(scenario, Restart::Safe);
    scenario.knobs.kill_bound_ms = 8_000;
    let node = one_of(scenario);
    only(scenario, 2_000_000, |random| {
        let last = 1_100_000 + u64::from(random.below(1_500_000));
        vec![(0, Fault::NodeLost(node(random), true, last))]
    });
}

/// A node dies for good, and leaders die when its lease has run out.
pub fn lost_with_leaders(scenario: &mut Scenario) {
    wanted(scenario, Restart::Safe);
    scenario.nodes = 4;
    scenario.knobs.capacity = 60;
    let gone = (2_500_000, Fault::NodeGone(0));
    only(scenario, 60_000_000, |random| {
        let crash = |at: u64| (at, Fault::Crash(Pick::Leader, 0, 400_000));
        let after = 2_600_000 + u64::from(random.below(1_500_000));
        vec![gone, crash(after), crash(after + 1_500_000)]
    });
}

/// Rounds of heartbeats take long, and so do acknowledgements; then keep-alives are not heard any more.
pub fn slow_acks(scenario: &mut Scenario) {
    wanted(scenario, Restart::Safe);
    scenario.knobs.tick_us = 50_000;
    let node = one_of(scenario);
    only(scenario, 2_500_000, |random| {
        let last = 1_200_000 + u64::from(random.below(800_000));
        vec![(0, Fault::NodeCut(node(random), 7, Way::In, last))]
    });
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        let slow = Fault::Slow(a, b, 250_000, scenario.chaos_us);
        scenario.plan.insert(0, (900_000, slow));
    }
}

/// Nodes are stopped for up to ten leases, and wake with all that came meanwhile.
pub fn zombies(scenario: &mut Scenario) {
    let restart = match scenario.seed % 2 {
        0 => Restart::Safe,
        _ => Restart::Strict,
    };
    wanted(scenario, restart);
    let node = one_of(scenario);
    only(scenario, 2_000_000, |random| {
        let leases = [1, 1, 1, 2, 3, 10][random.below(6) as usize];
        let last = leases * (850_000 + u64::from(random.below(300_000)));
        let mut round = vec![(0, Fault::NodePause(node(random), last))];
        if random.below(2) == 0 {
            // What it says when it wakes is not heard.
            let cut = Fault::NodeLost(node(random), true, last + 300_000);
            round.push((100_000, cut));
        }
        round
    });
}

/// Nodes are drained and made even, over and over.
pub fn moved(scenario: &mut Scenario) {
    wanted(scenario, Restart::Safe);
    let node = one_of(scenario);
    only(scenario, 900_000, |random| {
        let fault = match random.below(3) {
            0 => Fault::Rebalance,
            _ => Fault::Drain(node(random), 5 + random.below(40), 800_000),
        };
        vec![(0, fault)]
    });
}

/// Callbacks trap and nodes do not answer in time.
pub fn unanswered(scenario: &mut Scenario) {
    wanted(scenario, Restart::Safe);
    let node = one_of(scenario);
    only(scenario, 1_000_000, |random| {
        let trap = Fault::Trap(500_000);
        let pause = 200_000 + u64::from(random.below(700_000));
        vec![(0, trap), (100_000, Fault::NodePause(node(random), pause))]
    });
}

/// Nodes are lost or die, and a fence module is asked which it is.
pub fn fenced(scenario: &mut Scenario) {
    wanted(scenario, Restart::Strict);
    for manner in &mut scenario.knobs.types {
        manner.fence = true;
    }
    scenario.knobs.fence_fails = scenario.knobs.fence_fails.min(25);
    let node = one_of(scenario);
    only(scenario, 2_000_000, |random| {
        let last = 1_500_000 + u64::from(random.below(3_000_000));
        let fault = match random.below(3) {
            0 => Fault::NodeCrash(node(random), last),
            1 => Fault::NodePause(node(random), last),
            _ => Fault::NodeLost(node(random), true, last),
        };
        vec![(0, fault), (last - 100_000, Fault::ConfirmDead)]
    });
}

/// Nothing is waited for, connections to nodes break, and leaders change.
pub fn fast(scenario: &mut Scenario) {
    wanted(scenario, Restart::Fast);
    scenario.clients = 8;
    let node = one_of(scenario);
    only(scenario, 1_200_000, |random| {
        let cut = Fault::NodeLost(node(random), true, 600_000);
        let crash = Fault::Crash(Pick::Leader, 0, 300_000);
        vec![
            (0, cut),
            (100_000 + u64::from(random.below(300_000)), crash),
        ]
    });
}

/// The selector changes its mind again and again, and what is decided is long on its way.
pub fn switched(scenario: &mut Scenario) {
    scenario.clients = 8;
    scenario.knobs.keys = 6;
    let end = scenario.chaos_us;
    only(scenario, 400_000, |random| vec![(0, activation(random))]);
    for machine in 0..scenario.hosts {
        let slow = Fault::DiskSlow(Pick::Machine(machine), 60, end);
        scenario.plan.insert(0, (900_000, slow));
    }
}

/// Two processes have one name.
pub fn twins(scenario: &mut Scenario) {
    scenario.twins = true;
    scenario.nodes = scenario.nodes.max(3);
}

/// Clients ask for parties above all, while nodes and leaders come and go.
pub fn parties(scenario: &mut Scenario) {
    scenario.knobs.parties = 50;
    (scenario.nodes, scenario.clients) = (4, 6);
    let node = one_of(scenario);
    only(scenario, 1_200_000, |random| {
        let last = 200_000 + u64::from(random.below(1_500_000));
        let fault = match random.below(8) {
            0 | 1 => Fault::NodeCrash(node(random), last),
            2 => Fault::NodePause(node(random), last),
            3 => Fault::NodeLost(node(random), true, last),
            4 => Fault::Crash(Pick::Leader, random.below(6), last),
            5 => Fault::Isolate(Pick::Leader, Way::Both, random.below(2) == 0, last),
            6 => Fault::Drain(node(random), 5 + random.below(40), last),
            _ => activation(random),
        };
        vec![(0, fault)]
    });
}

/// Parties, and callbacks that trap: members fail, are tried elsewhere, and give up. Commits are slow.
pub fn parties_refused(scenario: &mut Scenario) {
    scenario.knobs.parties = 60;
    (scenario.nodes, scenario.clients) = (4, 5);
    let end = scenario.chaos_us;
    only(scenario, 700_000, |random| {
        let trap = Fault::Trap(200_000 + u64::from(random.below(400_000)));
        let other = match random.below(3) {
            0 => Fault::Transfer,
            _ => activation(random),
        };
        vec![(0, trap), (150_000, other)]
    });
    for machine in 0..scenario.hosts {
        let slow = Fault::DiskSlow(Pick::Machine(machine), 20, end);
        scenario.plan.insert(0, (900_000, slow));
    }
}

/// Callbacks are asked what becomes of processes that end, and of those of lost nodes.
pub fn advised(scenario: &mut Scenario) {
    wanted(scenario, Restart::Safe);
    scenario.knobs.hooks = true;
    scenario.knobs.kill_bound_ms = 600;
    let node = one_of(scenario);
    only(scenario, 500_000, |random| {
        let last = 1_100_000 + u64::from(random.below(1_000_000));
        let fault = match random.below(6) {
            0 => Fault::NodeLost(node(random), true, last),
            1 => Fault::NodeCrash(node(random), last),
            _ => Fault::ProcessExit(node(random)),
        };
        vec![(0, fault)]
    });
}

/// The same while leaders die with questions out.
pub fn advised_with_leaders(scenario: &mut Scenario) {
    advised(scenario);
    let crashes = (1..scenario.chaos_us / 1_500_000).map(|at| {
        let crash = Fault::Crash(Pick::Leader, (at % 4) as u32, 400_000);
        (at * 1_500_000 + 777_000, crash)
    });
    scenario.plan.extend(crashes.collect::<Vec<_>>());
    scenario.plan.sort_by_key(|(at, _)| *at);
}

/// Canaries are begun and taken back at once, by hand or by their rule.
pub fn switched_back(scenario: &mut Scenario) {
    scenario.clients = 8;
    scenario.knobs.keys = 6;
    only(scenario, 600_000, |random| {
        let share = 30 + random.below(60) as u8;
        let canary = Fault::Activate(share, random.below(2) as u8);
        let back = match random.below(2) {
            0 => Fault::Activate(0, 0),
            _ => Fault::Guard(false),
        };
        vec![(0, canary), (250_000, back)]
    });
}
