//! The command line: global flags, verbs, and how durations and pairs are written.
//!
//! Every flag has its environment variable and every help text its units and an example. What a
//! verb does is in the verb's own file.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use maitred_protocol::limits::{BACK_OFF_MS_MAX, DEADLINE_MS_MAX, DRAIN_MS_MIN};

use crate::out::Format;
use crate::{
    bench, cert, completions, dev, member, module, node, process, rebalance, recreation, serve,
    snapshot, status, types,
};

const EXITS: &str = "\
Exit codes: 0 ok, 1 other, 2 usage, 3 not found, 4 conflict (exists already, fenced),
5 no placement, 6 unavailable, no leader or timed out, 7 certificates or TLS, 8 module rejected,
9 a toolchain is missing.

Where the host is: --endpoint, --ca, --cert and --key; else MAITRED_ENDPOINT and so on; else
the context named by --context, or `default`, in $XDG_CONFIG_HOME/maitred/contexts; else the
`maitred dev` that this user runs.";

/// The registry that keeps the book and seats the guests: which node runs each process of a game
/// back end, and where the next one goes.
///
/// Try `maitred dev`: a whole host with sample nodes and a live table, nothing to configure.
#[derive(Debug, Parser)]
#[command(name = "maitred", version, after_help = EXITS, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// What output looks like; errors go to stderr in the same form
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value = "table",
        env = "MAITRED_OUTPUT",
        hide_env_values = true,
        help_heading = "Output"
    )]
    pub(crate) output: Format,
    /// A host, as HOST:PORT; may be repeated, or separated by commas
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT",
        env = "MAITRED_ENDPOINT",
        value_delimiter = ',',
        hide_env_values = true,
        help_heading = "Connection"
    )]
    pub(crate) endpoint: Vec<String>,
    /// The group's CA certificate, PEM
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "MAITRED_CA",
        hide_env_values = true,
        help_heading = "Connection"
    )]
    pub(crate) ca: Option<PathBuf>,
    /// The certificate that is shown to the other side, PEM
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "MAITRED_CERT",
        hide_env_values = true,
        help_heading = "Connection"
    )]
    pub(crate) cert: Option<PathBuf>,
    /// The private key of that certificate, PEM
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "MAITRED_KEY",
        hide_env_values = true,
        help_heading = "Connection"
    )]
    pub(crate) key: Option<PathBuf>,
    /// A named connection: NAME.toml with endpoints, ca, cert and key
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "MAITRED_CONTEXT",
        hide_env_values = true,
        help_heading = "Connection"
    )]
    pub(crate) context: Option<String>,
    /// For connecting, and for each request but creates, which have --deadline: 500ms, 10s, 2m
    #[arg(long, global = true, value_name = "TIME", value_parser = duration, default_value = "10s",
          env = "MAITRED_TIMEOUT", hide_env_values = true, help_heading = "Connection")]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Dev(Box<dev::Dev>),
    Serve(Box<serve::Serve>),
    Status(status::StatusArgs),
    #[command(subcommand)]
    Member(member::Member),
    #[command(subcommand)]
    Snapshot(snapshot::Snapshot),
    #[command(subcommand)]
    Process(process::Process),
    #[command(subcommand)]
    Party(process::Party),
    #[command(subcommand)]
    Node(node::Node),
    #[command(subcommand)]
    Module(module::Module),
    #[command(subcommand)]
    Type(types::Type),
    Rebalance(rebalance::Rebalance),
    #[command(subcommand)]
    Recreation(recreation::Recreation),
    Bench(bench::Bench),
    #[command(name = "internal-nodes", hide = true)]
    InternalNodes(bench::Nodes),
    #[command(subcommand)]
    Cert(cert::Cert),
    Completions(completions::Completions),
}

/// Reads `500ms`, `10s`, `2m` or `1h`; at most a day.
///
/// # Errors
/// A sentence for people.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let unit = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err("a time needs a unit: 500ms, 10s or 2m".to_owned()),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| "a time is a number and a unit, such as 500ms or 10s".to_owned())?;
    let seconds = number * unit;
    if (0.001..=86_400.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("a time must be between 1ms and 24h".to_owned())
    }
}

/// Reads the time that a create may take, at most [`DEADLINE_MS_MAX`].
///
/// # Errors
/// A sentence for people.
pub(crate) fn deadline(text: &str) -> Result<Duration, String> {
    at_most(duration(text)?, DEADLINE_MS_MAX, "10m")
}

/// Reads the pause before a second attempt, at most [`BACK_OFF_MS_MAX`].
///
/// # Errors
/// A sentence for people.
pub(crate) fn back_off(text: &str) -> Result<Duration, String> {
    at_most(duration(text)?, BACK_OFF_MS_MAX, "60s")
}

/// Reads the time that a node may take to be emptied, at least [`DRAIN_MS_MIN`].
///
/// # Errors
/// A sentence for people.
pub(crate) fn patience(text: &str) -> Result<Duration, String> {
    let span = duration(text)?;
    if span >= Duration::from_millis(DRAIN_MS_MIN.into()) {
        Ok(span)
    } else {
        Err("must be at least 1s".to_owned())
    }
}

/// Reads a time, or `never`, which is 0.
///
/// # Errors
/// A sentence for people.
pub(crate) fn or_never(text: &str) -> Result<Duration, String> {
    match text {
        "never" => Ok(Duration::ZERO),
        text => duration(text),
    }
}

fn at_most(span: Duration, millis: u32, written: &str) -> Result<Duration, String> {
    if span <= Duration::from_millis(millis.into()) {
        Ok(span)
    } else {
        Err(format!("must be at most {written}"))
    }
}

/// Reads a whole number from 0.
///
/// # Errors
/// A sentence for people.
pub(crate) fn whole(text: &str) -> Result<u32, String> {
    let number = text.parse();
    number.map_err(|_| format!("must be a whole number, 0 to {}", u32::MAX))
}

/// Reads `KEY=VALUE`.
///
/// # Errors
/// A sentence for people.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE".to_owned()),
    }
}

/// Milliseconds for the wire, where a span beyond the protocol's limit is refused with its name.
pub(crate) fn millis(span: Option<Duration>) -> u32 {
    span.map_or(0, |span| {
        u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Two arguments of one name, one of them global, would only fail when a person uses them.
    #[test]
    fn no_verb_shadows_a_global_flag() {
        for line in [
            "process get a/b",
            "process create a/b",
            "process set a/b --node n --pid 1",
            "module push m f",
            "module push m f --activate --percent 10 --sign k",
            "module activate m@2 --percent 10 --types a,b --config {} --auto-rollback traps>0",
            "module check f --kind fence",
            "module test d --component c",
            "module dev d --once --endpoint a:1",
            "module configure m --config {} --canary",
            "module history m",
            "module shadow start m@3 --config {}",
            "module shadow stop m",
            "module compare m --watch",
            "module replay m@3 --last 5",
            "module replay --export f --force",
            "module replay m --from f --component c",
            "party create g a/b a/c --rule at-most:2 --latency eu=3",
            "process create a/b --latency eu=3ms --group g",
            "process explain a/b --why-not n",
            "serve --require-signed f --inputs-bytes 0",
            "cert issue x",
            "serve --join a:1,b:2 --name c --lease-reads",
            "member add a b:1",
            "member remove a --yes",
            "member replace a b:1",
            "member transfer-leader a",
            "snapshot save f",
            "snapshot restore f --data-dir d --name a",
            "node drain a --deadline 5m --rate 10",
            "node confirm-dead a --epoch 3 --yes",
            "type put a --pending-deadline 5m --deadline 10s",
            "rebalance --type a --max 3 --apply --rate 5",
            "rebalance suspend",
            "recreation resume",
            "bench",
            "dev",
        ] {
            let words = std::iter::once("maitred").chain(line.split(' '));
            Cli::try_parse_from(words).unwrap();
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["10", "s", "", "-1s", "1.2.3s", "25h", "0s", "10 s"] {
            assert!(duration(bad).is_err(), "{bad:?} passed");
        }
    }

    #[test]
    fn the_limits_of_a_create_are_said_as_they_are_written() {
        assert_eq!(deadline("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(deadline("1h"), Err("must be at most 10m".to_owned()));
        assert_eq!(back_off("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(back_off("61s"), Err("must be at most 60s".to_owned()));
        assert_eq!(patience("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(patience("999ms"), Err("must be at least 1s".to_owned()));
        assert_eq!(or_never("never"), Ok(Duration::ZERO));
        assert!(or_never("0s").is_err() && or_never("soon").is_err());
        assert_eq!(whole("20"), Ok(20));
        for bad in ["lots", "-1", "1.5", "4294967296"] {
            assert!(whole(bad).unwrap_err().contains("whole number"), "{bad}");
        }
    }

    #[test]
    fn pairs_split_at_the_first_equals_sign() {
        assert_eq!(pair("zone=eu=1"), Ok(("zone".into(), "eu=1".into())));
        assert!(pair("zone").is_err() && pair("=x").is_err());
    }
}
