//! A callback: starts the process on the node that was chosen, and waits a little when it is busy.
//!
//! It has no clock, no random numbers and no IO but `access`. It may be called again for the same
//! incarnation after a crash of the host; `start` gives the first answer then.
//! `cargo doc --open -p maitred-guest` shows what else there is.

use maitred_guest::config::Config;
use maitred_guest::{
    Access, Advice, Callback, Ended, Hook, Host, Level, Placement, Records, Request, SpawnFailure,
    StartFailure, Started, export_callback,
};

/// One instance of the policy. What it keeps between calls is a cache: hosts replace instances.
#[derive(Default)]
pub struct Policy {
    tries: u32,
}

/// What the node has, or what is left of the create's deadline.
const DEADLINE_MS: u32 = 10_000;

impl Callback for Policy {
    const NAME: &'static str = env!("CARGO_PKG_NAME");
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    /// Hooks that are not named here are not called: also `Exit` and `Compensate`.
    const HOOKS: &'static [Hook] = &[Hook::NodeLost];

    /// `{"tries": 5}`: how often a busy node is asked. A configuration is tried before a version
    /// decides with it; what is wrong with it goes to the operator.
    fn configure(&mut self, host: &dyn Host) -> Result<(), String> {
        let config = Config::parse(&host.config(), &["tries"])?;
        self.tries = config.number("tries", 1..=16)?.unwrap_or(3);
        Ok(())
    }

    /// 50 ms of processor time; waiting for the node does not count.
    fn spawn(
        &self,
        request: &Request,
        placement: &Placement,
        access: Access<'_>,
    ) -> Result<Started, SpawnFailure> {
        let mut attempt = 1;
        loop {
            // `SpawnFailure::GiveUp` would end the create instead of trying another node.
            let reason = match access.node.start(&request.args, DEADLINE_MS) {
                Ok(started) => return Ok(started),
                Err(StartFailure::Busy(_)) if attempt < self.tries => {
                    let text = format!("{} is busy with {}", placement.node, request.id);
                    access.host.log(Level::Info, &text);
                    access.node.pause(50 * attempt);
                    attempt += 1;
                    continue;
                }
                Err(StartFailure::Busy(reason)) => format!("busy: {reason}"),
                Err(StartFailure::Failed(reason)) => format!("failed: {reason}"),
                Err(StartFailure::NoAnswer(reason)) => format!("no answer: {reason}"),
            };
            return Err(SpawnFailure::Elsewhere(reason));
        }
    }

    /// Only advice: at once the first time, later each time after that.
    fn on_node_lost(&self, ended: &Ended, _: &dyn Host, _: &dyn Records) -> Advice {
        match ended.times {
            0 | 1 => Advice::Usual,
            times => Advice::BackOff((500 << times.min(11)).min(600_000)),
        }
    }
}

export_callback!(Policy);

#[cfg(test)]
mod tests {
    use super::*;
    use maitred_guest::testing::{TestNode, request, spawn};

    fn busy() -> Result<Started, StartFailure> {
        Err(StartFailure::Busy("full".to_owned()))
    }

    #[test]
    fn a_busy_node_is_asked_again() {
        let started = Started {
            pid: "17".to_owned(),
            share: Vec::new(),
        };
        let node = TestNode::answering(busy()).then(Ok(started.clone()));
        assert_eq!(spawn::<Policy>(&request("room", "r"), &node), Ok(started));
        assert_eq!(node.pauses(), [50]);
    }

    #[test]
    fn one_that_stays_busy_is_left() {
        let node = TestNode::answering(busy()).then(busy()).then(busy());
        let failure = SpawnFailure::Elsewhere("busy: full".to_owned());
        assert_eq!(spawn::<Policy>(&request("room", "r"), &node), Err(failure));
        assert_eq!(node.starts().len(), 3);
    }
}
