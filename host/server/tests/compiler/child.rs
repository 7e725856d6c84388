//! What a host's executable does under its hidden subcommand, for the tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    maitred_server::compile_child()
}
