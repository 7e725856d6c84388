//! The flags of `serve` about modules: whom they must be signed by, and what is kept of decisions.

use std::path::PathBuf;

use clap::Args;
use maitred_server::ServerConfig;

/// Which modules are taken, and what is recorded of their decisions.
#[derive(Debug, Args)]
#[command(next_help_heading = "Modules")]
pub(crate) struct Modules {
    /// Take and run only modules that one of the keys in this file has signed, besides the standard ones
    ///
    /// A line a key, as `maitred module keygen` writes it; 1 to 64 of them. Best the same on all hosts.
    #[arg(
        long,
        value_name = "FILE",
        env = "MAITRED_REQUIRE_SIGNED",
        hide_env_values = true
    )]
    require_signed: Option<PathBuf>,
    /// Bytes of inputs to keep for `module replay` while this host leads, 0 for none [default: 67108864]
    #[arg(
        long,
        value_name = "BYTES",
        env = "MAITRED_INPUTS_BYTES",
        hide_env_values = true
    )]
    inputs_bytes: Option<u64>,
}

impl Modules {
    pub(super) fn lay_over(&self, config: &mut ServerConfig) {
        if let Some(path) = &self.require_signed {
            config.require_signed = Some(path.clone());
        }
        config.inputs_bytes = self.inputs_bytes.unwrap_or(config.inputs_bytes);
    }
}
