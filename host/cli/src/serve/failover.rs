//! The flags of `serve` that are about nodes that are lost: how fast their processes are created again,
//! and when that pauses.

use std::time::Duration;

use clap::Args;
use maitred_server::ServerConfig;

use crate::args::{duration, millis};

/// How processes of lost nodes are created again; best the same on all hosts.
#[derive(Debug, Args)]
#[command(next_help_heading = "Lost nodes")]
pub(crate) struct Failover {
    /// Processes of lost nodes that are created again in a second, over all nodes, 1 to 1000000
    /// [default: 10000]
    #[arg(
        long,
        value_name = "N",
        env = "MAITRED_RECREATE_PER_SECOND",
        hide_env_values = true,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    recreate_per_second: Option<u32>,
    /// Of those, how many one node is given in a second, 1 to 1000000 [default: 1000]
    #[arg(
        long,
        value_name = "N",
        env = "MAITRED_RECREATE_PER_NODE",
        hide_env_values = true,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    recreate_per_node: Option<u32>,
    /// Part of the nodes, in percent, beyond which losing them pauses creating again; 100 for never
    /// [default: 40]
    ///
    /// It takes at least three lost nodes. More often than so many deaths it is the network that is cut:
    /// nodes that come back keep what they run. `maitred recreation resume` ends the pause.
    #[arg(
        long,
        value_name = "PERCENT",
        env = "MAITRED_MASS_LOSS_PERCENT",
        hide_env_values = true,
        value_parser = clap::value_parser!(u32).range(1..=100)
    )]
    mass_loss_percent: Option<u32>,
    /// Time within which they are lost, 1s to 10m [default: 30s]
    #[arg(
        long,
        value_name = "TIME",
        env = "MAITRED_MASS_LOSS_WINDOW",
        hide_env_values = true,
        value_parser = duration
    )]
    mass_loss_window: Option<Duration>,
    /// How long the pause is, unless it is ended before, at most 1h [default: 60s]
    #[arg(
        long,
        value_name = "TIME",
        env = "MAITRED_MASS_LOSS_PAUSE",
        hide_env_values = true,
        value_parser = duration
    )]
    mass_loss_pause: Option<Duration>,
}

impl Failover {
    /// Lays what was given over `config`.
    pub(crate) fn lay_over(&self, config: &mut ServerConfig) {
        let own = &mut config.failover;
        for (given, field) in [
            (self.recreate_per_second, &mut own.recreate_per_second),
            (
                self.recreate_per_node,
                &mut own.recreate_per_node_per_second,
            ),
            (self.mass_loss_percent, &mut own.mass_loss_percent),
            (
                in_millis(self.mass_loss_window),
                &mut own.mass_loss_window_ms,
            ),
            (in_millis(self.mass_loss_pause), &mut own.mass_loss_pause_ms),
        ] {
            *field = given.unwrap_or(*field);
        }
    }
}

fn in_millis(span: Option<Duration>) -> Option<u32> {
    span.map(|span| millis(Some(span)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        own: Failover,
    }

    #[test]
    fn only_what_is_given_is_laid_over_what_the_file_says() {
        let mut config = ServerConfig::default();
        let before = config.failover;
        let words = ["serve", "--recreate-per-node=7", "--mass-loss-window=5s"];
        Line::try_parse_from(words)
            .unwrap()
            .own
            .lay_over(&mut config);
        let mut wanted = before;
        wanted.recreate_per_node_per_second = 7;
        wanted.mass_loss_window_ms = 5_000;
        assert_eq!(config.failover, wanted);
    }
}
