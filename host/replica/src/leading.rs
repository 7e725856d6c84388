//! Who leads, as this host tells its caller, and snapshots that come from whoever does.

use maitred_protocol::{Response, Revision};

use crate::effect::Effect;
use crate::input::Install;
use crate::mutants;
use crate::replica::Replica;

/// What was last told of the leader: host, address, term, and whether this one serves.
pub(crate) type Told = (u64, Option<String>, u64, bool);

impl Replica {
    pub(crate) fn install(&mut self, install: Install) {
        let Install {
            mut message,
            registry,
        } = install;
        let index = message.get_snapshot().get_metadata().index;
        self.peers.heard(message.from, self.now.mono_us);
        if registry.applied() != index {
            return;
        }
        // It was fetched for a leader that is one no longer, and the one that is waits for an answer,
        // too: what is committed is the same for both, and Raft would ignore an older term's.
        let standing = self.consensus.standing();
        if message.term < standing.term && standing.leader != self.config.id {
            if standing.leader == 0 {
                self.postponed = Some(Install { message, registry });
                return;
            }
            message.term = standing.term;
            message.from = standing.leader;
        }
        if mutants::on("install-backwards") && index < self.registry.applied() {
            self.registry = registry;
            return;
        }
        let (level, level_max) = (registry.level(), self.config.level_max);
        if level > level_max {
            let why = format!("the cluster uses level {level} and this host may use {level_max}");
            return self.halt(Effect::TooOld { index, why });
        }
        // It cannot be found lost: it is no heartbeat. Raft takes it only if it is news, and answers
        // in any case: the leader waits for that.
        let _ = self.consensus.step(message);
        let taken = self.consensus.node.snap();
        if taken.is_some_and(|taken| taken.get_metadata().index == index) {
            self.installing = Some(registry);
        }
    }

    /// Installs what came while nobody led, when somebody does.
    pub(crate) fn install_postponed(&mut self) {
        if self.consensus.standing().leader != 0
            && let Some(install) = self.postponed.take()
        {
            self.install(install);
        }
    }

    /// The log has been replaced by a snapshot: what it contains takes the place of the state.
    pub(crate) fn restored(&mut self) {
        let Some(registry) = self.installing.take() else {
            debug_assert!(false, "raft restores what was installed");
            return;
        };
        self.disown_from(0);
        self.registry = registry;
        self.peers.followed = false;
        self.snapshot.index = self.registry.applied();
        self.snapshot.bytes = self.consensus.log().bytes();
        self.effects
            .push(Effect::Restored(Revision(self.registry.applied())));
        self.want_modules();
    }

    /// Tells the caller who leads, when that has changed.
    pub(crate) fn tell_of_leader(&mut self) {
        let standing = self.consensus.standing();
        let address = self.address_of(standing.leader);
        let serving = self.serving.is_some();
        let now = (standing.leader, address, standing.term, serving);
        if self.told.as_ref() == Some(&now) {
            return;
        }
        let (leader, address, term, serving) = now.clone();
        let led = leader != 0 && leader != self.config.id;
        if led {
            let transfers = std::mem::take(&mut self.peers.transfers);
            for (ticket, _) in transfers {
                let revision = Revision(self.registry.applied());
                self.reply(ticket, Response::Done(revision));
            }
        }
        self.told = Some(now);
        self.effects.push(Effect::Leader {
            host: (leader != 0).then_some(leader),
            address,
            term,
            serving,
        });
    }

    pub(crate) fn address_of(&self, host: u64) -> Option<String> {
        let member = self.registry.members().get(&host)?;
        (!member.address.is_empty()).then(|| member.address.clone())
    }
}
