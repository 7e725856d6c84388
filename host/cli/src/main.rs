//! The `maitred` command: what a person types and sees.
//!
//! This crate decides the command line, the output, the exit codes and the sample world of `dev`.
//! Everything that a host does is the server's, everything that goes over the wire the client's.

mod args;
mod ask;
mod bench;
mod cert;
mod completions;
mod connect;
mod context;
mod dev;
mod failure;
mod files;
mod host;
mod json;
mod member;
mod memory;
mod module;
mod node;
mod out;
mod presence;
mod process;
mod progress;
mod rebalance;
mod recreation;
mod refusal;
mod sample;
mod serve;
mod snapshot;
mod status;
mod types;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Verb};
use connect::Shell;
use failure::{Exit, Failure};
use out::{Format, Out};

fn main() -> ExitCode {
    // The child that compiles modules: before anything else, since it limits its own resources.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|verb| verb == "internal-compile")
    {
        return maitred_server::compile_child();
    }
    memory::settle();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return misused(&error),
    };
    let out = Out {
        format: cli.global.output,
    };
    let shell = Shell::new(out, cli.global);
    match start(&cli.verb, &shell) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            out.failure(&failure);
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn start(verb: &Verb, shell: &Shell) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            let help = "raise the limits of threads and open files (ulimit -u, ulimit -n)";
            Failure::new(
                Exit::Other,
                "runtime",
                format!("cannot start threads: {error}"),
                help,
            )
        })?;
    let done = runtime.block_on(async {
        let done = match run(verb, shell).await {
            Err(failure) => Err(shell.explained(failure).await),
            done => done,
        };
        shell.close().await;
        done
    });
    // What still runs, runs for nobody.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    done
}

async fn run(verb: &Verb, shell: &Shell) -> Result<(), Failure> {
    match verb {
        Verb::Dev(verb) => verb.run(shell).await,
        Verb::Serve(verb) => verb.run(shell).await,
        Verb::Status(verb) => verb.run(shell).await,
        Verb::Member(verb) => verb.run(shell).await,
        Verb::Snapshot(verb) => verb.run(shell).await,
        Verb::Process(verb) => verb.run(shell).await,
        Verb::Party(verb) => verb.run(shell).await,
        Verb::Node(verb) => verb.run(shell).await,
        Verb::Module(verb) => verb.run(shell).await,
        Verb::Type(verb) => verb.run(shell).await,
        Verb::Rebalance(verb) => verb.run(shell).await,
        Verb::Recreation(verb) => verb.run(shell).await,
        Verb::Bench(verb) => verb.run(shell).await,
        Verb::InternalNodes(verb) => verb.run(shell).await,
        Verb::Cert(verb) => verb.run(shell),
        Verb::Completions(verb) => verb.run(),
    }
}

/// A command line that cannot be read, or a call for help.
fn misused(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || !wants_json() {
        // Nothing is left to be done when the stream is gone.
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8));
    }
    let text = error.render().to_string();
    let message = text.lines().next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let out = Out {
        format: Format::Json,
    };
    out.failure(&Failure::usage(message, "see --help"));
    ExitCode::from(Exit::Usage as u8)
}

/// Whether JSON was asked for, on a command line that could not be read.
fn wants_json() -> bool {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let spelled =
        |arg: &String| ["-ojson", "-o=json", "--output=json", "--json"].contains(&arg.as_str());
    args.iter().any(spelled)
        || args
            .windows(2)
            .any(|pair| ["-o", "--output"].contains(&pair[0].as_str()) && pair[1] == "json")
        || std::env::var("MAITRED_OUTPUT").is_ok_and(|value| value == "json")
}
