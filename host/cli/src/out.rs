//! How answers reach a person or a script: aligned tables, or one JSON document a line.
//!
//! Holds: results go to stdout, errors to stderr; nothing is coloured when `NO_COLOR` is set or the
//! stream is no terminal; a reader that goes away ends the program quietly.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use crate::failure::{Exit, Failure};

/// What output looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For scripts: one document a line, `"v": 1`, 64-bit numbers as strings.
    Json,
}

/// Where a verb's answer goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out {
    pub(crate) format: Format,
}

impl Out {
    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Shows one thing: `body` with `kind` for scripts, `text` for people.
    pub(crate) fn show(
        self,
        kind: &str,
        body: Value,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => print(&line(&envelope(kind, body))),
            Format::Table => print(&plain(&text())),
        }
    }

    /// Shows several things as `items`.
    pub(crate) fn list(
        self,
        kind: &str,
        items: Vec<Value>,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        self.show(kind, json!({ "items": items }), text)
    }

    /// Says why a verb failed.
    pub(crate) fn failure(self, failure: &Failure) {
        let text = match self.format {
            Format::Json => line(&failure.to_json()) + "\n",
            Format::Table => human(failure),
        };
        // Nothing is left to be done when stderr is gone.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

/// Whether a terminal may act on it instead of showing it: control characters, and those that turn
/// the direction of what follows.
fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text in which nothing that came from elsewhere can move the cursor, colour or hide anything.
fn plain(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' => c.to_string(),
        c if is_active(c) => c.escape_unicode().to_string(),
        c => c.to_string(),
    };
    text.chars().map(shown).collect()
}

/// A document on one line. Only strings can hold what a terminal might act on, so it may be escaped
/// wherever it stands.
pub(crate) fn line(document: &Value) -> String {
    let mut line = String::new();
    for c in document.to_string().chars() {
        match c {
            // None of them is beyond four digits.
            c if is_active(c) => line += &format!("\\u{:04x}", u32::from(c)),
            c => line.push(c),
        }
    }
    line
}

/// As [`plain`], on one line: nobody can make a row of their own.
fn one_line(text: &str) -> String {
    plain(&text.replace('\n', "\\n"))
}

/// Puts the version and the kind before the fields of `body`.
pub(crate) fn envelope(kind: &str, body: Value) -> Value {
    let mut document = json!({ "v": 1, "kind": kind });
    if let (Some(document), Value::Object(fields)) = (document.as_object_mut(), body) {
        document.extend(fields);
    }
    document
}

/// Whether `stream` wants colours.
pub(crate) fn colours(stream: &impl IsTerminal) -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && stream.is_terminal()
}

fn human(failure: &Failure) -> String {
    let theme = if colours(&std::io::stderr()) {
        miette::GraphicalTheme::unicode()
    } else {
        miette::GraphicalTheme::unicode_nocolor()
    };
    let mut text = String::new();
    let handler = miette::GraphicalReportHandler::new_themed(theme).with_width(100);
    let failure = &Failure {
        message: plain(&failure.message),
        help: plain(&failure.help),
        details: None,
        ..*failure
    };
    match handler.render_report(&mut text, failure) {
        Ok(()) => text,
        Err(_) => format!("{failure}\n  help: {}\n", failure.help),
    }
}

/// Writes a line to stdout.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let done = writeln!(stdout, "{}", text.trim_end()).and_then(|()| stdout.flush());
    match done {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::new(
            Exit::Other,
            "output",
            format!("cannot write to standard output: {error}"),
            "check where it is directed to",
        )),
        _ => Ok(()),
    }
}

/// Aligned columns without lines, as `kubectl` and `docker` print them.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    for row in rows {
        table.add_row(row.iter().map(|cell| one_line(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table
        .to_string()
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// `key   value` lines.
pub(crate) fn fields(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter()
        .map(|(name, value)| format!("{name:width$}  {}", one_line(value)))
        .collect::<Vec<_>>()
        .join("\n")
}

/// `850ms`, `12s`, `3m12s`, `5h02m`, `9d`.
pub(crate) fn short(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{}ms", span.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// How long ago a time in milliseconds since 1970 was, by this machine's clock.
pub(crate) fn ago(millis: u64) -> String {
    short(now().saturating_sub(Duration::from_millis(millis)))
}

/// When a time in milliseconds since 1970 is, by this machine's clock: `in 3m12s`, `5s ago`.
pub(crate) fn ahead(millis: u64) -> String {
    let left = until(millis);
    if left.is_zero() {
        format!("{} ago", ago(millis))
    } else {
        format!("in {}", short(left))
    }
}

/// How long it is until a time in milliseconds since 1970, by this machine's clock.
pub(crate) fn until(millis: u64) -> Duration {
    Duration::from_millis(millis).saturating_sub(now())
}

fn now() -> Duration {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
}

/// `1,234,567`
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A bar of `width` characters for a share from 0 to 1.
pub(crate) fn bar(share: f64, width: usize) -> String {
    let share = share.clamp(0.0, 1.0);
    let full = (share * width as f64).round() as usize;
    "█".repeat(full) + &"░".repeat(width - full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        let of = |millis| short(Duration::from_millis(millis));
        assert_eq!(of(850), "850ms");
        assert_eq!(of(192_000), "3m12s");
        assert_eq!(of(18_120_000), "5h02m");
        assert_eq!(of(800_000_000), "9d");
    }

    #[test]
    fn tables_are_aligned_and_have_no_trailing_blanks() {
        let text = table(
            &["NODE", "STATE"],
            vec![
                vec!["a".into(), "ready".into()],
                vec!["longer".into(), "x".into()],
            ],
        );
        assert_eq!(text, "NODE    STATE\na       ready\nlonger  x");
    }

    #[test]
    fn nothing_from_elsewhere_reaches_the_terminal_as_a_command() {
        let hostile = "\u{1b}[2J\u{9b}31m\u{202e}x\r\nnode  ready\u{7}";
        let rows = vec![vec![hostile.to_owned(), "ready".to_owned()]];
        for text in [
            table(&["PROCESS", "STATE"], rows),
            fields(&[("share", hostile.to_owned())]),
            human(&Failure::new(Exit::Other, "x", hostile, hostile)),
        ] {
            let active = text.chars().filter(|c| *c != '\n').any(is_active);
            assert!(!active, "{text:?}");
        }
        assert_eq!(
            table(&["A"], vec![vec!["a\nb".to_owned()]]).lines().count(),
            2
        );
        let document = json!({ "share": hostile });
        let written = line(&document);
        assert!(!written.chars().any(is_active), "{written}");
        assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), document);
        assert_eq!(plain("zone=eu → é\n█"), "zone=eu → é\n█");
    }

    #[test]
    fn thousands_are_told_apart() {
        let all = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(all, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn bars_stay_within_their_width() {
        assert_eq!(bar(0.5, 4), "██░░");
        assert_eq!(bar(f64::NAN, 4).chars().count(), 4);
        assert_eq!(bar(7.0, 4), "████");
    }
}
