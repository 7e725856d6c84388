//! Whose turn it is: how many calls run at a time, of all modules and of one.
//!
//! What holds: no more turns are out than there are. A module that has some is given another only
//! while more than it has are free, so that alone it has half of them and one that has none finds
//! some; of several that wait, the one that has fewest comes first, and its calls in their order.
//! What is called, and for how long, is not known here.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use maitred_protocol::ModuleName;
use tokio::sync::Notify;

/// See the head of this file.
pub(crate) struct Turns(Mutex<Inner>);

struct Inner {
    free: usize,
    /// Counts up with each call.
    last: u64,
    /// Of modules that run or wait.
    lines: HashMap<ModuleName, Line>,
}

#[derive(Default)]
struct Line {
    running: usize,
    /// By their numbers, the oldest first.
    waiting: BTreeMap<u64, Arc<Notify>>,
}

/// A turn, or a place in the line for one; given back when it is dropped.
pub(crate) struct Turn {
    turns: Arc<Turns>,
    module: ModuleName,
    number: u64,
}

impl Turns {
    pub(crate) fn new(turns: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner {
            free: turns,
            last: 0,
            lines: HashMap::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are free.
    pub(crate) fn free(&self) -> usize {
        self.lock().free
    }

    /// Waits for a turn. Dropping the future leaves the line.
    pub(crate) async fn take(self: &Arc<Self>, module: &ModuleName) -> Turn {
        let called = Arc::<Notify>::default();
        let turn = {
            let mut inner = self.lock();
            inner.last += 1;
            let number = inner.last;
            let line = inner.lines.entry(module.clone()).or_default();
            line.waiting.insert(number, Arc::clone(&called));
            inner.call_next();
            Turn {
                turns: Arc::clone(self),
                module: module.clone(),
                number,
            }
        };
        called.notified().await;
        turn
    }
}

impl Inner {
    /// Gives away what may be.
    fn call_next(&mut self) {
        while self.free > 0 {
            let free = self.free;
            let lines = self.lines.values_mut();
            let may = lines.filter(|line| !line.waiting.is_empty() && line.running < free);
            let oldest = |line: &Line| line.waiting.first_key_value().map(|(number, _)| *number);
            let Some(line) = may.min_by_key(|line| (line.running, oldest(line))) else {
                return;
            };
            let Some((_, called)) = line.waiting.pop_first() else {
                return;
            };
            line.running += 1;
            self.free -= 1;
            called.notify_one();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut inner = self.turns.lock();
        let Some(line) = inner.lines.get_mut(&self.module) else {
            return;
        };
        let has_run = line.waiting.remove(&self.number).is_none();
        line.running -= usize::from(has_run);
        if line.running == 0 && line.waiting.is_empty() {
            inner.lines.remove(&self.module);
        }
        inner.free += usize::from(has_run);
        inner.call_next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    fn name(text: &str) -> ModuleName {
        ModuleName::new(text).unwrap()
    }

    fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        }
    }

    /// All that a module is given at once.
    fn all(turns: &Arc<Turns>, module: &ModuleName) -> Vec<Turn> {
        std::iter::from_fn(|| poll(pin!(turns.take(module)))).collect()
    }

    #[test]
    fn a_module_has_half_and_each_further_one_leaves_room_for_the_next() {
        let turns = Turns::new(1_024);
        let greedy = ["a", "b", "c"].map(|module| all(&turns, &name(module)));
        assert_eq!([512, 256, 128], [0, 1, 2].map(|at: usize| greedy[at].len()));
        assert_eq!(turns.free(), 128);
        drop(greedy);
        assert_eq!(turns.free(), 1_024);
        assert!(turns.lock().lines.is_empty());
        for (of, has) in [(1, 1), (2, 1), (3, 2), (4, 2)] {
            assert_eq!(all(&Turns::new(of), &name("a")).len(), has, "of {of}");
        }
    }

    #[test]
    fn whoever_has_fewest_is_next_and_who_leaves_the_line_holds_up_nobody() {
        let turns = Turns::new(2);
        let (a, b) = (name("a"), name("b"));
        let (first, other) = (all(&turns, &a), all(&turns, &b));
        assert_eq!((first.len(), other.len(), turns.free()), (1, 1, 0));
        let mut leaves = Box::pin(turns.take(&a));
        let mut second = pin!(turns.take(&a));
        let mut newcomer = pin!(turns.take(&b));
        assert!(poll(leaves.as_mut()).is_none() && poll(second.as_mut()).is_none());
        assert!(poll(newcomer.as_mut()).is_none());
        drop(other);
        // `a` has one already.
        assert!(poll(leaves.as_mut()).is_none() && poll(second.as_mut()).is_none());
        let newcomer = poll(newcomer.as_mut()).unwrap();
        drop(leaves);
        drop(first);
        let second = poll(second.as_mut()).unwrap();
        // One that was called, and does not come any more.
        let mut absent = Box::pin(turns.take(&a));
        assert!(poll(absent.as_mut()).is_none());
        drop((newcomer, second));
        drop(absent);
        assert_eq!(turns.free(), 2);
        assert!(turns.lock().lines.is_empty());
    }
}
