//! Faults befall the world, and end; and the end of chaos, when everything is mended.

use super::caller::Purpose;
use super::host::State;
use super::plan::{Fault, Mend, Pick, Way};
use super::queue::What;
use super::world::{Phase, World, say};

impl World {
    fn resolve(&self, pick: Pick) -> usize {
        match pick {
            Pick::Machine(machine) => machine,
            Pick::Leader => self.in_order().first().copied().unwrap_or(0),
            Pick::Follower(place) => self.in_order().get(place + 1).copied().unwrap_or(0),
        }
    }

    /// Machines that are up: whoever serves, then the others.
    fn in_order(&self) -> Vec<usize> {
        let up = self.hosts.iter().filter(|host| host.state == State::Up);
        let mut up: Vec<_> = up.map(|host| (!host.serving, host.machine)).collect();
        up.sort_unstable();
        up.into_iter().map(|(_, machine)| machine).collect()
    }

    fn mend_later(&mut self, us: u64, mend: Mend) {
        self.queue.push(self.now + us, What::Mend(mend));
    }

    /// The event of this number in the plan.
    pub fn befall(&mut self, number: usize) {
        if self.phase != Phase::Chaos {
            return;
        }
        let fault = self.scenario.plan[number].1;
        say!(self, "FAULT {number}: {fault}");
        if self.bring(fault) {
            self.cover.count(fault.kind());
        }
    }

    /// Says whether it made a difference.
    fn bring(&mut self, fault: Fault) -> bool {
        match fault {
            Fault::Crash(pick, effects, down_us) => {
                let machine = self.resolve(pick);
                let up = self.hosts[machine].is_up();
                if up && effects > 0 && self.hosts[machine].state == State::Up {
                    self.hosts[machine].crash_in = Some((effects, down_us));
                } else if up {
                    self.kill_host(machine);
                    self.mend_later(down_us, Mend::Start(machine, self.hosts[machine].life));
                }
                up
            }
            Fault::CrashAll(down_us) => {
                for machine in 0..self.hosts.len() {
                    if self.hosts[machine].is_up() {
                        self.kill_host(machine);
                        let late = u64::from(self.chance.below(300_000));
                        let start = Mend::Start(machine, self.hosts[machine].life);
                        self.mend_later(down_us + late, start);
                    }
                }
                true
            }
            Fault::Shutdown(pick, down_us) => {
                let machine = self.resolve(pick);
                self.shut_down(machine, down_us)
            }
            Fault::Pause(pick, for_us) => {
                let machine = self.resolve(pick);
                self.mend_later(for_us, Mend::Resume(machine, self.hosts[machine].life));
                self.pause_host(machine)
            }
            Fault::Isolate(pick, way, clients, for_us) => {
                let machine = self.resolve(pick);
                self.network(
                    Fault::Isolate(Pick::Machine(machine), way, clients, for_us),
                    for_us,
                )
            }
            Fault::Maroon(for_us) => {
                let leader = self.resolve(Pick::Leader);
                let alone = Fault::Isolate(Pick::Machine(leader), Way::Both, false, for_us);
                let others = !(1 << leader);
                for actor in 0..self.scenario.nodes {
                    self.bring(Fault::NodeCut(actor, others, Way::Both, for_us));
                }
                self.network(alone, for_us)
            }
            Fault::Cut(.., for_us)
            | Fault::Split(_, for_us)
            | Fault::Lossy(_, for_us)
            | Fault::Slow(.., for_us) => self.network(fault, for_us),
            Fault::Reconnect(..) => {
                self.network_fault(fault, true);
                true
            }
            Fault::DiskSlow(..)
            | Fault::DiskStall(..)
            | Fault::DiskFail(..)
            | Fault::DiskFull(..)
            | Fault::DiskLost(..)
            | Fault::WallStep(..)
            | Fault::Snapshot(_) => self.bring_to_machine(fault),
            Fault::Transfer => {
                self.transfer();
                true
            }
            Fault::Trap(for_us) => {
                self.trapping += 1;
                self.mend_later(for_us, Mend::Trap);
                true
            }
            Fault::AddHost => self.add_host(),
            Fault::RemoveHost(pick) => {
                let machine = self.resolve(pick);
                self.remove_host(machine)
            }
            Fault::NodeCrash(..)
            | Fault::NodePause(..)
            | Fault::NodeCut(..)
            | Fault::NodeLeave(..)
            | Fault::ProcessExit(_)
            | Fault::NodeLost(..)
            | Fault::Drain(..)
            | Fault::NoDatagrams(..)
            | Fault::NodeGone(_)
            | Fault::Cordon(..) => self.bring_to_node(fault),
            Fault::Rebalance => {
                self.plan_rebalance();
                true
            }
            Fault::Suspend(recreation, for_us) => {
                self.suspend(recreation, true);
                self.mend_later(for_us, Mend::Unsuspend(recreation));
                true
            }
            Fault::ConfirmDead => self.confirm_dead(),
            Fault::Activate(percent, mood) => {
                self.change_selector(percent, mood);
                true
            }
            Fault::Guard(active) => self.guard_selector(active),
        }
    }

    fn network(&mut self, fault: Fault, for_us: u64) -> bool {
        self.network_fault(fault, true);
        self.mend_later(for_us, Mend::Network(fault));
        true
    }

    fn bring_to_machine(&mut self, fault: Fault) -> bool {
        let (Fault::DiskSlow(pick, ..)
        | Fault::DiskStall(pick, _)
        | Fault::DiskFail(pick, _)
        | Fault::DiskFull(pick, _)
        | Fault::DiskLost(pick, _)
        | Fault::WallStep(pick, _)
        | Fault::Snapshot(pick)) = fault
        else {
            return false;
        };
        let machine = self.resolve(pick);
        let now = self.now;
        let host = &mut self.hosts[machine];
        if !host.is_up() {
            return false;
        }
        match fault {
            Fault::DiskSlow(_, slowness, for_us) => {
                host.disk.slowness = slowness;
                self.mend_later(for_us, Mend::Disk(machine, fault));
            }
            Fault::DiskStall(_, for_us) => host.disk.stalled_until_us = now + for_us,
            Fault::DiskFail(..) => host.disk.failing = true,
            Fault::DiskFull(_, for_us) => {
                self.set_full(machine, true);
                self.mend_later(for_us, Mend::Disk(machine, fault));
            }
            Fault::DiskLost(_, replace) => return self.lose_disk(machine, replace),
            Fault::WallStep(_, by_ms) => host.clock.step_wall(by_ms),
            _ => {
                let ticket = self.ticket(machine, super::host::Asker::Nobody);
                self.give(machine, maitred_replica::Input::TakeSnapshot(ticket));
            }
        }
        true
    }

    fn bring_to_node(&mut self, fault: Fault) -> bool {
        let (Fault::NodeCrash(actor, _)
        | Fault::NodePause(actor, _)
        | Fault::NodeCut(actor, ..)
        | Fault::NodeLeave(actor, _)
        | Fault::ProcessExit(actor)
        | Fault::NodeLost(actor, ..)
        | Fault::Drain(actor, ..)
        | Fault::NoDatagrams(actor, _)
        | Fault::NodeGone(actor)
        | Fault::Cordon(actor, _)) = fault
        else {
            return false;
        };
        if !self.node_is_alive(actor) {
            return false;
        }
        let life = self.actors[actor].life;
        match fault {
            Fault::NodeCrash(_, down_us) => {
                self.kill_node(actor);
                self.mend_later(down_us, Mend::NodeStart(actor, life + 1));
            }
            Fault::NodePause(_, for_us) => {
                self.pause_actor(actor);
                self.mend_later(for_us, Mend::NodeResume(actor, life));
            }
            Fault::NodeCut(_, mask, way, for_us) => {
                self.cut_node(actor, mask, way, true);
                self.mend_later(for_us, Mend::NodeCut(actor, mask, way));
            }
            Fault::NodeLeave(_, down_us) => {
                if self.node(actor).leaving.is_some() {
                    return false;
                }
                self.node_leaves(actor, down_us);
            }
            Fault::ProcessExit(_) => self.process_exits(actor),
            Fault::Cordon(_, for_us) => {
                self.cordon(actor, true);
                self.mend_later(for_us, Mend::Uncordon(actor));
            }
            Fault::NodeLost(_, all, for_us) => {
                let leader = self.resolve(Pick::Leader);
                let mask = if all { u32::MAX } else { 1 << leader };
                self.cut_node(actor, mask, Way::Both, true);
                self.mend_later(for_us, Mend::NodeCut(actor, mask, Way::Both));
            }
            Fault::Drain(_, per_second, for_us) => {
                self.drain(actor, per_second);
                self.mend_later(for_us, Mend::Uncordon(actor));
            }
            Fault::NodeGone(_) => {
                self.kill_node(actor);
                self.node(actor).retired = true;
            }
            Fault::NoDatagrams(_, for_us) => {
                self.node(actor).no_datagrams += 1;
                self.mend_later(for_us, Mend::Datagrams(actor));
            }
            _ => {}
        }
        true
    }

    fn cut_node(&mut self, actor: usize, mask: u32, way: Way, more: bool) {
        for machine in 0..self.hosts.len() {
            if mask >> machine & 1 == 1 {
                self.cut_actor(actor, machine, way, more);
            }
        }
    }

    /// A fault comes to its end.
    pub fn mend(&mut self, mend: Mend) {
        match mend {
            Mend::Start(machine, life) if self.hosts[machine].life == life => {
                self.start_host(machine);
            }
            Mend::Resume(machine, life) if self.hosts[machine].life == life => {
                self.resume_host(machine);
            }
            Mend::NodeStart(actor, life) if self.actors[actor].life == life => {
                if !self.actors[actor].up && !self.node(actor).retired {
                    self.start_node(actor);
                }
            }
            Mend::NodeResume(actor, life) if self.actors[actor].life == life => {
                self.resume_actor(actor);
            }
            Mend::Start(..) | Mend::Resume(..) | Mend::NodeStart(..) | Mend::NodeResume(..) => {}
            // The end of chaos has mended the rest.
            _ if self.phase != Phase::Chaos => {}
            Mend::Network(fault) => self.network_fault(fault, false),
            Mend::Disk(machine, Fault::DiskSlow(..)) => self.hosts[machine].disk.slowness = 1,
            Mend::Disk(machine, _) => self.set_full(machine, false),
            Mend::Trap => self.trapping -= 1,
            Mend::NodeCut(actor, mask, way) => self.cut_node(actor, mask, way, false),
            Mend::Uncordon(actor) => self.cordon(actor, false),
            Mend::Unsuspend(recreation) => self.suspend(recreation, false),
            Mend::Datagrams(actor) => {
                let node = self.node(actor);
                node.no_datagrams = node.no_datagrams.saturating_sub(1);
            }
        }
    }

    /// Everything is mended.
    pub fn heal(&mut self) {
        say!(self, "everything is mended");
        self.heal_network();
        self.heal_reach();
        self.trapping = 0;
        for machine in 0..self.hosts.len() {
            let disk = &mut self.hosts[machine].disk;
            disk.slowness = 1;
            disk.failing = false;
            if disk.full {
                self.set_full(machine, false);
            }
            self.hosts[machine].crash_in = None;
            self.resume_host(machine);
            if self.hosts[machine].id != 0 {
                self.start_host(machine);
            }
        }
        for actor in 0..self.scenario.nodes {
            self.resume_actor(actor);
            self.node(actor).no_datagrams = 0;
            if !self.actors[actor].up && !self.node(actor).retired {
                self.start_node(actor);
            }
        }
        // What is still being asked of them must not come after what mends it.
        let operator = self.actors.len() - 1;
        self.give_up(operator, |purpose| matches!(purpose, Purpose::Scenery));
        self.let_go_on();
    }
}
