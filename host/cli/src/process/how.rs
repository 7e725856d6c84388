//! How a process is to be created: the flags that `create`, `plan` and `party create` share.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use maitred_protocol::limits::ARGS_BYTES_MAX;
use maitred_protocol::{
    CreateOptions, CreateProcess, ModuleName, NodeName, OnConflict, ProcessKey,
};

use crate::args::{back_off, deadline, millis, pair, whole};
use crate::failure::Failure;
use crate::files;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Conflict {
    /// Answer with the process that is there
    Return,
    /// Fail with exit code 4
    Fail,
    /// Wait until it has gone, then create; not in a party
    Wait,
}

/// What several creates may have in common.
#[derive(Debug, Args)]
pub(super) struct How {
    /// Arguments for the process, at most 64 KiB
    #[arg(long, value_name = "TEXT", conflicts_with = "args_file")]
    args: Option<String>,
    /// The same, from a file
    #[arg(long, value_name = "FILE")]
    args_file: Option<PathBuf>,
    /// Instead of the type's selector
    #[arg(long, value_name = "MODULE")]
    pub(super) selector: Option<ModuleName>,
    /// Instead of the type's callback
    #[arg(long, value_name = "MODULE")]
    callback: Option<ModuleName>,
    /// When the process is there already
    #[arg(long, value_enum, default_value = "return")]
    pub(super) on_conflict: Conflict,
    /// Time that it may take, at most 10m [default: the type's, 10s]
    #[arg(long, value_name = "TIME", value_parser = deadline)]
    deadline: Option<Duration>,
    /// Nodes to try, at most 16 [default: the type's, 3]
    #[arg(long, value_name = "N")]
    attempts: Option<u8>,
    /// Pause before the second attempt, doubled for each further one, at most 60s [default: the type's, 50ms]
    #[arg(long, value_name = "TIME", value_parser = back_off)]
    back_off: Option<Duration>,
    /// A label that the node must have; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    require: Vec<(String, String)>,
    /// Milliseconds to the nodes with this value of a label, as eu-west=18; may be repeated, at most 32.
    /// Selectors see it as the feature latency:KEY
    #[arg(long, value_name = "VALUE=MS", value_parser = latency)]
    latency: Vec<(String, u32)>,
    /// Units of capacity that it takes
    #[arg(long, value_name = "UNITS", default_value_t = 1, value_parser = whole)]
    demand: u32,
    /// -1000 to 1000; larger is more important
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    priority: i32,
    /// The node that asks, if one does
    #[arg(long, value_name = "NODE")]
    requester: Option<NodeName>,
}

impl How {
    /// The create of one process.
    pub(super) fn request(
        &self,
        key: &ProcessKey,
        group: Option<String>,
    ) -> Result<CreateProcess, Failure> {
        let args = match (&self.args, &self.args_file) {
            (Some(text), _) => text.clone().into_bytes(),
            (None, Some(path)) => files::read("read", path, ARGS_BYTES_MAX as u64)?,
            (None, None) => Vec::new(),
        };
        Ok(CreateProcess {
            key: key.clone(),
            args,
            selector: self.selector.clone(),
            callback: self.callback.clone(),
            options: CreateOptions {
                on_conflict: match self.on_conflict {
                    Conflict::Return => OnConflict::Return,
                    Conflict::Fail => OnConflict::Fail,
                    Conflict::Wait => OnConflict::Wait,
                },
                deadline_ms: millis(self.deadline),
                attempts: self.attempts.unwrap_or(0),
                back_off_ms: millis(self.back_off),
                group,
                require: self.require.clone(),
                demand: self.demand,
                priority: self.priority,
                requester: self.requester.clone(),
                latencies: self.latency.clone(),
            },
        })
    }
}

/// Reads `VALUE=MS`; the unit may be written.
fn latency(text: &str) -> Result<(String, u32), String> {
    let (value, millis) = pair(text).map_err(|_| "must be VALUE=MS, as eu-west=18".to_owned())?;
    let number = millis.strip_suffix("ms").unwrap_or(&millis);
    Ok((value, whole(number)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_in_milliseconds() {
        assert_eq!(latency("eu-west=18"), Ok(("eu-west".to_owned(), 18)));
        assert_eq!(latency("eu=18ms"), Ok(("eu".to_owned(), 18)));
        for bad in ["eu", "=3", "eu=", "eu=1.5", "eu=2s", "eu=-1"] {
            assert!(latency(bad).is_err(), "{bad}");
        }
    }
}
