//! Lets so many threads in at a time; the others wait. For guests whose places are few and whose
//! time is bounded, so that nobody waits for ever.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// See the head of this file.
pub(crate) struct Gate {
    free: Mutex<u32>,
    left: Condvar,
}

/// A place; dropping it gives it back.
pub(crate) struct Pass(Arc<Gate>);

impl Gate {
    pub(crate) fn new(places: u32) -> Arc<Self> {
        Arc::new(Self {
            free: Mutex::new(places),
            left: Condvar::new(),
        })
    }

    /// Blocks until there is a place.
    pub(crate) fn enter(self: &Arc<Self>) -> Pass {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.left.wait_while(free, |free| *free == 0);
        *waited.unwrap_or_else(PoisonError::into_inner) -= 1;
        Pass(Arc::clone(self))
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use super::*;

    #[test]
    fn no_more_than_the_places_are_inside_and_all_get_in() {
        let gate = Gate::new(2);
        let (inside, most, came) = <(AtomicU32, AtomicU32, AtomicU32)>::default();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let pass = gate.enter();
                        most.fetch_max(inside.fetch_add(1, SeqCst) + 1, SeqCst);
                        std::thread::yield_now();
                        inside.fetch_sub(1, SeqCst);
                        drop(pass);
                        came.fetch_add(1, SeqCst);
                    }
                });
            }
        });
        assert_eq!(came.into_inner(), 800);
        assert!(most.into_inner() <= 2);
    }
}
