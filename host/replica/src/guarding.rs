//! Rules that take a version back by themselves: the caller watches, and says when one has come true.
//!
//! Only a leader proposes it, and not again soon: whoever watches says it again for as long as the
//! version decides. What was watched may have been taken back meanwhile; apply finds that out.

use maitred_protocol::ModuleName;
use maitred_registry::Command;
use maitred_registry::decide::cut;

use crate::proposals::Waiter;
use crate::replica::Replica;

/// Microseconds after which it is proposed again, if it still decides: the log may have had no room, or
/// there is nothing before it.
const AGAIN_US: u64 = 10_000_000;

impl Replica {
    /// The rule of what was activated at this index has come true.
    pub(crate) fn guarded(&mut self, name: ModuleName, activated: u64, cause: String) {
        let module = self.registry.module(&name);
        let decides = module.is_some_and(|module| module.decides(activated));
        if self.serving.is_none() || !decides {
            return;
        }
        let now_us = self.now.mono_us;
        self.guarded.retain(|_, again_us| *again_us > now_us);
        let watched = (name.clone(), activated);
        if self.guarded.contains_key(&watched) {
            return;
        }
        self.guarded.insert(watched, now_us + AGAIN_US);
        let command = Command::RollbackModule {
            name,
            activated: Some(activated),
            cause: Some(cut(cause)),
        };
        self.queue(None, command, Waiter::Nobody);
    }
}
