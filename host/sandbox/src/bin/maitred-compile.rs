//! The compiler's process on its own, for this crate's tests and benches, and for whoever embeds the
//! sandbox; the host's executable has a hidden subcommand that does the same.

use std::process::ExitCode;

fn main() -> ExitCode {
    maitred_sandbox::compile_child()
}
