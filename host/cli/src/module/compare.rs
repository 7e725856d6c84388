//! `module compare`: how the version in shadow does beside the active one.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use maitred_protocol::ModuleName;

use super::comparison::text;
use crate::connect::Shell;
use crate::failure::Failure;
use crate::host::Signals;
use crate::json as shape;

/// How often --watch looks.
const EVERY: Duration = Duration::from_secs(2);

/// Show how the version in shadow does beside the active one
///
/// How often they agree, where the shadow would have put processes instead, what that would have done
/// to the nodes, what it failed at, and its fuel and time. The leader counts it since the shadow began, or
/// since it leads. Exit code 4 when nothing runs in shadow.
///
/// Example: maitred module compare spread
///
/// Example: maitred module compare spread --watch
#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// Which module
    module: ModuleName,
    /// Look again every 2 s, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

impl Compare {
    pub(super) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let client = shell.client().await?;
        let mut signals = Signals::new()?;
        loop {
            let comparison = client.compare_module(&self.module).await?;
            if self.watch {
                clear(shell);
            }
            let body = shape::comparison(&comparison);
            shell.out.show("Comparison", body, || text(&comparison))?;
            if !self.watch {
                break;
            }
            tokio::select! {
                () = signals.next() => break,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
        client.close().await;
        Ok(())
    }
}

/// An empty screen, where there is one.
fn clear(shell: &Shell) {
    let mut stdout = std::io::stdout();
    if !shell.out.is_json() && stdout.is_terminal() {
        // What comes next says when it is gone.
        let _ = stdout
            .write_all(b"\x1b[2J\x1b[H")
            .and_then(|()| stdout.flush());
    }
}
