//! `completions`: what a shell needs to complete the command line.

use clap::{Args, CommandFactory};

use crate::args::Cli;
use crate::failure::Failure;
use crate::out;

/// Print completions for a shell
///
/// Example: maitred completions bash > ~/.local/share/bash-completion/completions/maitred
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Which shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

impl Completions {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "maitred", &mut text);
        out::print(&String::from_utf8_lossy(&text))
    }
}
