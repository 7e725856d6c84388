//! An expiry that a stuck or deposed leader decided never hurts a node that lives. Leases are as
//! short as they may be, and elections are both shorter and longer than that.

mod world;

use maitred_protocol::{ProcessState, Rejection, Response};
use maitred_replica::Input;

use crate::{key, others};
use world::{LEASE_US, TTL_MS, World, registration};

/// Ticks of elections that are over long before a lease (200 to 400 ms), and long after (2 to 4 s).
const SHORT: usize = 10;
const LONG: usize = 100;

/// The leader is cut off so long before the lease ends, and the node goes to the next one: whether
/// the old leader decided on an expiry, and whether the node relied on its session all the time.
fn cut_off(election_ticks: usize, before_ms: u64) -> (bool, bool) {
    let mut world = World::new(election_ticks);
    let lease_ends_us = world.acked_us + LEASE_US;
    world.pass_until(lease_ends_us - before_ms * 1_000);
    world.group.isolate(world.leader);
    let next = world.elect_another();
    let deadline_us = world.deadline_us();
    // It takes the node a moment to find the next leader.
    world.group.pass(20);
    world.move_to(next);
    let relied = world.now_us() < deadline_us;
    world.pass_until(lease_ends_us + 20_000);
    let decided = world.group.expiries(world.leader);
    assert!(decided.iter().all(|(_, epoch)| *epoch == world.epoch));
    let decided = !decided.is_empty();
    world.assert_unhurt(next);
    (decided, relied)
}

#[test]
fn what_a_leader_decides_that_is_cut_off_before_the_lease_ends_is_void() {
    let cuts: Vec<_> = (1..=40).map(|at| cut_off(SHORT, 20 * at)).collect();
    // Cut off late, it decides and the node has given up; early, it decides nothing; and between.
    for case in [(true, false), (true, true), (false, true)] {
        assert!(cuts.contains(&case), "{case:?} is not among {cuts:?}");
    }
}

#[test]
fn so_it_is_when_elections_take_longer_than_leases() {
    // The node has given up what it ran by then; its session ends by the next leader's word only.
    let cuts: Vec<_> = (1..=40).map(|at| cut_off(LONG, 20 * at)).collect();
    assert!(cuts.iter().all(|cut| *cut == (true, false)), "{cuts:?}");
}

#[test]
fn an_expiry_that_a_dead_leader_left_to_its_follower_comes_after_the_nodes_own_deadline() {
    let mut world = World::new(SHORT);
    let [heir, third] = others(world.leader);
    // The last keep-alive is under way for a while: the leader counts from its end, the node from its
    // beginning.
    world.live(world.leader, TTL_MS);
    let sent_us = world.now_us();
    let last = world.keep_alive();
    world.group.pass(60);
    world.group.step(world.leader, last);
    world.group.settle();
    let acked = world.group.acks.last().unwrap();
    assert_eq!(acked.1.sequence, world.sequence);
    world.acked_us = sent_us;
    // From now on the leader can commit nothing: one follower is out of reach, and the other's disk hangs.
    let cut = (world.leader.min(third), world.leader.max(third));
    world.group.cut.insert(cut);
    world.group.entries_stuck.insert(heir);
    while world.group.expiries(world.leader).is_empty() {
        assert!(world.now_us() < sent_us + 2 * LEASE_US, "no expiry");
        world.group.pass(20);
    }
    assert_eq!(world.session(world.leader), Some(world.epoch));
    world.group.kill(world.leader);
    world.group.entries_stuck.clear();
    world.group.unstick(heir);
    assert_eq!(world.group.expiries(heir).len(), 1);
    assert_eq!(world.group.expiries(third), []);
    while world.session(heir).is_some() {
        assert!(world.now_us() < sent_us + 5_000_000, "never committed");
        world.group.pass(20);
    }
    // It was committed within the last tick.
    assert!(world.deadline_us() < world.now_us() - 20_000);
    let no = world.attach(heir);
    assert!(matches!(no, Response::Rejected(Rejection::Fenced { .. })));
    world.group.pass(100);
    for host in [heir, third] {
        assert_eq!(world.session(host), None, "host {host}");
        let record = world.group.replica(host).registry().process(&key("1"));
        assert_eq!(record, None, "host {host}");
    }
}

/// A leader is paused past the node's lease, and nobody else is elected: the expiries that it decides
/// when it wakes, with or without keep-alives that came meanwhile.
fn woken(heard: bool) -> (World, usize) {
    let mut world = World::new(LONG);
    let leader = world.leader;
    world.stop_leader();
    let mut queue = Vec::new();
    let lease_ends_us = world.acked_us + LEASE_US;
    while world.now_us() <= lease_ends_us {
        world.group.pass(TTL_MS / 4);
        queue.extend(heard.then(|| world.keep_alive()));
    }
    world.group.cut.clear();
    world.group.paused.clear();
    for keep_alive in queue {
        world.group.step(leader, keep_alive);
    }
    world.group.pass(20);
    let expiries = world.group.expiries(leader).len();
    (world, expiries)
}

#[test]
fn a_leader_that_wakes_hears_what_came_before_it_looks_at_the_time() {
    let (world, expiries) = woken(true);
    assert_eq!(expiries, 0);
    let leader = world.leader;
    world.assert_unhurt(leader);
    // Nothing had come: the node is lost.
    let (world, expiries) = woken(false);
    assert_eq!((expiries, world.session(world.leader)), (1, None));
}

#[test]
fn a_leader_that_wakes_when_another_leads_decides_and_promises_nothing() {
    for heard in [true, false] {
        let mut world = World::new(SHORT);
        let old = world.leader;
        let lease_ends_us = world.acked_us + LEASE_US;
        world.stop_leader();
        let queue: Vec<_> = (0..2).map(|_| world.keep_alive()).collect();
        let next = world.elect_another();
        assert!(world.now_us() < world.deadline_us(), "the node lives");
        world.move_to(next);
        world.live(next, 2 * TTL_MS);
        assert!(world.now_us() > lease_ends_us);
        world.group.acks.clear();
        for mut keep_alive in queue.into_iter().filter(|_| heard) {
            if let Input::KeepAlive { at_us, .. } = &mut keep_alive {
                // The server's clock, when it reads what has come.
                *at_us = world.now_us();
            }
            world.group.step(old, keep_alive);
        }
        world.group.paused.clear();
        world.group.pass(20);
        let decided = world.group.expiries(old).len();
        assert_eq!(decided, usize::from(!heard), "it takes itself for leader");
        assert_eq!(world.group.acks, [], "nobody confirms it");
        world.assert_unhurt(next);
    }
}

#[test]
fn an_expiry_of_an_earlier_session_changes_nothing() {
    let mut world = World::new(SHORT);
    let old = world.epoch;
    world.group.kill(world.leader);
    let next = world.elect_another();
    let third = others(world.leader).into_iter().find(|at| *at != next);
    world.move_to(next);
    world.pass_until(world.acked_us + LEASE_US - 200_000);
    // The node registers anew; before that is committed, the earlier session's lease ends.
    world.group.entries_stuck.extend(third);
    let inventory = vec![(key("1"), world.record.incarnation)];
    let again = registration(world.client, |node| {
        node.instance = 2;
        node.last_epoch = Some(old);
        node.inventory = inventory;
    });
    let asked = world.group.ask(next, 9, again);
    world.group.pass(300);
    assert_eq!(world.group.answers.get(&asked), None);
    let expiries = world.group.expiries(next);
    world.group.entries_stuck.clear();
    world.group.unstick(third.unwrap());
    let Some(Response::Registered { epoch, .. }) = world.group.answers.get(&asked) else {
        panic!("{:?}", world.group.answers.get(&asked));
    };
    world.epoch = *epoch;
    assert!(matches!(expiries[..], [(at, of)] if at > epoch.0 && of == old));
    world.sequence = 0;
    assert!(world.renew(next));
    world.group.start(world.leader);
    world.live(next, TTL_MS);
    for host in 1..=3 {
        assert!(world.group.expiries(host).iter().all(|(_, of)| *of == old));
        assert_eq!(world.session(host), Some(world.epoch), "host {host}");
        let registry = world.group.replica(host).registry();
        let record = registry.process(&key("1")).unwrap();
        let now = (record.state, record.epoch, record.incarnation);
        let incarnation = world.record.incarnation;
        assert_eq!(now, (ProcessState::Running, world.epoch, incarnation));
        assert_eq!(registry.lost().count(), 0);
    }
    world.group.assert_equal();
}
