//! How far long work is: on a terminal a bar, to a pipe a line now and then, to scripts nothing. On
//! stderr, so that the result is alone on stdout.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::connect::Shell;
use crate::out::colours;

/// Lines come no more often.
const LINE: Duration = Duration::from_secs(1);

/// Something under way; gone from the terminal when dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// When the last line was written, and which, when there is no terminal to draw a bar on.
    lines: Option<(Instant, String)>,
}

impl Progress {
    /// Of `total` pieces.
    pub(crate) fn new(shell: &Shell, total: u64) -> Self {
        let json = shell.out.is_json();
        let target = if json {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let template = if colours(&std::io::stderr()) {
            "{spinner:.cyan} {bar:30.cyan} {pos}/{len} {elapsed}  {wide_msg}"
        } else {
            "{spinner} {bar:30} {pos}/{len} {elapsed}  {wide_msg}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        let lines = (!json && !std::io::stderr().is_terminal())
            .then(|| (Instant::now() - LINE, String::new()));
        Self { bar, lines }
    }

    /// `done` pieces are; `text` says what the rest waits for.
    pub(crate) fn show(&mut self, done: u64, text: String) {
        if let Some((at, last)) = &mut self.lines
            && at.elapsed() >= LINE
        {
            let total = self.bar.length().unwrap_or(0);
            let line = format!("{done} of {total}: {text}");
            if line != *last {
                eprintln!("{line}");
                (*at, *last) = (Instant::now(), line);
            }
        }
        self.bar.set_position(done);
        self.bar.set_message(text);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
