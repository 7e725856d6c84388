//! Threads without which a host must not go on: when one panics or fails, the whole host stops.
//!
//! A host that limps on without its log or its replica would take requests that nobody answers, or
//! acknowledge what is not durable.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::watch;

use crate::error::Failed;

/// Where the first failure of a host is put. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Alarm(Arc<watch::Sender<Option<Failed>>>);

impl Alarm {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// Stops the host, unless it is stopping because of something earlier. Starting it again may
    /// help.
    pub(crate) fn raise(&self, what: String) {
        self.fail(Failed {
            what,
            restart: true,
        });
    }

    /// As [`Alarm::raise`], saying whether starting it again can help.
    pub(crate) fn fail(&self, why: Failed) {
        self.0.send_if_modified(|failed| {
            if failed.is_some() {
                return false;
            }
            tracing::error!(what = %why.what, "the host has to stop");
            *failed = Some(why);
            true
        });
    }

    /// What was raised, if anything was.
    pub(crate) fn raised(&self) -> Option<Failed> {
        self.0.borrow().clone()
    }

    /// Waits until something is raised.
    pub(crate) async fn wait(&self) -> Failed {
        let mut receiver = self.0.subscribe();
        loop {
            if let Some(failed) = receiver.borrow_and_update().clone() {
                return failed;
            }
            // The sender lives in `self`, so this does not fail.
            let _ = receiver.changed().await;
        }
    }

    /// Starts a thread whose panic or error raises the alarm.
    pub(crate) fn thread<F>(&self, name: &'static str, run: F) -> io::Result<JoinHandle<()>>
    where
        F: FnOnce() -> Result<(), String> + Send + 'static,
    {
        let watch = Watch {
            alarm: self.clone(),
            name,
        };
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let watch = watch;
                if let Err(what) = run() {
                    watch.alarm.raise(what);
                }
            })
    }
}

/// Raises the alarm when it is dropped by a panic.
struct Watch {
    alarm: Alarm,
    name: &'static str,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let name = self.name;
            self.alarm.raise(format!(
                "its thread {name} panicked (see the log); this is a bug or a failed disk; start it again"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_and_an_error_raise_the_alarm_and_the_first_one_counts() {
        let alarm = Alarm::new();
        assert_eq!(alarm.raised(), None);
        let thread = alarm.thread("doomed", || panic!("on purpose")).unwrap();
        assert!(alarm.wait().await.what.contains("thread doomed panicked"));
        assert!(thread.join().is_err());
        alarm
            .thread("second", || Err("later".to_owned()))
            .unwrap()
            .join()
            .unwrap();
        assert!(alarm.raised().unwrap().what.contains("doomed"));
    }
}
