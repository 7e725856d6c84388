//! The standard fence `witness`: believes what something that watches the machines has registered.
//!
//! The watcher (of a cloud's instances, of power switches, of a hypervisor) is an ordinary client.
//! When it has seen that a machine is off for good, it registers a process: type `fence`, id the
//! node's name, share the text `dead <epoch>` (a line's end after it does no harm). This fence looks that record up. When the record
//! runs and its epoch is the lost one or a later one, the node is dead; in every other case nobody
//! can tell, and it is asked again after a second.
//!
//! Another type or pause by configuration: `{"type": "watch", "retry_ms": 500}`. A record that is
//! on the lost node itself counts for nothing: a node cannot testify to its own death.

use maitred_guest::config::Config;
use maitred_guest::{
    Fence, FenceVerdict, Host, LostNode, Process, RETRY_MS, Records, export_fence,
};

/// See the head of this file.
#[derive(Default)]
pub struct Witness {
    process_type: String,
    retry_ms: u32,
}

const TYPE: &str = "fence";
const PAUSE_MS: u32 = 1_000;

impl Fence for Witness {
    const NAME: &'static str = "witness";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn configure(&mut self, host: &dyn Host) -> Result<(), String> {
        let config = Config::parse(&host.config(), &["type", "retry_ms"])?;
        self.process_type = config.text("type")?.unwrap_or(TYPE).to_owned();
        if !is_type_name(&self.process_type) {
            return Err("configuration: `type` has to be 1 to 64 of a-z, 0-9, _ and -".to_owned());
        }
        self.retry_ms = config.number("retry_ms", RETRY_MS)?.unwrap_or(PAUSE_MS);
        Ok(())
    }

    fn examine(
        &self,
        lost: &LostNode,
        _: &dyn Host,
        records: &dyn Records,
    ) -> Result<FenceVerdict, String> {
        let Some(epoch) = whole(&lost.epoch) else {
            return Err(format!("the epoch `{}` is no number", lost.epoch));
        };
        let dead = records
            .get(&self.process_type, &lost.node)
            .filter(|record| record.running && record.node != lost.node)
            .and_then(|record| Some((dead_epoch(&record)?, record.node)))
            .filter(|&(dead, _)| dead >= epoch);
        Ok(match dead {
            Some((dead, watcher)) => FenceVerdict::Dead(format!(
                "{}/{}, registered by {watcher}, says: dead {dead}",
                self.process_type, lost.node
            )),
            None => FenceVerdict::AliveOrUnknown(self.retry_ms),
        })
    }
}

export_fence!(Witness);

/// The epoch that a record calls dead.
fn dead_epoch(record: &Process) -> Option<u64> {
    let text = std::str::from_utf8(&record.share).ok()?;
    whole(text.strip_prefix("dead ")?.trim_end())
}

/// Digits alone: `u64`'s own parser takes a plus sign, too.
fn whole(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

fn is_type_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

#[cfg(test)]
mod tests;
