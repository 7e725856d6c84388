//! Spawns under way, one run a life, and what the node has said to them.
//!
//! What holds: of one life at most one run is at work at any moment, also when runs of it are given up
//! and begun in quick succession: a run that was aborted may still be in the middle of a poll, so each
//! holds its life's turn until it is gone, and what comes next, another run or the compensation, waits
//! for that turn. What a run does is not known here.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use maitred_protocol::{Incarnation, NodeAnswer, ProcessKey};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// Turns of lives whose runs were given up and may not have ended yet; more are looked through for
/// those that have.
const ENDING_MAX: usize = 256;

/// The members of a party share their incarnation.
pub(crate) type Life = (ProcessKey, Incarnation);

/// A life's turn; whoever holds it is alone.
pub(crate) type Turn = Arc<tokio::sync::Mutex<()>>;

/// A spawn under way.
struct Run {
    number: u64,
    task: AbortHandle,
    turn: Turn,
    said: Arc<Said>,
}

#[derive(Default)]
struct Inner {
    under_way: HashMap<Life, Run>,
    /// Of runs that were given up.
    ending: HashMap<Life, Turn>,
}

impl Inner {
    fn end(&mut self, life: Life, run: Run) {
        run.task.abort();
        if self.ending.len() >= ENDING_MAX {
            // A run that has not ended has its turn, too.
            self.ending.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        self.ending.insert(life, run.turn);
    }
}

/// See the head of this file.
#[derive(Default)]
pub(crate) struct Runs(Mutex<Inner>);

impl Runs {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a run; the one of its life that is under way is given up, and has ended before. `done`
    /// hears what the run's `work` made, and whether nothing of the life is left, unless the run was
    /// given up or replaced. `number` grows with every call, and tells runs of a life apart.
    pub(crate) fn begin<F: Future<Output: Send> + Send>(
        self: &Arc<Self>,
        runtime: &Handle,
        (life, number): (Life, u64),
        work: impl FnOnce(Arc<Said>) -> F + Send + 'static,
        done: impl FnOnce(Life, F::Output, bool) + Send + 'static,
    ) {
        // Held until the entry is made, so that a run which ends at once finds its own.
        let mut inner = self.lock();
        let (turn, said) = match inner.under_way.remove(&life) {
            // What that one has sent may still be on its way, and a later try begins anew.
            Some(replaced) => {
                replaced.task.abort();
                (replaced.turn, replaced.said)
            }
            None => (
                inner.ending.remove(&life).unwrap_or_default(),
                Arc::default(),
            ),
        };
        let (of, runs) = (life.clone(), Arc::clone(self));
        let (mine, says) = (Arc::clone(&turn), Arc::clone(&said));
        let task = runtime.spawn(async move {
            let _alone = mine.lock_owned().await;
            let made = work(Arc::clone(&says)).await;
            if runs.is_last(&of, number) {
                done(of, made, says.is_over());
            }
        });
        let task = task.abort_handle();
        let run = Run {
            number,
            task,
            turn,
            said,
        };
        inner.under_way.insert(life, run);
    }

    /// Ends a run that has done its work; false when it was given up, or replaced, just now: what it
    /// has heard is not the last word.
    fn is_last(&self, life: &Life, number: u64) -> bool {
        let mut inner = self.lock();
        let current = inner.under_way.get(life).map(|run| run.number);
        let is_last = current == Some(number);
        if is_last {
            inner.under_way.remove(life);
        }
        is_last
    }

    /// Gives up the run of a life, if there is one.
    pub(crate) fn give_up(&self, life: &Life) {
        let mut inner = self.lock();
        if let Some(run) = inner.under_way.remove(life) {
            inner.end(life.clone(), run);
        }
    }

    /// Gives up all of them.
    pub(crate) fn give_up_all(&self) {
        let mut inner = self.lock();
        for (life, run) in std::mem::take(&mut inner.under_way) {
            inner.end(life, run);
        }
    }

    /// Gives up the run of a life, if there is one: its turn, for what is to come after.
    pub(crate) fn after(&self, life: &Life) -> Turn {
        self.give_up(life);
        self.lock().ending.remove(life).unwrap_or_default()
    }
}

/// What the node has said to the starts of a life that it was sent, by one run and those that it has
/// replaced.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) sent: AtomicU32,
    /// Answers that the life does not run.
    refused: AtomicU32,
    /// Whether the node was asked to stop it, so that it cannot be said to run.
    pub(crate) stop_sent: AtomicBool,
    /// Whether it has said that it did, and so starts it no more.
    pub(crate) stopped: AtomicBool,
}

impl Said {
    /// Whether the node has said of every start that it did not do it: only then is it known that
    /// nothing runs, and that nothing is on its way. A run that sent none knows nothing of those
    /// before it. Or the node has stopped it: then it starts it no more, whatever is on its way.
    pub(crate) fn is_over(&self) -> bool {
        if self.stopped.load(Ordering::Relaxed) {
            return true;
        }
        let sent = self.sent.load(Ordering::Relaxed);
        sent > 0 && self.refused.load(Ordering::Relaxed) == sent
    }

    pub(crate) fn answered(&self, answer: &NodeAnswer) {
        let refused = matches!(
            answer,
            NodeAnswer::Busy(_) | NodeAnswer::Failed(_) | NodeAnswer::Stopped
        );
        if refused {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_node_that_has_refused_every_start_has_said_that_nothing_runs() {
        let busy = || NodeAnswer::Busy(String::new());
        let failed = || NodeAnswer::Failed(String::new());
        let started = || NodeAnswer::Started {
            pid: "1".to_owned(),
            share: Vec::new(),
        };
        // The answer to each start; none when it did not come.
        for (answers, over) in [
            (vec![], false),
            (vec![None], false),
            (vec![Some(busy())], true),
            (vec![Some(failed())], true),
            (vec![Some(NodeAnswer::Stopped)], true),
            (vec![Some(NodeAnswer::Fenced)], false),
            (vec![Some(started())], false),
            (vec![Some(busy()), Some(failed())], true),
            (vec![Some(busy()), Some(started())], false),
            (vec![Some(busy()), None], false),
            (vec![None, Some(failed())], false),
        ] {
            let said = Said::default();
            for answer in &answers {
                said.sent.fetch_add(1, Ordering::Relaxed);
                if let Some(answer) = answer {
                    said.answered(answer);
                }
            }
            assert_eq!(said.is_over(), over, "{answers:?}");
        }
        // A node that has stopped a life starts it no more, whatever it has not answered.
        let said = Said::default();
        said.sent.fetch_add(1, Ordering::Relaxed);
        said.stop_sent.store(true, Ordering::Relaxed);
        assert!(!said.is_over());
        said.stopped.store(true, Ordering::Relaxed);
        assert!(said.is_over());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_comes_after_a_life_waits_for_all_its_runs() {
        let runs = Arc::<Runs>::default();
        let life = (ProcessKey::new("room", "1").unwrap(), Incarnation(7));
        let (entered, mut at_work) = tokio::sync::mpsc::unbounded_channel();
        let (go_on, gate) = std::sync::mpsc::channel::<()>();
        let begin = |number: u64, gate: Option<std::sync::mpsc::Receiver<()>>| {
            let (entered, done) = (entered.clone(), entered.clone());
            let work = move |_| async move {
                entered.send(number).unwrap();
                // Like a callback that computes: it ends when it gives way, whoever has given it up.
                if let Some(gate) = gate {
                    gate.recv().unwrap();
                }
                tokio::task::yield_now().await;
            };
            let done = move |_: Life, (), _| done.send(number + 100).unwrap();
            runs.begin(&Handle::current(), (life.clone(), number), work, done);
        };
        begin(1, Some(gate));
        assert_eq!(at_work.recv().await, Some(1));
        // It waits for the first one when it is given up itself.
        begin(2, None);
        let second = runs.lock().under_way[&life].task.clone();
        runs.give_up(&life);
        while !second.is_finished() {
            tokio::task::yield_now().await;
        }
        begin(3, None);
        let turn = runs.after(&life);
        assert!(turn.try_lock().is_err());
        go_on.send(()).unwrap();
        drop(turn.lock().await);
        assert!(runs.lock().under_way.is_empty() && runs.lock().ending.is_empty());
        // Nothing has begun besides, nor ended as if it had not been given up.
        assert!(at_work.try_recv().is_err());
    }
}
