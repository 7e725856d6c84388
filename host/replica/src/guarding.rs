//! Rules that take a version back by themselves: the caller watches, and says when one has come true.
//!
//! Only a leader proposes it, and once: whoever watches says it again for as long as the version
//! decides. What was watched may have been taken back meanwhile; apply finds that out.

use maitred_protocol::ModuleName;
use maitred_registry::Command;
use maitred_registry::decide::cut;

use crate::proposals::Waiter;
use crate::replica::Replica;

impl Replica {
    /// The rule of what was activated at this index has come true.
    pub(crate) fn guarded(&mut self, name: ModuleName, activated: u64, cause: String) {
        let module = self.registry.module(&name);
        let decides = module.is_some_and(|module| module.decides(activated));
        if self.serving.is_none() || !decides || !self.guarded.insert((name.clone(), activated)) {
            return;
        }
        let command = Command::RollbackModule {
            name,
            activated: Some(activated),
            cause: Some(cut(cause)),
        };
        self.queue(None, command, Waiter::Nobody);
    }
}
