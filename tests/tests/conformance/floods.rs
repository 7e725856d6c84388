//! A guest that floods the log: so many lines of so many bytes, the rest is dropped and counted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;

use maitred_protocol::ModuleKind;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::arena::{Arena, in_earnest};
use crate::support::cause;
use crate::support::guests::{LOG, Parts};

/// Lines by the module that wrote them.
static LINES: Mutex<BTreeMap<String, Vec<String>>> = Mutex::new(BTreeMap::new());

struct Keep;

#[derive(Default)]
struct Line {
    module: String,
    text: String,
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "module" {
            value.clone_into(&mut self.module);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "text" {
            self.text = format!("{value:?}");
        }
    }
}

impl<S: Subscriber> Layer<S> for Keep {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "guest" {
            let mut line = Line::default();
            event.record(&mut line);
            let mut lines = LINES.lock().unwrap();
            lines.entry(line.module).or_default().push(line.text);
        }
    }
}

#[test]
fn sixteen_lines_of_512_bytes_are_written_and_the_rest_is_counted() {
    tracing_subscriber::registry().with(Keep).init();
    let arena = Arena::new();
    // A thousand lines of 2,000 bytes, with line breaks and escapes in them.
    let flood = "(local.set $n (i32.const 1000))
        (loop $again
          (call $log (i32.const 3) (i32.const 8192) (i32.const 2000))
          (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))";
    let parts = Parts {
        imports: LOG,
        items: format!(
            r#"(data (i32.const 8192) "{}")"#,
            r"\1b[2J\0amaitred: all is well ".repeat(80)
        ),
        ..Parts::body(&in_earnest(flood))
    };
    let decisions = arena.decide(&parts.selector(), 10);
    assert!(decisions.iter().all(|one| cause(one).is_none()));
    let counters = arena.lanes.counters();
    let hostile = counters
        .iter()
        .find(|one| one.lane.module.as_str() == "hostile");
    assert_eq!(hostile.unwrap().log_lines_dropped, 10 * (1_000 - 16));

    let lines = LINES.lock().unwrap();
    let lines = &lines["hostile"];
    assert_eq!(lines.len(), 10 * 16);
    for line in lines {
        assert!(!line.chars().any(char::is_control), "{line}");
        // As it stands in the log: quoted, so that a byte may take six.
        let plain = line.matches("all is well").count();
        assert!((15..=512 / 26 + 1).contains(&plain), "{line}");
    }

    // In an upload nobody counts, and nothing is written under another's name.
    arena
        .upload(ModuleKind::Selector, &parts.selector())
        .unwrap();
}
