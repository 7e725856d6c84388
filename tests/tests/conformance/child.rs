//! What a host's executable does under its hidden subcommand, for the conformance tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    maitred_sandbox::compile_child()
}
